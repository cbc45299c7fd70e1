"""Every kind of input gives `tfctr.prepare` the same table."""

import gzip
import json
import os

import ibis
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from kit.prepare_oracle import prepare, table

from tfctr.features import Categorical, Numeric, Sequence
from tfctr.schema import Schema

TABLES = [
    pd.DataFrame,
    pa.table,
    lambda columns: columns,
    lambda columns: ibis.memtable(pa.table(columns)),
    lambda columns: ibis.memtable(pa.table(columns)).mutate(extra=1),
]


@pytest.fixture(scope="module")
def from_memory(tmp_path_factory):
    return prepare(tmp_path_factory.mktemp("memory"), train=table())


def write(folder, kind, columns, name="train"):
    frame, file = pd.DataFrame(columns), folder / f"{name}.{kind}"
    if kind.startswith(("csv", "tsv")):
        frame.to_csv(file, index=False, sep="," if kind.startswith("csv") else "\t")
    elif kind == "parquet":
        frame.to_parquet(file)
    else:
        lines = (json.dumps({name: values[row] for name, values in columns.items()}) for row in range(len(frame)))
        text = "\n".join(lines).encode()
        file.write_bytes(gzip.compress(text) if kind.endswith("gz") else text)
    return file


@pytest.mark.sampled(3)
@pytest.mark.parametrize("kind", ["csv", "csv.gz", "tsv", "parquet", "jsonl", "jsonl.gz", "ndjson", "json"])
def test_files_of_every_kind_give_the_same_ids(tmp_path, from_memory, kind):
    dataset = prepare(tmp_path, train=write(tmp_path, kind, table()))
    np.testing.assert_array_equal(dataset.train.ids, from_memory.train.ids)
    np.testing.assert_array_equal(dataset.train.groups, from_memory.train.groups)
    assert dataset.schema.to_dict() == from_memory.schema.to_dict()


@pytest.mark.sampled(2)
@pytest.mark.parametrize("make", TABLES)
def test_tables_of_every_kind_give_the_same_ids(tmp_path, from_memory, make):
    np.testing.assert_array_equal(prepare(tmp_path, train=make(table())).train.ids, from_memory.train.ids)


def test_several_files_are_read_in_the_order_given_and_globs_in_that_of_names(tmp_path, from_memory):
    columns = table()
    cuts = {"b": slice(0, 200), "c": slice(200, 201), "a": slice(201, 500)}
    for name, cut in cuts.items():
        part = {column: values[cut] for column, values in columns.items()}
        # Their columns stand in another order, and integers are text in one of them.
        write(tmp_path, "csv" if name == "b" else "parquet", dict(sorted(part.items())) if name == "a" else part, name)
    files = [tmp_path / "b.csv", str(tmp_path / "c.parquet"), str(tmp_path / "[a].parquet")]
    np.testing.assert_array_equal(prepare(tmp_path, train=files).train.ids, from_memory.train.ids)
    (tmp_path / "a.parquet").rename(tmp_path / "d.parquet")
    np.testing.assert_array_equal(
        prepare(tmp_path, train=[tmp_path / "b.csv", tmp_path / "?.parquet"]).train.ids, from_memory.train.ids
    )


def test_csv_text_stays_as_it_is(tmp_path):
    file = tmp_path / "odd [1] 'name'.csv"
    file.write_text(
        '﻿click,user,price\r\n0,007,1\r\n1,"a,""b""\n",\r\n0, 7 , 2.5 \r\n1,NULL,nan\r\n', encoding="utf-8", newline=""
    )
    dataset = prepare(tmp_path, Schema([Categorical("user"), Numeric("price", "scaled")], label="click"), train=file)
    assert dataset.schema.vocabulary_file(dataset.schema.features[0]).read_text() == " 7 \n007\nNULL\n"
    assert dataset.train.ids[:, 0].tolist() == [4, 2, 3, 5]
    assert dataset.schema.features[1].mean == 1.75


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("texts", [["True", "False", "True"], ["TRUE", " false ", "1"], [True, False, True]])
def test_true_and_false_are_numbers_also_as_text(tmp_path, kind, texts):
    train = write(tmp_path, kind, {"x": texts, "click": texts})
    dataset = prepare(tmp_path, Schema([Numeric("x", "edges", edges=[0.5])], label="click"), train=train)
    assert dataset.train.labels.tolist() == [1, 0, 1]
    assert dataset.train.ids.tolist() == [[4], [3], [4]]


def test_json_values_of_every_type(tmp_path):
    lines = [
        '{"user": "007", "tags": ["a", 1, null, true], "x": 1.5, "click": 0}',
        '{"user": 60, "x": "2.5", "click": true}',
        '{"tags": "a|b", "user": 60.0, "x": null, "click": false}',
        '{"user": 18446744073709551615, "tags": [], "click": 1, "more": {"a": 1}}',
    ]
    (tmp_path / "train.jsonl").write_text("\n".join(lines))
    schema = Schema([Categorical("user"), Sequence("tags", max_length=3), Numeric("x", "edges", edges=[2])], label="click")
    dataset = prepare(tmp_path, schema, train=tmp_path / "train.jsonl")
    user, tags = (dataset.schema.vocabulary_file(feature).read_text().split() for feature in dataset.schema.features[:2])
    assert user == ["60", "18446744073709551615", "7"]
    assert tags == ["a", "1", "b", "true"]
    assert dataset.train.ids.tolist() == [[5, 9, 10, 12, 16], [3, 7, 6, 6, 17], [3, 9, 11, 6, 14], [4, 7, 6, 6, 14]]
    assert dataset.train.labels.tolist() == [0, 1, 0, 1]


def test_names_that_differ_in_case_only_are_different_columns(tmp_path):
    file = tmp_path / "train.csv"
    file.write_text("User,user,CLICK,click\na,x,7,0\nb,y,7,1\n")
    for user, tokens in (("user", "x\ny\n"), ("User", "a\nb\n")):
        dataset = prepare(tmp_path, Schema([Categorical(user)], label="click"), train=file)
        assert dataset.schema.vocabulary_file(dataset.schema.features[0]).read_text() == tokens


def test_every_type_of_arrow_gives_the_same_tokens(tmp_path):
    types = [pa.int8(), pa.uint64(), pa.float32(), pa.decimal128(30, 2), pa.string(), pa.large_string(), pa.string_view()]
    columns = {f"c{number}": pa.array([60, None, 7, 60], pa.int64()).cast(type) for number, type in enumerate(types)}
    columns["c9"] = pa.array(["60", None, "7", "60"]).dictionary_encode()
    arrays = pa.table({**columns, "click": [0, 1, 0, 1]})
    schema = Schema([Categorical(name) for name in columns], label="click")
    pq.write_table(arrays, tmp_path / "train.parquet")
    for train in (arrays, tmp_path / "train.parquet"):
        dataset = prepare(tmp_path, schema, train=train)
        ids = dataset.train.ids - np.array([field.offset for field in dataset.schema.fields])
        assert ids.tolist() == [[id] * len(columns) for id in (3, 1, 4, 3)]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_files_that_differ_in_their_content_only(tmp_path, kind):
    files = []
    for user in "abc":  # the same name, size and time in three folders
        (tmp_path / user).mkdir()
        files.append(write(tmp_path / user, kind, {"user": [user, user], "click": [0, 1]}))
        os.utime(files[-1], (1e9, 1e9))
    assert len({file.stat().st_size for file in files}) == 1
    dataset = prepare(tmp_path, Schema([Categorical("user")], label="click"), train=files, valid=files[::-1])
    assert dataset.train.ids[:, 0].tolist() == [3, 3, 4, 4, 5, 5]
    assert dataset.valid.ids[:, 0].tolist() == [5, 5, 4, 4, 3, 3]
