"""JSON to requests, and answers to JSON, by the rules and words of TensorFlow Serving's REST.

Where TensorFlow Serving would drop something or guess, the request is refused: a member that means nothing, a column that is no
input, a finite number beyond float32. All that is refused is a `ValueError`.

Reference: [RESTful API](https://www.tensorflow.org/tfx/serving/api_rest); `json_tensor.cc` of
[tensorflow/serving](https://github.com/tensorflow/serving).
"""

import base64
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tfctr.serving.wire import protocol
from tfctr.serving.wire.json_text import shown
from tfctr.serving.wire.types import Message

_BASE64 = "b64"
_BYTES = "_bytes"  # ends the name of an output of bytes; all other text is UTF-8
_LISTS = {bytes: "bytes_list", int: "int64_list", float: "float_list"}
_NUMBERS = (int, float)


def read_signature(given: Mapping[str, Any], *members: str) -> str:
    """`signature_name`, or "" without it; beside it and `members` there must be no other."""
    for name in given:
        if name not in ("signature_name", *members):
            raise ValueError(f"JSON Value: {shown(given)} has {shown(name)}, which means nothing here")
    name = given.get("signature_name", "")
    if not isinstance(name, str):
        raise ValueError(f"JSON Value: {shown(given)} not formatted correctly. 'signature_name' key must be a string value.")
    return name


def read_tensors(given: Mapping[str, Any], types: Mapping[str, int]) -> dict[str, np.ndarray]:
    """The inputs of Predict, name -> array.

    Args:
        given: the parsed request, with rows in `instances` or columns in `inputs`.
        types: TensorFlow's number of the type of each input of the signature.

    >>> read_tensors({"instances": [{"x": 1, "y": 2}, {"x": 3, "y": 4}]}, {"x": 1, "y": 9})
    {'x': array([1., 3.], dtype=float32), 'y': array([2, 4])}
    >>> read_tensors({"inputs": {"x": [0.5, 1], "y": [2]}}, {"x": 1, "y": 9})
    {'x': array([0.5, 1. ], dtype=float32), 'y': array([2])}
    """
    if "instances" in given and "inputs" in given:
        keys = "Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist "
        raise ValueError(f"JSON Value: {shown(given)} {keys}")
    if "instances" in given:
        return _from_rows(given, types)
    if "inputs" not in given:
        raise ValueError("Missing 'inputs' or 'instances' key")
    return _from_columns(given["inputs"], types)


def _from_columns(inputs: Any, types: Mapping[str, int]) -> dict[str, np.ndarray]:
    if not _has_names(inputs):
        if len(types) > 1:
            names = "expecting an object as multiple input tensors required as per tensorinfo_map"
            raise ValueError(f"inputs is a plain value/list, but {names}")
        inputs = dict.fromkeys(types, inputs)
    for name in inputs:
        _require_input(name, types)
    for name in types:
        if name not in inputs:
            raise ValueError(f"Missing named input: {name} in 'inputs' object.")
    return {name: _array(*_dense(inputs[name], number), number) for name, number in types.items()}


def _from_rows(given: Mapping[str, Any], types: Mapping[str, int]) -> dict[str, np.ndarray]:
    instances = given["instances"]
    if not isinstance(instances, list):
        raise ValueError(f"JSON Value: {shown(given)} Expecting 'instances' to be an list/array")
    if not instances:
        raise ValueError(f"JSON Value: {shown(given)} No values in 'instances' array")
    named = _has_names(instances[0])
    if not named and len(types) > 1:
        names = "expecting list of objects as multiple input tensors required as per tensorinfo_map"
        raise ValueError(f"instances is a plain list, but {names}")
    shapes: dict[str, tuple[int, ...]] = {}
    columns: dict[str, list[Any]] = {name: [] for name in types}
    for position, row in enumerate(instances):
        if _has_names(row) != named:
            found = "Expecting object but got list" if named else "Expecting value/list but got object"
            raise ValueError(f"{found} at item {position} of input list")
        place = f"Failed to process element: {position}"
        for name, value in (row if named else dict.fromkeys(types, row)).items():
            try:
                _require_input(name, types)
                columns[name] += _alike(value, types[name], shapes, name)
            except ValueError as error:
                key = f" key: {name}" if named else ""
                raise ValueError(f"{place}{key} of 'instances' list. Error: INVALID_ARGUMENT: {error}") from error
        if named and len(row) < len(types):
            keys = f"keys must be equal to: {','.join(sorted(types))}"
            raise ValueError(f"{place} of 'instances' list. JSON object: {shown(row)} {keys}")
    rows = len(instances)
    return {name: _array((rows, *shapes[name]), columns[name], number) for name, number in types.items()}


def _has_names(value: Any) -> bool:
    return isinstance(value, dict) and not _is_base64(value)


def _is_base64(value: Any) -> bool:
    return isinstance(value, dict) and [*value] == [_BASE64] and isinstance(value[_BASE64], str)


def _require_input(name: str, types: Mapping[str, int]) -> None:
    if name not in types:
        raise ValueError(f"JSON object: does not have named input: {name}")


def _alike(value: Any, number: int, shapes: dict[str, tuple[int, ...]], name: str) -> list[Any]:
    """The values of a row's tensor, whose shape must be that of the rows before."""
    shape, values = _dense(value, number)
    first = shapes.setdefault(name, shape)
    if math.prod(shape) != math.prod(first):
        raise ValueError(f"Expecting tensor size: {math.prod(first)} but got: {math.prod(shape)}")
    if shape != first:
        raise ValueError(f"Expecting shape {_brackets(first)} but got: {_brackets(shape)}")
    return values


def _brackets(shape: tuple[int, ...]) -> str:
    return f"[{','.join(map(str, shape))}]"


def _dense(value: Any, number: int) -> tuple[tuple[int, ...], list[Any]]:
    """The shape of nested lists, which is that of the first of each, and their values one after the other."""
    shape = []
    first = value
    while isinstance(first, list):
        shape.append(len(first))
        first = first[0] if first else None
    values = [value]
    for level, size in enumerate(shape):
        for part in values:
            if not isinstance(part, list):
                place = f"found at incorrect level: {level + 1} in the JSON DOM. Expected at level: {len(shape)}"
                raise ValueError(f"JSON Value: {shown(part)} {place}")
            if len(part) != size:
                place = f"at level: {level} expected size: {size}"
                raise ValueError(f"Encountered list at unexpected size: {len(part)} {place}")
        values = [item for part in values for item in part]
    if any(isinstance(item, list) for item in values):
        raise ValueError(f"Encountered list at unexpected level: {len(shape)} expected < {len(shape)}")
    read = _READERS.get(number)
    if read is None:
        raise ValueError(f"Conversion of JSON Value: {shown(first)} to type: {protocol.type_name(number)}")
    return tuple(shape), [read(item, number) for item in values]


def _array(shape: tuple[int, ...], values: list[Any], number: int) -> np.ndarray:
    array = np.empty(len(values), protocol.numpy_type(number))
    array[:] = values
    return array.reshape(shape)


def _type_error(value: Any, number: int) -> ValueError:
    return ValueError(
        f"JSON Value: {shown(value)} Type: {_json_type(value)} is not of expected type: {protocol.type_name(number)}"
    )


def _json_type(value: Any) -> str:
    names = {type(None): "Null", bool: str(value), dict: "Object", list: "Array", str: "String"}
    return names.get(type(value), "Number")


def _read_text(value: Any, number: int) -> bytes:
    if isinstance(value, dict):
        return _decoded(value)
    if not isinstance(value, str):
        raise _type_error(value, number)
    return value.encode()


def _decoded(value: Any) -> bytes:
    if not _is_base64(value):
        raise ValueError(f"JSON Value: {shown(value)} not formatted correctly for base64 data")
    text = "".join(value[_BASE64].split())
    try:
        return base64.b64decode(text if "=" in text else text + "=" * (-len(text) % 4), validate=True)
    except ValueError as error:
        raise ValueError("Unable to base64 decode") from error


def _read_decimal(value: Any, number: int) -> float:
    if type(value) not in _NUMBERS:
        raise _type_error(value, number)
    return _as_float32(value) if number == 1 else float(value)


def _as_float32(value: float) -> float:
    with np.errstate(over="ignore"):
        narrow = np.float32(value)
    if math.isfinite(value) and not np.isfinite(narrow):
        raise ValueError(f"JSON Value: {shown(value)} is too big for float")
    return float(narrow)


def _read_whole(value: Any, number: int) -> int:
    bits = 8 * protocol.numpy_type(number).itemsize
    if type(value) is not int or not -(2 ** (bits - 1)) <= value < 2 ** (bits - 1):
        raise _type_error(value, number)
    return value


def _read_bool(value: Any, number: int) -> bool:
    if not isinstance(value, bool):
        raise _type_error(value, number)
    return value


# By TensorFlow's number of the type: float, double, int32, string, int64, bool.
_READERS: dict[int, Callable[[Any, int], Any]] = {
    **{1: _read_decimal, 2: _read_decimal, 3: _read_whole},
    **{protocol.STRING: _read_text, 9: _read_whole, 10: _read_bool},
}


def fill_examples(into: Message, given: Mapping[str, Any]) -> None:
    """Write the `examples` of Classify and Regress, and their `context`, to an empty `Input`."""
    if "examples" not in given:
        missing = "When method is classify, key 'examples' is expected and was not found"
        raise ValueError(f"JSON Value: {shown(given)} {missing}")
    examples = given["examples"]
    if not isinstance(examples, list):
        raise ValueError(f"JSON Value: {shown(given)} Expecting 'examples' value to be an list/array")
    if not examples:
        raise ValueError(f"JSON Value: {shown(given)} 'examples' value is an empty array")
    filled = into.example_list
    if "context" in given:
        filled = into.example_list_with_context
        _fill_example(filled.context, given["context"])
    for example in examples:
        _fill_example(filled.examples.add(), example)


def _fill_example(example: Message, given: Any) -> None:
    if not isinstance(given, dict):
        raise ValueError(f"Example must be JSON object but got JSON {_json_type(given)}")
    for name, content in given.items():
        feature = example.features.feature[name]
        for value in content if isinstance(content, list) else [content]:
            _add_to_feature(feature, name, value)


def _add_to_feature(feature: Message, name: str, value: Any) -> None:
    if value is None or isinstance(value, list) or _has_names(value):
        raise ValueError(f"Feature: {name} has element with unexpected JSON type: {_json_type(value)}")
    if isinstance(value, dict | str):
        value = _read_text(value, protocol.STRING)
    elif isinstance(value, float):
        value = _as_float32(value)
    kind = _LISTS[type(value) if not isinstance(value, bool) else int]
    if feature.WhichOneof("kind") not in (None, kind):
        expected = feature.WhichOneof("kind").removesuffix("_list")
        raise ValueError(f"Unexpected element type in feature: {name} expecting type: {expected}")
    if kind == "int64_list" and value >= 2**63:
        raise ValueError(f"Feature: {name} has uint64_t element. Only int64_t is supported.")
    getattr(feature, kind).value.append(value)


def written_tensors(outputs: Mapping[str, np.ndarray], by_row: bool) -> dict[str, Any]:
    """The answer of Predict: by row `predictions`, by column `outputs`; a single output goes without its name.

    >>> written_tensors({"probability": np.array([0.1, 0.5], np.float32)}, by_row=True)
    {'predictions': [0.1, 0.5]}
    """
    columns = {name: _written(name, array) for name, array in sorted(outputs.items())}
    if not by_row:
        return {"outputs": columns if len(columns) > 1 else columns.popitem()[1]}
    rows = None
    for name, array in sorted(outputs.items()):
        if not array.ndim:
            raise ValueError(f"Tensor name: {name} has no shape information ")
        if len(array) != (rows := len(array) if rows is None else rows):
            raise ValueError(f"Tensor name: {name} has inconsistent batch size: {len(array)} expecting: {rows}")
    if len(columns) == 1:
        return {"predictions": columns.popitem()[1]}
    return {"predictions": [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]}


def written_results(answer: Message) -> dict[str, Any]:
    """The `results` of Classify or Regress."""
    if answer.DESCRIPTOR.name == "RegressionResponse":
        return {"results": decimals(np.array([row.value for row in answer.result.regressions], np.float32)).tolist()}
    rows = [row.classes for row in answer.result.classifications]
    scores = [decimals(np.array([found.score for found in row], np.float32)).tolist() for row in rows]
    return {
        "results": [
            [[found.label, score] for found, score in zip(row, own, strict=True)] for row, own in zip(rows, scores, strict=True)
        ]
    }


def decimals(array: np.ndarray) -> np.ndarray:
    """float32 as the float64 of its text: six digits if they suffice, else nine. Rounded to float32 it is the same again.

    >>> decimals(np.array([0.1, 1 / 3], np.float32)).tolist()
    [0.1, 0.333333343]
    """
    values = array.ravel()
    written = np.array([float(f"{value:.6g}") for value in values.tolist()])
    long = written.astype(np.float32) != values
    written[long] = [float(f"{value:.9g}") for value in values[long].tolist()]
    return written.reshape(array.shape)


def _written(name: str, array: np.ndarray) -> Any:
    """An output as nested lists for JSON."""
    if array.dtype == np.float32:
        return decimals(array).tolist()
    if not array.dtype.hasobject:
        return array.tolist()
    texts = np.empty(array.size, object)
    texts[:] = [_written_text(name, text) for text in array.ravel()]
    return texts.reshape(array.shape).tolist()


def _written_text(name: str, text: bytes) -> Any:
    if name.endswith(_BYTES):
        return {_BASE64: base64.b64encode(text).decode()}
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"the output {name} is no UTF-8, and its name does not end in {_BYTES}") from error
