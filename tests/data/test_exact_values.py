"""Values at the ends of what a column can hold: one table has one meaning in every form, or is refused by row."""

import datetime
import decimal
import json
import re

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest
import tensorflow as tf

import tfctr
from tfctr.errors import DataError
from tfctr.features import Categorical, Numeric, Sequence
from tfctr.schema import Schema
from tfctr.serving.client.row_files import read_rows
from tfctr.serving.exporting.raw_features import RawFeatures
from tfctr.serving.wire.rows import to_arrays
from tfctr.serving.wire.token_rules import rules_of


def prepared(folder, values, feature=None, **roles):
    schema = Schema([feature or Categorical("x")], label="click", **roles)
    out = folder / f"data{len(list(folder.iterdir()))}"
    return tfctr.prepare(schema, train=values if not isinstance(values, list) else table(values), out=out)


def table(values, kind=None):
    return pa.table({"x": pa.array(values, kind), "click": [row % 2 for row in range(len(values))]})


def parquet(folder, values, kind=None):
    pa.parquet.write_table(table(values, kind), folder / "x.parquet")
    return folder / "x.parquet"


def csv(folder, texts):
    (folder / "x.csv").write_text("x,click\n" + "".join(f"{text},{row % 2}\n" for row, text in enumerate(texts)))
    return folder / "x.csv"


def json_lines(folder, texts):
    lines = [f'{{"x": {text or "null"}, "click": {row % 2}}}\n' for row, text in enumerate(texts)]
    (folder / "x.jsonl").write_text("".join(lines))
    return folder / "x.jsonl"


def served(schema, rows):
    raw, rules = RawFeatures(schema), rules_of(schema)
    inputs = {name: (np.dtype(object if spec.dtype == tf.string else "f8"), (None,)) for name, spec in raw.signature.items()}
    return raw(to_arrays(rows, inputs, rules.separators, rules.fractions, rules.sources)).numpy()


def vocabulary(dataset):
    return dataset.schema.vocabulary_file(dataset.schema.features[0]).read_text().splitlines()


SMALL = ["0.00001", "0.000012", "-0.0000995", "0.0001", "0.5", "7", "", "0.0000001", "0.00000000001", "0.00001", "0.0000120"]


def test_numbers_below_a_ten_thousandth_are_one_token_each(tmp_path):
    texts = SMALL[:-1]
    numbers = [float(text) if text else None for text in texts]
    decimals = [decimal.Decimal(text) if text else None for text in texts]
    expected = prepared(tmp_path, csv(tmp_path, texts))
    assert set(vocabulary(expected)) == {"1e-05", "1.2e-05", "-9.95e-05", "0.0001", "0.5", "7", "1e-07", "1e-11"}
    sources = [
        json_lines(tmp_path, texts),
        parquet(tmp_path, numbers),
        table(decimals, pa.decimal128(30, 15)),
        {"x": decimals, "click": table(texts)["click"].to_pylist()},
        table(numbers).to_pandas(),
    ]
    for source in sources:
        found = prepared(tmp_path, source)
        assert found.schema.to_dict() == expected.schema.to_dict()
        np.testing.assert_array_equal(found.train.ids, expected.train.ids)
    others = [csv(tmp_path, texts), json_lines(tmp_path, texts), {"x": numbers}, {"x": texts}, {"x": decimals}]
    for rows in others:
        rows = rows if isinstance(rows, dict) else next(iter(read_rows(rows))).rows
        np.testing.assert_array_equal(served(expected.schema, rows), expected.train.ids)


@pytest.mark.parametrize("hashed", [False, True])
def test_every_exponent_of_a_double(tmp_path, hashed):
    numbers = [float(f"{digits}e-{exponent}") for exponent in range(1, 324) for digits in ("1", "2.5") if exponent < 323]
    feature = Categorical("x", token_type="number", **({"hash_buckets": 10**6} if hashed else {}))
    expected = prepared(tmp_path, numbers, feature)
    texts = [f" {decimal.Decimal(repr(number)):f}0" for number in numbers]
    found = prepared(tmp_path, texts, feature)
    np.testing.assert_array_equal(found.train.ids, expected.train.ids)
    np.testing.assert_array_equal(served(expected.schema, {"x": texts}), expected.train.ids)
    np.testing.assert_array_equal(served(expected.schema, {"x": numbers}), expected.train.ids)


def test_two_writings_of_one_small_number_are_no_codes(tmp_path):
    dataset = prepared(tmp_path, ["0.00001", "1e-05", "0.5"])
    assert dataset.schema.features[0].token_type == "number"
    assert dataset.train.ids[0] == dataset.train.ids[1]


def test_a_vocabulary_of_before_keeps_its_tokens(tmp_path):
    schema = Schema([Categorical("x", token_type="number", size=5)], label="click", folder=str(tmp_path))
    (tmp_path / "vocabulary").mkdir()
    schema.vocabulary_file(schema.features[0]).write_text("0.00001\n1e-05\n")
    assert served(schema, {"x": ["0.00001", 1e-05, "0.50"]}).tolist() == [[3], [4], [2]]


@pytest.mark.sampled(2)
@pytest.mark.parametrize("feature", [Categorical("x"), Sequence("x", 2)])
@pytest.mark.parametrize(("digits", "places"), [(2, 2), (3, 3), (4, 2)])
def test_zero_is_a_value_of_a_decimal_column(tmp_path, feature, digits, places):
    texts = ["0", "0.5", "-0.5", "0.25", "", "0"]
    decimals = [decimal.Decimal(text) if text else None for text in texts]
    expected = prepared(tmp_path, csv(tmp_path, texts), feature)
    assert set(vocabulary(expected)) == {"0", "0.5", "-0.5", "0.25"}
    source = parquet(tmp_path, decimals, pa.decimal128(digits, places))
    for found in (prepared(tmp_path, source, feature), prepared(tmp_path, pa.parquet.read_table(source), feature)):
        np.testing.assert_array_equal(found.train.ids, expected.train.ids)
    np.testing.assert_array_equal(served(expected.schema, next(iter(read_rows(source))).rows), expected.train.ids)


@pytest.mark.parametrize("feature", [Categorical("x"), Sequence("x", 2)])
@pytest.mark.parametrize("make", [parquet, lambda _, values: table(values).to_pandas(), json_lines])
@pytest.mark.parametrize("value", [1e16, 1e22, -1e300])
def test_a_float_beyond_64_bits_is_refused_as_a_token(tmp_path, feature, make, value):
    values = [1.0, value] * 3
    source = make(tmp_path, [repr(each) for each in values] if make is json_lines else values)
    with pytest.raises(DataError, match=r"column 'x', row 2: found .*\(3 such rows\)") as caught:
        prepared(tmp_path, source, feature)
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("value", ["nan(1)", "-nan(0x7)", "NaN()"])
def test_a_nan_with_a_payload_is_no_number(tmp_path, value):
    with pytest.raises(DataError, match=rf"column 'x', row 2: found '{re.escape(value)}'"):
        prepared(tmp_path, csv(tmp_path, ["1", value, "nan"]), Numeric("x", "scaled"))
    schema = prepared(tmp_path, [1.0, 2.0], Numeric("x", "scaled")).schema
    with pytest.raises(DataError, match=r"column 'x', row 0: .* is not a number"):
        served(schema, {"x": [value]})


WEIGHTS = {"x": ["a", "b", "c"], "click": [0, 1, 0]}


@pytest.mark.parametrize("value", ["1e39", "3.4028236e38", 1e300])
def test_a_weight_that_float32_makes_infinite_is_refused(tmp_path, value):
    with pytest.raises(DataError, match=r"column 'w', row 2: found .*; the weight takes a finite number from 0 to 3.4e38"):
        prepared(tmp_path, {**WEIGHTS, "w": [type(value)(1), value, type(value)(2)]}, weight="w")


def test_the_largest_and_the_least_weights(tmp_path):
    found = prepared(tmp_path, {**WEIGHTS, "w": ["3.4028235e38", "1e-45", "1e-50"]}, weight="w").train.weights
    np.testing.assert_array_equal(found, np.float32([np.finfo("f4").max, 1e-45, 0]))


@pytest.mark.sampled(4)
@pytest.mark.parametrize("role", [Categorical("x"), Numeric("x"), Sequence("x", 2)])
@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_a_duration_is_refused_in_every_form(tmp_path, role, unit):
    source = parquet(tmp_path, [1, 2], pa.duration(unit))
    span = np.array([1, 2], f"m8[{unit}]")
    tables = [source, pa.parquet.read_table(source), {"x": span, "click": [0, 1]}, pd.DataFrame({"x": span, "click": [0, 1]})]
    for each in tables:
        with pytest.raises(DataError, match=r"(?s)column 'x' \(.*feature\) is of type interval.*fix: convert it to"):
            prepared(tmp_path, each, role)
    schema = prepared(tmp_path, [1.0, 2.0], role).schema
    rows = [
        next(iter(read_rows(source))).rows,
        tables[1],
        tables[2],
        tables[3],
        {"x": list(span)},
        {"x": [datetime.timedelta(1)]},
    ]
    for each in rows:
        with pytest.raises(DataError, match=r"column 'x', row 0: .* is (neither text|not a number)"):
            served(schema, each)


@pytest.mark.parametrize("kind", [set, frozenset])
@pytest.mark.parametrize("frame", [dict, pd.DataFrame])
def test_a_set_has_no_order(tmp_path, kind, frame):
    values = frame({"x": [kind("ab"), kind("c")], "click": [0, 1]})
    with pytest.raises(DataError, match=r"(?s)column 'x'.*a set has no order"):
        prepared(tmp_path, values, Sequence("x", 2))
    schema = prepared(tmp_path, {"x": ["a|b", "c"], "click": [0, 1]}, Sequence("x", 2)).schema
    with pytest.raises(DataError, match="column 'x', row 0"):
        served(schema, values)


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    "values",
    [
        ["sci-fi", "docu", None],
        [None, "a"],
        [None, None, "a"],
        ["a", 1, None],
        [float("nan"), 0.5],
        [0.5, None],
        ["None-x", "None"],
    ],
)
def test_a_list_that_numpy_printed_is_that_list(tmp_path, values):
    known = [str(value) for value in values if value is not None and value == value]
    text = str(np.array(values, object))
    dataset = prepared(tmp_path, csv(tmp_path, [f'"{text}"', "\"['z']\""]), Sequence("x", 3))
    assert set(vocabulary(dataset)) == {*known, "z"}
    np.testing.assert_array_equal(served(dataset.schema, {"x": [text, "z"]}), dataset.train.ids)
    if set(map(type, values)) <= {str, type(None)}:
        np.testing.assert_array_equal(served(dataset.schema, {"x": [values, ["z"]]}), dataset.train.ids)
    comma = json.dumps(values).replace("NaN", "nan").replace('"', "'")
    np.testing.assert_array_equal(served(dataset.schema, {"x": [comma, "z"]}), dataset.train.ids)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("kind", [pa.float64(), pa.float32()])
def test_a_parquet_file_may_hold_nan(tmp_path, kind):
    numbers = [1.5, np.nan, 2.5, np.nan]
    source = parquet(tmp_path, numbers, kind)
    for feature in (Categorical("x"), Sequence("x", 2), Numeric("x", "edges", edges=[2.0])):
        expected = prepared(tmp_path, csv(tmp_path, ["1.5", "", "2.5", "nan" * isinstance(feature, Numeric)]), feature)
        np.testing.assert_array_equal(prepared(tmp_path, source, feature).train.ids, expected.train.ids)
        np.testing.assert_array_equal(served(expected.schema, next(iter(read_rows(source))).rows), expected.train.ids)
    columns = {"x": ["a"] * 4, "click": [0, 1, 0, 1], "w": pa.array(numbers, kind)}
    pa.parquet.write_table(pa.table(columns), tmp_path / "x.parquet")
    with pytest.raises(DataError, match=r"column 'w', row 2: found 'nan'; the weight takes"):
        prepared(tmp_path, tmp_path / "x.parquet", weight="w")
