"""What the local stand-in answers to each request, or refuses with: TensorFlow Serving's rules and words.

Reference: [tensorflow/serving](https://github.com/tensorflow/serving), `predict_util.cc`, `server_core.cc`,
`multi_inference.cc`.
"""

import grpc
from google.protobuf.message import DecodeError

from tfctr.serving.runtime import example_methods as example_answers
from tfctr.serving.runtime.saved_model import StatusError, require
from tfctr.serving.wire import protocol
from tfctr.serving.wire.codes import Code

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

    def __init__(self, model):
        self.model = model

    def handlers(self):
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

    def predict(self, request):
        version, model = self.model.find(request.model_spec)
        name = request.model_spec.signature_name or _DEFAULT
        require(name in model.signatures, Code.FAILED_PRECONDITION, f'Serving signature key "{name}" not found.')
        inputs = _read_inputs(model.signatures[name], request.inputs)
        outputs = model.run(name, inputs, _read_filter(model.signatures[name], request.output_filter))
        response = protocol.PredictResponse(model_spec=self._answered_by(version, name))
        for output, array in outputs.items():
            response.outputs[output].CopyFrom(protocol.to_tensor(array))
        return response

    def metadata(self, request):
        fields = list(request.metadata_field)
        require(fields, Code.INVALID_ARGUMENT, "GetModelMetadataRequest must specify at least one metadata_field")
        for field in fields:
            require(field == "signature_def", Code.INVALID_ARGUMENT, f"Metadata field {field} is not supported")
        version, model = self.model.find(request.model_spec)
        signatures = protocol.SignatureDefMap(signature_def=model.signatures)
        response = protocol.GetModelMetadataResponse(model_spec=self._answered_by(version))
        response.metadata["signature_def"].Pack(signatures)
        return response

    def status(self, request):
        spec = request.model_spec
        states = {version: ("END", _code(error), error.problem) for version, (error, _) in self.model.failed.items()}
        states |= dict.fromkeys(self.model.loaded, ("AVAILABLE", 0, ""))
        if spec.name != self.model.name or not states:
            raise StatusError(Code.NOT_FOUND, f"Could not find any versions of model {spec.name}")
        if spec.HasField("version"):
            wanted = spec.version.value
            require(wanted in states, Code.NOT_FOUND, f"Could not find version {wanted} of model {spec.name}")
            states = {wanted: states[wanted]}
        response = protocol.GetModelStatusResponse()
        for version, (state, code, message) in sorted(states.items(), reverse=True):
            status = {"error_code": code, "error_message": message}
            response.model_version_status.add(version=version, state=state, status=status)
        return response

    def classify(self, request):
        version, model = self.model.find(request.model_spec)
        name = _named(model, request.model_spec)
        found = example_answers.classify(model, name, example_answers.serialized(request.input))
        spec = self._answered_by(version, name)
        return protocol.ClassificationResponse(result={"classifications": found}, model_spec=spec)

    def regress(self, request):
        version, model = self.model.find(request.model_spec)
        name = _named(model, request.model_spec)
        found = example_answers.regress(model, name, example_answers.serialized(request.input))
        return protocol.RegressionResponse(result={"regressions": found}, model_spec=self._answered_by(version, name))

    def multi_inference(self, request):
        version, model = self.model.find((request.tasks or [request.tasks.add()])[0].model_spec)
        names = [task.model_spec.signature_name or _DEFAULT for task in request.tasks]
        for task, name in zip(request.tasks, names, strict=True):
            require(task.model_spec.name, Code.INVALID_ARGUMENT, "Found ModelSpec with an empty model name.")
            same = "All ModelSpecs in a MultiInferenceRequest must access the same model name."
            require(task.model_spec.name == self.model.name, Code.INVALID_ARGUMENT, same)
            require(names.count(name) == 1, Code.INVALID_ARGUMENT, f"Duplicate evaluation of signature: {name}")
            require(name in model.signatures, Code.INVALID_ARGUMENT, f"Requested signature not found in model graph: {name}")
            method = task.method_name
            require(method in _RESULTS, Code.UNIMPLEMENTED, f"Unsupported signature method_name: {method}")
        inputs = {tuple(tensor.name for tensor in model.signatures[name].inputs.values()) for name in names}
        require(len(inputs) == 1, Code.INVALID_ARGUMENT, "Input tensor must be the same for all Signatures.")
        response, given = protocol.MultiInferenceResponse(), example_answers.serialized(request.input)
        for task, name in zip(request.tasks, names, strict=True):
            infer, result, values = _RESULTS[task.method_name]
            spec = self._answered_by(version, name)
            response.results.add(**{"model_spec": spec, result: {values: infer(model, name, given)}})
        return response

    def reload(self, request):
        self.model.reload(request.config)
        return protocol.ReloadConfigResponse(status={})

    def _answered_by(self, version, signature=""):
        return {"name": self.model.name, "version": {"value": version}, "signature_name": signature}


def _handler(respond, request_type):
    def behaviour(data, context):
        remaining = context.time_remaining()
        if remaining is not None and remaining <= 0:  # it has waited for a free thread too long
            context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")
        try:
            return respond(_parsed(request_type, data))
        except StatusError as error:
            context.abort(_CODES[error.code], _shortened(error.problem))
        except MemoryError:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "The request needs more memory than there is")

    return grpc.unary_unary_rpc_method_handler(behaviour, response_serializer=lambda response: response.SerializeToString())


def _parsed(request_type, data):
    """The request. Were it gRPC that parsed it, each one that is none would fill the log."""
    try:
        return request_type.FromString(data)
    except DecodeError as error:
        raise StatusError(Code.INTERNAL, f"the bytes are no {request_type.DESCRIPTOR.name}") from error


def _shortened(message):
    return message if len(message) <= _LONGEST_MESSAGE else f"{message[:_LONGEST_MESSAGE]}...TRUNCATED"


def _named(model, spec):
    name = spec.signature_name or _DEFAULT
    require(name in model.signatures, Code.INVALID_ARGUMENT, f"No signature was found with the name: {name}")
    return name


def _read_inputs(signature, tensors):
    given, expected, defaults = set(tensors), set(signature.inputs), set(signature.defaults)
    extra, missing = given - expected, expected - given - defaults
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


def _read_filter(signature, names):
    for name in names:
        require(
            name in signature.outputs,
            Code.INVALID_ARGUMENT,
            f"output tensor alias not found in signature: {name} "
            f"Outputs expected to be in the set {_braces(signature.outputs)}.",
        )
        require(list(names).count(name) == 1, Code.INVALID_ARGUMENT, f"duplicate output tensor alias: {name}")
    return list(names) or None


def _code(error):
    return error.code if isinstance(error, StatusError) else Code.UNKNOWN


def _braces(names):
    return "{" + ",".join(sorted(names)) + "}"
