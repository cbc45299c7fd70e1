"""A disk that is full, a real one: a small file system in memory, for each kind of work, at several sizes.

And one that is read-only, and a process that may write small files only.
"""

import multiprocessing
import os
import re
import resource
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from kit.commands import tfctr_
from kit.releases import GOOD, model, tree

import tfctr
from tfctr.config import Config
from tfctr.errors import StorageError
from tfctr.serving import history, publish_model, rollback, versions
from tfctr.serving.publishing.configuration import write_server_config
from tfctr.serving.publishing.labels import load_versions
from tfctr.serving.store.manifest import verify
from tfctr.training import load_run, train

ROWS, ROOM = 20_000, 20_000  # KiB, of a disk that is large enough
# Children start from a process that has imported TensorFlow once and never used it, not from a new one each.
FORKSERVER = multiprocessing.get_context("forkserver")
FORKSERVER.set_forkserver_preload(["tfctr.serving.exporting.exporter", "tfctr.serving.publishing.release", "tfctr.models"])


@pytest.fixture
def disk(tmp_path):
    """Sets the size of a new file system, in KiB, and gives its folder."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder], capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a file system, and not everywhere")

    def of_size(kibibytes):
        subprocess.run(["mount", "-o", f"remount,size={kibibytes}k", folder], check=True)
        return folder

    yield of_size
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A table as a file, its schema, and what is prepared of it."""
    draw, folder = np.random.default_rng(0), tmp_path_factory.mktemp("full")
    lines = [f"user number {user},{x},{x % 2}" for x, user in enumerate(draw.integers(0, ROWS, ROWS).tolist())]
    (folder / "table.csv").write_text("\n".join(["user,x,click", *lines]))
    schema = tfctr.Schema([tfctr.Categorical("user"), tfctr.Numeric("x")], label="click")
    return schema, folder / "table.csv", tfctr.prepare(schema, train=folder / "table.csv", valid=0.1, out=folder / "data")


def left(folder):
    return sorted(os.listdir(folder))


@pytest.mark.parametrize("kibibytes", [20, 300, 1_000, 2_000])
def test_prepare(kibibytes, disk, data):
    folder = disk(kibibytes)
    with pytest.raises(StorageError, match=r"cannot write .*/new: No space left on device") as raised:
        tfctr.prepare(data[0], train=data[1], valid=0.1, out=folder / "new")
    assert int(re.search(r"([\d,]+) bytes are free", raised.value.fix)[1].replace(",", "")) == kibibytes * 1024
    assert left(folder) == []


@pytest.mark.parametrize("kibibytes", [4, 40])
def test_train(kibibytes, disk, data):
    folder = disk(kibibytes)
    config = Config.from_dict({"model": {"name": "LR"}, "training": {"batch_size": 5_000, "epochs": 3, "monitor": "log_loss"}})
    with pytest.raises(StorageError, match=r"cannot write .*/run.*No space left"):
        train(config, data[2], folder / "run")
    if left(folder):  # the epochs before
        assert load_run(folder / "run").model.name


@pytest.mark.parametrize("kibibytes", [20, 200])
def test_export(kibibytes, disk, data):
    folder = disk(kibibytes)
    with pytest.raises(StorageError, match=r"cannot write .*(No space|space on its disk)"):
        tfctr.serving.export(tfctr.models.LR(data[2].schema), folder / "ctr", check=False)
    assert [name for name in left(folder) if not name.startswith(".")] in ([], ["ctr"])
    assert not (folder / "ctr").exists() or left(folder / "ctr") == []


# beside versions that are live


def publish_again(base, schema):
    publish_model(model(schema), base, metrics=GOOD)


def roll_back(base, schema):
    rollback(base, "a test", to=1)


def label(base, schema):
    load_versions(base.with_name("models.config"), base, {"stable": 1})


def configure(base, schema):
    write_server_config(base.with_name("config"), [base])


@pytest.fixture(scope="module")
def published(tiny_schema, tmp_path_factory):
    base = tmp_path_factory.mktemp("published") / "ctr"
    for _ in range(2):
        publish_again(base, tiny_schema)
    return base


@pytest.fixture
def live(published, disk):
    """Two versions, on a disk of their own."""
    return shutil.copytree(published, disk(ROOM) / "ctr")


def used(folder):
    """KiB of its disk."""
    found = os.statvfs(folder)
    return (found.f_blocks - found.f_bfree) * found.f_frsize // 1024


def left_beside(base, before):
    """What a writer that failed has left under names of their own; the versions are what they were, and no more."""
    assert before.items() <= tree(base).items()
    assert sorted(name for name in os.listdir(base) if not name.startswith(".")) == ["1", "2"]
    for number in versions(base):
        verify(base / str(number))
    return {name: digest for name, digest in tree(base.parent).items() if ".tmp-" not in name}


def require_whole(left, folder):
    """What was left is as the next writer has it, too, who has removed what had a temporary name."""
    assert left.items() <= tree(folder).items()
    assert not list(folder.rglob(".tmp-*"))


@pytest.mark.parametrize(
    ("write", "free"),
    [
        pytest.param(publish_again, -4, marks=pytest.mark.slow),  # less than a version takes: its last file
        pytest.param(publish_again, -100, marks=pytest.mark.slow),
        pytest.param(publish_again, -350, marks=pytest.mark.slow),
        (roll_back, 0),
        (roll_back, 4),
        (label, 0),
        (label, 4),
        (label, 8),
        (configure, 0),
        (configure, 4),
    ],
)
def test_live_versions_beside_no_space(write, free, live, disk, tiny_schema):
    folder, before = live.parent, tree(live)
    disk(used(folder) + free + used(folder) // 2 * (free < 0))
    with pytest.raises(StorageError, match=f"cannot write {folder}/.*: No space left on device"):
        write(live, tiny_schema)
    left = left_beside(live, before)
    disk(ROOM)
    write(live, tiny_schema)
    require_whole(left, folder)


@pytest.mark.parametrize("write", [publish_again, roll_back, label, configure])
def test_live_versions_of_a_disk_that_is_read_only(write, live, tiny_schema):
    before = tree(live.parent)
    subprocess.run(["mount", "-o", "remount,ro", live.parent], check=True)
    with pytest.raises(StorageError, match=f"cannot write {live.parent}/.*: Read-only file system"):
        write(live, tiny_schema)
    assert tree(live.parent) == before
    assert [version["damage"] for version in history(live)] == [None, None]


def write_small_files(write, base, schema, size):
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    try:
        write(base, schema)
    except StorageError as error:
        sys.exit(error.exit_code if "File too large" in str(error) else str(error))


@pytest.mark.parametrize(
    ("write", "size"),
    [pytest.param(publish_again, 100_000, marks=pytest.mark.slow), (roll_back, 100), (label, 20), (configure, 20)],
)
def test_live_versions_beside_files_that_may_not_be_large(write, size, published, tiny_schema, tmp_path):
    base = shutil.copytree(published, tmp_path / "ctr")
    before = tree(base)
    child = FORKSERVER.Process(target=write_small_files, args=(write, base, tiny_schema, size))
    child.start()
    child.join()
    assert child.exitcode == StorageError.exit_code
    left = left_beside(base, before)
    write(base, tiny_schema)
    require_whole(left, tmp_path)


def test_the_command_on_a_full_disk(live, disk):
    disk(used(live.parent))
    result = tfctr_("label", live.with_name("models.config"), live, "stable=1", "--step", "load")
    assert (result.exit_code, "No space left on device" in result.stderr) == (6, True)
    assert not live.with_name("models.config").exists()
