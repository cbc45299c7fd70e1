"""Bad input gives one error that names the place, the value and the fix, and leaves nothing behind."""

import copy
import gzip
import random

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest

import tfctr
from tfctr.errors import ConfigError, DataError, StorageError, TfctrError
from tfctr.features import Categorical, Numeric, Sequence
from tfctr.schema import Schema

SCHEMA = Schema(
    [Categorical("user"), Sequence("tags", max_length=2), Numeric("price", "scaled")],
    label="click",
    group="user",
    weight="weight",
)
GOOD = {
    "user": ["a", "b", "a", "c"],
    "tags": ["x|y", "", "z", None],
    "price": ["1.5", "", "-2e3", "nan"],
    "click": ["0", "1", "0", "1"],
    "weight": ["1", "0", "0.5", "2"],
}


def refused(folder, error, *words, schema=SCHEMA, **arguments):
    """Prepare, expect `error` with all `words` in its text, and see that `folder` holds what it held before."""
    before = sorted(folder.rglob("*"))
    with pytest.raises(error) as caught:
        tfctr.prepare(schema, **{"out": folder / "out", **arguments})
    assert sorted(folder.rglob("*")) == before
    assert type(caught.value) is error
    assert caught.value.fix
    for word in words:
        assert word in str(caught.value), str(caught.value)


def csv(folder, name="train.csv", **changes):
    file = folder / name
    pd.DataFrame(GOOD | changes).to_csv(file, index=False)
    return file


def at(position, value, column):
    return {column: [*GOOD[column][:position], value, *GOOD[column][position + 1 :]]}


# values


@pytest.mark.parametrize("value", ["2", "-1", "0.5", "nan", "inf", "", "yes", "01x"])
def test_labels_other_than_0_and_1(tmp_path, value):
    found = repr(value) if value else "null"
    file = csv(tmp_path, **at(2, value, "click"))
    refused(tmp_path, DataError, str(file), "'click'", "row 3", found, "0 or 1", "1 such row)", train=file)


@pytest.mark.parametrize("value", [2, -1, 0.5, float("nan"), float("inf"), None])
def test_labels_in_a_table_of_numbers(tmp_path, value):
    train = pa.table({"user": ["a", "b", "c"], "click": pa.array([0.0, 1.0, value])})
    refused(
        tmp_path, DataError, "the train table", "'click'", "row 3", schema=Schema([Categorical("user")], "click"), train=train
    )


@pytest.mark.parametrize("value", ["-0.1", "nan", "", "inf", "heavy"])
def test_weights_that_are_negative_or_not_finite(tmp_path, value):
    refused(tmp_path, DataError, "'weight'", "row 1", "finite", train=csv(tmp_path, **at(0, value, "weight")))


def test_rows_without_a_group(tmp_path):
    refused(tmp_path, DataError, "'user'", "row 2", "null", "the group", train=csv(tmp_path, **at(1, "", "user")))


@pytest.mark.parametrize("value", ["12 EUR", "1,5", "NA", "0x10"])
def test_text_in_a_numeric_column(tmp_path, value):
    refused(tmp_path, DataError, "'price'", "row 4", repr(value), "numbers", train=csv(tmp_path, **at(3, value, "price")))


@pytest.mark.parametrize("value", [float("inf"), 2.0**53, 2.0**60])
def test_floats_that_are_no_whole_number_in_a_categorical(tmp_path, value):
    train = pd.DataFrame({"user": [1.0, 3.0, value, value], "click": [0, 1, 0, 1]})
    schema = Schema([Categorical("user")], label="click")
    refused(tmp_path, DataError, "'user'", "row 3", "2 such rows", schema=schema, train=train)


def test_the_row_is_counted_in_its_own_file(tmp_path):
    files = [csv(tmp_path, f"{name}.csv", **at(2, value, "click")) for name, value in [("a", "1"), ("b", "7"), ("c", "8")]]
    refused(tmp_path, DataError, str(files[1]), "row 3", "'7'", "2 such rows", train=str(tmp_path / "?.csv"))


def test_a_bad_value_in_valid_is_found_before_anything_is_written(tmp_path):
    valid = csv(tmp_path, "valid.csv", **at(0, "3", "click"))
    refused(tmp_path, DataError, str(valid), "row 1", train=csv(tmp_path), valid=valid)


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("user", pa.array([0, 1], pa.timestamp("s"))),
        ("user", [b"a", b"b"]),
        ("user", [["a"], ["b"]]),
        ("tags", [[["a"]], [["b"]]]),
        ("price", [["1"], ["2"]]),
        ("click", pa.array([0, 1], pa.date32())),
    ],
)
def test_columns_of_another_type(tmp_path, column, values):
    columns = {"user": ["a", "b"], "tags": ["a", "b"], "price": [1, 2], "click": [0, 1], "weight": [1, 1]} | {column: values}
    refused(tmp_path, DataError, "the train table", repr(column), "is of type", train=pa.table(columns))


def test_json_values_of_another_type(tmp_path):
    file = tmp_path / "train.jsonl"
    file.write_text('{"user": "a", "click": 0}\n{"user": {"id": 1}, "click": 1}\n')
    refused(tmp_path, DataError, "'user'", "row 2", '{"id":1}', schema=Schema([Categorical("user")], "click"), train=file)


def test_numbers_too_large_to_be_scaled(tmp_path):
    train = {"x": [1.7e308, -1.7e308, 0.0], "click": [0, 1, 0]}
    refused(tmp_path, DataError, "'x'", "too large", schema=Schema([Numeric("x", "scaled")], "click"), train=train)


@pytest.mark.parametrize("split", ["train", "valid", "test"])
@pytest.mark.parametrize("label", ["0", "1"])
def test_one_class_only(tmp_path, split, label):
    tables = {name: csv(tmp_path, f"{name}.csv") for name in ("train", "valid", "test")}
    tables[split] = csv(tmp_path, "one.csv", click=[label] * 4)
    refused(tmp_path, DataError, split, "one.csv", "one class", f"{label} in all 4 rows", **tables)


# columns


def test_a_missing_or_renamed_column(tmp_path):
    file = csv(tmp_path)
    file.write_text(file.read_text().replace("price", "prize", 1))
    refused(tmp_path, DataError, str(file), "no column 'price'", "numeric feature", "Did you mean 'prize'?", train=file)
    file.write_text(file.read_text().replace("prize", "Price", 1))
    refused(tmp_path, DataError, "no column 'price'", "Did you mean 'Price'?", train=file)
    refused(tmp_path, DataError, "no column 'click'", "the label", train=pd.DataFrame(GOOD).drop(columns="click"))


def test_a_column_that_is_missing_in_the_second_file_only(tmp_path):
    files = [csv(tmp_path, "a.csv"), csv(tmp_path, "b.csv")]
    pd.DataFrame(GOOD).drop(columns="tags").to_csv(files[1], index=False)
    refused(tmp_path, DataError, str(files[1]), "no column 'tags'", train=files)


def test_a_duplicate_column(tmp_path):
    file = csv(tmp_path)
    file.write_text(file.read_text().replace("tags", "user", 1))
    refused(tmp_path, DataError, str(file), "several columns named 'user'", train=file)
    arrays = [pa.array(["a", "b"]), pa.array(["a", "b"]), pa.array([0, 1])]
    pa.parquet.write_table(pa.Table.from_arrays(arrays, names=["user", "user", "click"]), tmp_path / "train.parquet")
    schema = Schema([Categorical("user")], label="click")
    refused(tmp_path, DataError, "several columns named 'user'", schema=schema, train=tmp_path / "train.parquet")


# files


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet", "csv.gz", "jsonl.gz"])
def test_an_empty_file(tmp_path, kind):
    file = tmp_path / f"train.{kind}"
    file.write_bytes(gzip.compress(b"") if kind.endswith("gz") else b"")
    refused(tmp_path, DataError, str(file), "empty", train=file)


def test_a_table_without_rows(tmp_path):
    csv(tmp_path).write_text("user,tags,price,click,weight\n")
    refused(tmp_path, DataError, "train.csv", "no rows", train=tmp_path / "train.csv")
    pd.DataFrame(GOOD)[:0].to_parquet(tmp_path / "train.parquet")
    refused(tmp_path, DataError, "train.parquet", "no rows", train=tmp_path / "train.parquet")
    pa.parquet.ParquetWriter(tmp_path / "none.parquet", pa.Table.from_pandas(pd.DataFrame(GOOD)).schema).close()
    assert pa.parquet.ParquetFile(tmp_path / "none.parquet").num_row_groups == 0
    refused(tmp_path, DataError, "none.parquet", "no rows", train=tmp_path / "none.parquet")
    refused(tmp_path, DataError, "the train table", "no rows", train=pd.DataFrame(GOOD)[:0])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text.replace("a,z,-2e3,0,0.5", "a,z,-2e3,0"), ["line 4", "Expected Number of Columns: 5"]),
        (lambda text: text.replace("a,z,-2e3,0,0.5", "a,z,-2e3,0,0.5,9"), ["line 4", "'a,z,-2e3,0,0.5,9'"]),
        (lambda text: text.replace("a,z", 'a,"z'), ["line 4", "unterminated quote"]),
        (lambda text: "\n" + text, ["begins with an empty line"]),
        (lambda text: text.replace("a,z", "a,\udce9"), ["line 4", "Invalid unicode"]),
        (lambda text: text.replace("tags", "t\udce9", 1), ["header"]),
    ],
)
def test_a_csv_file_that_is_none(tmp_path, change, words):
    file = csv(tmp_path)
    file.write_bytes(change(file.read_text()).encode("utf-8", "surrogateescape"))
    refused(tmp_path, DataError, str(file), *words, train=file)


@pytest.mark.parametrize(
    "text", ['{"user": "a"\n', '[{"user": "a"}]\n', '{"user": "a"}\n5\n', '{"user": "a"}\n{"user": \n', "user\na\n"]
)
def test_a_json_file_that_is_none(tmp_path, text):
    file = tmp_path / "train.jsonl"
    file.write_text(text)
    refused(tmp_path, DataError, str(file), train=file)


def test_corrupt_gzip_files(tmp_path):
    frame = pd.DataFrame({"user": np.arange(3000) * 7919 % 1000, "click": np.arange(3000) % 2})
    whole, schema = gzip.compress(frame.to_csv(index=False).encode()), Schema([Categorical("user")], label="click")
    file = tmp_path / "train.csv.gz"
    file.write_bytes(whole)
    assert tfctr.prepare(schema, train=file, out=tmp_path / "whole").train.rows == 3000
    draw = random.Random(0)
    for _ in range(10):
        file.write_bytes(whole[: draw.randrange(1, len(whole))])
        refused(tmp_path, StorageError, str(file), "gzip", schema=schema, train=file)
        flipped = bytearray(whole)
        flipped[draw.randrange(10, len(whole))] ^= 1 << draw.randrange(8)
        file.write_bytes(flipped)
        refused(tmp_path, StorageError, str(file), "gzip", schema=schema, train=file)


def test_corrupt_parquet_files(tmp_path):
    frame = pd.DataFrame({"user": np.arange(3000) * 7919 % 1000, "click": np.arange(3000) % 2})
    file, schema = tmp_path / "train.parquet", Schema([Categorical("user")], label="click")
    frame.to_parquet(file)
    whole, draw = file.read_bytes(), random.Random(0)
    for cut in [4, 12, len(whole) - 1, *(draw.randrange(1, len(whole)) for _ in range(10))]:
        file.write_bytes(whole[:cut])
        refused(tmp_path, StorageError, str(file), "cannot be read", schema=schema, train=file)
    file.write_bytes(whole[:200] + bytes(100) + whole[300:])  # the data, not the footer
    refused(tmp_path, StorageError, str(file), "cannot be read", schema=schema, train=file)
    footer = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    file.write_bytes(whole[:footer] + bytes([255] * 100) + whole[footer + 100 :])
    refused(tmp_path, StorageError, str(file), "cannot be read", "fetch it again", schema=schema, train=file)


DISK_IS_FULL = duckdb.IOException('IO Error: Could not write file "/x/.tmp-1-a/tables.duckdb": No space left on device')


@pytest.mark.parametrize(
    ("where", "error", "text"),
    [
        ("writing.np.save", OSError(28, "No space left on device"), "cannot write {out}: No space left on device."),
        ("writing.np.save", OSError("64 requested and 12 written"), "cannot write {out}: 64 requested and 12 written."),
        ("writing.tokens", DISK_IS_FULL, "cannot write {out}: No space left on device."),
        ("staging.staged_columns", DISK_IS_FULL, "cannot write {out}: No space left on device."),
        ("staging.staged_columns", duckdb.IOException("IO Error: Read error"), "{train} cannot be read: Read error"),
        ("reading.open", PermissionError(13, "Permission denied", "a.csv"), "cannot read a.csv: Permission denied."),
    ],
)
def test_what_cannot_be_written_and_what_cannot_be_read(tmp_path, monkeypatch, where, error, text):
    def fail(*_, **__):
        raise copy.copy(error)  # the error itself would keep its traceback, and a database in it, for ever

    train = csv(tmp_path)
    monkeypatch.setattr(f"tfctr.data.{where}", fail, raising=False)
    refused(tmp_path, StorageError, text.format(out=tmp_path / "out", train=train), train=train)


def test_paths_that_the_system_does_not_take(tmp_path):
    train = csv(tmp_path)
    refused(tmp_path, StorageError, f"cannot write {train / 'out'}: ", train=train, out=train / "out")
    refused(tmp_path, StorageError, "cannot read xxx", "File name too long", train="x" * 300)


def test_files_that_are_not_there_or_of_another_kind(tmp_path):
    train = csv(tmp_path)
    refused(tmp_path, StorageError, "no.csv does not exist", train=tmp_path / "no.csv")
    refused(tmp_path, StorageError, "no file matches", "*.parquet", train=str(tmp_path / "*.parquet"))
    refused(tmp_path, StorageError, "is a folder", "*.parquet", train=tmp_path)
    refused(tmp_path, StorageError, "valid.csv does not exist", train=train, valid="valid.csv")
    (tmp_path / "train.xlsx").write_bytes(b"x")
    refused(tmp_path, ConfigError, "train.xlsx", ".csv", train=tmp_path / "train.xlsx")
    refused(tmp_path, ConfigError, "empty list", train=[])
    refused(tmp_path, ConfigError, "1 in a list of files", train=[1])
    mixed = pd.DataFrame({"user": ["a", 1], "click": [0, 1]})
    refused(tmp_path, DataError, "the train table", schema=Schema([Categorical("user")], "click"), train=mixed)
    refused(tmp_path, DataError, "the train table cannot be read", train=7.5j)


# arguments


def test_arguments_that_cannot_be_used(tmp_path):
    train = csv(tmp_path)
    refused(tmp_path, ConfigError, "`train` is 0.5", train=0.5)
    refused(tmp_path, ConfigError, "`valid` is 1.5", train=train, valid=1.5)
    refused(tmp_path, ConfigError, "`test` is 0", train=train, test=0)
    refused(tmp_path, ConfigError, "leave nothing", train=train, valid=0.5, test=0.5)
    refused(tmp_path, ConfigError, "`memory_limit` is 'much'", train=train, memory_limit="much")
    refused(tmp_path, ConfigError, "`threads` is 0", train=train, threads=0)
    refused(tmp_path, ConfigError, "`seed` is 'x'", train=train, seed="x")
    refused(tmp_path, ConfigError, "`schema` is 'schema.yaml'", schema="schema.yaml", train=train)
    refused(tmp_path, DataError, "valid", "fraction", "no rows", train=train, valid=1e-6)


def test_a_folder_that_holds_something(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "note.txt").write_text("mine")
    refused(tmp_path, StorageError, "already exists", train=csv(tmp_path))
    assert (tmp_path / "out" / "note.txt").read_text() == "mine"


def test_too_little_memory(tmp_path):
    numbers = np.random.default_rng(0).permutation(400_000)
    train = pa.table({"user": [f"{number:040d}" for number in numbers], "click": numbers % 2})
    refused(
        tmp_path,
        StorageError,
        "4MB of memory",
        "memory_limit",
        "--threads",
        schema=Schema([Categorical("user")], "click"),
        train=train,
        memory_limit="4MB",
    )


def test_every_error_has_an_exit_code():
    assert [error.exit_code for error in (ConfigError, DataError, StorageError)] == [2, 3, 6]
    assert all(issubclass(error, TfctrError) for error in (ConfigError, DataError, StorageError))
