"""The client of a served model: rows in, probabilities out, over gRPC, without TensorFlow."""

import json
from collections.abc import Mapping

import grpc
import numpy as np

from tfctr.errors import ConfigError, DataError, StorageError, choose
from tfctr.serving import protocol
from tfctr.serving.rows import RowError, read_json_lines, slices, to_arrays

# UNAVAILABLE alone says that the server has not done the work; three attempts, the first one included.
_RETRY = {
    "maxAttempts": 3,
    "initialBackoff": "0.05s",
    "maxBackoff": "0.5s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE"],
}
_SERVICE_CONFIG = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [
        {"name": [{"service": protocol.PREDICTION_SERVICE}, {"service": protocol.MODEL_SERVICE}], "retryPolicy": _RETRY}
    ],
}
_CHANNEL_OPTIONS = [
    ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
    ("grpc.enable_http_proxy", 0),  # a proxy for the web would also catch calls to localhost
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
]


class PredictionClient:
    """Calls a model on TensorFlow Serving, or on the local stand-in. One client serves many threads; keep it open.

    The names and types of the model's inputs are asked from the server once, so a missing or misspelt column is refused here,
    by name; what else the rows hold stays here. Values are read as `prepare` reads them: 60 and "60" are one token, "1.5" and
    1.5 one number, None, NaN and "" are missing.

    Args:
        target: "host:port".
        model: the model's name on the server.
        timeout: seconds for each request to the server.
        version: a version's number; the highest one if None.
        signature: which of the model's functions to call.
        separator: joins the tokens of lists: the `separator` of the sequences in the schema, which the server cannot tell, or
            a dict, `{"genres": "|"}`, with each column's own. Lists are refused without it.
        max_rows, max_bytes: more than this is sent as several requests, one after the other, all answered by one version.

    Raises:
        ConfigError: the target or an option cannot be used, or the model has no such signature.
        DataError: the rows do not fit the model, or the model refused them.
        StorageError: no server or no such model at `target`, or no answer in time.

    >>> with PredictionClient("localhost:8500", model="frappe") as client:  # doctest: +SKIP
    ...     client.predict({"user": ["60"], "item": ["2438"]})
    array([0.8912], dtype=float32)
    """

    def __init__(
        self,
        target,
        *,
        model,
        timeout=5.0,
        version=None,
        signature="serving_default",
        separator=None,
        max_rows=1000,
        max_bytes=2**20,
    ):
        _require(isinstance(target, str) and ":" in target, "target", target, "give 'host:port', such as 'localhost:8500'")
        _require(isinstance(model, str) and model, "model", model, "give the model's name on the server")
        is_version = version is None or (isinstance(version, int) and 0 <= version < 2**63)
        _require(is_version, "version", version, "give a version's number")
        _require(timeout > 0, "timeout", timeout, "give seconds above 0")
        _require(_is_separator(separator), "separator", separator, 'give one character, or a dict such as {"genres": "|"}')
        _require(max_rows >= 1 and max_bytes >= 1, "max_rows, max_bytes", (max_rows, max_bytes), "give at least 1 of each")
        self.target, self.model, self.version, self.signature = target, model, version, signature
        self._timeout, self._separator, self._limits = timeout, separator, (max_rows, max_bytes)
        self._signatures = None
        self._channel = grpc.insecure_channel(target, options=_CHANNEL_OPTIONS)
        self._predict = self._method(protocol.PREDICTION_SERVICE, "Predict", protocol.PredictResponse)
        self._get_metadata = self._method(protocol.PREDICTION_SERVICE, "GetModelMetadata", protocol.GetModelMetadataResponse)
        self._get_status = self._method(protocol.MODEL_SERVICE, "GetModelStatus", protocol.GetModelStatusResponse)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """Close the connection; calls after this fail."""
        self._channel.close()

    def predict(self, rows):
        """The click probability of each row.

        Args:
            rows: a dict of columns, a list of dicts, a DataFrame, or, with `signature="ids"`, an integer matrix of ids.

        Returns:
            A float32 array of shape `(rows,)`, in the order of the rows.
        """
        if isinstance(rows, list | tuple) and not rows:
            return np.zeros(0, np.float32)
        signature = choose(self._definitions(), self.signature, "signature")
        inputs = {name: _type_and_shape(tensor) for name, tensor in signature.inputs.items()}
        return self._in_parts(to_arrays(rows, inputs, self._separator), _output_name(signature))

    def predict_file(self, path):
        """`predict` for a file with one JSON object a line, "-" for standard input; errors name its lines."""
        rows = read_json_lines(path)
        try:
            return self.predict(list(rows.values()))
        except RowError as error:
            where = f"{path}, line {list(rows)[error.row]}, column {error.column!r}"
            raise DataError(f"{where}: {error.reason}", fix=error.fix) from error

    def metadata(self):
        """What the model takes and gives: signature -> {"inputs" or "outputs" -> {name -> (type, shape)}}."""
        return {
            name: {"inputs": _describe(signature.inputs), "outputs": _describe(signature.outputs)}
            for name, signature in self._definitions().items()
        }

    def status(self):
        """The versions that the server knows: a list of dicts with `version`, `state` ("AVAILABLE" when served) and `error`."""
        answer = self._call(self._get_status, protocol.GetModelStatusRequest(model_spec=self._model_spec(self.version)))
        return [
            {"version": known.version, "state": protocol.state_name(known.state), "error": known.status.error_message}
            for known in answer.model_version_status
        ]

    def _in_parts(self, arrays, output, restarts=1):
        """The answers of all rows, by the version that answers the first part."""
        parts, version = [], self.version
        for part in slices(arrays, *self._limits):
            try:
                probabilities, version = self._probabilities(arrays, part, output, version)
            except _NotFound:
                if not parts or not restarts:
                    raise
                return self._in_parts(arrays, output, restarts - 1)  # a newer version has taken the place of that one
            parts.append(probabilities)
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)

    def _probabilities(self, arrays, part, output, version):
        """The answers of the rows in `part`, and the version that gave them."""
        request = protocol.PredictRequest(model_spec=self._model_spec(version), output_filter=[output])
        request.model_spec.signature_name = self.signature
        for name, array in arrays.items():
            request.inputs[name].CopyFrom(protocol.to_tensor(array[part]))
        answer = self._call(self._predict, request)
        try:
            probabilities = protocol.from_tensor(answer.outputs[output]).reshape(-1)
        except ValueError as error:
            raise StorageError(f"{self.target} answered with a broken tensor: {error}.", fix="check the server") from error
        if probabilities.dtype != np.float32 or len(probabilities) != part.stop - part.start:
            raise StorageError(
                f"{self.target} answered {len(probabilities)} {probabilities.dtype} values for {part.stop - part.start} rows.",
                fix="serve a model that tfctr exported",
            )
        return probabilities, answer.model_spec.version.value if answer.model_spec.HasField("version") else version

    def _definitions(self):
        """The model's signatures, asked once."""
        if self._signatures is None:
            spec = self._model_spec(self.version)
            request = protocol.GetModelMetadataRequest(model_spec=spec, metadata_field=["signature_def"])
            answer = self._call(self._get_metadata, request)
            signatures = protocol.SignatureDefMap.FromString(answer.metadata["signature_def"].value).signature_def
            self._signatures = {name: signatures[name] for name in signatures if not name.startswith("__")}
        return self._signatures

    def _model_spec(self, version):
        return {"name": self.model, **({} if version is None else {"version": {"value": version}})}

    def _method(self, service, name, response):
        return self._channel.unary_unary(
            f"/{service}/{name}",
            request_serializer=lambda request: request.SerializeToString(),
            response_deserializer=response.FromString,
        )

    def _call(self, method, request):
        try:
            return method(request, timeout=self._timeout)
        except grpc.RpcError as error:
            # A version with other inputs may have been published: ask again next time.
            self._signatures = None
            raise self._explained(error) from error

    def _explained(self, error):
        code, details = error.code(), error.details()
        match code:
            case grpc.StatusCode.UNAVAILABLE:
                fix = "start one (tfctr serve FOLDER), or correct the address"
                return StorageError(f"no server answers at {self.target}: {details}", fix=fix)
            case grpc.StatusCode.DEADLINE_EXCEEDED:
                fix = "raise `timeout`, or lower `max_rows`"
                return StorageError(f"{self.target} did not answer within {self._timeout:g} s.", fix=fix)
            case grpc.StatusCode.NOT_FOUND:
                fix = "check `model` and `version` against what the server serves"
                return _NotFound(f"{self.target} has no such model: {details}", fix=fix)
            case grpc.StatusCode.INVALID_ARGUMENT | grpc.StatusCode.OUT_OF_RANGE:
                return DataError(f"model {self.model!r} refused the rows: {details}", fix="correct the rows")
            case grpc.StatusCode.FAILED_PRECONDITION:
                return ConfigError(f"model {self.model!r} cannot be called so: {details}", fix="check `signature`")
        return StorageError(f"{self.target} failed: {code.name}: {details}", fix="see the server's log")


class _NotFound(StorageError):
    """The server does not serve this model or version."""


def _is_separator(separator):
    marks = separator.values() if isinstance(separator, Mapping) else [separator]
    return separator is None or all(isinstance(mark, str) and len(mark) == 1 for mark in marks)


def _type_and_shape(tensor):
    shape = tuple(None if dimension.size < 0 else dimension.size for dimension in tensor.tensor_shape.dim)
    return protocol.numpy_type(tensor.dtype), shape


def _describe(tensors):
    return {name: (protocol.type_name(tensor.dtype), _type_and_shape(tensor)[1]) for name, tensor in sorted(tensors.items())}


def _output_name(signature):
    """`probability`, or the only output there is."""
    if len(signature.outputs) == 1:
        return next(iter(signature.outputs))
    return choose({name: name for name in signature.outputs}, "probability", "output")


def _require(condition, argument, value, fix):
    if not condition:
        raise ConfigError(f"`{argument}` is {value!r}.", fix=fix)
