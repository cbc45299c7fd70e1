"""`train(warm_start=...)`, `tfctr train --warm-start`, and replayed rows."""

import dataclasses
import io
import json
import logging
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import rich.console
from kit.days import prepared, tokens

import tfctr
from tfctr import models
from tfctr.config import Config
from tfctr.errors import ConfigError, StorageError
from tfctr.training import load_run, train, trainer, warm_start
from tfctr.training.warm import next_config


@pytest.fixture(scope="module")
def days(tmp_path_factory):
    return prepared(tmp_path_factory.mktemp("days"))


def config(**training):
    values = {"batch_size": 64, "epochs": 3, "learning_rate": 0.01, **training}
    return Config.from_dict({"model": {"name": "DNN", "embedding_dim": 4, "hidden_units": [8]}, "training": values})


def quiet():
    return rich.console.Console(file=io.StringIO())


@pytest.fixture(scope="module")
def run(days, tmp_path_factory):
    return train(config(), days["monday"], tmp_path_factory.mktemp("runs") / "monday", quiet())


def test_a_run_that_begins_where_another_ended(days, run, tmp_path):
    model = models.DNN(days["tuesday"].schema, embedding_dim=4, hidden_units=[8])
    model.compile(tfctr.optimizers.Adam(0.01), clip_norm=10.0)
    report = warm_start(model, run)
    model.fit(days["tuesday"].train.batches(64, seed=1), epochs=1, verbose=0)
    second = train(config(epochs=1), days["tuesday"], tmp_path / "run", quiet(), warm_start=run.folder)
    for ours, theirs in zip(second.model.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    kept = second.environment["warm_start"]
    expected = {"folder": str(run.folder.resolve()), "model_sha256": run.metrics["model_sha256"]}
    assert kept == {**report, **expected}
    assert "folder" not in second.origin["environment"]["warm_start"]
    assert second.origin["environment"]["warm_start"]["model_sha256"] == run.metrics["model_sha256"]


def test_the_settings_are_those_of_the_earlier_run(days, run, tmp_path):
    second = train(data=days["tuesday"], out=tmp_path / "run", console=quiet(), warm_start=run)
    assert all(epoch["learning_rate"] == pytest.approx(0.01) for epoch in run.history), "it never met a plateau"
    changed = {"epochs": 1, "learning_rate": 0.001}
    assert second.config.to_dict()["training"] == {**run.config.to_dict()["training"], **changed}
    assert second.config.model == run.config.model
    third = next_config(second)
    assert third.training.learning_rate == 0.001, "the rate of one warm start is that of the next"
    lowered = dataclasses.replace(run, history=[{**epoch, "learning_rate": 0.0001} for epoch in run.history])
    assert next_config(lowered).training.learning_rate == 0.0001, "the best epoch came after two plateaus"


def test_replayed_rows_are_found_by_their_tokens(days, run, tmp_path, monkeypatch):
    seen = []
    fit = trainer.CTRModel.fit

    def noting(self, x, *arguments, **given):
        seen.append(x.split)
        return fit(self, x, *arguments, **given)

    monkeypatch.setattr(trainer.CTRModel, "fit", noting)
    train(config(epochs=1, replay=0.25), days["tuesday"], tmp_path / "run", quiet(), warm_start=run)
    (split,) = seen
    new = days["tuesday"].train
    assert split.rows == new.rows + round(0.25 * new.rows)
    np.testing.assert_array_equal(split.ids[: new.rows], new.ids)
    names = {row: token for token, row in tokens(days["tuesday"], "user").items()}
    before = {row: token for token, row in tokens(days["monday"], "user").items()}
    monday = days["monday"].train
    raw = {(before[row[0]], label) for row, label in zip(monday.ids, monday.labels, strict=True)}
    replayed = [(names[row[0]], label) for row, label in zip(split.ids[new.rows :], split.labels[new.rows :], strict=True)]
    assert set(replayed) <= raw
    ages = set(monday.ids[:, -2].tolist())
    assert {int(age) for age in split.ids[new.rows :, -2]} <= ages, "numbers are bits, and stay"


def test_replay_needs_a_run_and_has_no_more_rows_than_it(days, run, tmp_path):
    with pytest.raises(ConfigError, match=r"training\.replay is 0\.5, and there is no earlier run"):
        train(config(replay=0.5), days["tuesday"], tmp_path / "run", quiet())
    assert not (tmp_path / "run").exists()
    most = train(config(epochs=1, replay=50.0), days["tuesday"], tmp_path / "most", quiet(), warm_start=run)
    assert most.metrics["finished"]


@pytest.mark.slow
def test_a_stopped_run_with_replay_goes_on(days, run, tmp_path):
    class Stop(BaseException):
        pass

    def stop(self, epoch, logs=None):
        if epoch == 1:
            raise Stop
        keep(self, epoch, logs)

    keep = trainer.RunRecorder.on_epoch_end
    whole = train(config(replay=0.5), days["tuesday"], tmp_path / "whole", quiet(), warm_start=run)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer.RunRecorder, "on_epoch_end", stop)
        with pytest.raises(Stop):
            train(config(replay=0.5), days["tuesday"], tmp_path / "run", quiet(), warm_start=run)
    resumed = train(out=tmp_path / "run", console=quiet(), resume=True)
    for ours, theirs in zip(resumed.model.get_weights(), whole.model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert resumed.environment["warm_start"] == whole.environment["warm_start"]


@pytest.mark.slow
def test_the_command(days, run, tmp_path):
    out = tmp_path / "run"
    command = [
        sys.executable,
        "-m",
        "tfctr",
        "train",
        "--data",
        days["tuesday"].folder,
        "--out",
        out,
        "--warm-start",
        run.folder,
    ]
    command += ["--epochs", "1", "--learning-rate", "0.002", "--replay", "0.5", "--new-rows", "random", "--json"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    found = subprocess.run([*map(str, command)], env=environment, capture_output=True, encoding="utf-8")
    assert found.returncode == 0, found.stderr
    assert "user: rows of 5 tokens carried, 3 new, 0 forgotten" in found.stderr
    second = load_run(out)
    assert json.loads(found.stdout)["epochs"] == 1
    changed = {"epochs": 1, "learning_rate": 0.002, "replay": 0.5}
    assert second.config.to_dict()["training"] == {**run.config.to_dict()["training"], **changed}
    assert logging.getLogger("tfctr").level == logging.NOTSET


def test_options_of_a_warm_start_need_one(days, tmp_path):
    for given in ({"new_rows": "random"}, {"warm_start_data": tmp_path}):
        with pytest.raises(ConfigError, match="and there is no warm start"):
            train(config(), days["tuesday"], tmp_path / "run", quiet(), **given)


def test_an_earlier_dataset_that_has_moved(days, tmp_path):
    shutil.copytree(days["monday"].folder, tmp_path / "data")
    first = train(config(epochs=1), tmp_path / "data", tmp_path / "first", quiet())
    (tmp_path / "data").rename(tmp_path / "moved")
    with pytest.raises(StorageError, match="warm_start_data"):
        train(None, days["tuesday"], tmp_path / "run", quiet(), warm_start=first)
    given = {"warm_start": first, "warm_start_data": tmp_path / "moved"}
    assert train(None, days["tuesday"], tmp_path / "run", quiet(), **given).metrics["finished"]
