"""What `tfctr.prepare` writes: the order of rows, the same bytes every time, the manifest, and splits by a hash."""

import hashlib
import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest
from kit.prepare_oracle import SCHEMA, prepare, table

import tfctr
from tfctr.data import writing
from tfctr.features import Categorical, Numeric
from tfctr.schema import Schema


def file_bytes(folder):
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


@pytest.mark.slow
def test_rows_keep_their_order_over_shards_and_threads(tmp_path, monkeypatch):
    rows = 300_000  # more than two of DuckDB's row groups
    monkeypatch.setattr(writing, "_BLOCK_ROWS", 70_000)
    numbers = np.random.default_rng(0).permutation(rows)
    train = pa.table({"user": numbers % 1000, "item": numbers, "price": numbers / 7, "click": numbers % 2})
    pa.parquet.write_table(train, tmp_path / "train.parquet", row_group_size=20_000)
    schema = Schema(
        [Categorical("user"), Numeric("price", "scaled"), Categorical("item", hash_buckets=9)], label="click", group="item"
    )
    dataset = prepare(tmp_path, schema, train=tmp_path / "train.parquet", threads=4)
    assert sorted(file.name for file in (dataset.folder / "train").glob("ids-*")) == [f"ids-0000{n}.npy" for n in range(5)]
    feature = dataset.schema.features[0]
    lines = dataset.schema.vocabulary_file(feature).read_text().split()
    np.testing.assert_array_equal(np.array(lines, np.int64)[dataset.train.ids[:, 0] - 3], numbers % 1000)
    np.testing.assert_array_equal(dataset.train.labels, numbers % 2)
    price = dataset.train.ids[:, 1].copy().view(np.float32)
    np.testing.assert_array_equal(np.argsort(price, kind="stable"), np.argsort(numbers / 7, kind="stable"))
    assert len(np.unique(dataset.train.groups)) == rows


@pytest.mark.slow
def test_two_runs_and_any_number_of_threads_write_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "_BLOCK_ROWS", 1000)
    train = table(5000)
    folders = [prepare(tmp_path, train=train, valid=0.2, threads=threads).folder for threads in (None, None, 1, 4)]
    first, *others = map(file_bytes, folders)
    assert len(first) > 20
    assert all(first == other for other in others)


def test_the_manifest_tells_the_files_that_it_was_made_of(tmp_path):
    rows, schema = "user,click\na,0\nb,1\n", tfctr.Schema([tfctr.Categorical("user")], label="click")
    (tmp_path / "train.csv").write_text(rows)
    valid = {"user": ["a", "b"], "click": [0, 1]}
    dataset = tfctr.prepare(schema, train=tmp_path / "train.csv", valid=valid, out=tmp_path / "of_files")
    sources = json.loads((dataset.folder / "manifest.json").read_text())["sources"]
    digest = hashlib.sha256(rows.encode()).hexdigest()
    assert sources["train"] == [{"file": str(tmp_path / "train.csv"), "bytes": len(rows), "sha256": digest}]
    assert sources["valid"] == "a table in memory or of another engine"


def test_the_manifest_describes_every_file(tmp_path):
    dataset = prepare(tmp_path, train=table(), valid=table(50, seed=1))
    manifest = json.loads((dataset.folder / "manifest.json").read_text())
    assert (manifest["format"], manifest["tfctr"], manifest["width"]) == (1, tfctr.__version__, SCHEMA.width)
    described = {"schema.json": manifest["schema_sha256"], "profile.npz": manifest["fit"]["profile_sha256"]}
    described |= {f"vocabulary/{name}": digest for name, digest in manifest["vocabulary"].items()}
    for name, split in manifest["splits"].items():
        for shard in split["shards"]:
            described |= {f"{name}/{file}": digest for file, digest in shard["files"].items()}
    digests = {
        feature.name: getattr(feature, "vocabulary_sha256", None)
        for feature in tfctr.Dataset.load(dataset.folder).schema.features
    }
    assert {f"{name}.txt": digest for name, digest in digests.items() if digest} == manifest["vocabulary"]
    found = {file: hashlib.sha256(content).hexdigest() for file, content in file_bytes(dataset.folder).items()}
    assert found == described | {"manifest.json": found["manifest.json"]}
    valid = manifest["splits"]["valid"]
    assert (valid["rows"], valid["positives"]) == (50, sum(table(50, seed=1)["click"]))
    tfctr.Dataset.load(dataset.folder)  # reads and compares every file


def test_preparing_without_hashes_does_not_import_tensorflow(tmp_path):
    code = f"""
import sys, tfctr
schema = tfctr.Schema([tfctr.Categorical("user")], label="click")
tfctr.prepare(schema, train={{"user": ["a", "b"], "click": [0, 1]}}, out={str(tmp_path / "data")!r})
assert not {{"tensorflow", "keras"}} & set(sys.modules), "imported"
"""
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


# one table, split by a hash


def split_of_rows(dataset, column):
    """{value of a column of distinct tokens: split}."""
    feature = dataset.schema.features[column]
    lines = dataset.schema.vocabulary_file(feature).read_text().split("\n")
    return {lines[id - 3]: name for name, split in dataset.splits.items() for id in split.ids[:, column].tolist() if id > 2}


def rows_table(rows, more=0):
    return {
        "row": [str(row) for row in range(rows)],
        "other": [row % 3 for row in range(rows)],
        "click": [row % 2 for row in range(rows)],
    }


def test_fractions_are_close_and_splits_are_a_partition_in_order(tmp_path):
    rows = 20_000
    schema = Schema([Numeric("row", "edges", edges=[0.5])], label="click", group="row")
    dataset = prepare(tmp_path, schema, train=rows_table(rows), valid=0.1, test=0.2)
    sizes = [dataset.valid.rows / rows, dataset.test.rows / rows]
    np.testing.assert_allclose(sizes, [0.1, 0.2], atol=4 * (0.2 * 0.8 / rows) ** 0.5)
    codes = {text: code for code, text in enumerate(sorted(map(str, range(rows))))}
    numbers = np.argsort([codes[str(row)] for row in range(rows)])  # code -> row
    found = [numbers[split.groups] for split in dataset.splits.values()]
    assert all((np.diff(rows) > 0).all() for rows in found)
    np.testing.assert_array_equal(np.sort(np.concatenate(found)), np.arange(rows))


def test_a_row_keeps_its_split(tmp_path):
    few, many = rows_table(300), rows_table(400)
    moved = {name: values[::-1] for name, values in many.items()}
    wide = Schema([Categorical("row"), Categorical("other")], label="click")
    narrow = Schema([Categorical("row")], label="click")
    # Only train is fitted, so its rows are the known tokens.
    draws = [
        prepare(tmp_path, schema, train=train, valid=0.3, seed=7)
        for schema, train in [(wide, many), (narrow, many), (wide, few), (wide, moved), (wide, pd.DataFrame(many))]
    ]
    in_train = [set(split_of_rows(dataset, 0)) for dataset in draws]
    assert in_train[0] == in_train[1] == in_train[3] == in_train[4]
    assert in_train[2] == {row for row in in_train[0] if int(row) < 300}
    assert set(split_of_rows(prepare(tmp_path, wide, train=many, valid=0.3, seed=8), 0)) != in_train[0]


def test_equal_rows_are_drawn_independently(tmp_path):
    schema = Schema([Categorical("user")], label="click")
    dataset = prepare(tmp_path, schema, train={"user": ["a"] * 4000, "click": [0, 1] * 2000}, valid=0.25)
    assert abs(dataset.valid.rows - 1000) < 4 * (4000 * 0.25 * 0.75) ** 0.5
