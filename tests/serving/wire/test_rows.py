"""Any form of rows becomes the columns that a model takes, and every mistake is named by column and row."""

import decimal
import math
import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfctr.errors import ConfigError, DataError
from tfctr.serving.wire.rows import read_json_lines, slices, to_columns

INPUTS = {"user": (np.dtype(object), (None,)), "price": (np.dtype("f8"), (None,))}
IDS = {"ids": (np.dtype("i4"), (None, 2))}


def read_text(values, separator="|"):
    return to_columns({"user": values}, {"user": INPUTS["user"]}, separator)["user"]


def read_numbers(values, dtype="f8"):
    return to_columns({"price": values}, {"price": (np.dtype(dtype), (None,))})["price"]


@pytest.mark.parametrize(
    ("value", "token"),
    [
        ("60", b"60"),
        ("", b""),
        ("Zoë\0東京", "Zoë\0東京".encode()),
        (b"\xff", b"\xff"),
        (60, b"60"),
        (-(10**30), b"-1000000000000000000000000000000"),
        (np.int64(7), b"7"),
        (60.0, b"60"),
        (-0.0, b"0"),
        (np.float32(60), b"60"),
        (True, b"true"),
        (np.False_, b"false"),
        (None, b""),
        (math.nan, b""),
        (np.float32("nan"), b""),
        (pd.NA, b""),
        (pd.NaT, b""),
        (["Comedy", 7, None, "Drama"], b"Comedy|7||Drama"),
        ((), b""),
        (np.array([1, 2]), b"1|2"),
        (decimal.Decimal("60.0"), b"60"),
        (decimal.Decimal(2**70 + 1), b"1180591620717411303425"),
        (2.0**53 - 1, b"9007199254740991"),
        ([b"\xff", "x"], b"\xff|x"),
    ],
)
def test_one_value_is_one_token(value, token):
    assert read_text([value]) == [token]
    assert read_text(["x", value]) == [b"x", token]


@pytest.mark.parametrize(
    "value",
    [
        1.5,
        2.0**53,
        2.0**53 + 2,
        math.inf,
        decimal.Decimal("1.5"),
        1j,
        object(),
        {"a": 1},
        [["nested"]],
        [1.5],
        pd.Timestamp(0),
        "\ud800",
    ],
)
def test_a_value_that_is_no_token_is_named(value):
    with pytest.raises(DataError, match=r"column 'user', row 1: .* is neither text nor a whole number"):
        read_text(["x", value])


TEXTS = ["60", None, "Zoë\0東京", ""]


@pytest.mark.parametrize(
    "column",
    [
        pa.array(TEXTS),
        pa.chunked_array([TEXTS[:1], [], TEXTS[1:]], pa.large_string()),
        pa.array(["", *TEXTS]).slice(1),
        pa.array(TEXTS).dictionary_encode(),
        pa.array([text and text.encode() for text in TEXTS]),
        pd.Series(TEXTS, dtype="str"),
        pd.Series(TEXTS, dtype="string[pyarrow]"),
        pd.Series(TEXTS, dtype="string[python]"),
        pd.Series(TEXTS, dtype=pd.ArrowDtype(pa.string())),
        pd.Series(TEXTS, dtype=object),
    ],
    ids=lambda column: f"{type(column).__name__} {getattr(column, 'type', getattr(column, 'dtype', ''))!r}"[:60],
)
def test_texts_that_arrow_holds(column):
    assert read_text(column) == [b"60", b"", "Zoë\0東京".encode(), b""]
    assert read_text(column[:0]) == []


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1.5, 2.0, None], [b"1.5", b"2", b""]),
        (np.float32([0.1, 2.0]), [b"0.1", b"2"]),
        (pd.Series([0.1, 1234567.1], dtype="float32"), [b"0.1", b"1234567.1"]),
        (pd.Series([0.1, None], dtype="Float32"), [b"0.1", b""]),
        (pa.array([0.1, None], pa.float32()), [b"0.1", b""]),
        ([np.float32(0.1), 1e-07, decimal.Decimal("1.50")], [b"0.1", b"1e-07", b"1.5"]),
        ([[0.5, 1], "x"], [b"0.5|1", b"x"]),
    ],
)
def test_fractions_are_their_shortest_text(values, expected):
    column = {"user": values}
    assert to_columns(column, {"user": INPUTS["user"]}, "|", fractions={"user"})["user"] == expected
    with pytest.raises(DataError, match=r"is neither text nor a whole number"):
        to_columns(column, {"user": INPUTS["user"]}, "|")


@pytest.mark.parametrize("separator", ["|", " ", "東"])
def test_lists_are_joined_by_the_separator(separator):
    assert read_text([["a", "b"]], separator) == [f"a{separator}b".encode()]


@pytest.mark.parametrize("value", [["a", "b"], (), np.array(["a"])])
def test_a_list_needs_a_separator(value):
    with pytest.raises(DataError, match=r"(?s)column 'user', row 1: .* is a list, .*fix: give `separator`"):
        to_columns({"user": ["x", value]}, {"user": INPUTS["user"]})


def test_columns_may_have_their_own_separators():
    inputs = dict.fromkeys(("genres", "tags", "user"), INPUTS["user"])
    lists = {"genres": [["a", "b"]], "tags": [["a", "b"]], "user": ["a"]}
    columns = to_columns(lists, inputs, {"genres": "|", "tags": ","})
    assert list(columns.values()) == [[b"a|b"], [b"a,b"], [b"a"]]
    with pytest.raises(DataError, match="column 'user', row 0"):
        to_columns({**lists, "user": [["a"]]}, inputs, {"genres": "|", "tags": ","})


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]))))
def test_any_text_is_its_utf8(texts):
    assert read_text(texts) == [text.encode() for text in texts]
    assert read_text(np.array(texts, object)) == [text.encode() for text in texts]


@pytest.mark.parametrize(
    ("values", "numbers"),
    [
        ([1, 2.5, None, math.nan], [1.0, 2.5, math.nan, math.nan]),
        ([True, np.float32(0.1), np.float16(0.3)], [1.0, 0.1, 0.3]),
        (["1.5", " -2e3\n", "", " ", "nan", "-inf"], [1.5, -2000.0, math.nan, math.nan, math.nan, -math.inf]),
        (["true", "False ", True, False], [1.0, 0.0, 1.0, 0.0]),
        (np.ma.array([1.5, 9.0], mask=[False, True]), [1.5, math.nan]),
        (np.array(["1.5", ""]), [1.5, math.nan]),
        (np.array([1, 2], "u1"), [1.0, 2.0]),
        (np.array([0.1, 505881.125], "f4"), [0.1, 505881.12]),
        (pd.Series([1, None], dtype="Int64"), [1.0, math.nan]),
        ([decimal.Decimal("3.1"), decimal.Decimal("NaN")], [3.1, math.nan]),
        (pa.chunked_array([[1.5, None]]), [1.5, math.nan]),
    ],
)
def test_numbers(values, numbers):
    np.testing.assert_array_equal(read_numbers(values), numbers)
    assert read_numbers(values).dtype == np.float64


@pytest.mark.parametrize("value", ["one", "1,5", "0x10", "٣", b"1", 10**400, [1.0], pd.Timestamp(0), object()])
def test_a_value_that_is_no_number_is_named(value):
    with pytest.raises(DataError, match=r"column 'price', row 1: .* is not a number \(float64\)"):
        read_numbers([1.0, value])


def test_a_long_value_is_shown_in_part():
    for read in (read_text, read_numbers):
        with pytest.raises(DataError, match=r"row 0: \{'x': 'y+\.\.\.y+'\} is"):
            read([{"x": "y" * 10**6}])


def test_pandas_without_pyarrow(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    table = pd.DataFrame(
        {"user": pd.Series(["60", None], dtype=pd.StringDtype("python")), "price": pd.Series([1, None], dtype="Int64")}
    )
    columns = to_columns(table, INPUTS)
    assert columns["user"] == [b"60", b""]
    np.testing.assert_array_equal(columns["price"], [1.0, math.nan])
    assert read_text(table["price"]) == [b"1", b""]


@pytest.mark.parametrize("value", [1.5, None, "1", 2**31, -(2**31) - 1])
def test_a_value_that_is_no_int32(value):
    assert read_numbers([1, 2.0, -(2**31)], "i4").tolist() == [1, 2, -(2**31)]
    with pytest.raises(DataError, match="row 0"):
        read_numbers([value], "i4")


@pytest.mark.parametrize(
    "rows",
    [
        {"price": [1, 2], "user": ["60", None]},
        [{"user": "60", "price": 1.0}, {"price": 2, "user": None}],
        pd.DataFrame({"user": ["60", None], "price": [1, 2]}),
        pd.DataFrame({"user": [60, math.nan], "price": [1, 2]}),
        pd.DataFrame({"user": pd.Categorical(["60", None]), "price": [1, 2]}, index=[7, 7]),
        pd.DataFrame({"user": ["60", None], "price": [1, 2], "column_names": ["a", "b"], "columns": 0}),
        pa.table({"user": ["60", None], "price": [1, 2]}),
        {"price": [1, 2], "user": ["60", None], "click": [0, 1, 0], 7: None},
        [{"user": "60", "price": 1, "click": 1}, {"price": 2, "user": None, "group": [[]]}],
    ],
    ids=[
        "dict",
        "list",
        "pandas",
        "float ids",
        "pandas categorical",
        "names of pandas",
        "pyarrow",
        "more columns",
        "more keys",
    ],
)
def test_every_form_of_rows(rows):
    columns = to_columns(rows, INPUTS)
    assert columns["user"] == [b"60", b""]
    assert columns["price"].tolist() == [1.0, 2.0]


@pytest.mark.parametrize("rows", [[[1, 2], [3, 4]], np.array([[1, 2], [3, 4]]), {"ids": np.array([[1, 2], [3, 4]], "i4")}])
def test_a_matrix_of_ids(rows):
    ids = to_columns(rows, IDS)["ids"]
    assert ids.dtype == np.int32
    assert ids.tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("rows", "inputs", "problem"),
    [
        ({"usr": ["60"], "price": [1]}, INPUTS, "column 'user' is missing.*The columns are: 'usr', 'price'"),
        ([{"price": 1}, {"price": 2}], INPUTS, "column 'user' is missing.*fix: add it"),
        ({}, INPUTS, "column 'user' is missing, and 1 more: price"),
        ({"user": ["60", "7"], "price": [1]}, INPUTS, "differ in rows: user 2, price 1"),
        ({"user": "60", "price": [1]}, INPUTS, "'60' is one value, not a column.*write {'user': \\['60'\\]}"),
        ({"user": ["60"], "price": 1.0}, INPUTS, "column 'price': 1.0 is one value"),
        ({"user": ["60"], "price": np.float64(1)}, INPUTS, "column 'price'.*is one value"),
        ({"user": {"60"}, "price": [1]}, INPUTS, "column 'user' is a set.*in the order of the rows"),
        ({"user": iter(["60"]), "price": [1]}, INPUTS, "column 'user' is a list_iterator"),
        ({"user": ["60"], "price": np.ones((1, 1))}, INPUTS, "column 'price', row 0"),
        ([{"user": "60", "price": 1}, {"user": "7"}], INPUTS, "column 'price', row 1: it is not in this row, but in others"),
        ([{"user": "60"}, {"user": "7", "price": 1}], INPUTS, "column 'price', row 0: it is not in this row, but in others"),
        (pd.DataFrame([["60", 1, 2]], columns=["user", "price", "price"]), INPUTS, "column 'price' is in the table twice"),
        ([[1, 2, 3]], IDS, r"has the shape \(1, 3\); the model takes \(rows, 2\)"),
        ([[1, 2], [3]], IDS, "differ in length"),
        ([[1, 2**31]], IDS, "not int32"),
        (np.ones((1, 2)), IDS, "holds float64 values that are not int32"),
        (np.array([["1", "2"]]), IDS, "not int32"),
    ],
)
def test_rows_that_do_not_fit(rows, inputs, problem):
    with pytest.raises(DataError, match=f"(?s){problem}"):
        to_columns(rows, inputs)


def test_an_empty_list_is_no_rows_of_all_columns():
    columns = to_columns([], INPUTS)
    assert (columns["user"], columns["price"].tolist()) == ([], [])
    assert to_columns([], IDS)["ids"].shape == (0, 2)


class LazyTable:
    """As polars and others have them: names, and no values yet."""

    columns = ("user", "price")


@pytest.mark.parametrize("rows", [None, "60", 7, [1, 2], [{"user": "60"}, 7], iter([]), LazyTable()])
def test_what_is_no_rows(rows):
    with pytest.raises(ConfigError, match="cannot read rows from"):
        to_columns(rows, INPUTS)


@pytest.mark.parametrize("end", [b"", b"\n", b"\n\n", b"\r\n"])
def test_only_line_feeds_end_a_line_of_a_file(end, tmp_path):
    (tmp_path / "rows").write_bytes('{"user": "a\u2028b\x85"}\r\n \n{"user": "東京"}'.encode() + end)
    assert list(read_json_lines(tmp_path / "rows")) == [{1: {"user": "a\u2028b\x85"}, 3: {"user": "東京"}}]
    assert [list(part) for part in read_json_lines(tmp_path / "rows", most=1)] == [[1], [3]]
    (tmp_path / "marked").write_text('{"user": "a"}\n', encoding="utf-8-sig")
    assert list(read_json_lines(tmp_path / "marked")) == [{1: {"user": "a"}}]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b'{"user": "\xff"}', "line 3 is not JSON: .*can't decode byte 0xff"),
        (b'{"user": ', "line 3 is not JSON: Expecting value"),
        (b"[" * 100_000, "line 3 is not JSON: .*recursion"),
        (b'["60"]', "line 3 is not a JSON object"),
    ],
)
def test_a_line_that_is_no_row_is_named(line, problem, tmp_path):
    (tmp_path / "rows").write_bytes(b'{"user": "60"}\n\n' + line)
    with pytest.raises(DataError, match=f"rows, {problem}"):
        list(read_json_lines(tmp_path / "rows"))


@given(st.lists(st.binary(max_size=40), max_size=60), st.integers(1, 9), st.integers(1, 100))
def test_slices_cover_all_rows_within_the_limits(texts, max_rows, max_bytes):
    columns = {"user": texts, "price": np.zeros(len(texts))}
    sizes = [len(text) + 3 + 8 for text in texts]
    parts = list(slices(columns, max_rows, max_bytes))
    assert [row for part in parts for row in range(part.start, part.stop)] == list(range(len(texts)))
    for part in parts:
        assert part.stop - part.start <= max_rows
        assert sum(sizes[part]) <= max_bytes or part.stop - part.start == 1
