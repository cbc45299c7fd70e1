"""Tables at a URL: the bytes that the same files give here, and errors that name the URL."""

import bz2
import gzip
import json
import logging
import lzma
import sys
import zipfile

import fsspec
import pandas as pd
import pyarrow as pa
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from kit.prepare_oracle import SCHEMA, table
from typer.testing import CliRunner

import tfctr
from tfctr.cli import app
from tfctr.data.files import find_files, kind_of, opened
from tfctr.data.remote import RemoteFile
from tfctr.errors import ConfigError, StorageError

FRAME = pd.DataFrame(table(120))


@pytest.fixture
def store():
    """fsspec's file system in memory, empty."""
    system = fsspec.filesystem("memory")
    system.store.clear()
    yield system
    system.store.clear()


def put(store, path, content):
    with store.open(path, "wb") as file:
        file.write(content)
    return f"memory:/{path}"


def prepared(tmp_path, train, **arguments):
    return tfctr.prepare(SCHEMA, train=train, out=tmp_path / f"data{len(list(tmp_path.iterdir()))}", **arguments)


def files_of(dataset):
    names = (file for file in dataset.folder.rglob("*") if file.is_file() and file.name != "manifest.json")
    return {str(file.relative_to(dataset.folder)): file.read_bytes() for file in names}


def test_it_gives_the_bytes_of_the_same_files_here(tmp_path, store):
    csv = FRAME.to_csv(index=False).encode()
    parquet = FRAME.to_parquet(index=False)
    (tmp_path / "clicks.csv").write_bytes(csv)
    (tmp_path / "clicks.parquet").write_bytes(parquet)
    urls = {"train": put(store, "/day/clicks.csv", csv), "test": put(store, "/day/clicks.parquet", parquet)}
    here = prepared(tmp_path, tmp_path / "clicks.csv", test=tmp_path / "clicks.parquet", valid=0.3)
    there = prepared(tmp_path, **urls, valid=0.3)
    assert files_of(here) == files_of(there)
    manifest = json.loads((there.folder / "manifest.json").read_text())
    assert manifest["sources"]["train"] == [{"file": "memory://day/clicks.csv", "bytes": len(csv)}]
    assert tfctr.Schema.infer(urls["train"], label="click") == tfctr.Schema.infer(tmp_path / "clicks.csv", label="click")
    encoded = [tfctr.encode(here, given, out=tmp_path / f"encoded{i}") for i, given in enumerate((urls["test"], FRAME))]
    assert files_of(encoded[0]) == files_of(encoded[1])
    assert {path.name for path in tmp_path.iterdir()} == {
        *("clicks.csv", "clicks.parquet", here.folder.name, there.folder.name),
        *("encoded0", "encoded1"),
    }


def test_a_glob_comes_in_the_order_of_names_and_beside_files_here(tmp_path, store):
    halves = [FRAME[:70], FRAME[70:100]]
    for name, half in zip("ab", halves, strict=True):
        put(store, f"/day/{name}.csv", half.to_csv(index=False).encode())
    FRAME[100:].to_csv(tmp_path / "c.csv", index=False)
    several = prepared(tmp_path, ["memory://day/*.csv", tmp_path / "c.csv"])
    FRAME.to_csv(tmp_path / "all.csv", index=False)
    assert files_of(several) == files_of(prepared(tmp_path, tmp_path / "all.csv"))


def _zipped(text):
    with fsspec.filesystem("memory").open("/some.zip", "wb") as file, zipfile.ZipFile(file, "w") as archive:
        archive.writestr("clicks.csv", text)
    return fsspec.filesystem("memory").cat("/some.zip")


_PACKED = {"csv.gz": gzip.compress, "csv.bz2": bz2.compress, "csv.xz": lzma.compress, "zip": _zipped}
_PACKED["csv.zst"] = lambda text: pa.compress(text, "zstd", asbytes=True)


@pytest.mark.parametrize("ending", _PACKED)
def test_compressed_files(store, ending):
    text = b"user,click\n" + b"7,1\n" * 10_000
    url = put(store, f"/clicks.{ending}", _PACKED[ending](text))
    (file,) = find_files(url)
    assert kind_of(file) == ".csv"
    with opened(file) as stream:
        assert stream.read() == text


def test_what_is_not_there(tmp_path, store):
    put(store, "/day/clicks.csv", b"user\n1\n")
    for url, problem in (
        ("memory://day/other.csv", r"memory://day/other.csv does not exist\."),
        ("memory://day/*.parquet", r"no file matches memory://day/\*.parquet\."),
        ("memory://day", r"memory://day is a folder\.(.|\n)*'memory://day/\*.parquet'"),
    ):
        with pytest.raises(StorageError, match=problem):
            prepared(tmp_path, url)
    assert not list(tmp_path.iterdir())


def test_a_damaged_file_is_named_by_its_url(tmp_path, store):
    url = put(store, "/clicks.csv.gz", gzip.compress(b"user,click\n" * 1000)[:-10])
    with pytest.raises(StorageError, match=r"memory://clicks.csv.gz is not a whole gzip file"):
        prepared(tmp_path, url)
    with pytest.raises(StorageError, match=r"memory://some.zip is not a whole zip file"):
        prepared(tmp_path, put(store, "/some.zip", b"PK"))


def test_a_connection_that_breaks(tmp_path, store, monkeypatch):
    url = put(store, "/clicks.csv", b"user,click\n" * 1000)

    class Breaking:
        def seekable(self):
            return True

        def read(self, size):
            raise RuntimeError("the endpoint has gone")

        def close(self):
            pass

    monkeypatch.setattr(MemoryFileSystem, "open", lambda self, path, mode: Breaking())
    with pytest.raises(StorageError, match=r"memory://clicks.csv cannot be read: the endpoint has gone"):
        prepared(tmp_path, url)
    assert not list(tmp_path.iterdir())


def test_a_package_that_is_absent_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(ConfigError, match=r"s3://bucket/clicks.csv cannot be read: Install s3fs to access S3"):
        prepared(tmp_path, "s3://bucket/clicks.csv")
    with pytest.raises(ConfigError, match=r"Protocol not known: nowhere"):
        prepared(tmp_path, "nowhere://bucket/clicks.csv")
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(ConfigError, match=r"needs fsspec to be read(.|\n)*tfctr\[urls\]"):
        prepared(tmp_path, "memory://clicks.csv")


def test_no_secret_of_a_url_is_kept(tmp_path, store, caplog, monkeypatch):
    text = FRAME.to_csv(index=False).encode()
    put(store, "/clicks.csv", text)
    secret = "https://me:password@host/clicks.csv?signature=7"
    monkeypatch.setattr("fsspec.core.url_to_fs", lambda url: (store, "/clicks.csv"))
    with caplog.at_level(logging.INFO):
        dataset = prepared(tmp_path, secret)
    assert (
        json.loads((dataset.folder / "manifest.json").read_text())["sources"]["train"][0]["file"] == "https://host/clicks.csv"
    )
    texts = [*caplog.messages, *(file.read_bytes().decode("latin-1") for file in dataset.folder.rglob("*") if file.is_file())]
    assert not [text for text in texts if "password" in text or "signature=7" in text]
    assert "password" not in repr(RemoteFile(secret, 1))


def test_the_command_takes_a_url(tmp_path, store):
    SCHEMA.save(tmp_path / "schema.yaml")
    url = put(store, "/clicks.csv", FRAME.to_csv(index=False).encode())
    given = ["prepare", str(tmp_path / "schema.yaml"), "--train", url, "--valid", "0.3", "--out", str(tmp_path / "data")]
    run = CliRunner().invoke(app, given)
    assert run.exit_code == 0, run.stderr
    assert tfctr.Dataset.load(tmp_path / "data").splits.keys() == {"train", "valid"}
