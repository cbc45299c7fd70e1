"""From a table to a model by defaults alone, `tfctr train --data DATA --out RUN`; and what says that a model is useless."""

import json
import logging
import math

import numpy as np
import pytest
from kit.commands import done, tfctr_
from kit.every_model import OF_HISTORIES

import tfctr
from tfctr.config import batch_size_for
from tfctr.errors import ConfigError, ExportError
from tfctr.evaluation import evaluate, figures
from tfctr.metrics import click_rate, constant_figures, worse_than_constant
from tfctr.models import MODELS
from tfctr.models import build as build_named
from tfctr.serving import publish_model, versions
from tfctr.training import load_run, suggest, train

ROWS = 2_000


def rare_clicks(rows, seed):
    """About one click in 20 rows, more of them with some items."""
    rng = np.random.default_rng(seed)
    items, hours = rng.integers(0, 20, rows), rng.integers(0, 24, rows)
    clicks = rng.random(rows) < np.where(items < 5, 0.15, 0.02)
    return {"item": [f"i{item}" for item in items], "hour": hours.tolist(), "click": clicks.astype(int).tolist()}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    schema = tfctr.Schema(features=[tfctr.Categorical("item"), tfctr.Categorical("hour")], label="click")
    folder = tmp_path_factory.mktemp("first") / "data"
    tables = {name: rare_clicks(ROWS, seed) for seed, name in enumerate(("train", "valid", "test"))}
    tfctr.prepare(schema, **tables, out=folder)
    return folder


SMALL = ["model.simple_encoder.hidden_units=[8]", "model.complex_encoder.hidden_units=[8]", "training.epochs=2"]


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    """By the command line, but for the size of the model."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    changes = [option for change in SMALL for option in ("--set", change)]
    result = tfctr_("train", "--data", data, "--out", folder, "--seed", 4, *changes, "--json")
    assert result.exit_code == 0, result.stderr
    assert "worse than a constant" not in result.stderr
    return load_run(folder)


def test_the_defaults_follow_from_the_data_and_are_written_out(run):
    training = run.config.training
    assert run.config.model.name == "TF4CTR"
    assert (training.batch_size, training.start, training.seed, training.epochs) == (64, "click_rate", 4, 2)
    assert "log_loss" in training.monitor
    assert run.model.embedding_l2 == 10  # 30,000 / 2,000 would be more


def test_l2_falls_with_the_rows_and_with_rare_clicks_where_nothing_is_normalized(data):
    dataset = tfctr.Dataset.load(data)
    rate = dataset.train.click_rate
    assert suggest(dataset, "LR").model.arguments["embedding_l2"] == pytest.approx(1 / ROWS, rel=0.05)
    assert suggest(dataset, "FM").model.arguments["embedding_l2"] == pytest.approx(4 * rate * (1 - rate) * 30 / ROWS, rel=0.05)
    assert [suggest(dataset, name).training.learning_rate for name in ("LR", "FM")] == [0.005, 0.001]
    assert suggest(dataset, "DeepFM").model.arguments.keys() == {"dropout", "embedding_l2"}
    assert suggest(dataset, "DNN").model.arguments == {"dropout": 0.2, "batch_norm": True, "embedding_l2": 10.0}


def test_a_run_of_two_epochs_is_already_better_than_a_constant(run):
    valid = run.metrics["valid"]
    assert valid["log_loss"] < valid["log_loss_of_constant"]
    assert valid["pcoc"] == pytest.approx(1, abs=0.5)  # a network that starts at one half: 10 times as many as there are


def test_evaluate_says_what_a_constant_achieves(run):
    printed = dict(line.split(maxsplit=1) for line in done("evaluate", run.folder, "--split", "test").splitlines())
    found = evaluate(run, "test")
    rate = np.mean(rare_clicks(ROWS, 2)["click"])
    assert found["click_rate"] == pytest.approx(rate)
    assert found["log_loss_of_constant"] == pytest.approx(-rate * math.log(rate) - (1 - rate) * math.log(1 - rate))
    assert {name: printed[name] for name in ("click_rate", "log_loss_of_constant", "pcoc")} == {
        name: f"{found[name]:.6g}" for name in ("click_rate", "log_loss_of_constant", "pcoc")
    }


def test_python_trains_the_same_run(run, data, tmp_path):
    dataset = tfctr.Dataset.load(data)
    config = suggest(dataset, overrides=[*SMALL, "training.seed=4"])
    assert config == run.config
    again = train(config, dataset, tmp_path / "run")
    for ours, theirs in zip(again.model.get_weights(), run.model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.sampled(9)
@pytest.mark.parametrize("name", sorted({*MODELS} - OF_HISTORIES))
def test_every_model_takes_what_is_suggested_for_it(name, data):
    dataset = tfctr.Dataset.load(data)
    config = suggest(dataset, name)
    model = build_named(name, dataset.schema, **config.model.arguments)
    model.start_at(dataset.train.click_rate)


def test_a_model_by_name(data, tmp_path):
    done("train", "--data", data, "--out", tmp_path / "run", "--model", "LR", "--set", "training.epochs=1")
    assert type(load_run(tmp_path / "run").model).__name__ == "LR"


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--model", "TF4CRT"], "Did you mean 'TF4CTR'"),
        (["run.yaml", "--model", "LR"], "run.yaml names a model, and `--model` does"),
        (["--set", "training.epoch=2"], "unknown key 'training.epoch'"),
        (["--set", "model.dropot=0.1", "--model", "DNN"], "Did you mean 'dropout'"),
    ],
)
def test_wrong_arguments_are_code_2_and_leave_no_folder(arguments, problem, data, tmp_path):
    result = tfctr_("train", *arguments, "--data", data, "--out", tmp_path / "run")
    assert (result.exit_code, problem in result.stderr) == (2, True), result.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("given", "missing"), [({"out": "run"}, "data"), ({"data": "data"}, "out")])
def test_train_needs_data_and_a_folder(given, missing):
    with pytest.raises(ConfigError, match=f"`{missing}` is missing"):
        train(**given)


@pytest.mark.parametrize(
    ("rows", "size"),
    [(1, 64), (3_199, 64), (6_399, 64), (6_400, 128), (8_000, 128), (102_400, 2_048), (409_600, 8_192), (10**9, 8_192)],
)
def test_a_batch_is_the_largest_power_of_two_that_makes_50_steps(rows, size):
    assert batch_size_for(rows) == size
    assert size == 64 or rows // size >= 50


def test_a_tiny_table_is_not_given_up_after_a_few_steps(data, tmp_path):
    """40 rows are one step an epoch; 5,000 are 78."""
    features = [tfctr.Categorical("item")]
    for rows, first in ((40, 500), (5_000, 0)):
        tables = {name: rare_clicks(rows, seed=1) for name in ("train", "valid")}
        folder = tmp_path / str(rows)
        assert suggest(tfctr.prepare(tfctr.Schema(features, "click"), **tables, out=folder)).training.patience_from == first


def test_training_rows_without_weight_are_code_3(tmp_path):
    schema = tfctr.Schema([tfctr.Categorical("item")], label="click", weight="weight")
    table = {"item": ["a", "b"], "click": [0, 1]}
    tables = {"train": {**table, "weight": [0.0, 0.0]}, "valid": {**table, "weight": [1.0, 1.0]}}
    tfctr.prepare(schema, **tables, out=tmp_path / "data")
    result = tfctr_("train", "--data", tmp_path / "data", "--out", tmp_path / "run")
    assert (result.exit_code, "the click rate of the train split is nan" in result.stderr) == (3, True), result.stderr
    assert not (tmp_path / "run").exists()


# worse than a constant


def test_a_useless_model_is_said_to_be_so(data, tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "tfctr"):
        run = train(
            suggest(tfctr.Dataset.load(data), "LR", ["training.start=zero", "training.epochs=1"]), data, tmp_path / "run"
        )
        assert "worse than a constant on the valid split: the log loss is 0." in caplog.text
        caplog.clear()
        evaluate(run, "test")
    assert "worse than a constant on the test split: the log loss is 0." in caplog.text


@pytest.mark.parametrize(("clicks", "rows", "is_said"), [(2, 1766, True), (29, 60, True), (30, 60, False), (1750, 1766, True)])
def test_too_few_clicks_to_tell_are_said(clicks, rows, is_said):
    found = worse_than_constant({"log_loss": 0.7, "log_loss_of_constant": 0.6}, [1] * clicks + [0] * (rows - clicks))
    assert (f"({clicks:,} of these {rows:,} rows are clicks: too few to tell)" in found) == is_said


def test_a_validation_auc_too_good_to_be_true_is_said(tmp_path):
    leak = {"answer": ["yes", "no"] * 200, "click": [1, 0] * 200}
    tfctr.prepare(tfctr.Schema([tfctr.Categorical("answer")], label="click"), train=leak, valid=leak, out=tmp_path / "data")
    dataset = tfctr.Dataset.load(tmp_path / "data")
    run = train(suggest(dataset, "LR", ["training.epochs=1"]), dataset, tmp_path / "run")
    assert "valid AUC 1.0000 is too good to be true" in run.metrics["warning"]
    assert "suspect answer (1.000)" in run.metrics["warning"]


@pytest.mark.sampled(1)
@pytest.mark.parametrize("force", [None, "a fire drill"])
def test_publish_model_refuses_it_by_its_metrics(force, tiny_schema, tmp_path):
    model = tfctr.models.LR(tiny_schema)
    values = figures([0, 0, 0, 1], [0.5, 0.5, 0.5, 0.5])
    metrics = {name: values[name] for name in ("auc", "log_loss", "log_loss_of_constant")}
    sentence = "log_loss: the log loss is 0.693147, and 0.562335 for a constant click rate"
    if force:
        assert publish_model(model, tmp_path / "ctr", metrics=metrics, force=force)["failures"] == [sentence]
    else:
        with pytest.raises(ExportError, match=sentence) as caught:
            publish_model(model, tmp_path / "ctr", metrics=metrics)
        assert caught.value.exit_code == 5
        assert versions(tmp_path / "ctr") == []


def test_weights_count():
    labels, weights = [0, 1, 1, 0], [6.0, 1.0, 1.0, 0.0]
    assert click_rate(labels, weights) == 0.25
    assert constant_figures(labels, weights)["log_loss_of_constant"] == pytest.approx(
        -0.25 * math.log(0.25) - 0.75 * math.log(0.75)
    )
    assert json.loads(json.dumps(constant_figures([1, 1]))) == {"click_rate": 1.0, "log_loss_of_constant": 0.0}


def test_what_is_not_known_is_not_worse():
    assert worse_than_constant({"log_loss": 0.5}) is None
    assert worse_than_constant({"log_loss": math.nan, "log_loss_of_constant": 0.5}) is None
    assert worse_than_constant({"log_loss": 0.5, "log_loss_of_constant": 0.5}) is None
