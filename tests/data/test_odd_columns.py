"""A column of any type stops nobody who does not ask for it; who does is told its type."""

import datetime
import decimal
import enum
import uuid

import ibis
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest

import tfctr
from tfctr.errors import DataError
from tfctr.features import Categorical, Numeric, Sequence
from tfctr.schema import Schema
from tfctr.serving.wire.rows import to_columns


class Color(enum.Enum):
    RED = 1


TIME = datetime.datetime(2024, 1, 1)
# Each of two values; what a person calls its type.
ODD = {
    "mixed": (pd.Series(["a", 1], dtype=object), "int and str"),
    "mixed category": (pd.Series(["a", 1], dtype=object).astype("category"), "category"),
    "period": (pd.Series(pd.period_range("2024", periods=2, freq="M")), "period"),
    "interval": (pd.Series(pd.interval_range(0, 2)), "interval"),
    "timedelta": (pd.Series(pd.to_timedelta([1, 2], unit="s")), "interval"),
    "complex": (pd.Series([1j, 2]), "complex128"),
    "bytes": (pd.Series([b"a", b"b"]), "binary"),
    "uuid": (pd.Series([uuid.UUID(int=1), None], dtype=object), "UUID"),
    "enum": (pd.Series([Color.RED, None], dtype=object), "Color"),
    "nested": (pd.Series([[["a"]], []]), "array<array"),
    "struct": (pd.Series([{"a": 1}, None]), "struct"),
    "zone": (pd.Series(pd.to_datetime([TIME, TIME]).tz_localize("Europe/Berlin")), "timestamp"),
    "decimal and text": ([decimal.Decimal("1.5"), "a"], "Decimal and str"),
    "wide decimal": (pa.array([decimal.Decimal(1), None]).cast(pa.decimal256(50, 2)), "decimal256"),
    "calendar": (pa.array([pa.MonthDayNano([1, 2, 3]), None]), "month_day_nano_interval"),
    "fixed bytes": (pa.array([b"ab", None], pa.binary(2)), "binary"),
    "struct of halves": (pa.array([{"a": np.float16(1)}, None], pa.struct({"a": pa.float16()})), "struct"),
    "arrow json": (pa.array(["1", None], pa.json_()), "json"),
    "array of two dimensions": (np.zeros((2, 2)), "float64"),
    "one value": ("ab", "str"),
    "set": (object(), "object"),
    "shorter": ([1], "1 values, where column 'click' has 2"),
}
GOOD = {"user": ["a", "b"], "click": [0, 1]}
SCHEMA = Schema([Categorical("user")], label="click")


@pytest.fixture(params=ODD)
def odd(request):
    return ODD[request.param]


def prepared(folder, train, schema=SCHEMA, **splits):
    return tfctr.prepare(schema, train=train, out=folder / f"data{len(list(folder.iterdir()))}", **splits)


@pytest.mark.sampled(6)
def test_a_column_that_nothing_names_may_hold_anything(tmp_path, odd):
    assert prepared(tmp_path, {"odd": odd[0], **GOOD}).train.ids.tolist() == [[3], [4]]
    if isinstance(odd[0], pd.Series):
        assert prepared(tmp_path, pd.DataFrame({"odd": odd[0], **GOOD})).train.ids.tolist() == [[3], [4]]
    if isinstance(odd[0], pa.Array):
        assert prepared(tmp_path, pa.table({"odd": odd[0], **GOOD})).train.ids.tolist() == [[3], [4]]


def test_nor_does_it_matter_where_rows_are_drawn(tmp_path, odd):
    table = {"odd": odd[0], **GOOD}
    with pytest.raises(DataError, match=r"(one class|no rows)"):  # two rows cannot be split, but were read
        prepared(tmp_path, table, valid=0.5)


@pytest.mark.parametrize("role", [Categorical, Numeric, lambda name: Sequence(name, max_length=2)])
def test_a_column_that_is_named_is_refused_with_its_type(tmp_path, odd, role):
    values, kind = odd
    if kind in ("interval", "binary") and role is Numeric:
        kind = "is of type"
    with pytest.raises(DataError, match=rf"(?s)the train table: column 'odd' \(.*feature\).*{kind}.*fix: convert") as caught:
        prepared(tmp_path, {"odd": values, **GOOD}, Schema([role("odd")], label="click"))
    assert len(str(caught.value)) < 500


@pytest.mark.sampled(6)
def test_infer_leaves_it_out_with_the_reason(odd, caplog):
    table = {"odd": odd[0], "user": ["a", "b"], "click": [0, 1]}
    with caplog.at_level("INFO", "tfctr"):
        assert Schema.infer(table, label="click").features == (Categorical("user"),)
    assert len([message for message in caplog.messages if message.startswith("left out: column 'odd', since")]) == 1


# what can be read, is


READABLE = {
    "decimal": ([decimal.Decimal("60.0"), None], [3, 1]),
    "category": (pd.Series(["60", None], dtype="category"), [3, 1]),
    "category of numbers": (pd.Series([60, None], dtype="category"), [3, 1]),
    "sparse": (pd.Series(pd.arrays.SparseArray([60, 7])), [3, 4]),
    "sparse with gaps": (pd.Series(pd.arrays.SparseArray([60.0, np.nan])), [3, 1]),
    "float16": (pd.Series([60, 7], dtype="float16"), [3, 4]),
    "nullable": (pd.Series([60, None], dtype="Int64"), [3, 1]),
    "list view": (pa.array(["60", None]).dictionary_encode(), [3, 1]),
    "objects": (pd.Series([60, None], dtype=object), [3, 1]),
    "a range": (range(60, 62), [3, 4]),
    "a tuple": (("60", "7"), [3, 4]),
}


@pytest.mark.sampled(4)
@pytest.mark.parametrize("kind", READABLE)
def test_unusual_types_that_hold_tokens(tmp_path, kind):
    values, expected = READABLE[kind]
    dataset = prepared(tmp_path, {"odd": values, "click": [0, 1]}, Schema([Categorical("odd")], label="click"))
    assert dataset.train.ids[:, 0].tolist() == expected
    assert dataset.schema.vocabulary_file(dataset.schema.features[0]).read_text().split("\n")[0] == "60"


@pytest.mark.parametrize("make", [dict, pd.DataFrame, pa.table, lambda table: ibis.memtable(pa.table(table))])
def test_whole_numbers_beside_none_stay_exact(tmp_path, make):
    values = [2**53 + 1, 2**53, None]
    table = {"x": pd.array(values, "Int64") if make is pd.DataFrame else values, "click": [0, 1, 0]}
    dataset = prepared(tmp_path, make(table), Schema([Categorical("x")], label="click"))
    assert dataset.train.ids.tolist() == [[4], [3], [1]]


@pytest.mark.parametrize("make", [dict, pd.DataFrame])
def test_whole_numbers_above_64_bits_are_tokens(tmp_path, make):
    table = make({"x": [2**70, 2**70, 7], "click": [0, 1, 0]})
    dataset = prepared(tmp_path, table, Schema([Categorical("x")], label="click"))
    assert dataset.schema.vocabulary_file(dataset.schema.features[0]).read_text() == f"{2**70}\n7\n"


def test_names_of_a_table_that_are_no_text(tmp_path):
    frame = pd.DataFrame([["a", 0], ["b", 1]])
    frame.columns = [5, "click"]
    assert prepared(tmp_path, frame, Schema([Categorical("5")], label="click")).train.rows == 2


def test_two_columns_of_one_name_matter_only_where_they_are_asked_for(tmp_path):
    frame = pd.DataFrame([["a", 1, 2, 0], ["b", 1, 2, 1]], columns=["user", "x", "x", "click"])
    assert prepared(tmp_path, frame).train.rows == 2
    with pytest.raises(DataError, match="several columns named 'x'"):
        prepared(tmp_path, frame, Schema([Categorical("x")], label="click"))


def test_a_parquet_file_with_odd_columns(tmp_path, caplog):
    odd = {
        "half": pa.array(np.array([1, 2], "f2")),
        "wide": ODD["wide decimal"][0],
        "zone": pa.array([1, 2], pa.timestamp("ns", "UTC")),
        "map": pa.array([[("a", 1)], None], pa.map_(pa.string(), pa.int64())),
        "uuid": pa.array([b"0" * 16, None], pa.uuid()),
        "nested": pa.array([[[1]], None]),
        "null": pa.nulls(2),
        "span": pa.array([1, 2], pa.duration("us")),
        "view": pa.array([["a"], None], pa.list_view(pa.string())),
    }
    file = tmp_path / "odd.parquet"
    pyarrow.parquet.write_table(pa.table({**odd, **GOOD}), file)
    assert prepared(tmp_path, file).train.ids.tolist() == [[3], [4]]
    with pytest.raises(DataError, match=r"one class|no rows"):  # read, and drawn
        prepared(tmp_path, file, valid=0.5)
    for name, kind in (("zone", "timestamptz_ns"), ("map", "map<"), ("uuid", "uuid"), ("nested", "array<array")):
        with pytest.raises(DataError, match=f"odd.parquet: column '{name}' .* is of type {kind}"):
            prepared(tmp_path, file, Schema([Categorical(name)], label="click"))
    with caplog.at_level("INFO", "tfctr"):
        assert "user" in [feature.name for feature in Schema.infer(file, label="click").features]
    assert "left out: column 'zone', since it is of type timestamptz_ns" in caplog.messages


def test_a_column_of_another_engine_that_no_file_holds(tmp_path):
    table = ibis.memtable(pa.table({"odd": pa.array([1, 2], pa.duration("us")), **GOOD}))
    assert prepared(tmp_path, table).train.rows == 2
    assert Schema.infer(table, label="click").features == (Categorical("user"),)


@pytest.mark.parametrize("frame", ["DataFrame", "LazyFrame"])
def test_polars(tmp_path, frame):
    polars = pytest.importorskip("polars")
    odd = {"object": polars.Series([object(), object()], dtype=polars.Object), "time": [datetime.time(1)] * 2}
    odd |= {"wide": polars.Series([2**70, 1], dtype=polars.Int128), "span": [datetime.timedelta(1)] * 2}
    table = {"user": polars.Series(["a", "b"], dtype=polars.Categorical), "click": [0, 1], **odd}
    if frame == "LazyFrame":
        del table["object"]
    table = getattr(polars, frame)(table)
    assert prepared(tmp_path, table).train.ids.tolist() == [[3], [4]]
    assert Schema.infer(table, label="click").features == (Categorical("user"),)
    for name, kind in (("wide", "Int128"), ("span", "interval"), ("time", "time")):
        with pytest.raises(DataError, match=f"column '{name}'.* is of type {kind}"):
            prepared(tmp_path, table, Schema([Categorical(name)], label="click"))


# the client


INPUTS = {"user": (np.dtype(object), (None,))}


def test_the_client_ignores_what_the_model_does_not_take(odd):
    assert to_columns({"odd": odd[0], "user": ["a", "b"]}, INPUTS) == {"user": [b"a", b"b"]}
    if isinstance(odd[0], pd.Series):
        assert to_columns(pd.DataFrame({"odd": odd[0], "user": ["a", "b"]}), INPUTS) == {"user": [b"a", b"b"]}
    if isinstance(odd[0], pa.Array):
        assert to_columns(pa.table({"odd": odd[0], "user": ["a", "b"]}), INPUTS) == {"user": [b"a", b"b"]}
    rows = [{"odd": odd[0], "user": "a"}, {"user": "b"}]
    assert to_columns(rows, INPUTS) == {"user": [b"a", b"b"]}


@pytest.mark.parametrize("names", [["x", "x", "user"], [5, 5, "user"], [("a", 1), None, "user"]])
def test_the_client_ignores_names_that_the_model_does_not_take(names):
    frame = pd.DataFrame([[1, 2, "a"]])
    frame.columns = pd.Index(names, dtype=object, tupleize_cols=False)
    assert to_columns(frame, INPUTS) == {"user": [b"a"]}
    frame.columns = ["user", "x", "user"]
    with pytest.raises(DataError, match="'user' is in the table twice"):
        to_columns(frame, INPUTS)
