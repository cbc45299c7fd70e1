"""Small files that would take much memory are refused before they are unpacked."""

import json
import shutil
import zipfile

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


def with_config(saved, path, change):
    """A copy of a file whose config was changed by hand, and no weight of it."""
    with zipfile.ZipFile(saved) as archive:
        config = json.loads(archive.read("config.json"))
    change(config["config"])
    return with_member(saved, path, "config.json", json.dumps(config))


@pytest.mark.parametrize(
    ("rows", "width"), [(200_000_000, 4), (2_000, 2**20)], ids=["a feature of many tokens", "wide embeddings"]
)
def test_a_config_that_asks_for_more_than_the_weights(rows, width, saved, tmp_path):
    def grow(arguments):
        arguments["schema"]["features"][0]["size"] = rows
        arguments["embedding_dim"] = width

    bomb = with_config(saved, tmp_path / "bomb.keras", grow)
    with pytest.raises(StorageError, match=r"bomb\.keras of [\d,]+ bytes asks for embeddings of [\d,]+ numbers"):
        tfctr.load_model(bomb)
