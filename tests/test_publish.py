"""Versions are numbered, whole or absent, and never overwritten, also when several processes publish or one is killed."""

import random
import signal
import subprocess
import sys
import threading
import time

import pytest

from tfctr.errors import StorageError
from tfctr.serving.publish import latest, publish, versions
from tfctr.storage import sha256


def write(text):
    return lambda folder: (folder / "model").write_text(text)


def test_versions_are_numbered_from_one(tmp_path):
    base = tmp_path / "serving" / "frappe"
    assert versions(base) == []
    assert [publish(base, write(text)).name for text in "abc"] == ["1", "2", "3"]
    assert versions(base) == [1, 2, 3]
    assert latest(base) == 3
    assert [(base / str(number) / "model").read_text() for number in (1, 2, 3)] == ["a", "b", "c"]


@pytest.mark.parametrize(
    "name", ["0", "007", "-1", "+7", " 7", "7 ", "7.0", "1e3", "0x7", "١٢", "７", "9" * 19, ".tmp-7-x", "7.tmp", "v7", "latest"]
)
def test_other_names_are_not_versions(tmp_path, name):
    for folder in ("2", "10", name):
        (tmp_path / folder).mkdir()
    assert versions(tmp_path) == [2, 10]
    assert publish(tmp_path, write("next")).name == "11"


def test_a_file_is_not_a_version_but_takes_its_number(tmp_path):
    (tmp_path / "2").mkdir()
    (tmp_path / "3").write_text("a stray file")
    assert versions(tmp_path) == [2]
    assert publish(tmp_path, write("next")).name == "4"


def test_a_version_is_hidden_until_it_is_whole(tmp_path):
    seen = []

    def build(folder):
        write("half")(folder)
        seen.append([entry.name for entry in tmp_path.iterdir() if not entry.name.startswith(".tmp-")])

    publish(tmp_path, build)
    assert seen == [[]]
    assert [entry.name for entry in tmp_path.iterdir()] == ["1"]


def test_a_failed_build_publishes_nothing(tmp_path):
    def build(folder):
        write("half")(folder)
        raise RuntimeError("the export failed")

    publish(tmp_path, write("whole"))
    with pytest.raises(RuntimeError, match="the export failed"):
        publish(tmp_path, build)
    assert [entry.name for entry in tmp_path.iterdir()] == ["1"]


def test_concurrent_publishers_keep_all_versions(tmp_path):
    start, workers, each = threading.Barrier(8), 8, 5
    paths = []

    def work(worker):
        for number in range(each):
            start.wait()  # all of them choose the next number at the same moment
            paths.append((publish(tmp_path, write(f"{worker}-{number}")), f"{worker}-{number}"))

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
        publish(tmp_path, write("one too many"))
    assert [entry.name for entry in tmp_path.iterdir()] == ["9" * 18]


def test_a_base_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"cannot write .*/file"):
        publish(tmp_path / "file", write("x"))


def test_latest_of_nothing(tmp_path):
    with pytest.raises(StorageError, match="holds no published version"):
        latest(tmp_path)


# Publishes versions of 20 files for ever; each file holds its version's token, and its name the token's place.
PUBLISH_FOR_EVER = """
import itertools, sys
from pathlib import Path
from tfctr.serving.publish import publish
def build(token):
    def fill(folder):
        (folder / "variables").mkdir()
        for number in range(20):
            (folder / "variables" / str(number)).write_text(f"{token}-{number} " * 5000)
    return fill
for token in itertools.count():
    publish(Path(sys.argv[1]), build(token))
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
    publish(base, write("after"))
    assert list(base.glob(".tmp-*")) == []


def test_sigkill_leaves_whole_versions(tmp_path):
    check_kills(tmp_path, kills=5, seed=1)


@pytest.mark.slow
def test_sigkill_leaves_whole_versions_20_times(tmp_path):
    check_kills(tmp_path, kills=20, seed=2)
