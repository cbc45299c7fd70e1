"""Small files that would take much memory are refused before they are unpacked."""

import shutil

import pytest
from kit.bombs import BOMBS, with_member

import tfctr
from tfctr.errors import StorageError


@pytest.mark.parametrize("name", BOMBS)
def test_bombs(name, saved, tmp_path):
    bomb = BOMBS[name](saved, tmp_path / "bomb.keras")
    assert bomb.stat().st_size < 2**20
    with pytest.raises(StorageError, match=r"bomb\.keras of [\d,]+ bytes unpacks to 26[89],"):
        tfctr.load_model(bomb)


def test_a_file_that_is_compressed_is_none(saved, tmp_path):
    same = with_member(saved, tmp_path / "same.keras", None, None)
    assert tfctr.load_model(same).count_params() == tfctr.load_model(shutil.copy(saved, tmp_path / "copy.keras")).count_params()
