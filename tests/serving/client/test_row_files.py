"""Rows of any file reach the server in their order, part by part, and an error names the row."""

import ast
import gzip
import json
import re
import shlex
import subprocess
import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest
from kit.fake_serving import FakeServing, answer_price, prices
from kit.places import ROOT
from typer.testing import CliRunner

from tfctr import cli
from tfctr.errors import ConfigError, DataError, StorageError
from tfctr.serving import PredictionClient
from tfctr.serving.client.row_files import read_examples, read_rows
from tfctr.serving.wire.rows import to_columns

TABLE = pd.DataFrame({"price": [0.5, None, 2.0], "user": ["Zoë", "007", None], "click": [0, 1, 1]})


def csv(separator):
    return lambda file: TABLE.to_csv(file, index=False, sep=separator)


WRITERS = {
    "rows.csv": csv(","),
    "rows.CSV": csv(","),
    "rows.csv.gz": csv(","),
    "rows.zip": lambda file: TABLE.to_csv(file, index=False, compression={"method": "zip", "archive_name": "rows.csv"}),
    "rows.tsv": csv("\t"),
    "rows.txt": csv(";"),
    "rows.data": csv("|"),
    "rows.parquet": lambda file: TABLE.to_parquet(file),
    "rows.jsonl": lambda file: TABLE.to_json(file, orient="records", lines=True),
    "rows.jsonl.gz": lambda file: TABLE.to_json(file, orient="records", lines=True),
    "rows.log": lambda file: TABLE.to_json(file, orient="records", lines=True),
    "rows_2.txt": lambda file: TABLE.to_json(file, orient="records", lines=True),
}


def predicted(fake, source, **arguments):
    with fake.serving() as target, PredictionClient(target, model="m") as client:
        return prices(client.predict_file(source, **arguments))


def sent(fake):
    """What the server was asked: user and price of each row."""
    users = [user.decode() for request in fake.requests for user in request.inputs["user"].string_val]
    contents = [request.inputs["price"] for request in fake.requests]
    prices = [np.frombuffer(price.tensor_content, "f8") if price.tensor_content else price.double_val for price in contents]
    return list(zip(users, np.concatenate(prices).tolist(), strict=True))


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_of_any_kind(tmp_path, name):
    WRITERS[name](tmp_path / name)
    fake = FakeServing(answer_price)
    for source in (tmp_path / name, str(tmp_path / name)):
        fake.requests.clear()
        np.testing.assert_array_equal(predicted(fake, source), [0.5, np.nan, 2.0])
        np.testing.assert_equal(sent(fake), [("Zoë", 0.5), ("007", np.nan), ("", 2.0)])


def test_globs_and_lists_are_read_in_their_order(tmp_path):
    for position, name in enumerate(["b.csv", "a.csv.gz", "c.parquet", "d.jsonl"]):
        WRITERS[f"rows.{name[2:]}"](tmp_path / name) if name[0] != "b" else (
            (tmp_path / name).write_text(f"user,price\nx,{position + 7}\n")
        )
    everything = predicted(FakeServing(answer_price), tmp_path / "?.*")
    np.testing.assert_array_equal(everything, [0.5, np.nan, 2, 7, 0.5, np.nan, 2, 0.5, np.nan, 2])
    some = predicted(FakeServing(answer_price), [tmp_path / "b.csv", str(tmp_path / "a.*")])
    np.testing.assert_array_equal(some, [7, 0.5, np.nan, 2])


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_long_file_comes_in_parts_and_in_order(tmp_path, kind):
    rows = 250_000
    table = pa.table({"price": np.arange(rows, dtype="f8"), "user": ["x"] * rows})
    if kind == "csv":
        table.to_pandas().to_csv(tmp_path / "rows.csv", index=False)
    else:
        pa.parquet.write_table(table, tmp_path / "rows.parquet", row_group_size=20_000)
    parts = list(read_rows(tmp_path / f"rows.{kind}"))
    assert max(len(part.rows) for part in parts) <= 10_000
    assert [number for part in parts for number in part.numbers] == list(range(1, rows + 1))
    prices = np.concatenate([np.asarray(part.rows["price"].to_pylist(), "f8") for part in parts])
    np.testing.assert_array_equal(prices, np.arange(rows))


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_an_error_names_the_row_of_its_file(tmp_path, kind):
    rows = {"user": ["x"] * 10_003, "price": ["1"] * 10_001 + ["cheap", "1"]}
    for name, part in (("a", {"user": ["x"], "price": ["1"]}), ("b", rows)):
        frame, file = pd.DataFrame(part), tmp_path / f"{name}.{kind}"
        frame.to_csv(file, index=False) if kind == "csv" else frame.to_parquet(file)
    with pytest.raises(DataError, match=rf"b.{kind}, row 10002, column 'price': 'cheap' is not a number"):
        predicted(FakeServing(answer_price), str(tmp_path / f"*.{kind}"))


def test_a_layout_reaches_the_file(tmp_path):
    file = tmp_path / "rows.csv"
    file.write_bytes("Größe_NA\nx_2\n".encode("cp1252"))
    fake, layout = FakeServing(answer_price), {"separator": "_", "columns": ["user", "price"], "missing": ["NA"]}
    np.testing.assert_array_equal(predicted(fake, file, encoding="cp1252", **layout), [np.nan, 2])
    assert sent(fake)[0][0] == "Größe"
    run = ["predict", "TARGET", str(file), "--model", "m", "--cell-separator", "_", "--columns", "user,price"]
    with fake.serving() as target:
        run[1] = target
        out = tmp_path / "out.txt"
        result = CliRunner().invoke(cli.app, [*run, "--missing", "NA", "--encoding", "cp1252", "--out", str(out)])
        assert (result.exit_code, result.stdout) == (0, ""), result.stderr
        assert prices(np.loadtxt(out, np.float32)) == pytest.approx([np.nan, 2], nan_ok=True)
        again = CliRunner().invoke(cli.app, [*run, "--out", str(out)])
        assert (again.exit_code, "already exists" in again.stderr) == (6, True)
        failed = CliRunner().invoke(cli.app, [*run, "--encoding", "cp1252", "--out", str(tmp_path / "new"), "--json"])
        assert failed.exit_code == 3
        assert "rows.csv, row 1, column 'price'" in json.loads(failed.stdout)["error"]["problem"]
        assert not (tmp_path / "new").exists()


def test_what_cannot_be_read(tmp_path):
    fake = FakeServing(answer_price)
    with pytest.raises(StorageError, match="does not exist"):
        predicted(fake, tmp_path / "none.csv")
    with pytest.raises(ConfigError, match="`missing` is for files of separated cells"):
        predicted(fake, "-", missing=["NA"])
    for name, content, problem in (
        ("empty.csv", "", "is empty"),
        ("header.csv", "user,price\n", "has no rows"),
        ("short.csv", "user,price\nx,1\nx\n", "short.csv, line 3: Expected Number of Columns: 2"),
        ("twice.csv", "user,user,price\nx,y,1\n", "column 'user' is in the table twice"),
        ("other.csv", "usr,price\nx,1\n", "column 'user' is missing"),
    ):
        (tmp_path / name).write_text(content)
        with pytest.raises(DataError, match=problem):
            predicted(fake, tmp_path / name)


@pytest.mark.parametrize("mark", ["NA", "N/A", "?"])
def test_the_advice_on_a_layout_works_in_both_ways_of_use(tmp_path, mark):
    fake, file = FakeServing(answer_price), tmp_path / "rows.csv"
    file.write_text(f"x,{mark}\ny,2\n")
    with pytest.raises(DataError, match=r"column 'price' is missing(.|\n)*--columns a,b,c .in Python columns="):
        predicted(fake, file)
    with pytest.raises(DataError, match=rf"'{re.escape(mark)}' is not a number") as refused:
        predicted(fake, file, columns=["user", "price"])
    option, missing = re.search(r"(--missing \S+) \(in Python missing=(\[.*?\])\)", refused.value.fix).groups()
    layout = {"columns": ["user", "price"], "missing": ast.literal_eval(missing)}
    np.testing.assert_array_equal(predicted(fake, file, **layout), [np.nan, 2])
    with fake.serving() as target:
        run = ["predict", target, str(file), "--model", "m", "--columns", "user,price", *shlex.split(option)]
        assert CliRunner().invoke(cli.app, run).exit_code == 0


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_a_matrix_of_ids(tmp_path, kind):
    frame, file = pd.DataFrame({"ids": [[1, 2], [3, 4]], "other": [None, 1.5]}), tmp_path / f"rows.{kind}"
    frame.to_parquet(file) if kind == "parquet" else frame.to_json(file, orient="records", lines=True)
    (part,) = read_rows(file)
    for rows in (part.rows, frame):
        found = to_columns(rows, {"ids": (np.dtype("i4"), (None, 2))})["ids"]
        np.testing.assert_array_equal(found, [[1, 2], [3, 4]], strict=False)
        assert found.dtype == np.int32


@pytest.mark.parametrize("name", ["rows.csv", "rows.parquet", "rows.jsonl", "rows.jsonl.gz"])
def test_examples_for_publishing(tmp_path, name):
    WRITERS[name](tmp_path / name)
    rows = read_examples(tmp_path / name)
    assert [row["user"] for row in rows] == ["Zoë", "007", None]
    assert [row["price"] and float(row["price"]) for row in rows][::2] == [0.5, 2.0]


def test_a_cut_file_of_json_lines(tmp_path):
    (tmp_path / "rows.jsonl.gz").write_bytes(gzip.compress(b'{"user": "a"}\n' * 100)[:-9])
    with pytest.raises(StorageError, match="not a whole gzip file"):
        list(read_rows(tmp_path / "rows.jsonl.gz"))


def test_the_client_needs_no_library_of_tables_before_such_a_file(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"user": "a"}\n')
    (tmp_path / "rows.csv").write_text("user\na\n")
    program = """if True:
        import sys
        for name in ("duckdb", "ibis", "pyarrow", "pandas", "tensorflow", "keras", "yaml", "pydantic"):
            sys.modules[name] = None  # as if it was not installed
        from tfctr.errors import ConfigError
        from tfctr.serving import AsyncPredictionClient, PredictionClient
        from tfctr.serving.client.row_files import read_rows
        assert [part.rows for part in read_rows("rows.jsonl")] == [[{"user": "a"}]]
        try:
            list(read_rows("rows.csv"))
        except ConfigError as error:
            print(error)
    """
    environment = {"PYTHONPATH": str(ROOT)}
    said = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert said.stderr == ""
    assert "rows.csv cannot be read: " in said.stdout
    assert "pip install" in said.stdout
    assert "JSON lines" in said.stdout
