"""Files and folders are whole or absent, whatever kills the writer; what cannot be read is named."""

import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfctr.errors import ConfigError, StorageError
from tfctr.storage import (
    _HOST,
    atomic_file,
    atomic_folder,
    locked,
    read_json,
    read_object,
    read_yaml,
    require_free,
    sha256,
    write_json,
    yaml_text,
)


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


# writing


@pytest.mark.parametrize(("mode", "content"), [("w", "Zürich\n東京\n"), ("wb", b"\x00\r\n\xff")])
def test_atomic_file_appears_when_the_block_ends(tmp_path, mode, content):
    path = tmp_path / "new" / "file"
    with atomic_file(path, mode) as file:
        file.write(content)
        assert not path.exists()
    assert path.read_bytes() == (content if mode == "wb" else content.encode())
    assert names(path.parent) == ["file"]


def test_atomic_file_keeps_the_old_content_on_an_error(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")

    def fail():
        with atomic_file(path) as file:
            file.write("new")
            _ = 1 / 0

    with pytest.raises(ZeroDivisionError):
        fail()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file"]


def test_atomic_folder_appears_when_the_block_ends(tmp_path):
    path = tmp_path / "deep" / "data"
    with atomic_folder(path) as folder:
        (folder / "train").mkdir()
        (folder / "train" / "ids").write_text("1")
        assert names(path.parent) == [folder.name]
        assert folder.name.startswith(f".tmp-{os.getpid()}-")
    assert (path / "train" / "ids").read_text() == "1"
    assert names(path.parent) == ["data"]


def test_atomic_folder_leaves_nothing_on_an_error(tmp_path):
    def fail():
        with atomic_folder(tmp_path / "data") as folder:
            (folder / "half").write_text("1")
            _ = 1 / 0

    with pytest.raises(ZeroDivisionError):
        fail()
    assert names(tmp_path) == []


def test_atomic_folder_never_edits_what_is_published(tmp_path):
    (tmp_path / "empty").mkdir()
    with atomic_folder(tmp_path / "empty") as folder:
        (folder / "file").write_text("1")
    (tmp_path / "a_file").write_text("x")
    for taken in ("empty", "a_file"):
        with pytest.raises(StorageError, match=f"{taken} already exists"), atomic_folder(tmp_path / taken):
            pass
    assert (tmp_path / "empty" / "file").read_text() == "1"


@pytest.mark.parametrize("writer", [atomic_file, atomic_folder])
def test_what_cannot_be_written_is_named_as_the_user_named_it(tmp_path, writer):
    (tmp_path / "a_file").write_text("x")
    for path in (tmp_path / "a_file" / "deep" / "data", tmp_path / ("x" * 300), Path("/proc/data")):
        with pytest.raises(StorageError) as caught, writer(path):
            pass
        assert caught.value.problem.startswith(f"cannot write {path}: ")
        assert ".tmp-" not in str(caught.value)
    assert names(tmp_path) == ["a_file"]


@pytest.mark.parametrize("writer", [atomic_file, atomic_folder])
def test_a_name_of_every_length_that_the_disk_takes_can_be_written(tmp_path, writer):
    for name in ("x" * 255, os.fsdecode(("東" * 85).encode())):  # 255 bytes
        with writer(tmp_path / name):
            pass
        assert (tmp_path / name).exists()


def test_a_disk_that_fills_up_is_named(tmp_path):
    with pytest.raises(StorageError, match=r"cannot write .*data\.yaml: No space left"), atomic_file(tmp_path / "data.yaml"):
        raise OSError(28, "No space left on device")
    assert names(tmp_path) == []


def test_a_lock_that_cannot_be_made_is_named(tmp_path, monkeypatch):
    real = os.open

    def refuse(path, flags, *mode, **options):
        if flags & os.O_CREAT:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, flags, *mode, **options)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(StorageError, match=r"cannot write .*/lock: Permission denied"), locked(tmp_path / "lock"):
        pass


def test_orphans_of_dead_writers_are_removed(tmp_path):
    finished = subprocess.Popen([sys.executable, "-c", ""])
    finished.wait()
    (tmp_path / f".tmp-{finished.pid}-{_HOST}-abc-file").write_text("half")
    (tmp_path / f".tmp-{finished.pid}-{_HOST}-abc-folder").mkdir()
    (tmp_path / f".tmp-{finished.pid}-{_HOST}-abc-folder" / "half").write_text("half")
    (tmp_path / ".tmp-1-00000000-abc-file").write_text("of a host that is gone")
    os.utime(tmp_path / ".tmp-1-00000000-abc-file", (0, time.time() - 8 * 24 * 3600))
    (tmp_path / f".tmp-{os.getpid()}-{_HOST}-def-file").write_text("of a process that had the same number before")
    os.utime(tmp_path / f".tmp-{os.getpid()}-{_HOST}-def-file", (0, 0))
    other_host = f".tmp-{finished.pid}-00000000-abc-file"
    kept = [f".tmp-{os.getpid()}-{_HOST}-abc-file", f".tmp-{os.getppid()}-{_HOST}-abc-file", other_host, ".tmp-x", "file"]
    for name in kept:
        (tmp_path / name).write_text("alive, or not ours")
    write_json(tmp_path / "file", 1)
    assert names(tmp_path) == sorted(kept)


def test_a_place_that_no_rename_replaces_is_refused_before_any_work(tmp_path, monkeypatch):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "dangling").symlink_to("nowhere")
    for name in ("link", "dangling"):
        with pytest.raises(StorageError, match=rf"{name} is a link\.\n  fix: choose a folder in it: .*{name}/NAME"):
            require_free(tmp_path / name)
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()]
    for mount in mounts[:3]:
        with pytest.raises(StorageError, match=f"{re.escape(mount)} is a mount point"), atomic_folder(Path(mount)):
            pass


WRITER = """
    import itertools, sys
    from pathlib import Path
    from tfctr.storage import atomic_file, atomic_folder
    root = Path(sys.argv[1])
    for number in itertools.count():
        with atomic_file(root / "file") as file:
            for _ in range(50):
                file.write(f"{number}\\n" * 2000)
        with atomic_folder(root / "folders" / str(number)) as folder:
            for part in range(3):
                (folder / f"{part}").write_text(f"{number}\\n" * 20000)
        print(number, flush=True)
"""


def test_a_killed_writer_leaves_whole_files(tmp_path):
    orphans = 0
    for trial in range(20):
        command = [sys.executable, "-c", textwrap.dedent(WRITER), tmp_path]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
            writer.stdout.readline()
            time.sleep(0.03 * trial / 20)
            writer.send_signal(signal.SIGKILL)
        lines = (tmp_path / "file").read_text().split()
        assert (len(lines), len(set(lines))) == (100_000, 1)
        whole = [folder for folder in (tmp_path / "folders").iterdir() if not folder.name.startswith(".tmp-")]
        assert whole
        for folder in whole:
            assert [part.read_text() for part in sorted(folder.iterdir())] == [f"{folder.name}\n" * 20_000] * 3
            shutil.rmtree(folder)
        orphans += len(list(tmp_path.rglob(".tmp-*")))
    assert orphans > 5  # it was killed while it wrote
    write_json(tmp_path / "file", 1)
    with atomic_folder(tmp_path / "folders" / "last"):
        pass
    assert names(tmp_path) == ["file", "folders"]
    assert names(tmp_path / "folders") == ["last"]


# reading


# no lone surrogates, which are no text; no line ends of Unicode, which PyYAML folds into spaces
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x85\u2028\u2029")) | st.from_regex(r"\d+e\d+")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda values: st.lists(values, max_size=3) | st.dictionaries(TEXT, values, max_size=3),
    max_leaves=8,
)


@given(value=JSON)
def test_json_round_trip(tmp_path_factory, value):
    path = tmp_path_factory.getbasetemp() / "value.json"
    write_json(path, value)
    assert read_json(path) == value


def test_nan_is_no_json(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "value.json", float("nan"))
    assert names(tmp_path) == []


def test_unreadable_json_is_named(tmp_path):
    (tmp_path / "broken.json").write_text('{"a": 1')
    (tmp_path / "deep.json").write_text("[" * 100_000)
    (tmp_path / "latin.json").write_bytes(b'"Z\xfcrich"')
    (tmp_path / "twice.json").write_text('[{"a": 1, "b": 2, "a": 3}]')
    for name in ("broken", "deep", "latin", "twice"):
        with pytest.raises(StorageError, match=rf"{name}\.json is not valid JSON"):
            read_json(tmp_path / f"{name}.json")
    with pytest.raises(StorageError, match=r"absent\.json does not exist"):
        read_json(tmp_path / "absent.json")
    for path in (tmp_path, tmp_path / "broken.json" / "value.json"):
        with pytest.raises(StorageError, match="cannot read"):
            read_json(path)


@pytest.mark.parametrize("text", ["[1]", "3", "null", '"text"'])
def test_what_is_no_object_is_named(text, tmp_path):
    (tmp_path / "value.json").write_text(text)
    with pytest.raises(StorageError, match=r"value\.json is no JSON object"):
        read_object(tmp_path / "value.json")


def test_yaml_is_plain_data(tmp_path):
    path = tmp_path / "file.yaml"
    path.write_text("label: click\nfeatures:\n- {name: 東京, sizes: [1, 2.5]}\n", encoding="utf-8")
    assert read_yaml(path) == {"label": "click", "features": [{"name": "東京", "sizes": [1, 2.5]}]}
    path.write_text('{"label": null}')
    assert read_yaml(path) == {"label": None}


@given(value=JSON)
def test_yaml_round_trip(tmp_path_factory, value):
    path = tmp_path_factory.getbasetemp() / "value.yaml"
    path.write_text(yaml_text(value), encoding="utf-8", newline="\n")
    assert read_yaml(path) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("-2E+5", -2e5),
        (".5e1", 5.0),
        ("1.5e3", 1500.0),
        ("'1e-3'", "1e-3"),
        ("1e", "1e"),
        ("e5", "e5"),
        ("a1e5", "a1e5"),
    ],
)
def test_exponents_are_numbers(tmp_path, text, value):
    (tmp_path / "file.yaml").write_text(f"key: {text}")
    assert read_yaml(tmp_path / "file.yaml") == {"key": value}
    (tmp_path / "file.yaml").write_text(yaml_text({"key": value}))
    assert read_yaml(tmp_path / "file.yaml") == {"key": value}


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object:tfctr.schema.Categorical {name: user}",
        "a: !!python/object/apply:pathlib.Path.touch [executed]",
        "!!python/object/new:pathlib.Path [executed]",
        "!!python/name:builtins.print",
        "!!python/tuple [1]",
    ],
)
def test_yaml_makes_no_objects(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file.yaml").write_text(text)
    with pytest.raises(ConfigError, match="is not valid YAML or JSON: could not determine a constructor"):
        read_yaml("file.yaml")
    assert names(tmp_path) == ["file.yaml"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: 1\nb: 2\na: 3", "the key 'a' is given twice"),
        (b"b: {a: 1, a: 1}", "the key 'a' is given twice"),
        (b"- {a: 1, 'a': 1}", "the key 'a' is given twice"),
        (b"a: [1", "expected ',' or ']'"),
        (b"a: 1\n---\na: 2", "but found another document"),
        (b"label: 2001-13-45", "month must be in 1..12"),
        (b"name: Z\xfcrich", "can't decode byte 0xfc"),
        (b"[" * 10_000, "recursion"),
        (b"? [a]\n: 1", "unhashable key"),
        (b"a: \x00", "special characters are not allowed"),
    ],
)
def test_broken_yaml_is_named(tmp_path, content, message):
    (tmp_path / "file.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match=rf"file\.yaml is not valid YAML or JSON: (.|\n)*{message}"):
        read_yaml(tmp_path / "file.yaml")


def test_unreadable_yaml_is_named(tmp_path):
    for path in (tmp_path, tmp_path / "absent.yaml"):
        with pytest.raises(StorageError, match=f"cannot read {path}"):
            read_yaml(path)


def test_sha256_is_that_of_the_bytes(tmp_path):
    (tmp_path / "file").write_bytes(b"abc" * 1_000_000)
    assert sha256(tmp_path / "file") == hashlib.sha256(b"abc" * 1_000_000).hexdigest()
