"""Further callbacks of a run, and TensorBoard's curves."""

import importlib.util

import keras
import pytest
import tensorflow as tf
from kit.commands import done

import tfctr
from tfctr import cli
from tfctr.config import Config
from tfctr.errors import ConfigError
from tfctr.training import load_run, train


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    schema = tfctr.Schema(features=[tfctr.Categorical("user"), tfctr.Categorical("item")], label="click")
    table = {"user": list("abab") * 16, "item": list("xxyy") * 16, "click": [0, 1, 1, 0] * 16}
    folder = tmp_path_factory.mktemp("prepared") / "data"
    tfctr.prepare(schema, train=table, valid=table, out=folder)
    return folder


def tiny_run(**training):
    return Config.from_dict({"model": {"name": "LR"}, "training": {"batch_size": 64, **training}})


def test_further_callbacks_get_the_logs_of_each_epoch(data, tmp_path):
    seen = []
    noting = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append((epoch, {*logs})))
    run = train(tiny_run(epochs=2), data, tmp_path / "run", callbacks=[noting])
    names = {"loss", "ctr", "val_auc", "val_log_loss", "val_loss", "learning_rate", "seconds", "rows_per_second"}
    assert seen == [(0, names), (1, names)]
    assert run.metrics["epochs"] == 2


def test_tensorboard_gets_the_curves(data, tmp_path):
    tiny_run(epochs=2).save(tmp_path / "run.yaml")
    done("train", tmp_path / "run.yaml", "--data", data, "--out", tmp_path / "run", "--tensorboard", tmp_path / "curves")
    (file,) = (tmp_path / "curves" / "validation").glob("events.*")
    found = {}
    for record in tf.data.TFRecordDataset(str(file)):
        for value in tf.compat.v1.Event.FromString(record.numpy()).summary.value:
            found.setdefault(value.tag, []).append(float(tf.make_ndarray(value.tensor)))
    history = load_run(tmp_path / "run").history
    assert found["epoch_auc"] == pytest.approx([epoch["val_auc"] for epoch in history], abs=1e-6)
    assert found["epoch_log_loss"] == pytest.approx([epoch["val_log_loss"] for epoch in history], abs=1e-6)


def test_without_tensorboard_it_is_said_before_any_work(data, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install .tfctr\[tensorboard\]"):
        cli.training.train(out=tmp_path / "run", data=data, tensorboard=tmp_path / "curves")
    assert list(tmp_path.iterdir()) == []
