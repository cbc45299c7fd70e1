"""No table makes `infer` fail, and what it drafts is read back, and prepared: files and typed tables of awkward values."""

import json
import keyword
import logging
import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

import tfctr
from tfctr.data.first_schema import draft, served_names
from tfctr.errors import DataError
from tfctr.features import Categorical
from tfctr.schema import Schema
from tfctr.storage import parse_yaml

AWKWARD = [
    "", " ", "NA", "nan", "inf", "-Infinity", "1e999999", "7e091613", "1e-999", "12,5", "1,234.5", "$3", "9%", "0x1A", "1_000",
    "9" * 40, "-9223372036854775809", "18446744073709551616", "1.7976931348623157e308", "5e-324", "-0", "007", "2024-02-30",
    "31.12.2024", "24:61", "20241345", "a|b", "|", "a^b;c", "[1, 2]", "{}", "null", "true", "\x00", "\x01", "\x85", "\u2028",
    "é", "東京", "\U0001f600", "'", '"', "# x", "- a", "a: b", "x" * 300,
]  # fmt: skip
TEXTS = st.sampled_from(AWKWARD) | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n"), max_size=6)
NUMBERS = st.floats() | st.sampled_from([1e19, -1e300, 2.0**63, float("inf")])
LISTS = st.lists(st.none() | st.integers(-(2**63), 2**63 - 1), max_size=3) | st.none()
KINDS = {
    pa.string(): TEXTS | st.none(),
    pa.float64(): NUMBERS | st.none(),
    pa.uint64(): st.integers(0, 2**64 - 1) | st.none(),
    pa.bool_(): st.booleans() | st.none(),
    pa.list_(pa.int64()): LISTS,
    pa.list_(pa.float64()): st.lists(NUMBERS | st.none(), max_size=3) | st.none(),
    pa.list_(pa.string()): st.lists(TEXTS | st.none(), max_size=3) | st.none(),
}
COLUMN_NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.sampled_from(
    [
        "user",
        "User",
        "a b",
        "a-b",
        "a_b",
        "class",
        "self",
        "1",
        "select",
        'a"b',
        "a'b",
        "ä",
        "x" * 300,
        "row",
        "label",
        "c0",
        "#",
    ]
)


@st.composite
def tables(draw):
    names = draw(st.lists(COLUMN_NAMES.filter(lambda name: name != "click"), min_size=1, max_size=6, unique_by=str.lower))
    rows = draw(st.integers(2, 30))
    columns = {}
    for name in names:
        kind = draw(st.sampled_from(list(KINDS)))
        columns[name] = pa.array(draw(st.lists(KINDS[kind], min_size=rows, max_size=rows)), kind)
    return pa.table({**columns, "click": pa.array([row % 2 for row in range(rows)])})


def check(source, out):
    """Draft, read the draft back, prepare by it; or the refusal that there is nothing to draft."""
    try:
        drafted = draft(source, label="click")
    except DataError as error:
        if "no column that can be a feature" in str(error):
            return
        raise
    schema = Schema.from_dict(parse_yaml(drafted.to_yaml(), "draft"))
    assert schema == drafted.schema
    assert Schema.from_dict(json.loads(json.dumps(drafted.to_dict()))) == drafted.schema
    assert len(drafted.proposals) == len({proposal.column for proposal in drafted.proposals})
    tfctr.prepare(schema, train=source, out=out)


ANY = settings(max_examples=5, suppress_health_check=[HealthCheck.too_slow], phases=[Phase.explicit, Phase.generate])


@pytest.mark.slow
@given(tables())
@ANY
def test_any_typed_table(tmp_path_factory, table):
    folder = tmp_path_factory.mktemp("any")
    pa.parquet.write_table(table, folder / "table.parquet")
    check(folder / "table.parquet", folder / "data")


@pytest.mark.slow
@given(
    st.lists(TEXTS, min_size=4, max_size=60), COLUMN_NAMES.filter(lambda name: name.strip() and not set(name) & set("\r\n\0"))
)
@ANY
def test_any_text_file(tmp_path_factory, texts, name):
    folder = tmp_path_factory.mktemp("any")
    texts = [text.replace("\0", "") for text in texts]
    frame = pd.DataFrame({name: texts, "same": texts, "click": [row % 2 for row in range(len(texts))]})
    frame.to_csv(folder / "table.csv", index=False)
    check(folder / "table.csv", folder / "data")


@pytest.mark.slow
@given(
    st.lists(
        st.none() | TEXTS | st.floats(allow_nan=False, allow_infinity=False) | st.integers() | st.booleans() | LISTS, min_size=4
    )
)
@example([1, 2, -sys.float_info.max, 3])
@example([sys.float_info.max, -sys.float_info.max, 1.5, 2.5])
@ANY
def test_any_json_lines(tmp_path_factory, values):
    folder = tmp_path_factory.mktemp("any")
    rows = [json.dumps({"user": value, "click": row % 2, "city": "ab"[row % 3 // 2]}) for row, value in enumerate(values)]
    (folder / "table.jsonl").write_text("\n".join(rows))
    check(folder / "table.jsonl", folder / "data")


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    "values",
    [
        ["10000169349117863715", "10000371904215119486"],
        ["1e999999", "7e091613", "00000001", "1e999999"],
        ["1e308", "-1e308", "inf", "nan"],
        [10**19, 2**63 + 1, 2**63],
        [1e19, 1e300, None],
        [0.0, 2.0**54, 3.0],
    ],
)
def test_numbers_that_no_machine_holds(tmp_path, values):
    rows = values * 3
    frame = pd.DataFrame({"id": rows, "click": [0, 1] + [0] * (len(rows) - 2)})
    frame.to_csv(tmp_path / "table.csv", index=False)
    check(tmp_path / "table.csv", tmp_path / "data")


@given(st.lists(COLUMN_NAMES, unique=True, min_size=1))
@example(["0/:"])
def test_served_names_are_a_schema(columns):
    names = served_names(columns)
    features = [Categorical(name, column=column) for column, name in names.items()]
    assert [feature.source for feature in Schema(features, label="\0 the label").features] == columns
    fine = [column for column in columns if column.isidentifier() and column.isascii() and not keyword.iskeyword(column)]
    alone = [
        column
        for column in fine
        if column[0] != "_" and column != "self" and [c.lower() for c in columns].count(column.lower()) == 1
    ]
    assert all(names[column] == column for column in alone if len(column) < 50 and len(columns) == 1)


def test_equal_names(tmp_path, caplog):
    (tmp_path / "table.csv").write_text("user,a,A,a,click\n" + "x,1,2,3,0\ny,2,1,4,1\n" * 3)
    with caplog.at_level(logging.INFO, "tfctr"):
        drafted = draft(tmp_path / "table.csv", label="click")
    assert [(feature.name, feature.source) for feature in drafted.schema.features] == [("user", "user"), ("A", "A")]
    assert "left out: column 'a', since several columns have this name" in caplog.messages
    assert np.all([proposal.column != "click" for proposal in drafted.proposals])
