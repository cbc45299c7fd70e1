"""Which operations of a graph a kind of device cannot compute, so that TensorFlow gives them to the host.

`tf.config.set_soft_device_placement(False)` would name one, but no graph of ours runs so: its counters are int32 variables,
which TensorFlow keeps on the host. The kernels that are registered tell all of them, also on a machine without such a device,
if TensorFlow is built for it.
"""

import functools
from collections.abc import Iterator
from typing import Any

import tensorflow as tf
from tensorflow.python.framework import kernels, op_def_registry

# What stays on the host by design, beside all that has text in it: tokens, look-ups, files, the words of errors.
ON_THE_HOST = {
    "ArgMax of int32": "which row has a wrong label; it runs once there is one",
    "ResourceGather of int32": "the steps that rows of exact_lazy_adam are of: int32 variables are kept on the host",
    "ResourceScatterUpdate of int32": "the same",
    "DenseBincount of int64": "which tokens are of which row, where texts are split",
    "UnsortedSegmentSum of int64": "the same",
    "RaggedRange of int64": "the same",
}


def is_built_for_gpus() -> bool:
    """Whether this TensorFlow has kernels for GPUs at all."""
    return any(kernel.device_type == "GPU" for kernel in kernels.get_registered_kernels_for_op("MatMul").kernel)


def without_kernel(graph: Any, device_type: str) -> dict[str, str]:
    """`{operation: the name of one of them}` of those in a `GraphDef` for which no kernel is registered.

    An operation is such as "ArgMax of int32"; those with text are left out.
    """
    functions = {function.signature.name for function in graph.library.function}
    lacking: dict[str, str] = {}
    for node in _nodes(graph):
        if node.op not in functions and not has_text(node) and not _has_kernel(node, device_type):
            lacking.setdefault(_described(node), node.name)
    return lacking


def unexplained(graph: Any, device_type: str) -> dict[str, str]:
    """`without_kernel`, but for those in `ON_THE_HOST`."""
    return {op: name for op, name in without_kernel(graph, device_type).items() if op not in ON_THE_HOST}


def has_text(node: Any) -> bool:
    """Whether an operation takes or gives text, or looks it up."""
    definition = _definition(node)
    types = [argument.type for argument in (*definition.input_arg, *definition.output_arg)]
    for attribute in definition.attr:
        value = _value(node, attribute.name)
        types += [value.type, *value.list.type]
    return tf.string.as_datatype_enum in types


def _definition(node: Any) -> Any:
    """What TensorFlow knows of an operation: its arguments and attributes."""
    return op_def_registry.get(node.op)


def _nodes(graph: Any) -> Iterator[Any]:
    """Those of the graph, and those of its functions."""
    yield from graph.node
    for function in graph.library.function:
        yield from function.node_def


@functools.cache
def _registered(op: str, device_type: str) -> list[Any]:
    """The kernels of an operation: the device's own, and those that stand for all devices."""
    found = kernels.get_registered_kernels_for_op(op).kernel
    return [kernel for kernel in found if kernel.device_type in (device_type, "DEFAULT")]


def _has_kernel(node: Any, device_type: str) -> bool:
    return any(
        all(_value(node, known.name).type in known.allowed_values.list.type for known in kernel.constraint)
        for kernel in _registered(node.op, device_type)
    )


def _value(node: Any, attribute: str) -> Any:
    """An attribute of a node; where a file leaves it out, its default."""
    if attribute in node.attr:
        return node.attr[attribute]
    return next(known.default_value for known in _definition(node).attr if known.name == attribute)


def _described(node: Any) -> str:
    """The operation with the type of what it computes."""
    types = [attribute.name for attribute in _definition(node).attr if attribute.type == "type"]
    named = next((name for name in ("T", "dtype", "Tidx", *types) if name in types), None)
    return node.op if named is None else f"{node.op} of {tf.dtypes.as_dtype(_value(node, named).type).name}"
