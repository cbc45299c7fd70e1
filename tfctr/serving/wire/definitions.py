"""What a `SignatureDef` says of its tensors."""

from collections.abc import Mapping

import numpy as np

from tfctr.errors import ConfigError, choose
from tfctr.serving.wire import protocol
from tfctr.serving.wire.types import Message
from tfctr.types import Shape


def _type_and_shape(tensor: Message) -> tuple[np.dtype, Shape]:
    shape = tuple(None if dimension.size < 0 else dimension.size for dimension in tensor.tensor_shape.dim)
    return protocol.numpy_type(tensor.dtype), shape


def described(tensors: Mapping[str, Message]) -> dict[str, tuple[np.dtype, Shape]]:
    """Name -> (type, shape), in the order of the names: a protobuf map has none."""
    return {name: _type_and_shape(tensor) for name, tensor in sorted(tensors.items())}


def named_types(tensors: Mapping[str, Message]) -> dict[str, tuple[str, Shape]]:
    """`described`, with TensorFlow's names of the types."""
    return {name: (protocol.type_name(tensors[name].dtype), shape) for name, (_, shape) in described(tensors).items()}


def output_name(signature: Message) -> str:
    """`probability`, or the only output there is, if it is one number a row."""
    if len(signature.outputs) > 1:
        return choose({name: name for name in signature.outputs}, "probability", "output")
    ((name, tensor),) = signature.outputs.items()
    if [dim.size for dim in tensor.tensor_shape.dim[1:]] not in ([], [1]):
        raise ConfigError(f"the output {name!r} is no probability.", fix="use `answer`, which gives all outputs")
    return name
