"""Small files that would take much memory are refused before they are unpacked."""

import shutil
import zipfile

import h5py
import numpy as np
import pytest

import tfctr
from tfctr.errors import StorageError

MUCH = 2**28


@pytest.fixture(scope="module")
def saved(tiny_schema, tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "model.keras"
    tfctr.models.LR(tiny_schema).save(path)
    return path


def with_member(saved, path, name, content):
    """A copy of a file with one member replaced, and compressed."""
    with zipfile.ZipFile(saved) as before, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as after:
        for info in before.infolist():
            after.writestr(info.filename, content if info.filename == name else before.read(info))
    return path


@pytest.mark.parametrize("has_weights", [True, False])
def test_a_config_of_blanks(has_weights, saved, tmp_path):
    blanks, bomb = b"{" + b" " * MUCH + b"}", tmp_path / "bomb.keras"
    if has_weights:
        with_member(saved, bomb, "metadata.json", blanks)
    else:
        with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("config.json", blanks)
    assert bomb.stat().st_size < 2**20
    with pytest.raises(StorageError, match=r"bomb\.keras of [\d,]+ bytes unpacks to 26[89],"):
        tfctr.load_model(bomb)


@pytest.mark.parametrize("options", [{"compression": "gzip"}, {"chunks": (1024,)}], ids=["compressed", "never written"])
def test_weights_of_zeros(options, saved, tmp_path):
    with h5py.File(tmp_path / "weights.h5", "w") as file:
        zeros = file.create_dataset("layers/vars/0", (MUCH // 4,), np.float32, **options)
        if "compression" in options:
            zeros[:] = 0
    content = (tmp_path / "weights.h5").read_bytes()
    bomb = with_member(saved, tmp_path / "bomb.keras", "model.weights.h5", content)
    assert bomb.stat().st_size < 2**20
    with pytest.raises(StorageError, match=r"bomb\.keras of [\d,]+ bytes unpacks to 26[89],"):
        tfctr.load_model(bomb)


def test_a_file_that_is_compressed_is_none(saved, tmp_path):
    same = with_member(saved, tmp_path / "same.keras", None, None)
    assert tfctr.load_model(same).count_params() == tfctr.load_model(shutil.copy(saved, tmp_path / "copy.keras")).count_params()
