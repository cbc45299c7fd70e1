"""Datasets at URLs, in fsspec's file system in memory: whole or not there, and read file by file through the cache."""

import json

import fsspec
import pyarrow as pa
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from kit.engines import contents
from kit.prepare_oracle import SCHEMA, table
from typer.testing import CliRunner

import tfctr
from tfctr.cli import app
from tfctr.config import Config
from tfctr.data import Dataset
from tfctr.data.remote_datasets import cache_folder
from tfctr.errors import ConfigError, StorageError
from tfctr.evaluation import evaluate, score
from tfctr.features import Categorical
from tfctr.schema import Schema
from tfctr.storage import sha256
from tfctr.training import load_run, train

CLICKS = Schema([Categorical("user"), Categorical("item/kind")], label="click")
ROWS = {"user": ["a", "b", "a", "c"] * 10, "item/kind": ["x", "y", "y", None] * 10, "click": [0, 1, 1, 0] * 10}
LR = Config.from_dict({"model": {"name": "LR"}, "training": {"epochs": 1, "batch_size": 16}})
URL = "memory://bucket/data"


@pytest.fixture
def store(tmp_path, monkeypatch):
    """fsspec's file system in memory, empty, and an empty cache; `store.read` has the names of what was read of it."""
    system = fsspec.filesystem("memory")
    system.store.clear()
    monkeypatch.setenv("TFCTR_CACHE", str(tmp_path / "cache"))
    system.read = []
    open_file = MemoryFileSystem.open

    def opened(self, path, mode="rb", **options):
        if mode == "rb":
            system.read.append(path.removeprefix("/bucket/data/"))
        return open_file(self, path, mode, **options)

    monkeypatch.setattr(MemoryFileSystem, "open", opened)
    yield system
    system.store.clear()


@pytest.fixture
def there(store):
    """The URL of a dataset with three splits, nothing of which is in the cache."""
    tfctr.prepare(CLICKS, train=ROWS, valid=ROWS, test=ROWS, out=URL)
    _empty_cache()
    return URL


def _empty_cache():
    for file in sorted(cache_folder().rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()


def names(store):
    return {path.removeprefix("/bucket/data/") for path in store.store}


def test_it_has_the_files_of_one_here(tmp_path, store):
    given = {"train": table(120), "valid": table(60, seed=1)}
    here = tfctr.prepare(SCHEMA, **given, out=tmp_path / "data")
    there = tfctr.prepare(SCHEMA, **given, out=f"{URL}/")
    assert store.read == ["manifest.json"]  # what was written is in the cache
    assert names(store) == {str(file.relative_to(here.folder)) for file in here.folder.rglob("*") if file.is_file()}
    found = contents(there.folder)
    assert found.pop("origin")
    assert found == contents(here.folder)
    assert sorted(path.name for path in cache_folder().iterdir()) == ["datasets"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "data"]


def test_only_what_is_needed_comes_and_only_once(store, there):
    dataset = Dataset.load(there)
    fit = {"manifest.json", "schema.json", "profile.npz", "vocabulary/user.txt", "vocabulary/item%2Fkind.txt"}
    assert set(store.read) == fit
    assert list(dataset.splits) == ["train", "valid", "test"]
    assert "test" in dataset.splits
    assert dataset.train.labels.tolist() == ROWS["click"]
    assert set(store.read) == fit | {"train/ids-00000.npy", "train/labels-00000.npy"}
    store.read.clear()
    again = Dataset.load(there)
    assert again.train.ids.tolist() == dataset.train.ids.tolist()
    assert Dataset.load(again.folder).valid.rows == 40
    assert store.read == ["manifest.json", "valid/ids-00000.npy", "valid/labels-00000.npy"]
    with pytest.raises(KeyError):
        dataset.splits["other"]


@pytest.mark.parametrize("name", ["vocabulary/user.txt", "train/ids-00000.npy", "schema.json"])
def test_a_damaged_file_of_the_cache_comes_anew(store, there, name):
    dataset = Dataset.load(there)
    ids = dataset.train.ids.tolist()
    damaged = dataset.folder / name
    good = damaged.read_bytes()
    damaged.write_bytes(good[:-1] + b"?")
    store.read.clear()
    assert Dataset.load(there).train.ids.tolist() == ids
    assert store.read == ["manifest.json", name]
    assert damaged.read_bytes() == good


@pytest.mark.parametrize("name", ["vocabulary/user.txt", "train/ids-00000.npy"])
def test_a_file_that_has_changed_where_it_comes_from(store, there, name):
    store.pipe_file(f"/bucket/data/{name}", b"another")
    with pytest.raises(StorageError, match=rf"memory://bucket/data/{name} is not the file that was written"):
        Dataset.load(there).train  # noqa: B018
    store.rm_file(f"/bucket/data/{name}")
    with pytest.raises(StorageError, match=rf"memory://bucket/data/{name} does not exist"):
        Dataset.load(there).train  # noqa: B018
    assert not list(cache_folder().rglob(name.rpartition("/")[2]))


def test_another_dataset_at_the_same_url(store, there):
    first = Dataset.load(there).train.ids.tolist()
    store.rm("/bucket/data", recursive=True)
    tfctr.prepare(CLICKS, train={name: values[::-1] for name, values in ROWS.items()}, out=URL)
    assert Dataset.load(URL).train.ids.tolist() == first[::-1]


def test_the_manifest_comes_last_and_a_broken_upload_goes(store, monkeypatch):
    put = MemoryFileSystem.put_file
    written = []

    def put_file(self, here, path, **options):
        if len(written) == breaks_at:
            raise RuntimeError("the endpoint has gone")
        written.append(path)
        put(self, here, path, **options)

    monkeypatch.setattr(MemoryFileSystem, "put_file", put_file)
    breaks_at = 3
    with pytest.raises(StorageError, match="memory://bucket/data cannot be written: the endpoint has gone"):
        tfctr.prepare(CLICKS, train=ROWS, out=URL)
    assert not store.store
    assert not [path for path in cache_folder().rglob("*") if path.is_file()]
    breaks_at = None
    written.clear()
    tfctr.prepare(CLICKS, train=ROWS, out=URL)
    assert written[-1].endswith("/manifest.json")


def test_a_half_written_one_is_none(store, there):
    store.rm_file("/bucket/data/manifest.json")
    with pytest.raises(StorageError, match=r"memory://bucket/data is not a prepared dataset: it has no manifest.json"):
        Dataset.load(there)
    with pytest.raises(StorageError, match=r"memory://bucket/data already exists.(.|\n)*a broken upload"):
        tfctr.prepare(CLICKS, train=ROWS, out=URL)


def test_what_is_there_is_not_overwritten(store, there):
    before = dict(store.store)
    with pytest.raises(StorageError, match="memory://bucket/data already exists"):
        tfctr.prepare(CLICKS, train={"user": []}, out=URL)  # before the table is read
    with pytest.raises(ConfigError, match="nothing can be written to https://host/data"):
        tfctr.prepare(CLICKS, train=ROWS, out="https://host/data")
    assert store.store == before


def test_a_manifest_names_no_file_outside(store, there):
    whole = json.loads(store.cat("/bucket/data/manifest.json"))
    vocabulary = {**whole["vocabulary"], "../../outside": "0"}
    splits = {"/outside": whole["splits"]["train"]}
    for changed in ({"vocabulary": vocabulary}, {"splits": splits}):
        store.pipe_file("/bucket/data/manifest.json", json.dumps({**whole, **changed}).encode())
        with pytest.raises(StorageError, match=r"names a file '(vocabulary/../..)?/outside"):
            Dataset.load(there).splits["/outside"]


def test_no_password_is_kept(store, there, monkeypatch):
    monkeypatch.setattr("fsspec.core.url_to_fs", lambda url: (store, "/bucket/data"))
    dataset = Dataset.load("s3://me:password@bucket/data")
    assert (dataset.folder / "origin").read_text() == "s3://bucket/data"


def test_a_cache_that_cannot_be_written(store, there, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TFCTR_CACHE", str(tmp_path / "file"))
    with pytest.raises(StorageError, match=rf"cannot write {tmp_path}/file"):
        Dataset.load(there)
    with pytest.raises(StorageError, match=rf"cannot write {tmp_path}/file"):
        tfctr.prepare(CLICKS, train=ROWS, out="memory://bucket/other")


def test_the_cache_is_where_it_is_said(monkeypatch, tmp_path):
    monkeypatch.delenv("TFCTR_CACHE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder() == tmp_path / ".cache" / "tfctr"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "tfctr"


@pytest.mark.slow
def test_all_that_takes_a_dataset_takes_its_url(store, there, tmp_path):
    run = train(LR, there, tmp_path / "run")
    assert "test/ids-00000.npy" not in store.read
    here = tfctr.prepare(CLICKS, train=ROWS, valid=ROWS, test=ROWS, out=tmp_path / "data")
    same = train(LR, here, tmp_path / "same")
    assert run.metrics["valid"] == same.metrics["valid"]
    assert evaluate(run, "test") == evaluate(run, "test", data=there) == evaluate(same, "test", data=there)
    _empty_cache()
    with pytest.raises(StorageError, match=r"is no prepared dataset(.|\n)*--data"):
        evaluate(load_run(tmp_path / "run"), "test")
    assert evaluate(load_run(tmp_path / "run"), "test", data=there) == evaluate(same, "test")
    encoded = tfctr.encode(there, ROWS, out="memory://bucket/further")
    assert encoded.test.ids.tolist() == here.test.ids.tolist()
    assert tfctr.drift(there, "memory://bucket/further") == tfctr.drift(here, ROWS)
    extended = tfctr.prepare(extend=there, train={**ROWS, "user": ["z"] * 40}, out="memory://bucket/next")
    assert extended.extension["features"]["user"]["new"] == 1
    score(run, pa.table(ROWS), out=tmp_path / "scores.parquet", data=there)
    version = tfctr.serving.export(run.inference_model, tmp_path / "served", vocabularies=there)
    assert sha256(next(version.rglob("user.txt"))) == sha256(here.folder / "vocabulary" / "user.txt")


def test_the_commands(store, tmp_path):
    CLICKS.save(tmp_path / "schema.yaml")
    pa.parquet.write_table(pa.table(ROWS), tmp_path / "clicks.parquet")
    clicks, run = str(tmp_path / "clicks.parquet"), str(tmp_path / "run")
    for arguments in (
        ["prepare", str(tmp_path / "schema.yaml"), "--train", clicks, "--valid", clicks, "--out", URL],
        ["train", "--data", URL, "--out", run, "--model", "LR", "--epochs", "1"],
        ["evaluate", run, "--data", URL, "--split", "valid"],
        ["encode", URL, clicks, "--out", "memory://bucket/further"],
        ["drift", URL, "memory://bucket/further"],
    ):
        found = CliRunner().invoke(app, arguments)
        assert found.exit_code == 0, (arguments, found.stderr)
