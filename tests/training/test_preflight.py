"""What a machine cannot hold is refused before it is tried."""

import logging

import pytest
from kit.commands import tfctr_
from kit.killed_training import prepare_clicks

import tfctr
from tfctr.config import Config
from tfctr.errors import ConfigError
from tfctr.memory import GIB, usable_memory
from tfctr.models import MODELS, build
from tfctr.models._graph import embeddings_of
from tfctr.training import preflight

ROWS = 3_000_000
SCHEMA = tfctr.Schema(features=[tfctr.Categorical("user", size=ROWS - 10), tfctr.Categorical("item", size=10)], label="click")


def config(optimizer="lazy_adam", **model):
    return Config.from_dict({"model": {"name": "DeepFM", "embedding_dim": 16, **model}, "training": {"optimizer": optimizer}})


def needed(optimizer="lazy_adam", devices=1):
    """GiB, by hand: a table of one number a row, and one of 16."""
    moments = {"adagrad": 1}.get(optimizer, 2)
    return ROWS * 17 * 4 * (1 + devices * (1 + moments)) / GIB


@pytest.mark.parametrize(("optimizer", "devices"), [("adam", 1), ("lazy_adam", 1), ("adagrad", 1), ("lazy_adam", 2)])
def test_tables_larger_than_memory_are_refused(optimizer, devices, monkeypatch):
    monkeypatch.setattr(preflight, "usable_memory", lambda: needed(optimizer, devices) - 0.01)
    with pytest.raises(ConfigError, match=r"3,000,000 x 1 \+ 3,000,000 x 16 take at least") as caught:
        preflight.require_memory(config(optimizer), SCHEMA, devices)
    for way in ("min_count", "hash_buckets", "embedding_dim", "adagrad", "parameter_server"):
        assert way in caught.value.fix
    monkeypatch.setattr(preflight, "usable_memory", lambda: needed(optimizer, devices) + 0.01)
    preflight.require_memory(config(optimizer), SCHEMA, devices)


def test_large_tables_are_told_and_small_ones_not(caplog, monkeypatch):
    caplog.set_level(logging.INFO, logger="tfctr")
    monkeypatch.setattr(preflight, "usable_memory", lambda: 100.0)
    preflight.require_memory(config(embedding_dim=64), SCHEMA)
    assert "at least 2.9 of 100.0 GiB with lazy_adam" in caplog.text
    caplog.clear()
    preflight.require_memory(config(embedding_dim=4), SCHEMA)
    preflight.require_memory(config(), tfctr.Schema(features=[tfctr.Categorical("user", size=50)], label="click"))
    monkeypatch.setattr(preflight, "usable_memory", lambda: None)  # a system that does not say
    preflight.require_memory(config(embedding_dim=4), SCHEMA)
    assert not caplog.text


def test_nothing_is_begun(tmp_path, monkeypatch):
    data = prepare_clicks(tmp_path / "data", 300)
    monkeypatch.setattr(preflight, "_FEW", 0)
    monkeypatch.setattr(preflight, "usable_memory", lambda: 1e-9)
    result = tfctr_("train", "--data", data, "--out", tmp_path / "run", "--model", "LR")
    assert (result.exit_code, "take at least" in result.stderr) == (2, True)
    assert not (tmp_path / "run").exists()


@pytest.mark.sampled(4)
@pytest.mark.parametrize("name", sorted(MODELS))
def test_an_outline_has_all_rows_of_the_model(name):
    features = [tfctr.Categorical("item", size=9), tfctr.Sequence("history", 3, vocabulary_of="item")]
    schema = tfctr.Schema([*features, tfctr.Categorical("hour", size=9)], label="click")
    with preflight.outlined():
        outline = embeddings_of(build(name, schema))
    assert {layer.table.shape[0] for layer in outline} == {1}
    real = embeddings_of(build(name, schema))
    assert [(layer.rows, layer.embedding_dim) for layer in outline] == [tuple(layer.table.shape) for layer in real]


def test_this_machine_has_memory():
    assert usable_memory() > 0.5
