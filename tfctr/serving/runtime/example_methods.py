"""Classify and Regress of the local stand-in: lists of `tf.Example` in, classes and values out, by TensorFlow Serving's rules.

Reference: [tensorflow/serving](https://github.com/tensorflow/serving), `classifier.cc`, `regressor.cc`, `util.cc`.
"""

import numpy as np

from tfctr.serving.runtime.saved_model import require
from tfctr.serving.wire.codes import Code

_TEXT, _FLOAT = np.dtype(object), np.dtype(np.float32)
_TYPE_NAMES = {_TEXT: "DT_STRING", _FLOAT: "DT_FLOAT"}


def serialized(given):
    """The examples of an `Input`, as one text array."""
    kind = given.WhichOneof("kind")
    examples = getattr(given, kind).examples if kind else ()
    require(examples, Code.INVALID_ARGUMENT, "Input is empty.")
    context = given.example_list_with_context.context.SerializeToString() if kind == "example_list_with_context" else b""
    return np.array([context + example.SerializeToString() for example in examples], object)


def classify(model, name, examples):
    """The `Classifications` of each example, as dicts."""
    signature = model.signatures[name]
    _require_one_input(signature, "classification")
    outputs = signature.outputs
    require(len(outputs) in (1, 2), Code.INVALID_ARGUMENT, f"Expected one or two output Tensors, found {len(outputs)}")
    wanted = [output for output in ("classes", "scores") if output in outputs]
    needed = 'Expected classification signature outputs to contain at least one of "classes" or "scores".'
    require(wanted, Code.FAILED_PRECONDITION, needed)
    found = model.run(name, {"inputs": examples}, wanted)
    for output, dtype in (("classes", _TEXT), ("scores", _FLOAT)):
        if output in found:
            _require_classes(output, found[output], dtype, len(examples))
    widths = [array.shape[1] for array in found.values()]
    agree = f"Tensors class and score should match in dim_size(1). Got {widths[0]} vs. {widths[-1]}"
    require(widths[0] == widths[-1], Code.INVALID_ARGUMENT, agree)
    return classifications(found)


def regress(model, name, examples):
    """The `Regression` of each example, as dicts."""
    signature, rows = model.signatures[name], len(examples)
    _require_one_input(signature, "regression")
    require(len(signature.outputs) == 1, Code.INVALID_ARGUMENT, "Expected one output Tensor.")
    require("outputs" in signature.outputs, Code.FAILED_PRECONDITION, "No regression outputs found in SignatureDef")
    values = model.run(name, {"inputs": examples}, ["outputs"])["outputs"]
    is_column = values.ndim == 1 or values.shape[1:] == (1,)
    shapes = f"Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got {list(values.shape)}"
    require(is_column, Code.INVALID_ARGUMENT, shapes)
    sizes = f"Input batch size did not match output batch size: {rows} vs. {len(values)}"
    require(len(values) == rows, Code.INVALID_ARGUMENT, sizes)
    require(values.dtype == _FLOAT, Code.INVALID_ARGUMENT, f"Expected output Tensor of DT_FLOAT.  Got: {_type_name(values)}")
    return regressions(values)


def classifications(found):
    """`{"classes", "scores"}`, or one of them, `(rows, classes)`, as a list of `Classifications`."""
    rows, columns = next(iter(found.values())).shape
    return [{"classes": [_class(found, row, column) for column in range(columns)]} for row in range(rows)]


def regressions(values):
    """One value a row as a list of `Regression`."""
    return [{"value": value} for value in values.ravel().tolist()]


def _require_one_input(signature, kind):
    require(len(signature.inputs) == 1, Code.INVALID_ARGUMENT, "Expected one input Tensor.")
    require("inputs" in signature.inputs, Code.FAILED_PRECONDITION, f"No {kind} inputs found in SignatureDef")


def _require_classes(output, array, dtype, rows):
    shape = f"Expected Tensor shape: [batch_size num_classes] but got {list(array.shape)}"
    require(array.ndim == 2, Code.INVALID_ARGUMENT, shape)
    kind = f"Expected {output} Tensor of {_TYPE_NAMES[dtype]}. Got: {_type_name(array)}"
    require(array.dtype == dtype, Code.INVALID_ARGUMENT, kind)
    size = f"Expected {output} output batch size of {rows}. Got: {len(array)}"
    require(len(array) == rows, Code.INVALID_ARGUMENT, size)


def _class(found, row, column):
    label = {"label": found["classes"][row, column].decode(errors="replace")} if "classes" in found else {}
    return {**label, **({"score": float(found["scores"][row, column])} if "scores" in found else {})}


def _type_name(array):
    return _TYPE_NAMES.get(array.dtype, str(array.dtype))
