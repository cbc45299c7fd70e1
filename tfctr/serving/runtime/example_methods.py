"""Classify and Regress of the local stand-in: lists of `tf.Example` in, classes and values out, by TensorFlow Serving's rules.

Reference: [tensorflow/serving](https://github.com/tensorflow/serving), `classifier.cc`, `regressor.cc`, `util.cc`.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from tfctr.serving.runtime.saved_model import SavedModel, refuse_unless
from tfctr.serving.wire.codes import Code
from tfctr.serving.wire.types import Message

_TEXT = np.dtype(object)
_FLOAT = np.dtype(np.float32)
_TYPE_NAMES = {_TEXT: "DT_STRING", _FLOAT: "DT_FLOAT"}


def serialized(given: Message) -> np.ndarray:
    """The examples of an `Input`, as one text array."""
    kind = given.WhichOneof("kind")
    examples = getattr(given, kind).examples if kind else ()
    refuse_unless(examples, Code.INVALID_ARGUMENT, "Input is empty.")
    context = given.example_list_with_context.context.SerializeToString() if kind == "example_list_with_context" else b""
    return np.array([context + example.SerializeToString() for example in examples], object)


def classify(model: SavedModel, name: str, examples: np.ndarray) -> list[dict[str, Any]]:
    """The `Classifications` of each example, as dicts."""
    signature = model.signatures[name]
    _require_one_input(signature, "classification")
    outputs = signature.outputs
    refuse_unless(len(outputs) in (1, 2), Code.INVALID_ARGUMENT, f"Expected one or two output Tensors, found {len(outputs)}")
    wanted = [output for output in ("classes", "scores") if output in outputs]
    needed = 'Expected classification signature outputs to contain at least one of "classes" or "scores".'
    refuse_unless(wanted, Code.FAILED_PRECONDITION, needed)
    found = model.run(name, {"inputs": examples}, wanted)
    for output, dtype in (("classes", _TEXT), ("scores", _FLOAT)):
        if output in found:
            _require_classes(output, found[output], dtype, len(examples))
    widths = [array.shape[1] for array in found.values()]
    agree = f"Tensors class and score should match in dim_size(1). Got {widths[0]} vs. {widths[-1]}"
    refuse_unless(widths[0] == widths[-1], Code.INVALID_ARGUMENT, agree)
    return classifications(found)


def regress(model: SavedModel, name: str, examples: np.ndarray) -> list[dict[str, float]]:
    """The `Regression` of each example, as dicts."""
    signature = model.signatures[name]
    rows = len(examples)
    _require_one_input(signature, "regression")
    refuse_unless(len(signature.outputs) == 1, Code.INVALID_ARGUMENT, "Expected one output Tensor.")
    refuse_unless("outputs" in signature.outputs, Code.FAILED_PRECONDITION, "No regression outputs found in SignatureDef")
    values = model.run(name, {"inputs": examples}, ["outputs"])["outputs"]
    is_column = values.ndim == 1 or values.shape[1:] == (1,)
    shapes = f"Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got {list(values.shape)}"
    refuse_unless(is_column, Code.INVALID_ARGUMENT, shapes)
    sizes = f"Input batch size did not match output batch size: {rows} vs. {len(values)}"
    refuse_unless(len(values) == rows, Code.INVALID_ARGUMENT, sizes)
    refuse_unless(
        values.dtype == _FLOAT, Code.INVALID_ARGUMENT, f"Expected output Tensor of DT_FLOAT.  Got: {_type_name(values)}"
    )
    return regressions(values)


def classifications(found: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """`{"classes", "scores"}`, or one of them, `(rows, classes)`, as a list of `Classifications`."""
    rows, columns = next(iter(found.values())).shape
    return [{"classes": [_class(found, row, column) for column in range(columns)]} for row in range(rows)]


def regressions(values: np.ndarray) -> list[dict[str, float]]:
    """One value a row as a list of `Regression`."""
    return [{"value": value} for value in values.ravel().tolist()]


def _require_one_input(signature: Message, kind: str) -> None:
    refuse_unless(len(signature.inputs) == 1, Code.INVALID_ARGUMENT, "Expected one input Tensor.")
    refuse_unless("inputs" in signature.inputs, Code.FAILED_PRECONDITION, f"No {kind} inputs found in SignatureDef")


def _require_classes(output: str, array: np.ndarray, dtype: np.dtype, rows: int) -> None:
    shape = f"Expected Tensor shape: [batch_size num_classes] but got {list(array.shape)}"
    refuse_unless(array.ndim == 2, Code.INVALID_ARGUMENT, shape)
    kind = f"Expected {output} Tensor of {_TYPE_NAMES[dtype]}. Got: {_type_name(array)}"
    refuse_unless(array.dtype == dtype, Code.INVALID_ARGUMENT, kind)
    size = f"Expected {output} output batch size of {rows}. Got: {len(array)}"
    refuse_unless(len(array) == rows, Code.INVALID_ARGUMENT, size)


def _class(found: Mapping[str, np.ndarray], row: int, column: int) -> dict[str, Any]:
    label = {"label": found["classes"][row, column].decode(errors="replace")} if "classes" in found else {}
    return {**label, **({"score": float(found["scores"][row, column])} if "scores" in found else {})}


def _type_name(array: np.ndarray) -> str:
    return _TYPE_NAMES.get(array.dtype, str(array.dtype))
