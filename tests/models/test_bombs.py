"""Small files that would take much memory are refused before they are unpacked."""

import collections
import json
import shutil
import zipfile

import keras
import numpy as np
import pytest
from kit.bombs import BOMBS, with_member

import tfctr
from tfctr.errors import StorageError
from tfctr.models import _saving


@pytest.mark.sampled(1)
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
    with pytest.raises(StorageError, match=r"bomb\.keras of [\d,]+ bytes asks for embeddings or layers of [\d,]+ numbers"):
        tfctr.load_model(bomb)


def test_a_large_file_is_read_array_by_array_and_is_the_same_model(saved, tmp_path, monkeypatch):
    model = tfctr.load_model(saved)
    model.compile()
    model.save(tmp_path / "compiled.keras")
    saved, weights = tmp_path / "compiled.keras", model.get_weights()
    monkeypatch.setattr(_saving, "_LARGE", 0)
    given = []
    load = keras.saving.load_model
    monkeypatch.setattr(keras.saving, "load_model", lambda path, **options: given.append(path) or load(path, **options))
    for compile in (True, False):
        model = tfctr.load_model(saved, compile=compile)
        assert model.compiled is compile
        for ours, expected in zip(model.get_weights(), weights, strict=True):
            np.testing.assert_array_equal(ours, expected)
    assert not any(path == saved or path.exists() for path in given)
    monkeypatch.setattr(_saving.shutil, "disk_usage", lambda folder: collections.namedtuple("Usage", "free")(10))
    assert tfctr.load_model(saved).count_params() == model.count_params()
    assert given[-1] == saved, "where there is no room for the unpacked file"
    damaged = tmp_path / "damaged.keras"
    damaged.write_bytes(saved.read_bytes()[:-100])
    with pytest.raises(StorageError, match="is corrupt"):
        tfctr.load_model(damaged)


def test_a_config_that_asks_for_layers_that_the_file_does_not_hold(tiny_schema, tmp_path):
    tfctr.models.DNN(tiny_schema, embedding_dim=4, hidden_units=[8, 8]).save(tmp_path / "saved.keras")
    bomb = with_config(
        tmp_path / "saved.keras", tmp_path / "bomb.keras", lambda arguments: arguments.update(hidden_units=[10**5, 10**5])
    )
    with pytest.raises(StorageError, match=r"bomb\.keras of [\d,]+ bytes asks for .* layers of 10,000,000,000 numbers"):
        tfctr.load_model(bomb)
