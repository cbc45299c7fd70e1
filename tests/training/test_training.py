"""`tfctr.training` and `tfctr.evaluation`: whole runs on a tiny dataset."""

import dataclasses
import io
import json
import re
import shutil
import sys
import typing

import keras
import numpy as np
import pytest
import rich.console
import sklearn.metrics
import tensorflow as tf

import tfctr
from tfctr.config import Config, Training
from tfctr.errors import ConfigError, DataError, StorageError, TrainingError
from tfctr.evaluation import evaluate, figures
from tfctr.metrics import auc
from tfctr.optimizers import OPTIMIZERS
from tfctr.training import load_run, train
from tfctr.training.building import build_model
from tfctr.training.environment import device
from tfctr.training.progress import Progress
from tfctr.training.recorder import RunRecorder
from tfctr.training.schedule import MONITORS


def clicks(rows, seed):
    """A table in which a click depends on the user and the item together."""
    rng = np.random.default_rng(seed)
    users, items = rng.integers(0, 8, rows), rng.integers(0, 6, rows)
    likes = rng.random(rows) < np.where((users + items) % 2, 0.9, 0.1)
    return {"user": [f"u{user}" for user in users], "item": items.tolist(), "click": likes.astype(int).tolist()}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder prepared from 400, 200 and 100 such rows."""
    features = [tfctr.Categorical("user"), tfctr.Categorical("item")]
    schema = tfctr.Schema(features=features, label="click", group="user")
    tables = {name: clicks(rows, seed) for seed, (name, rows) in enumerate({"train": 400, "valid": 200, "test": 100}.items())}
    folder = tmp_path_factory.mktemp("prepared") / "data"
    tfctr.prepare(schema, **tables, out=folder)
    return folder


ENCODER = {"type": "MLP", "hidden_units": [8], "dropout": 0.1, "batch_norm": True}
TF4CTR = {"name": "TF4CTR", "embedding_dim": 4, "embedding_l2": 1e-4, "simple_encoder": ENCODER, "complex_encoder": ENCODER}
DNN = {"name": "DNN", "embedding_dim": 4, "hidden_units": [8], "dropout": 0.1}


def tiny_run(model=DNN, **training):
    return Config.from_dict({"model": model, "training": {"batch_size": 64, "epochs": 3, "learning_rate": 0.01, **training}})


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    """A run, and what it said."""
    said = io.StringIO()
    folder = tmp_path_factory.mktemp("runs") / "run"
    return train(tiny_run(TF4CTR, epochs=4, patience=4), data, folder, console=rich.console.Console(file=said)), said.getvalue()


def test_a_run_keeps_everything(run, data):
    run, _ = run
    assert {file.name for file in run.folder.iterdir()} == {
        "config.yaml",
        "environment.json",
        "history.json",
        "metrics.json",
        run.metrics["model"],
    }
    assert run.metrics["model"] == f"model-{run.metrics['best_epoch']}.keras"
    assert run.config == tiny_run(TF4CTR, epochs=4, patience=4)
    assert [epoch["epoch"] for epoch in run.history] == [1, 2, 3, 4]
    terms = [epoch["ctr"] + epoch["twin_focus"] + epoch["l2"] for epoch in run.history]
    np.testing.assert_allclose([epoch["loss"] for epoch in run.history], terms, rtol=1e-5)
    best = max(run.history, key=lambda epoch: epoch["val_auc"])
    assert run.metrics["best_epoch"] == best["epoch"]
    labels = run.dataset().valid.labels.astype(float)
    probabilities = run.model.predict(run.dataset().valid.batches(64), verbose=0).astype(float)
    rate = labels.mean()
    assert run.metrics["valid"] == {
        "auc": best["val_auc"],
        "log_loss": best["val_log_loss"],
        "click_rate": pytest.approx(rate),
        "log_loss_of_constant": pytest.approx(-rate * np.log(rate) - (1 - rate) * np.log(1 - rate)),
        "pcoc": pytest.approx(probabilities.mean() / rate, rel=1e-6),
    }
    assert run.metrics["parameters"] == run.model.count_params()
    assert run.metrics["epochs"] == 4
    assert run.environment["precision"] == "float32"
    assert run.environment["seed"] == 1
    assert run.environment["device"] == device()
    assert run.data == data.resolve()


def test_the_kept_model_is_that_of_the_best_epoch(run):
    run, _ = run
    valid = run.dataset().valid
    probabilities = run.model.predict(valid.batches(64), verbose=0)
    assert auc(valid.labels, probabilities) == pytest.approx(run.metrics["valid"]["auc"], abs=1e-9)


def test_a_run_says_one_line_an_epoch(run):
    run, said = run
    title, *lines = said.splitlines()
    assert title.startswith(f"TF4CTR: {run.metrics['parameters']:,} parameters, 400 training and 200 validation rows, on ")
    assert title.endswith("in float32, adam over whole tables")
    assert len(lines) == 4
    for line, epoch in zip(lines, run.history, strict=True):
        assert f"valid auc {epoch['val_auc']:.5f}" in line
        assert f"ctr {epoch['ctr']:.4f}" in line
        assert f"lr {epoch['learning_rate']:.3g}" in line
        assert "rows/s" in line
        assert line.endswith("  best") == (epoch["epoch"] == run.metrics["best_epoch"] or is_best_so_far(run.history, epoch))


def is_best_so_far(history, epoch):
    return all(epoch["val_auc"] > earlier["val_auc"] + 1e-6 for earlier in history[: epoch["epoch"] - 1])


def test_a_terminal_gets_a_bar():
    said = io.StringIO()
    console = rich.console.Console(file=said, force_terminal=True, force_interactive=True, width=120)
    logs, stdout = {"loss": 0.5, "ctr": 0.5}, sys.stdout
    with Progress(rows=100, batch_size=64, schedule=None, console=console) as progress:
        progress.on_epoch_begin(2)
        progress.on_train_batch_end(1, logs)
        progress.on_train_batch_end(0, logs)  # Keras' threads may be late
        (task,) = progress.bar.tasks
        assert task.completed == 100
        assert re.fullmatch(r"[\d,]+ rows/s  loss 0\.5000 = ctr 0\.5000", task.description)
        assert sys.stdout is stdout, "output that is piped away would come to the terminal"
    assert re.search(r"epoch 3 .*100 %.* rows/s", said.getvalue())
    progress.on_train_batch_end(1, logs)  # after Ctrl-C, still


@pytest.mark.parametrize(
    ("gpus", "expected"), [([], "CPU"), (["/GPU:0"], "/GPU:0 (1 of 1 GPUs)"), (["/GPU:0", "/GPU:1"], "/GPU:0 (1 of 2 GPUs)")]
)
def test_the_device_is_the_one_that_is_used(gpus, expected, monkeypatch):
    gpus = [tf.config.PhysicalDevice(name, "GPU") for name in gpus]
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: gpus)
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda gpu: {})
    assert device() == expected


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(data, tmp_path):
    runs = [train(tiny_run(epochs=1, seed=seed), data, tmp_path / name) for name, seed in (("a", 1), ("b", 1), ("c", 2))]
    first, again, other = ([weight.tobytes() for weight in run.model.get_weights()] for run in runs)
    assert first == again
    assert first != other


@pytest.mark.parametrize("precision", ["mixed_float16", "mixed_bfloat16"])
def test_precision_is_a_key_and_does_not_outlive_the_run(precision, data, tmp_path):
    before = keras.config.dtype_policy().name
    run = train(tiny_run(epochs=1, precision=precision), data, tmp_path / "run")
    assert keras.config.dtype_policy().name == before
    assert run.model.dtype_policy.name == precision
    assert run.environment["precision"] == precision
    assert np.isfinite(run.history[0]["loss"])


def test_the_schedule_is_in_charge(data, tmp_path):
    # A learning rate so small that no epoch but the first counts as better.
    run = train(tiny_run(epochs=9, learning_rate=1e-9, min_learning_rate=0.0), data, tmp_path / "run")
    np.testing.assert_allclose([epoch["learning_rate"] for epoch in run.history[1:]], [1e-9, 1e-10], rtol=1e-6)
    assert len(run.history) == 3


def test_every_key_does_something(data, tmp_path):
    settings = {
        "loss": "focal",
        "clip_norm": None,
        "steps_per_execution": 3,
        "patience_from": 2,
        "monitor": "auc_minus_log_loss",
    }
    run = train(tiny_run(epochs=2, **settings), data, tmp_path / "run")
    assert isinstance(run.model.ctr_loss, tfctr.losses.FocalLoss)
    assert run.model.clip_norm is None
    assert len(run.history) == 2


def test_the_configuration_knows_every_name_there_is():
    names = {key: set(typing.get_args(field.annotation)) for key, field in Training.model_fields.items()}
    assert names["loss"] == set(tfctr.losses.LOSSES)
    assert names["optimizer"] == {*OPTIMIZERS, "auto"}
    assert names["monitor"] == set(MONITORS)


def test_wrong_models_leave_no_folder(data, tmp_path):
    for model, expected in [
        ({"name": "TF4CRT"}, "Did you mean 'TF4CTR'"),
        ({"name": "DNN", "dropot": 0.1}, "Did you mean 'dropout'"),
        ({"name": "TF4CTR", "simple_encoder": {"type": "MPL"}}, "Did you mean 'MLP'"),
        ({"name": "TF4CTR", "simple_encoder": {"type": "MLP", "hidden_units": [8], "dropot": 0.1}}, "dropot"),
        ({"name": "TF4CTR", "alpha": "much"}, "`alpha` is 'much'"),
        ({"name": "DNN", "embedding_dim": [1]}, "`embedding_dim` is [1]"),
    ]:
        with pytest.raises(ConfigError) as caught:
            train(Config.from_dict({"model": model}), data, tmp_path / "run")
        assert expected in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_what_keras_says_of_an_argument_is_a_configuration_error(monkeypatch):
    def refuse(name, schema, **arguments):
        raise TypeError("`units` must be an integer")

    monkeypatch.setattr("tfctr.models.build", refuse)
    with pytest.raises(ConfigError, match="model DNN: `units` must be an integer"):
        build_model(tiny_run(), None)


def test_a_folder_that_holds_something_is_not_touched(data, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(StorageError, match="already exists"):
        train(tiny_run(), data, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]


def test_one_class_in_the_validation_rows(data, tmp_path):
    dataset = tfctr.Dataset.load(data)
    dataset.valid.labels[:] = 1
    with pytest.raises(DataError, match="all 200 labels of the valid split are 1"):
        train(tiny_run(), dataset, tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_no_validation_rows(tmp_path):
    schema = tfctr.Schema(features=[tfctr.Categorical("user")], label="click")
    tfctr.prepare(schema, train={"user": ["a", "b"], "click": [0, 1]}, out=tmp_path / "data")
    with pytest.raises(ConfigError, match="no valid split"):
        train(tiny_run(), tmp_path / "data", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_training_that_becomes_non_finite_keeps_the_epochs_before_it(data, tmp_path, monkeypatch):
    record = RunRecorder.on_epoch_end

    def record_then_explode(self, epoch, logs=None):
        record(self, epoch, logs)
        if epoch == 1:
            self.model.optimizer.learning_rate = 1e38

    monkeypatch.setattr(RunRecorder, "on_epoch_end", record_then_explode)
    with pytest.raises(TrainingError, match="step"):
        train(tiny_run(epochs=9), data, tmp_path / "run")
    run = load_run(tmp_path / "run")
    assert [epoch["epoch"] for epoch in run.history] == [1, 2]
    assert all(np.isfinite(weight).all() for weight in run.model.get_weights())


# reading a run back


def test_what_is_no_run(run, tmp_path):
    run, _ = run
    with pytest.raises(StorageError, match="is not a run"):
        load_run(tmp_path / "nothing")
    run.config.save(tmp_path / "config.yaml")
    with pytest.raises(StorageError, match="before the end of its first epoch"):
        load_run(tmp_path)
    (tmp_path / "metrics.json").write_text("{}")
    with pytest.raises(StorageError, match=r"metrics\.json has no 'model'"):
        load_run(tmp_path)
    for name in ("environment", "metrics"):
        (tmp_path / f"{name}.json").write_bytes((run.folder / f"{name}.json").read_bytes())
    (tmp_path / "history.json").write_text("{")
    with pytest.raises(StorageError, match=r"history\.json is not valid JSON"):
        load_run(tmp_path)


@pytest.mark.parametrize(
    ("model", "expected"), [("model-7.keras", r"model-7\.keras has been deleted"), (None, "no epoch had a defined")]
)
def test_a_run_without_its_model(model, expected, run, tmp_path):
    run, _ = run
    with pytest.raises(StorageError, match=expected):
        _ = dataclasses.replace(run, folder=tmp_path, metrics=run.metrics | {"model": model}).model


def test_a_corrupt_model_is_named(run, tmp_path):
    run, _ = run
    whole = (run.folder / run.metrics["model"]).read_bytes()
    for broken in (whole[:-100], whole[: len(whole) // 2], b"", whole[:2000] + bytes(64) + whole[2064:]):
        (tmp_path / run.metrics["model"]).write_bytes(broken)
        with pytest.raises(StorageError, match=r"model-\d\.keras is corrupt"):
            _ = dataclasses.replace(run, folder=tmp_path).model


def test_a_model_of_another_epoch_is_not_the_runs(run, tmp_path):
    copy = shutil.copytree(run[0].folder, tmp_path / "copy")
    other = run[0].model
    bias = next(weight for weight in other.weights if weight.name == "bias")
    before = np.array(bias)
    bias.assign(before + 1)
    other.save(copy / run[0].metrics["model"])
    bias.assign(before)
    with pytest.raises(StorageError, match=r"is corrupt, or another model than that of the metrics: SHA-256 differs"):
        evaluate(load_run(copy), "valid", data=run[0].data)


def test_data_may_move_but_not_change(run, data, tmp_path):
    run, _ = run
    copy = shutil.copytree(data, tmp_path / "data")
    assert run.dataset(copy).test.rows == 100
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps(manifest, indent=1))
    with pytest.raises(StorageError, match="is not the dataset that"):
        run.dataset(copy)
    moved = run.environment | {"data": run.environment["data"] | {"folder": str(tmp_path / "before")}}
    with pytest.raises(StorageError, match=r"before is no prepared dataset(?s:.*)--data DIR"):
        dataclasses.replace(run, environment=moved).dataset()


def test_evaluation_checks_the_files_of_its_split_only(run, data, tmp_path):
    run, _ = run
    copy = shutil.copytree(data, tmp_path / "data")
    for split in ("train", "test"):
        labels = np.load(copy / split / "labels-00000.npy")
        np.save(copy / split / "labels-00000.npy", 1 - labels)
    assert evaluate(run, "valid", data=copy)["rows"] == 200
    with pytest.raises(StorageError, match="labels-00000"):
        evaluate(run, "test", data=copy)


# evaluation


def test_evaluate_agrees_with_scikit_learn(run):
    run, _ = run
    test = run.dataset().test
    probabilities = run.model.predict(test.ids, verbose=0)[:, 0].astype(float)
    found = evaluate(run, "test", batch_size=7)
    assert found["rows"] == 100
    assert found["auc"] == pytest.approx(sklearn.metrics.roc_auc_score(test.labels, probabilities), abs=1e-9)
    assert found["log_loss"] == pytest.approx(sklearn.metrics.log_loss(test.labels, probabilities), abs=1e-6)
    groups = [test.groups == group for group in np.unique(test.groups)]
    mixed = [rows for rows in groups if len(np.unique(test.labels[rows])) == 2]
    areas = [sklearn.metrics.roc_auc_score(test.labels[rows], probabilities[rows]) for rows in mixed]
    assert found["group_auc"] == pytest.approx(np.average(areas, weights=[rows.sum() for rows in mixed]), abs=1e-6)
    assert (found["groups_used"], found["groups_left_out"]) == (len(mixed), len(groups) - len(mixed))
    assert found["undefined"] == {}
    assert evaluate(run.model, test)["auc"] == pytest.approx(found["auc"], abs=1e-6)


def test_evaluate_gives_every_row_to_the_training_metrics_too(run):
    run, _ = run
    assert evaluate(run, "valid")["auc"] == pytest.approx(run.metrics["valid"]["auc"], abs=1e-9)
    assert evaluate(run, "valid")["log_loss"] == pytest.approx(run.metrics["valid"]["log_loss"], abs=1e-6)
    assert evaluate(run, "train")["rows"] == 400


def test_what_is_not_defined_is_nan_with_a_reason():
    found = figures([1, 1, 1], [0.2, 0.5, 0.9], groups=["a", "a", "b"])
    assert np.isnan([found["auc"], found["group_auc"]]).all()
    assert found["undefined"] == {"auc": "the rows have one class only", "group_auc": "each group has one class only"}
    assert (found["groups_used"], found["groups_left_out"]) == (0, 2)
    found = figures([0, 1], [0.2, 0.5])
    assert found["undefined"] == {"group_auc": "the schema names no group column"}
    assert (found["auc"], found["groups_used"], found["groups_left_out"]) == (1.0, 0, 0)


def test_weights_count():
    # Clicks .6 and .4 (weight 3) against the non-click .5 (weight 2): (1*2*1 + 3*2*0) / (4*2) = 1/4.
    found = figures([1, 1, 0], [0.6, 0.4, 0.5], weights=[1.0, 3.0, 2.0])
    assert found["auc"] == 0.25
    assert found["log_loss"] == pytest.approx(-(np.log(0.6) + 3 * np.log(0.4) + 2 * np.log(0.5)) / 6)


def test_wrong_splits(run):
    run, _ = run
    with pytest.raises(ConfigError, match="Did you mean 'test'"):
        evaluate(run, "tset")
    with pytest.raises(ConfigError, match=r"dataset\.test"):
        evaluate(run.model, "test")
    with pytest.raises(StorageError, match="is no prepared dataset"):
        evaluate(run, "test", data=run.folder / "moved")


@pytest.mark.parametrize(
    ("optimizer", "line"),
    [("lazy_adam", "lazy_adam by rows of 1 of 1 tables"), ("auto", "exact_lazy_adam over whole tables")],  # which are small
)
def test_the_log_states_the_optimizer(optimizer, line, data, tmp_path):
    said = io.StringIO()
    train(tiny_run(epochs=1, optimizer=optimizer), data, tmp_path / "run", console=rich.console.Console(file=said, width=200))
    assert line in said.getvalue()
