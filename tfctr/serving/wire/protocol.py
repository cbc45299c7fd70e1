"""TensorFlow Serving's messages, without TensorFlow: requests and answers, SavedModel, and tensors to and from NumPy.

The message classes come from `protocol.binpb`, a descriptor set that `export/make_protocol.py` takes from
tensorflow-serving-api, but for three that it lacks. They live in a descriptor pool of their own, so they never clash with
TensorFlow's copies of the same messages in one process.

Reference: [tensorflow/serving](https://github.com/tensorflow/serving/tree/master/tensorflow_serving/apis), Apache-2.0; see
NOTICE beside this file.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from tfctr.serving.wire.types import Column, Message

_POOL = descriptor_pool.DescriptorPool()
for _file in descriptor_pb2.FileDescriptorSet.FromString(Path(__file__).with_name("protocol.binpb").read_bytes()).file:
    _POOL.AddSerializedFile(_file.SerializeToString())


def _message(name: str) -> type[Any]:
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(name))


TensorProto = _message("tensorflow.TensorProto")
SavedModelProto = _message("tensorflow.SavedModel")
PredictRequest = _message("tensorflow.serving.PredictRequest")
PredictResponse = _message("tensorflow.serving.PredictResponse")
GetModelMetadataRequest = _message("tensorflow.serving.GetModelMetadataRequest")
GetModelMetadataResponse = _message("tensorflow.serving.GetModelMetadataResponse")
SignatureDefMap = _message("tensorflow.serving.SignatureDefMap")
GetModelStatusRequest = _message("tensorflow.serving.GetModelStatusRequest")
GetModelStatusResponse = _message("tensorflow.serving.GetModelStatusResponse")
ModelServerConfig = _message("tensorflow.serving.ModelServerConfig")
ReloadConfigRequest = _message("tensorflow.serving.ReloadConfigRequest")
ReloadConfigResponse = _message("tensorflow.serving.ReloadConfigResponse")
ClassificationRequest = _message("tensorflow.serving.ClassificationRequest")
ClassificationResponse = _message("tensorflow.serving.ClassificationResponse")
RegressionRequest = _message("tensorflow.serving.RegressionRequest")
RegressionResponse = _message("tensorflow.serving.RegressionResponse")
MultiInferenceRequest = _message("tensorflow.serving.MultiInferenceRequest")
MultiInferenceResponse = _message("tensorflow.serving.MultiInferenceResponse")
PredictionLog = _message("tensorflow.serving.PredictionLog")
BatchingParameters = _message("tensorflow.serving.BatchingParameters")
MonitoringConfig = _message("tensorflow.serving.MonitoringConfig")
SSLConfig = _message("tensorflow.serving.SSLConfig")

PREDICTION_SERVICE = "tensorflow.serving.PredictionService"
MODEL_SERVICE = "tensorflow.serving.ModelService"

# TensorFlow's number of a type: its name, its NumPy type, and the field that holds its values one by one.
_TYPES: dict[int, tuple[str, np.dtype, str]] = {
    1: ("float", np.dtype("<f4"), "float_val"),
    2: ("double", np.dtype("<f8"), "double_val"),
    3: ("int32", np.dtype("<i4"), "int_val"),
    7: ("string", np.dtype(object), "string_val"),
    9: ("int64", np.dtype("<i8"), "int64_val"),
    10: ("bool", np.dtype(bool), "bool_val"),
}
STRING = 7
# A few bytes can claim a tensor of a trillion equal elements, or of a million long ones.
_MOST_REPEATED = 2**20
_MOST_BYTES = 2**24


def type_name(number: int) -> str:
    """TensorFlow's name of a type.

    >>> type_name(7)
    'string'
    """
    return _TYPES[number][0] if number in _TYPES else f"type {number}"


def state_name(number: int) -> str:
    """The name of a version's state.

    >>> state_name(30)
    'AVAILABLE'
    """
    versions = GetModelStatusResponse.DESCRIPTOR.fields_by_name["model_version_status"].message_type
    return versions.enum_types_by_name["State"].values_by_number[number].name


def numpy_type(number: int) -> np.dtype:
    """The NumPy type of a tensor: `object` (of `bytes`) for strings. `ValueError` for types that a CTR model never serves."""
    if number not in _TYPES:
        raise ValueError(f"tensors of TensorFlow's {type_name(number)} are not supported")
    return _TYPES[number][1]


def type_number(dtype: np.dtype) -> int:
    """TensorFlow's number of a NumPy type.

    >>> type_number(np.dtype("float64"))
    2
    """
    for number, (_, known, _) in _TYPES.items():
        if known == dtype:
            return number
    raise ValueError(f"arrays of {dtype} are not supported")


def to_tensor(array: np.ndarray) -> Message:
    """A `TensorProto` with the bits of a NumPy array; an array of `object` holds `bytes`.

    >>> to_tensor(np.array([1.5])).tensor_content.hex()
    '000000000000f83f'
    """
    tensor = TensorProto()
    fill(tensor, array)
    return tensor


def fill(tensor: Message, column: Column) -> None:
    """Write a NumPy array, or a list of `bytes`, to an empty `TensorProto`. Lists are the fast way for texts."""
    if isinstance(column, list):
        tensor.dtype = STRING
        tensor.tensor_shape.dim.add(size=len(column))
        tensor.string_val.extend(column)
        return
    tensor.dtype = type_number(column.dtype)
    for size in column.shape:
        tensor.tensor_shape.dim.add(size=size)
    if tensor.dtype == STRING:
        tensor.string_val.extend(column.ravel().tolist())
    else:
        tensor.tensor_content = np.ascontiguousarray(column).tobytes()


def pack(columns: Mapping[str, Column]) -> bytes:
    """Columns, each as `fill` takes it, as the inputs of a serialized `PredictRequest`."""
    request = PredictRequest()
    for name, column in columns.items():
        fill(request.inputs[name], column)
    return request.SerializeToString()


def from_tensor(tensor: Message) -> np.ndarray:
    """The NumPy array of a `TensorProto`, its values given as bytes or one by one. `ValueError` if it contradicts itself.

    >>> from_tensor(TensorProto(dtype=1, float_val=[0.25], tensor_shape={"dim": [{"size": 2}]}))
    array([0.25, 0.25], dtype=float32)
    """
    dtype = numpy_type(tensor.dtype)
    shape = tuple(dimension.size for dimension in tensor.tensor_shape.dim)
    if tensor.tensor_shape.unknown_rank or min(shape, default=0) < 0:
        raise ValueError(f"a tensor cannot have the shape {shape}")
    if tensor.tensor_content:
        return _from_content(tensor.tensor_content, dtype, shape)
    return _from_values(getattr(tensor, _TYPES[tensor.dtype][2]), dtype, shape)


def _from_content(content: bytes, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    if dtype.hasobject or len(content) != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{len(content)} bytes of content do not fill the shape {shape}")
    return np.frombuffer(content, dtype).reshape(shape)


def _from_values(values: Sequence[Any], dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    size = math.prod(shape)
    repeated = size - len(values)
    if not 0 <= repeated <= _MOST_REPEATED:
        raise ValueError(f"{len(values)} values do not fit the shape {shape}")
    if dtype.hasobject and values and repeated * len(values[-1]) > _MOST_BYTES:
        raise ValueError(f"a value of {len(values[-1]):,} bytes is not repeated {repeated:,} times")
    # TensorFlow repeats the last value, and reads no value at all as zeros.
    array = np.full(size, values[-1] if values else b"" if dtype.hasobject else 0, dtype)
    array[: len(values)] = values
    return array.reshape(shape)


def predict_messages(batch: Mapping[str, Any], model: str) -> tuple[Message, Message]:
    """A golden batch as `(PredictRequest, PredictResponse)` of the served `model`, which name no version."""
    request = PredictRequest(model_spec={"name": model, "signature_name": batch["signature"]})
    response = PredictResponse(model_spec=request.model_spec)
    for tensors, arrays in ((request.inputs, batch["inputs"]), (response.outputs, batch["outputs"])):
        for name, array in arrays.items():
            tensors[name].CopyFrom(to_tensor(array))
    return request, response


def arrays_of(tensors: Mapping[str, Message]) -> dict[str, np.ndarray]:
    """The NumPy arrays of a map of `TensorProto`, by name."""
    return {name: from_tensor(tensor) for name, tensor in sorted(tensors.items())}
