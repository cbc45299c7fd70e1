"""A prepared folder is checked when it is opened, and each split when it is first asked for."""

from pathlib import Path

import numpy as np
import pytest

from tfctr.data import dataset as dataset_module
from tfctr.data import split as split_module
from tfctr.data.dataset import Dataset
from tfctr.errors import ConfigError, StorageError
from tfctr.features import Categorical
from tfctr.schema import Schema
from tfctr.storage import sha256, write_json


def write_split(folder, columns, rows_a_shard=4):
    folder.mkdir(parents=True)
    shards = []
    for number, start in enumerate(range(0, len(columns["labels"]), rows_a_shard)):
        files = {}
        for column, values in columns.items():
            file = f"{column}-{number:05d}.npy"
            np.save(folder / file, values[start : start + rows_a_shard])
            files[file] = sha256(folder / file)
        shards.append({"rows": len(columns["labels"][start : start + rows_a_shard]), "files": files})
    return {"rows": len(columns["labels"]), "shards": shards, "positives": int(columns["labels"].sum())}


@pytest.fixture
def prepared(tmp_path):
    """A folder as `prepare` writes it, and the columns in it."""
    features = [Categorical("user", size=40), Categorical("item", hash_buckets=37, size=40)]
    (tmp_path / "vocabulary").mkdir()
    (tmp_path / "vocabulary" / "user.txt").write_text("".join(f"{token}\n" for token in range(37)))
    Schema(features=features, label="click", group="user", weight="importance").save(tmp_path / "schema.json")
    rng = np.random.default_rng(0)
    columns = {
        name: {
            "ids": rng.integers(0, 40, size=(rows, 2), dtype=np.int32),
            "labels": rng.integers(0, 2, rows).astype(np.float32),
            "groups": rng.integers(0, 5, rows),
            "weights": rng.random(rows, dtype=np.float32),
        }
        for name, rows in (("train", 10), ("valid", 3))
    }
    manifest = {
        "format": 1,
        "tfctr": "0.1.0",
        "schema_sha256": sha256(tmp_path / "schema.json"),
        "vocabulary": {"user.txt": sha256(tmp_path / "vocabulary" / "user.txt")},
        "width": 2,
        "splits": {name: write_split(tmp_path / name, values) for name, values in columns.items()},
        "sources": {},
    }
    write_json(tmp_path / "manifest.json", manifest)
    return tmp_path, columns, manifest


def test_load_reads_what_was_written(prepared):
    folder, columns, _ = prepared
    dataset = Dataset.load(folder)
    assert dataset.schema.weight == "importance"
    for split, expected in ((dataset.train, columns["train"]), (dataset.valid, columns["valid"])):
        for column, values in expected.items():
            np.testing.assert_array_equal(getattr(split, column), values)
            assert getattr(split, column).dtype == values.dtype
    ids, labels, weights = next(iter(dataset.train.batches(10, shuffle=False)))
    np.testing.assert_array_equal(ids, columns["train"]["ids"])
    np.testing.assert_array_equal(labels[:, 0], columns["train"]["labels"])
    np.testing.assert_array_equal(weights[:, 0], columns["train"]["weights"])


def test_a_split_that_was_not_prepared_is_named(prepared):
    with pytest.raises(ConfigError, match=r"has no test split; it has: train, valid") as caught:
        _ = Dataset.load(prepared[0]).test
    assert "prepare it with a test table: tfctr prepare SCHEMA --train TABLE --test TABLE" in caught.value.fix


def damage(file, **change):
    content = bytearray(file.read_bytes())
    if "cut" in change:
        content = content[: change["cut"]]
    if "flip" in change:
        content[change["flip"]] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(
    "file", ["train/ids-00000.npy", "train/labels-00002.npy", "valid/groups-00000.npy", "valid/weights-00000.npy"]
)
@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("change", [{"cut": 0}, {"cut": 60}, {"cut": -1}, {"flip": 20}])
def test_a_truncated_shard_is_named(prepared, file, change, verify):
    damage(prepared[0] / file, **change)
    with pytest.raises(StorageError, match=f"{file} ") as caught:
        Dataset.load(prepared[0], verify=verify)
    assert "prepare the data again" in caught.value.fix


@pytest.mark.parametrize("file", ["train/labels-00002.npy", "valid/ids-00000.npy", "valid/weights-00000.npy"])
def test_a_changed_shard_is_named_whenever_its_split_is_asked_for(prepared, file):
    damage(prepared[0] / file, flip=-1)
    dataset = Dataset.load(prepared[0])
    changed, other = ("train", "valid") if "train" in file else ("valid", "train")
    assert getattr(dataset, other).rows > 0
    for _ in range(2):
        with pytest.raises(StorageError, match=f"{file} is not the file that was written"):
            getattr(dataset, changed)
    assert getattr(Dataset.load(prepared[0], verify=False), changed).rows > 0


def test_a_split_is_read_for_its_digest_once(prepared, monkeypatch):
    dataset, read = Dataset.load(prepared[0]), []
    monkeypatch.setattr(dataset_module, "require_sha256", lambda path, expected: read.append(path.name))
    for _ in range(2):
        assert dataset.valid.rows == 3
    assert sorted(read) == [f"{column}-00000.npy" for column in ("groups", "ids", "labels", "weights")]


@pytest.mark.parametrize("file", ["schema.json", "manifest.json", "vocabulary/user.txt", "train/ids-00001.npy"])
@pytest.mark.parametrize("verify", [True, False])
def test_a_missing_file_is_named(prepared, file, verify):
    (prepared[0] / file).unlink()
    with pytest.raises(StorageError, match=file):
        Dataset.load(prepared[0], verify=verify)


@pytest.mark.parametrize("file", ["schema.json", "vocabulary/user.txt"])
def test_a_changed_meaning_is_refused(prepared, file):
    damage(prepared[0] / file, flip=-1)
    with pytest.raises(StorageError, match=f"{file} is not the file that was written"):
        Dataset.load(prepared[0])


def test_an_exchanged_shard_is_refused(prepared):
    (prepared[0] / "train" / "ids-00000.npy").write_bytes((prepared[0] / "train" / "ids-00002.npy").read_bytes())
    with pytest.raises(StorageError, match=r"ids-00000\.npy holds int32 \(2, 2\), the manifest says int32 \(4, 2\)"):
        Dataset.load(prepared[0])


def without(values, key):
    return {name: value for name, value in values.items() if name != key}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda manifest: {**manifest, "format": 2}, "has the format 2, this tfctr reads 1"),
        (lambda manifest: {**manifest, "width": 3}, "has another width"),
        (lambda manifest: without(manifest, "splits"), "is not a manifest: KeyError"),
        (lambda manifest: {**manifest, "splits": [1]}, "is not a manifest"),
        (lambda manifest: [], "is not a manifest"),
        (
            lambda manifest: {**manifest, "splits": {"train": {**manifest["splits"]["train"], "rows": 9}}},
            "has 10 rows, the manifest says 9",
        ),
    ],
)
def test_a_wrong_manifest_is_refused(prepared, change, message):
    folder, _, manifest = prepared
    write_json(folder / "manifest.json", change(manifest))
    with pytest.raises(StorageError, match=message):
        Dataset.load(folder)


def test_what_is_no_folder_is_named(tmp_path):
    with pytest.raises(StorageError, match="nothing is not a prepared dataset") as caught:
        Dataset.load(tmp_path / "nothing")
    assert f"tfctr prepare SCHEMA --train TABLE --valid TABLE --out {tmp_path / 'nothing'}" in caught.value.fix


def resident(path):
    """Bytes of a mapped file that are in this process's memory."""
    found, size = False, 0
    for line in Path("/proc/self/smaps").read_text(encoding="utf-8").splitlines():
        if "-" in line.split(" ")[0]:
            found = line.endswith(str(path))
        elif found and line.startswith("Rss:"):
            size += int(line.split()[1]) * 1024
    return size


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="only Linux tells what is resident")
@pytest.mark.parametrize("shuffle", [True, False])
def test_a_large_split_is_not_held_in_memory(shuffle, tmp_path, monkeypatch):
    rows, columns, window = 400_000, 16, 4 << 20
    ids, path = np.arange(rows * columns, dtype=np.int32).reshape(rows, columns), tmp_path / "ids-00000.npy"
    np.save(path, ids)
    monkeypatch.setattr(split_module, "BLOCK_BYTES", window // 4)
    monkeypatch.setattr(split_module, "WINDOW_BLOCKS", 4)
    shard = dataset_module._open_array(path, np.int32, ids.shape)
    split = split_module.Split("train", [shard], np.zeros(rows, "float32"))

    ranges = [(first, first + 1_000) for first in range(0, rows, 1_000)]

    def most(memory_limit):
        split.memory_limit = memory_limit
        seen, kept = 0, 0
        for number, (batch, _) in enumerate(split._epoch(ranges, 0, 0 if shuffle else None)):
            seen += int(batch.astype("int64").sum())
            kept = max(kept, resident(path)) if number % 10 == 0 else kept
        assert seen == ids.astype("int64").sum()
        return kept

    assert most(memory_limit=0) < 4 * window < ids.nbytes
    if not shuffle:
        assert most(memory_limit=1 << 30) > ids.nbytes // 2  # which a small one is
