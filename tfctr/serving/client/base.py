"""What the blocking and the asyncio client have in common: options, requests, answers, errors.

The calls are coroutines around one method, `_send`, which a client writes in its own way. A client whose `_send` blocks runs
them with `finished`.
"""

import contextlib
import dataclasses
import threading
import time
from collections.abc import Mapping

import grpc
import numpy as np

from tfctr.errors import ConfigError, DataError, StorageError, choose, require_count, require_positive
from tfctr.serving.client.connection import Connection
from tfctr.serving.client.row_files import read_rows
from tfctr.serving.client.unseen import AsksUnseen
from tfctr.serving.wire import protocol
from tfctr.serving.wire.batches import in_batches, joined
from tfctr.serving.wire.definitions import described, named_types, output_name
from tfctr.serving.wire.rows import MissingError, RowError, column_names, to_columns
from tfctr.serving.wire.token_rules import INPUT, OUTPUT, SIGNATURE, TokenRules, agreed, read_rules

_PREDICTION, _MODEL = protocol.PREDICTION_SERVICE, protocol.MODEL_SERVICE
_METHODS = {
    f"/{_PREDICTION}/Predict": protocol.PredictResponse,
    f"/{_PREDICTION}/GetModelMetadata": protocol.GetModelMetadataResponse,
    f"/{_MODEL}/GetModelStatus": protocol.GetModelStatusResponse,
}
_PREDICT, _GET_METADATA, _GET_STATUS = _METHODS


@dataclasses.dataclass(frozen=True)
class Answer:
    """All outputs of a signature, by name, and the version that gave them; None if the server does not say."""

    outputs: dict[str, np.ndarray]
    version: int | None


@dataclasses.dataclass(frozen=True)
class Request:
    """One request that has ended, for `observe`: its method ("Predict"), its gRPC code ("OK"), and how long it took."""

    model: str
    method: str
    code: str
    seconds: float


class BaseClient(AsksUnseen):
    """The options of `PredictionClient`, and its calls as coroutines."""

    _library = None  # the module of gRPC that opens channels

    def __init__(
        self,
        target,
        *,
        model,
        timeout=5.0,
        version=None,
        label=None,
        signature="serving_default",
        separator=None,
        max_rows=1000,
        max_bytes=2**20,
        strict=True,
        tls=False,
        root_certificates=None,
        client_certificate=None,
        client_key=None,
        token=None,
        observe=None,
    ):
        self._connection = Connection(
            target,
            tls=tls,
            root_certificates=root_certificates,
            client_certificate=client_certificate,
            client_key=client_key,
            token=token,
        )
        _require(_is_name(model), "model", model, "give the model's name on the server")
        if version is not None:
            require_count("version", version, least=0, most=2**63 - 1)
        _require(label is None or _is_name(label), "label", label, "give a label's name, such as 'stable'")
        _require(version is None or label is None, "label", label, "give `version` or `label`, not both")
        _require(_is_separator(separator), "separator", separator, 'give one character, or a dict such as {"genres": "|"}')
        _require(isinstance(strict, bool), "strict", strict, "give True or False")
        _require(observe is None or callable(observe), "observe", observe, "give a function of one `Request`")
        require_positive("timeout", timeout)
        require_count("max_rows", max_rows)
        require_count("max_bytes", max_bytes)
        self.target, self.model, self.version, self.label, self.signature = target, model, version, label, signature
        self._timeout, self._separator, self._limits, self._strict = timeout, separator, (max_rows, max_bytes), strict
        self._observe, self._methods, self._channel = observe, None, None
        self._signatures, self._described = None, None  # what the model takes, and which version of it
        self._rules = None  # what it says of tokens, once that has been asked
        self._lock, self._closed = threading.Lock(), False

    async def _send(self, method, request, timeout, metadata):
        """`method`'s answer to `request`, which is bytes."""
        raise NotImplementedError

    async def _asked(self, ask, *rows):
        """What `ask` gives. What fails by signatures of earlier is asked once more, if a newer version has others."""
        known = self._signatures
        try:
            return await ask(*rows)
        except (ConfigError, DataError):
            if known is None or self._closed or await self._definitions() == known:
                raise
            return await ask(*rows)

    async def _predict(self, rows):
        if isinstance(rows, list | tuple) and not rows:
            return np.zeros(0, np.float32)
        signature = await self._signature(self.signature)
        probabilities, _ = await self._probabilities(self.signature, signature, await self._columns(rows, signature))
        return probabilities

    async def _predict_file(self, path, **layout):
        parts, version, first = [], None, {}
        for part in read_rows(path, **layout):
            if not parts:
                await self._definitions()
            signature = await self._signature(self.signature)
            with part.named():
                columns = await self._columns(part.rows, signature)
            try:
                probabilities, version = await self._probabilities(self.signature, signature, columns, version=version)
            except _NotFound as error:
                if not parts:
                    raise
                before = f"the {part.unit}s before {part.numbers[0]}"
                problem = f"{self.target} no longer has version {version}, which answered {before}."
                raise StorageError(problem, fix="call again, so that one version answers the whole file") from error
            parts.append(probabilities)
            first = first or columns
        await self._keep_shares(first, version)
        return np.concatenate(parts)

    async def _rank(self, user, candidates):
        signature = await self._signature("rank")
        inputs, optional = described(signature.inputs), self._optional(signature)
        if all(shape[:1] == (1,) for _, shape in inputs.values()):
            raise ConfigError("signature 'rank' has no input for candidates.", fix="use `predict`")
        user = [user] if isinstance(user, Mapping) else user
        # An optional column has no fixed shape: it belongs to the side that has it.
        sources = (self._rules or await self._ask_rules()).sources if optional else {}
        aside = column_names(user, inputs, sources) - column_names(candidates, inputs, sources)
        shared = {name: known for name, known in inputs.items() if known[1][:1] == (1,) or name in aside}
        user = await self._user(user, shared, optional)
        own = {name: known for name, known in inputs.items() if name not in shared}
        if not own:
            raise DataError("the candidates have no column that the model takes.", fix="give `user` only what they share")
        columns = await self._read_rows(candidates, own, optional)
        probabilities, _ = await self._probabilities("rank", signature, columns, protocol.pack(user))
        return probabilities

    async def _columns(self, rows, signature):
        return await self._read_rows(rows, described(signature.inputs), self._optional(signature))

    async def _read_rows(self, rows, inputs, optional):
        """The columns of a request. What the model's schema says of tokens is asked for only where it matters."""
        if self._rules is None and self._separator is None:
            # Perhaps a list, a number with a fraction, a raw table's name; even a column that may be left out may have one.
            with contextlib.suppress(RowError, MissingError):
                return to_columns(rows, inputs)
        rules = self._rules or await self._ask_rules()
        return to_columns(rows, inputs, rules.separators, optional, rules.fractions, rules.sources)

    async def _ask_rules(self):
        """The model's `TokenRules`; of an export without them, the caller's."""
        known = await self._definitions() if self._signatures is None else self._signatures
        if SIGNATURE not in known:
            return TokenRules(self._separator)
        answer = await self._ask(SIGNATURE, {INPUT: np.zeros(1, np.int32)}, {OUTPUT: (np.dtype(object), (None,))})
        self._rules = agreed(read_rules(answer.outputs[OUTPUT][0].decode()), self._separator)
        return self._rules

    def _optional(self, signature):
        """The inputs that a request may leave out, as far as the client is to judge."""
        return signature.defaults if self._strict else signature.inputs

    async def _user(self, user, inputs, optional):
        """The columns, of one row each, that all candidates share."""
        try:
            columns = await self._read_rows(user, inputs, optional)
        except DataError as error:
            raise DataError(f"user: {error.problem}", fix=error.fix) from error
        for column in columns.values():
            if len(column) != 1:
                raise DataError(f"user: {len(column)} rows, not one.", fix="call `rank` once for each user")
        return columns

    async def _answer(self, rows, name):
        name = self.signature if name is None else name
        return await self._all_outputs(name, await self._columns(rows, await self._signature(name)))

    async def _all_outputs(self, name, columns, version=None):
        return await self._ask(name, columns, described((await self._signature(name)).outputs), version=version)

    async def _metadata(self):
        return {
            name: {"inputs": named_types(signature.inputs), "outputs": named_types(signature.outputs)}
            for name, signature in (await self._definitions()).items()
        }

    async def _status(self):
        # TensorFlow Serving does not look at labels here.
        request = protocol.GetModelStatusRequest(model_spec={"name": self.model, **_choice(self.version)})
        answer = await self._call(_GET_STATUS, request.SerializeToString())
        return [
            {"version": known.version, "state": protocol.state_name(known.state), "error": known.status.error_message}
            for known in answer.model_version_status
        ]

    async def _probabilities(self, name, signature, columns, shared=b"", version=None):
        output = output_name(signature)
        answer = await self._ask(name, columns, {output: (np.dtype("f4"), (None,))}, shared, version)
        found = answer.outputs[output].reshape(-1)
        self._require_probabilities(found, output)
        return found, answer.version

    def _require_probabilities(self, found, output):
        wrong = np.flatnonzero(~((found >= 0) & (found <= 1)))  # NaN is neither
        if wrong.size:
            raise StorageError(
                f"{self.target} answered {found[wrong[0]]} for row {wrong[0]}, which is no probability "
                f"({wrong.size} of {found.size} rows).",
                fix=f"serve a model that tfctr exported; if {output!r} is no probability, call `answer`",
            )

    async def _ask(self, name, columns, outputs, shared=b"", version=None, restarts=1):
        """The `Answer` to all rows, by `version` or the one that answers the first part. `outputs`: name -> (type, shape)."""
        pinned, answers = version is not None, []
        choice = _choice(version) if pinned else _choice(self.version, self.label)
        version = version if pinned else self.version
        for packed, rows in in_batches(columns, *self._limits):
            spec = {"name": self.model, "signature_name": name, **choice}
            # Messages written one after the other are read as one.
            head = protocol.PredictRequest(model_spec=spec, output_filter=outputs).SerializeToString()
            try:
                response = await self._call(_PREDICT, head + shared + packed)
            except _NotFound:
                if pinned or not answers or not restarts:
                    raise
                # A newer version has taken the place of that one.
                return await self._ask(name, columns, outputs, shared, restarts=restarts - 1)
            answers.append(self._read(response, outputs, rows))
            if (answered := _version(response)) is not None:
                version, choice = answered, _choice(answered)
                if self._described is not None and version > self._described:
                    self._signatures = self._rules = None  # a newer version may take more columns
        return Answer(joined(answers, outputs), version)

    def _read(self, response, outputs, rows):
        """The outputs of one response: of the type and rank that `outputs` says, with that number of rows."""
        try:
            arrays = {name: protocol.from_tensor(response.outputs[name]) for name in outputs}
        except ValueError as error:
            raise StorageError(f"{self.target} answered with a broken tensor: {error}.", fix="check the server") from error
        for name, (dtype, shape) in outputs.items():
            array = arrays[name]
            if shape == (None,) and array.shape == (rows, 1):
                arrays[name] = array = array.reshape(-1)
            if array.dtype != dtype or array.shape[:1] != (rows,) or (shape and array.ndim != len(shape)):
                raise StorageError(
                    f"{self.target} answered {array.size} {array.dtype} values for {rows} rows as {name!r}.",
                    fix="serve a model that tfctr exported",
                )
        return arrays

    async def _signature(self, name):
        known = self._signatures
        return choose(await self._definitions() if known is None else known, name, "signature")

    async def _definitions(self):
        """The model's signatures, as the server has them now."""
        spec = {"name": self.model, **_choice(self.version, self.label)}
        request = protocol.GetModelMetadataRequest(model_spec=spec, metadata_field=["signature_def"])
        answer = await self._call(_GET_METADATA, request.SerializeToString())
        definitions = protocol.SignatureDefMap.FromString(answer.metadata["signature_def"].value).signature_def
        signatures = {name: definitions[name] for name in definitions if not name.startswith("__")}
        self._signatures, self._described, self._rules = signatures, _version(answer), None
        return signatures

    async def _call(self, path, request):
        method, metadata, code, start = self._method(path), self._connection.metadata(), "CANCELLED", time.perf_counter()
        try:
            response = await self._send(method, request, timeout=self._timeout, metadata=metadata)
            code = "OK"
            return response
        except grpc.RpcError as error:
            code = error.code().name
            raise self._explained(error) from error
        finally:
            if self._observe is not None:
                self._observe(Request(self.model, path.rpartition("/")[2], code, time.perf_counter() - start))

    def _method(self, path):
        """The channel's method. The channel opens at the first call: a process that forks before that has one for itself."""
        with self._lock:
            if self._closed:
                raise closed()
            if self._channel is None:
                self._channel = self._connection.open(self._library)
                self._methods = {
                    name: self._channel.unary_unary(name, response_deserializer=response.FromString)
                    for name, response in _METHODS.items()
                }
            return self._methods[path]

    def _close(self):
        """Take no calls any more; the channel to close, if there is one."""
        with self._lock:
            channel, self._channel, self._closed = self._channel, None, True
        return channel

    def _explained(self, error):
        code, details = error.code(), error.details()
        match code:
            case grpc.StatusCode.CANCELLED if self._closed:
                return closed()
            case grpc.StatusCode.UNAVAILABLE:
                fix = "start one (tfctr serve FOLDER), or correct the address, the certificates, or whether there is TLS"
                return StorageError(f"no server answers at {self.target}: {details}", fix=fix)
            case grpc.StatusCode.DEADLINE_EXCEEDED:
                fix = "raise `timeout`, or lower `max_rows`"
                return StorageError(f"{self.target} did not answer within {self._timeout:g} s.", fix=fix)
            case grpc.StatusCode.UNAUTHENTICATED | grpc.StatusCode.PERMISSION_DENIED:
                return ConfigError(f"{self.target} refused the caller: {details}", fix="check `token` or `client_certificate`")
            case grpc.StatusCode.NOT_FOUND:
                fix = "check `model`, `version` and `label` against what the server serves"
                return _NotFound(f"{self.target} has no such model: {details}", fix=fix)
            case grpc.StatusCode.INVALID_ARGUMENT if self.label is not None and "version label" in details:
                return StorageError(f"{self.target} has no such label: {details}", fix="check `label`, and the server's config")
            case grpc.StatusCode.INVALID_ARGUMENT | grpc.StatusCode.OUT_OF_RANGE:
                return DataError(f"model {self.model!r} refused the rows: {details}", fix="correct the rows")
            case grpc.StatusCode.FAILED_PRECONDITION:
                return ConfigError(f"model {self.model!r} cannot be called so: {details}", fix="check `signature`")
        return StorageError(f"{self.target} failed: {code.name}: {details}", fix="see the server's log")


class _NotFound(StorageError):
    """The server does not serve this model or version."""


def closed():
    """The error of a call after, or while, the client is closed."""
    return ConfigError("the client is closed.", fix="open another one")


def finished(coroutine):
    """The result of a coroutine that never waits.

    >>> async def answer():
    ...     return 42
    >>> finished(answer())
    42
    """
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("a blocking call has waited")


def _choice(version, label=None):
    """The part of a model spec that says which version."""
    if label is not None:
        return {"version_label": label}
    return {} if version is None else {"version": {"value": version}}


def _version(answer):
    """The version that answered; None if the server does not say."""
    return answer.model_spec.version.value if answer.model_spec.HasField("version") else None


def _is_name(text):
    return isinstance(text, str) and text != "" and text.isprintable()


def _is_separator(separator):
    marks = separator.values() if isinstance(separator, Mapping) else [separator]
    return separator is None or all(isinstance(mark, str) and len(mark) == 1 for mark in marks)


def _require(condition, argument, value, fix):
    if not condition:
        raise ConfigError(f"`{argument}` is {value!r}.", fix=fix)
