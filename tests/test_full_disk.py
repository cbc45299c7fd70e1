"""A disk that is full, a real one: a small file system in memory, for each kind of work, at several sizes."""

import os
import re
import subprocess

import numpy as np
import pytest

import tfctr
from tfctr.config import Config
from tfctr.errors import StorageError
from tfctr.training import load_run, train

ROWS = 20_000


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
