"""JSON to tensors and back: every type, and numbers with their bits."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit.saved_models import TYPES, texts

from tfctr.serving.wire import json_text, protocol
from tfctr.serving.wire.json_tensors import decimals, read_tensors, written_tensors
from tfctr.serving.wire.json_text import MOST_DEPTH, parse_object

ARRAYS = {
    "string": texts("60", "", "東京", '"\\\n'),
    "float64": np.array([0.1, -0.0, np.nan, np.inf, -np.inf, 5e-324]),
    "float32": np.array([0.1, 1 / 3, 16777216, 1e-45, 3.4028235e38, np.nan, -np.inf], np.float32),
    "int32": np.array([[0, -(2**31)], [7, 2**31 - 1]], np.int32),
    "int64": np.array([[[2**63 - 1]], [[-(2**63)]]]),
    "bool": np.array([True, False]),
}


def numbers(*arrays):
    return [protocol.type_number(array.dtype) for array in arrays]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("member", ["inputs", "instances"])
def test_what_is_written_is_read_as_it_was(dtype, member):
    array = ARRAYS[dtype]
    by_row = member == "instances"
    body = json.dumps(written_tensors({"value": array, "other": array}, by_row)).replace("predictions", member)
    two = {"value": numbers(array)[0], "other": numbers(array)[0]}
    one = json.dumps(written_tensors({"value": array}, by_row)).replace("predictions", member).replace("outputs", member)
    read = [*read_tensors(parse_object(body.replace("outputs", member).encode()), two).values()]
    read += read_tensors(parse_object(one.encode()), {"value": two["value"]}).values()
    for found in read:
        assert (found.dtype, found.shape) == (array.dtype, array.shape)
        assert found.tolist() == array.tolist() if dtype == "string" else found.tobytes() == array.tobytes()


def test_bytes_are_base64_by_the_name_of_the_output():
    array = texts(b"\xff\x00", "60")
    written = written_tensors({"image_bytes": array}, by_row=True)
    assert written == {"predictions": [{"b64": "/wA="}, {"b64": "NjA="}]}
    assert read_tensors({"instances": written["predictions"]}, {"image": 7})["image"].tolist() == array.tolist()
    assert read_tensors({"inputs": [{"b64": "/w\nA"}]}, {"image": 7})["image"].tolist() == [b"\xff\x00"]
    with pytest.raises(ValueError, match="the output image is no UTF-8, and its name does not end in _bytes"):
        written_tensors({"image": array}, by_row=True)


def test_every_float32_keeps_its_bits():
    bits = np.random.default_rng(0).integers(0, 2**32, 50_000, dtype=np.uint32)
    array = np.concatenate([bits.view(np.float32), np.random.default_rng(1).random(50_000, np.float32)])
    array = array[np.isfinite(array)]
    written = json.dumps(decimals(array).tolist())
    np.testing.assert_array_equal(np.array(json.loads(written), np.float32).view(np.int32), array.view(np.int32))


@given(st.floats(width=32))
def test_a_float32_is_as_tensorflow_serving_writes_it(value):
    (written,) = decimals(np.array([value], np.float32)).tolist()
    if not math.isfinite(value):
        assert json.dumps(written) in ("NaN", "Infinity", "-Infinity")
    else:
        assert written in (float(f"{value:.6g}"), float(f"{value:.9g}"))
        assert np.float32(written) == value


@pytest.mark.parametrize(
    ("outputs", "words"),
    [
        ({"a": np.float32(1)}, "Tensor name: a has no shape information"),
        ({"a": np.zeros(2), "b": np.zeros(3)}, "Tensor name: b has inconsistent batch size: 3 expecting: 2"),
    ],
)
def test_outputs_that_are_no_rows(outputs, words):
    outputs = {name: np.asarray(array) for name, array in outputs.items()}
    with pytest.raises(ValueError, match=words):
        written_tensors(outputs, by_row=True)
    written = written_tensors(outputs, by_row=False)["outputs"]
    assert written == (outputs["a"].tolist() if len(outputs) == 1 else {name: a.tolist() for name, a in outputs.items()})


def test_whole_numbers_are_whole_as_far_as_64_bits():
    found = parse_object(b'{"a": [9223372036854775807, 18446744073709551615, 18446744073709551616, -9223372036854775809, 1.0]}')
    assert [type(value) for value in found["a"]] == [int, int, float, float, float]
    assert found["a"][2:] == [2.0**64, -(2.0**63), 1.0]


def test_a_type_that_no_model_of_ours_has():
    with pytest.raises(ValueError, match="Conversion of JSON Value: 1 to type: type 4"):
        read_tensors({"inputs": [1]}, {"x": 4})


def test_limits_count_what_stands_outside_of_texts(monkeypatch):
    monkeypatch.setattr(json_text, "MOST_VALUES", 100)
    text = '[{,"\\' * MOST_DEPTH + "," * 100
    assert parse_object(json.dumps({"a": text}).encode()) == {"a": text}
    inner = MOST_DEPTH - 1
    assert parse_object(b'{"a": ' + b"[" * inner + b"]" * inner + b"}")
    assert len(parse_object(b'{"a": [' + b",".join([b"1"] * 98) + b"]}")["a"]) == 98
    with pytest.raises(ValueError, match="more than 100 values"):
        parse_object(b'{"a": [' + b",".join([b"1"] * 99) + b"]}")
