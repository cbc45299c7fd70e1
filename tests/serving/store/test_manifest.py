"""A version's manifest tells every file, and finds every change."""

import os
import shutil
import subprocess
import sys

import pytest

from tfctr.errors import StorageError
from tfctr.serving.store.manifest import MANIFEST, seal, verify

VOCABULARY = f"assets/{'naïve' if sys.getfilesystemencoding() == 'utf-8' else 'naive'}, 1.txt"
FILES = {"saved_model.pb": "graph", "variables/variables.index": "index", VOCABULARY: "a\nb\n", "empty": ""}


@pytest.fixture
def version(tmp_path):
    folder = tmp_path / "7"
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    seal(folder)
    return folder


def test_every_file_is_told(version):
    lines = (version / MANIFEST).read_text().splitlines()
    assert [line.split("  ", 1)[1] for line in lines] == sorted(FILES)
    # sha256 of nothing
    assert "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855  empty" in lines
    verify(version)


def test_a_tool_that_everybody_has_reads_it(version):
    if shutil.which("sha256sum") is None:
        pytest.skip("no sha256sum here")
    check = ["sha256sum", "--check", "--strict", "--quiet", MANIFEST]
    assert subprocess.run(check, cwd=version).returncode == 0
    (version / "empty").write_text("not so")
    assert subprocess.run(check, cwd=version, capture_output=True).returncode == 1


def rewrite(folder):
    (folder / "variables" / "variables.index").write_text("indeX")


def truncate(folder):
    (folder / "saved_model.pb").write_text("")


def remove(folder):
    (folder / "empty").unlink()


def add(folder):
    (folder / "variables" / "more").write_text("")


def link(folder):
    (folder / "assets" / "link").symlink_to(folder / "empty")


def lose_the_manifest(folder):
    (folder / MANIFEST).unlink()


def break_the_manifest(folder):
    (folder / MANIFEST).write_text("no digest  saved_model.pb\n")


def empty_the_manifest(folder):
    (folder / MANIFEST).write_text("")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (rewrite, r"variables\.index is not the file that was published"),
        (truncate, r"saved_model\.pb is not the file that was published"),
        (remove, "empty is missing"),
        (add, "more was added after"),
        (link, "link is neither a file nor a folder"),
        (lose_the_manifest, "has no readable assets.extra/SHA256SUMS"),
        (break_the_manifest, "SHA256SUMS is corrupt"),
        (empty_the_manifest, "SHA256SUMS is corrupt"),
    ],
)
def test_every_change_is_found(change, said, version):
    change(version)
    with pytest.raises(StorageError, match=said):
        verify(version)


def test_a_file_that_cannot_be_read_is_damage(version, monkeypatch):
    def fail(path):
        raise OSError(5, "Input/output error", str(path))

    monkeypatch.setattr("tfctr.serving.store.manifest.sha256", fail)
    with pytest.raises(StorageError, match=r"cannot read .*assets/.*: Input/output error"):
        verify(version)


def test_a_manifest_that_came_with_the_files_must_hold(version):
    seal(version)
    rewrite(version)
    with pytest.raises(StorageError, match="SHA-256 differs"):
        seal(version)


@pytest.mark.parametrize("name", ["two\nlines", "back\\slash", b"\xff"])
def test_names_that_no_manifest_can_tell(name, tmp_path):
    (tmp_path / os.fsdecode(name)).write_text("")
    with pytest.raises(StorageError, match="cannot be a file of a version"):
        seal(tmp_path)


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/etc"), lambda path: path.symlink_to("nowhere")])
def test_only_files_and_folders(make, tmp_path):
    make(tmp_path / "strange")
    with pytest.raises(StorageError, match="strange is neither a file nor a folder of its own"):
        seal(tmp_path)
