"""Versions are numbered, whole or absent, and never overwritten, also when several processes publish or one is killed."""

import itertools
import os
import pkgutil
import random
import signal
import subprocess
import sys
import threading
import time

import pytest

from tfctr.errors import ConfigError, StorageError
from tfctr.serving.store.folders import (
    HISTORY,
    PUBLICATION,
    add_version,
    latest,
    models_below,
    prune,
    require_base,
    require_place,
    version_folder,
    versions,
)
from tfctr.serving.store.manifest import MANIFEST, verify
from tfctr.storage import sha256, write_json


def write(text):
    return lambda folder: (folder / "model").write_text(text)


def test_versions_are_numbered_from_one(tmp_path):
    base = tmp_path / "serving" / "frappe"
    assert versions(base) == []
    assert [add_version(base, write(text)).name for text in "abc"] == ["1", "2", "3"]
    assert versions(base) == [1, 2, 3]
    assert latest(base) == 3
    assert [(base / str(number) / "model").read_text() for number in (1, 2, 3)] == ["a", "b", "c"]


@pytest.mark.parametrize(
    "name", ["0", "007", "-1", "+7", " 7", "7 ", "7.0", "1e3", "0x7", "١٢", "７", "9" * 19, ".tmp-7-x", "7.tmp", "v7", "latest"]
)
def test_other_names_are_not_versions(tmp_path, name):
    for folder in ("2", "10", name):
        os.mkdir(tmp_path / os.fsdecode(folder.encode()))
    assert versions(tmp_path) == [2, 10]
    assert add_version(tmp_path, write("next")).name == "11"


def test_a_file_is_not_a_version_but_takes_its_number(tmp_path):
    (tmp_path / "2").mkdir()
    (tmp_path / "3").write_text("a stray file")
    assert versions(tmp_path) == [2]
    assert add_version(tmp_path, write("next")).name == "4"


def test_a_version_is_hidden_until_it_is_whole(tmp_path):
    seen = []

    def build(folder):
        write("half")(folder)
        seen.append([entry.name for entry in tmp_path.iterdir() if not entry.name.startswith(".tmp-")])

    add_version(tmp_path, build)
    assert seen == [[]]
    assert [entry.name for entry in tmp_path.iterdir()] == ["1"]


def test_a_failed_build_publishes_nothing(tmp_path):
    def build(folder):
        write("half")(folder)
        raise RuntimeError("the export failed")

    add_version(tmp_path, write("whole"))
    with pytest.raises(RuntimeError, match="the export failed"):
        add_version(tmp_path, build)
    assert [entry.name for entry in tmp_path.iterdir()] == ["1"]


def test_concurrent_publishers_keep_all_versions(tmp_path):
    start, workers, each = threading.Barrier(8), 8, 5
    paths = []

    def work(worker):
        for number in range(each):
            start.wait()  # all of them choose the next number at the same moment
            paths.append((add_version(tmp_path, write(f"{worker}-{number}")), f"{worker}-{number}"))

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert versions(tmp_path) == list(range(1, workers * each + 1))
    assert all((path / "model").read_text() == text for path, text in paths)
    assert len({path for path, _ in paths}) == workers * each


def test_the_last_number_is_said(tmp_path):
    (tmp_path / ("9" * 18)).mkdir()
    with pytest.raises(StorageError, match=r"no version number left after 9{18}\."):
        add_version(tmp_path, write("one too many"))
    assert [entry.name for entry in tmp_path.iterdir()] == ["9" * 18]


def test_a_base_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"cannot write .*/file"):
        add_version(tmp_path / "file", write("x"))


def test_latest_of_nothing(tmp_path):
    with pytest.raises(StorageError, match="holds no published version"):
        latest(tmp_path)


def test_a_version_has_its_manifest(tmp_path):
    version = add_version(tmp_path, write("a"))
    assert (version / MANIFEST).read_text().endswith("  model\n")
    verify(version)


HOSTILE_NUMBERS = [
    "../1",
    "1/../1",
    "/etc",
    "",
    "0",
    "007",
    "-1",
    "+1",
    " 1",
    "1 ",
    "1\n",
    "1.0",
    "1e0",
    "0x1",
    "１",
    "١",
    "\0",
]


@pytest.mark.parametrize("number", [*HOSTILE_NUMBERS, 2**63, str(2**63), 10**18, 0, -1, 1.0, True, None, b"1", ["1"]])
def test_what_is_no_number_of_a_version_is_refused(number, tmp_path):
    add_version(tmp_path, write("a"))
    with pytest.raises(ConfigError, match="is not a version's number"):
        version_folder(tmp_path, number)


def test_the_folder_of_a_version(tmp_path):
    add_version(tmp_path / "base", write("a"))
    (tmp_path / "base" / "2").symlink_to(tmp_path)
    assert version_folder(tmp_path / "base", "1") == version_folder(tmp_path / "base", 1) == tmp_path / "base" / "1"
    with pytest.raises(StorageError, match="2 is a link, not a version"):
        version_folder(tmp_path / "base", 2)
    with pytest.raises(StorageError, match=r"has no version 3\.\n  fix: .*: 1"):
        version_folder(tmp_path / "base", 3)


@pytest.mark.parametrize(
    "name", ["7", "007", "+7", ".hidden", "-model", "a b", "a\nb", "a\0b", "模型", "m" * 101, "m" * 300, "/"]
)
def test_what_cannot_be_the_name_of_a_model(name, tmp_path):
    with pytest.raises(ConfigError, match="cannot be the name of a served model"):
        require_base(f"{tmp_path}/{name}" if name != "/" else name)


@pytest.mark.parametrize("folder", ["models [new]", "back\\slash", os.fsdecode(b"\xff")])
def test_a_path_that_tensorflow_cannot_read_is_refused(folder, tmp_path):
    with pytest.raises(StorageError, match="TensorFlow cannot read files in") as error:
        require_base(tmp_path / folder / "frappe")
    assert repr(str(tmp_path / folder / "frappe")) in error.value.problem


@pytest.mark.parametrize("entry", ["0", "007", "+7", " 7", "7 ", "9" * 19])
def test_what_only_looks_like_a_version_is_named(entry, tmp_path):
    base = tmp_path / "frappe"
    add_version(base, write("a"))
    for harmless in (".tfctr-lock", "7.tmp", "v7", "models.config", "-7"):
        (base / harmless).mkdir()
    assert require_base(base) == base
    (base / entry).mkdir()
    with pytest.raises(StorageError, match="TensorFlow Serving would read"):
        require_base(base)


def test_links_and_files_where_versions_should_be(tmp_path, monkeypatch):
    base, other = tmp_path / "frappe", tmp_path / "other"
    add_version(base, write("a"))
    (base / "2").symlink_to(base / "1")
    with pytest.raises(StorageError, match="TensorFlow Serving would read"):
        require_base(base)
    (base / "2").unlink()
    other.symlink_to(base)
    with pytest.raises(StorageError, match=r"other is a link\.\n  fix: .*/frappe"):
        require_base(other)
    (base / HISTORY).symlink_to(tmp_path)
    with pytest.raises(StorageError, match="tfctr-history is a link"):
        require_base(base)
    (base / HISTORY).unlink()
    (base / "2").write_text("")
    with pytest.raises(StorageError, match="TensorFlow Serving would read"):
        require_base(base)
    with pytest.raises(StorageError, match="model is not a folder"):
        require_base(base / "1" / "model")
    (base / "2").unlink()
    (base / "saved_model.pb").write_text("")
    with pytest.raises(StorageError, match="frappe is one version"):
        require_base(base)
    monkeypatch.chdir(tmp_path)
    assert require_base("new") == tmp_path / "new"


@pytest.mark.parametrize("text", ["", " "])
def test_an_empty_name_is_not_the_working_directory(text):
    with pytest.raises(ConfigError, match="name is empty"):
        require_base(text)


def test_a_folder_of_models_is_no_place_for_a_version(tmp_path):
    add_version(tmp_path / "serving" / "frappe", write("a"))
    add_version(tmp_path / "serving" / "ml1m", write("a"))
    with pytest.raises(
        StorageError, match=r"holds the models frappe, ml1m.*\n  fix: .*serving/NAME.*serving/frappe, .*serving/ml1m"
    ):
        require_place(tmp_path / "serving")
    with pytest.raises(StorageError, match=r"no published version\.\n  fix: .*one model: .*serving/frappe, .*serving/ml1m"):
        latest(tmp_path / "serving")
    assert models_below(tmp_path / "serving") == ["frappe", "ml1m"]
    assert require_place(tmp_path / "serving" / "frappe") == tmp_path / "serving" / "frappe"
    assert require_place(tmp_path / "serving" / "new") == tmp_path / "serving" / "new"


def test_a_folder_with_other_files_is_no_place_for_a_first_version(tmp_path):
    base = tmp_path / "clicks"
    base.mkdir()
    (base / ".hidden").write_text("")
    assert require_place(base) == base
    (base / "clicks.csv").write_text("")
    with pytest.raises(StorageError, match=r"other files: \['clicks.csv'\].\n  fix: .*clicks/NAME"):
        require_place(base)
    (base / "clicks.csv").unlink()
    add_version(base, write("a"))
    (base / "README.md").write_text("")  # beside versions it is nobody's mistake
    assert require_place(base) == base


def numbered(base, count):
    for number in range(1, count + 1):
        add_version(base, write(str(number)))
        (base / str(number) / PUBLICATION).parent.mkdir(exist_ok=True)
        write_json(base / str(number) / PUBLICATION, {"reason": f"because {number}"})


def test_old_versions_go_and_their_records_stay(tmp_path):
    numbered(tmp_path, 6)
    assert prune(tmp_path, keep=2, protected={3}) == [1, 2, 4]
    assert versions(tmp_path) == [3, 5, 6]
    assert prune(tmp_path, keep=2, protected={3}) == []
    assert [(file.name, file.read_text().split('"')[3]) for file in sorted((tmp_path / HISTORY).glob("*.json"))] == [
        (f"{number}.json", f"because {number}") for number in (1, 2, 4)
    ]
    assert prune(tmp_path, keep=9) == []
    assert add_version(tmp_path, write("next")).name == "7"
    assert list(tmp_path.glob(".tmp-*")) == []


def test_a_version_of_another_user_stays_whole(tmp_path, monkeypatch):
    numbered(tmp_path, 4)
    theirs, access = tmp_path / "1" / "assets.extra", os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path != theirs and access(path, mode))
    with pytest.raises(StorageError, match=r"version 1 of .* cannot be removed: you may not write .*1/assets\.extra"):
        prune(tmp_path, keep=2)
    assert versions(tmp_path) == [1, 3, 4]
    assert sorted(path.name for path in (tmp_path / "1").iterdir()) == ["assets.extra", "model"]
    monkeypatch.undo()
    assert prune(tmp_path, keep=2) == [1]


@pytest.mark.parametrize(
    ("function", "left"),
    [("os.rename", [1, 3, 4]), ("tfctr.serving.store.folders.read_publication", [1, 3, 4]), ("shutil.rmtree", [3, 4])],
)
def test_what_cannot_be_removed_is_said_and_the_others_go(function, left, tmp_path, monkeypatch):
    numbered(tmp_path, 4)
    real, calls = pkgutil.resolve_name(function), itertools.count()

    def refuse_once(path, *arguments):
        if next(calls) == 0:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *arguments)

    monkeypatch.setattr(function, refuse_once)
    with pytest.raises(StorageError, match=r"^version 1 of [^;]* cannot be removed: [^;]*Permission denied"):
        prune(tmp_path, keep=2)
    assert versions(tmp_path) == left


@pytest.mark.parametrize("keep", [1, 0, -3, 2.5, True, "2"])
def test_one_version_is_too_few_to_keep(keep, tmp_path):
    numbered(tmp_path, 3)
    with pytest.raises(ConfigError, match="`keep` is"):
        prune(tmp_path, keep=keep)
    assert versions(tmp_path) == [1, 2, 3]


# Publishes versions of 20 files for ever; each file holds its version's token, and its name the token's place.
PUBLISH_FOR_EVER = """
import itertools, sys
from pathlib import Path
from tfctr.serving.store.folders import add_version
def build(token):
    def fill(folder):
        (folder / "variables").mkdir()
        for number in range(20):
            (folder / "variables" / str(number)).write_text(f"{token}-{number} " * 5000)
    return fill
for token in itertools.count():
    add_version(Path(sys.argv[1]), build(token))
    sys.stdout.write("published\\n")
    sys.stdout.flush()
"""


def check_kills(base, kills, seed):
    moments = random.Random(seed)
    for _ in range(kills):
        before = {path: sha256(path) for path in base.glob("[0-9]*/variables/*")}
        child = subprocess.Popen([sys.executable, "-c", PUBLISH_FOR_EVER, str(base)], stdout=subprocess.PIPE)
        child.stdout.readline()  # at least one version a round
        time.sleep(moments.uniform(0, 0.3))
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        assert versions(base) == list(range(1, latest(base) + 1))
        for number in versions(base):
            tokens = {file.read_text().split("-")[0] for file in (base / str(number) / "variables").iterdir()}
            counts = [file.read_text().count(" ") for file in (base / str(number) / "variables").iterdir()]
            assert len(tokens) == 1
            assert counts == [5000] * 20
        assert before.items() <= {path: sha256(path) for path in base.glob("[0-9]*/variables/*")}.items()
    add_version(base, write("after"))
    assert list(base.glob(".tmp-*")) == []


@pytest.mark.slow
def test_sigkill_leaves_whole_versions(tmp_path):
    check_kills(tmp_path, kills=5, seed=1)


@pytest.mark.slow
def test_sigkill_leaves_whole_versions_20_times(tmp_path):
    check_kills(tmp_path, kills=20, seed=2)
