"""What the local stand-in answers to each request, or refuses with: TensorFlow Serving's rules and words.

Reference: [tensorflow/serving](https://github.com/tensorflow/serving), `predict_util.cc`, `server_core.cc`,
`multi_inference.cc`.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import grpc
import numpy as np
from google.protobuf.message import DecodeError

from tfctr.serving.runtime import example_methods as example_answers
from tfctr.serving.runtime.saved_model import SavedModel, StatusError, refuse_unless
from tfctr.serving.wire import protocol
from tfctr.serving.wire.codes import Code
from tfctr.serving.wire.types import Message

_CODES = {code.value[0]: code for code in grpc.StatusCode}
_DEFAULT = "serving_default"
_LONGEST_MESSAGE = 1024  # gRPC sends it in a header, and what is too long for one looks like another error
# A method of MultiInference: what answers it, the field of the result, and the field in that.
_RESULTS = {
    "tensorflow/serving/classify": (example_answers.classify, "classification_result", "classifications"),
    "tensorflow/serving/regress": (example_answers.regress, "regression_result", "regressions"),
}


class Requests:
    """What the server answers for a `ServedModel`, or the `StatusError` that it refuses with."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def handlers(self) -> tuple[grpc.GenericRpcHandler, ...]:
        """gRPC handlers of both services."""
        prediction = {
            "Predict": _handler(self.predict, protocol.PredictRequest),
            "Classify": _handler(self.classify, protocol.ClassificationRequest),
            "Regress": _handler(self.regress, protocol.RegressionRequest),
            "MultiInference": _handler(self.multi_inference, protocol.MultiInferenceRequest),
            "GetModelMetadata": _handler(self.metadata, protocol.GetModelMetadataRequest),
        }
        model = {
            "GetModelStatus": _handler(self.status, protocol.GetModelStatusRequest),
            "HandleReloadConfigRequest": _handler(self.reload, protocol.ReloadConfigRequest),
        }
        return (
            grpc.method_handlers_generic_handler(protocol.PREDICTION_SERVICE, prediction),
            grpc.method_handlers_generic_handler(protocol.MODEL_SERVICE, model),
        )

    def predict(self, request: Message) -> Message:
        """Every output of a signature that was asked for, or all of them."""
        version, model = self.model.find(request.model_spec)
        name = request.model_spec.signature_name or _DEFAULT
        refuse_unless(name in model.signatures, Code.FAILED_PRECONDITION, f'Serving signature key "{name}" not found.')
        inputs = _read_inputs(model.signatures[name], request.inputs)
        outputs = model.run(name, inputs, _read_filter(model.signatures[name], request.output_filter))
        response = protocol.PredictResponse(model_spec=self._answered_by(version, name))
        for output, array in outputs.items():
            response.outputs[output].CopyFrom(protocol.to_tensor(array))
        return response

    def metadata(self, request: Message) -> Message:
        """The signatures of a version."""
        fields = list(request.metadata_field)
        refuse_unless(fields, Code.INVALID_ARGUMENT, "GetModelMetadataRequest must specify at least one metadata_field")
        for field in fields:
            refuse_unless(field == "signature_def", Code.INVALID_ARGUMENT, f"Metadata field {field} is not supported")
        version, model = self.model.find(request.model_spec)
        signatures = protocol.SignatureDefMap(signature_def=model.signatures)
        response = protocol.GetModelMetadataResponse(model_spec=self._answered_by(version))
        response.metadata["signature_def"].Pack(signatures)
        return response

    def status(self, request: Message) -> Message:
        """The state of each version, or of the one that was asked for."""
        spec = request.model_spec
        states = {version: ("END", _code(error), error.problem) for version, (error, _) in self.model.failed.items()}
        states |= dict.fromkeys(self.model.loaded, ("AVAILABLE", 0, ""))
        if spec.name != self.model.name or not states:
            raise StatusError(Code.NOT_FOUND, f"Could not find any versions of model {spec.name}")
        if spec.HasField("version"):
            wanted = spec.version.value
            refuse_unless(wanted in states, Code.NOT_FOUND, f"Could not find version {wanted} of model {spec.name}")
            states = {wanted: states[wanted]}
        response = protocol.GetModelStatusResponse()
        for version, (state, code, message) in sorted(states.items(), reverse=True):
            status = {"error_code": code, "error_message": message}
            response.model_version_status.add(version=version, state=state, status=status)
        return response

    def classify(self, request: Message) -> Message:
        """Classes and scores of each `tf.Example`."""
        version, model = self.model.find(request.model_spec)
        name = _named(model, request.model_spec)
        found = example_answers.classify(model, name, example_answers.serialized(request.input))
        spec = self._answered_by(version, name)
        return protocol.ClassificationResponse(result={"classifications": found}, model_spec=spec)

    def regress(self, request: Message) -> Message:
        """A value for each `tf.Example`."""
        version, model = self.model.find(request.model_spec)
        name = _named(model, request.model_spec)
        found = example_answers.regress(model, name, example_answers.serialized(request.input))
        return protocol.RegressionResponse(result={"regressions": found}, model_spec=self._answered_by(version, name))

    def multi_inference(self, request: Message) -> Message:
        """Several signatures asked of the same examples."""
        version, model = self.model.find((request.tasks or [request.tasks.add()])[0].model_spec)
        names = [task.model_spec.signature_name or _DEFAULT for task in request.tasks]
        for task, name in zip(request.tasks, names, strict=True):
            refuse_unless(task.model_spec.name, Code.INVALID_ARGUMENT, "Found ModelSpec with an empty model name.")
            same = "All ModelSpecs in a MultiInferenceRequest must access the same model name."
            refuse_unless(task.model_spec.name == self.model.name, Code.INVALID_ARGUMENT, same)
            refuse_unless(names.count(name) == 1, Code.INVALID_ARGUMENT, f"Duplicate evaluation of signature: {name}")
            refuse_unless(
                name in model.signatures, Code.INVALID_ARGUMENT, f"Requested signature not found in model graph: {name}"
            )
            method = task.method_name
            refuse_unless(method in _RESULTS, Code.UNIMPLEMENTED, f"Unsupported signature method_name: {method}")
        inputs = {tuple(tensor.name for tensor in model.signatures[name].inputs.values()) for name in names}
        refuse_unless(len(inputs) == 1, Code.INVALID_ARGUMENT, "Input tensor must be the same for all Signatures.")
        response = protocol.MultiInferenceResponse()
        given = example_answers.serialized(request.input)
        for task, name in zip(request.tasks, names, strict=True):
            infer, result, values = _RESULTS[task.method_name]
            spec = self._answered_by(version, name)
            response.results.add(**{"model_spec": spec, result: {values: infer(model, name, given)}})
        return response

    def reload(self, request: Message) -> Message:
        """Take a new policy and new labels."""
        self.model.reload(request.config)
        return protocol.ReloadConfigResponse(status={})

    def _answered_by(self, version: int, signature: str = "") -> dict[str, Any]:
        return {"name": self.model.name, "version": {"value": version}, "signature_name": signature}


def _handler(respond: Callable[[Message], Message], request_type: type[Any]) -> grpc.RpcMethodHandler:
    def behaviour(data: bytes, context: grpc.ServicerContext) -> Message:
        remaining = context.time_remaining()
        if remaining is not None and remaining <= 0:  # it has waited for a free thread too long
            context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")
        try:
            return respond(_parsed(request_type, data))
        except StatusError as error:
            context.abort(_CODES[error.code], shortened(error.problem))
        except MemoryError:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "The request needs more memory than there is")

    return grpc.unary_unary_rpc_method_handler(behaviour, response_serializer=_to_bytes)


def _to_bytes(response: Message) -> bytes:
    return response.SerializeToString()


def _parsed(request_type: type[Any], data: bytes) -> Message:
    """The request. Were it gRPC that parsed it, each one that is none would fill the log."""
    try:
        return request_type.FromString(data)
    except DecodeError as error:
        raise StatusError(Code.INTERNAL, f"the bytes are no {request_type.DESCRIPTOR.name}") from error


def shortened(message: str) -> str:
    """A message that says no more than fits into a header."""
    return message if len(message) <= _LONGEST_MESSAGE else f"{message[:_LONGEST_MESSAGE]}...TRUNCATED"


def _named(model: SavedModel, spec: Message) -> str:
    name = spec.signature_name or _DEFAULT
    refuse_unless(name in model.signatures, Code.INVALID_ARGUMENT, f"No signature was found with the name: {name}")
    return name


def _read_inputs(signature: Message, tensors: Mapping[str, Message]) -> dict[str, np.ndarray]:
    given = set(tensors)
    expected = set(signature.inputs)
    defaults = set(signature.defaults)
    extra = given - expected
    missing = expected - given - defaults
    if extra or missing:
        raise StatusError(
            Code.INVALID_ARGUMENT,
            f"input size does not match signature: {len(given)}!={len(expected)} "
            f"len({_braces(given)}) != len({_braces(expected)}). "
            f"Sent extra: {_braces(extra)}. Missing but required: {_braces(missing)}.",
        )
    values = {name: tensors[name] if name in given else signature.defaults[name] for name in sorted(expected)}
    try:
        return {name: protocol.from_tensor(value) for name, value in values.items()}
    except ValueError as error:
        raise StatusError(Code.INVALID_ARGUMENT, f"Invalid TensorProto: {error}") from error


def _read_filter(signature: Message, names: Iterable[str]) -> list[str] | None:
    for name in names:
        refuse_unless(
            name in signature.outputs,
            Code.INVALID_ARGUMENT,
            f"output tensor alias not found in signature: {name} "
            f"Outputs expected to be in the set {_braces(signature.outputs)}.",
        )
        refuse_unless(list(names).count(name) == 1, Code.INVALID_ARGUMENT, f"duplicate output tensor alias: {name}")
    return list(names) or None


def _code(error: Exception) -> int:
    return error.code if isinstance(error, StatusError) else Code.UNKNOWN


def _braces(names: Iterable[str]) -> str:
    return "{" + ",".join(sorted(names)) + "}"
