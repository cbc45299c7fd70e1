"""`Schema.infer`: the draft for a new table, column by column, from a table and from a file."""

import re

import numpy as np
import pandas as pd
import pytest

import tfctr
from tfctr.errors import DataError, StorageError
from tfctr.features import Categorical, Numeric, Sequence
from tfctr.schema import Schema

ROWS = 400
RNG = np.random.default_rng(0)
TABLE = {
    "row": list(range(ROWS)),
    "source": ["web"] * ROWS,
    "User": [f"u{number}" for number in RNG.integers(0, 50, ROWS)],
    "code": [f"{number:04d}" for number in RNG.integers(0, 300, ROWS)],
    "age": RNG.integers(18, 80, ROWS).tolist(),
    "item": RNG.integers(10_000, 10_300, ROWS).tolist(),
    "genres": ["|".join(["Drama", "Comedy", "War"][: number % 4]) for number in range(ROWS)],
    "views": np.floor(RNG.lognormal(5, 2, ROWS)).tolist(),
    "price": [None if number % 5 == 0 else number / 4 for number in range(ROWS)],
    "weight": [1.0] * ROWS,
    "click": [row % 2 for row in range(ROWS)],
}
EXPECTED = (
    Categorical("User"),
    Categorical("code"),
    Categorical("age"),
    Categorical("item"),
    Sequence("genres", max_length=3),
    Numeric("views", "log2_floor"),
    Numeric("price", "quantile", buckets=20),
)


@pytest.mark.parametrize("kind", ["dictionary", "csv", "parquet", "jsonl"])
def test_a_draft_by_rule(tmp_path, kind):
    file = tmp_path / f"train.{kind}"
    frame = pd.DataFrame(TABLE)
    writers = {"csv": lambda: frame.to_csv(file, index=False), "parquet": lambda: frame.to_parquet(file)}
    writers["jsonl"] = lambda: frame.to_json(file, orient="records", lines=True)
    if kind != "dictionary":
        writers[kind]()
    schema = Schema.infer(TABLE if kind == "dictionary" else file, label="click", weight="weight")
    assert schema.features == EXPECTED
    assert (schema.label, schema.group, schema.weight) == ("click", "User", "weight")


def test_a_draft_is_saved_and_prepared(tmp_path):
    Schema.infer(TABLE, label="click").save(tmp_path / "schema.yaml")
    dataset = tfctr.prepare(Schema.load(tmp_path / "schema.yaml"), train=TABLE, valid=0.2, out=tmp_path / "data")
    assert dataset.train.width == 9


def test_lists_and_other_types():
    table = {
        "tags": [["a", "b"], [], ["c"]],
        "time": pd.to_datetime(["2024-01-01"] * 3),
        "none": [None] * 3,
        "click": [0, 1, 0],
    }
    assert Schema.infer(pd.DataFrame(table), label="click").features == (Sequence("tags", max_length=2),)


def test_columns_that_are_left_out_are_logged_with_the_reason(caplog):
    many = {"row": list(range(100)), "web page": ["a", "b"] * 50, "time": pd.to_datetime(["2024-01-01"] * 100)}
    table = {**many, "source": ["web"] * 100, "user": ["a", "b"] * 50, "click": [0, 1] * 50}
    with caplog.at_level("INFO", "tfctr"):
        assert Schema.infer(pd.DataFrame(table), label="click").features == (Categorical("user"),)
    expected = [
        "'row', since each row",
        "'web page', since .* served input$",
        "'time', since .* timestamp",
        "'source', since .* constant",
    ]
    for message, pattern in zip(caplog.messages, expected, strict=True):
        assert re.search(f"left out: column {pattern}", message)


@pytest.mark.parametrize(("roles", "bad"), [({}, "click"), ({"weight": "weight"}, "weight"), ({"group": "user"}, "user")])
def test_columns_that_have_another_role_hold_what_it_takes(roles, bad):
    table = {"user": ["a", "b", "c"], "weight": ["1", "2", "0"], "click": ["0", "True", "false"]}
    assert Schema.infer(table, label="click", **roles).label == "click"
    table[bad] = [*table[bad][:2], {"click": "2", "weight": "-1", "user": ""}[bad]]
    with pytest.raises(DataError, match=f"the table: column '{bad}', row 3: found"):
        Schema.infer(table, label="click", **roles)


def test_the_first_of_several_files(tmp_path):
    pd.DataFrame(TABLE).to_csv(tmp_path / "a.csv", index=False)
    (tmp_path / "b.csv").write_text("click,other\n1,2\n")
    assert Schema.infer(str(tmp_path / "*.csv"), label="click", weight="weight").features == EXPECTED


def test_what_cannot_be_inferred(tmp_path):
    with pytest.raises(DataError, match=r"no column 'clik'.*\n.*'click'"):
        Schema.infer(TABLE, label="clik")
    with pytest.raises(DataError, match="no column 'visitor'"):
        Schema.infer(TABLE, label="click", group="visitor")
    with pytest.raises(DataError, match="no column that can be a feature"):
        Schema.infer({"source": ["web", "web"], "click": [0, 1]}, label="click")
    with pytest.raises(StorageError, match="does not exist"):
        Schema.infer(tmp_path / "no.csv", label="click")
