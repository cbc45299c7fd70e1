"""A validation AUC that is too good to be true, and the columns to suspect."""

import io

import numpy as np
import pytest
import rich.console

import tfctr
from tfctr.config import Config
from tfctr.features import Categorical, Numeric
from tfctr.training import load_run, train
from tfctr.training.suspects import suspicion

ROWS = 400
CLICKS = np.arange(ROWS) % 2
RNG = np.random.default_rng(0)
TABLE = {
    "color": np.where(np.arange(ROWS) % 4 < 2, "red", "blue"),
    "rating": 1 + 3 * CLICKS + np.arange(ROWS) // 2 % 2,  # 1 or 2 without a click, 4 or 5 with one
    "delay": np.where(CLICKS == 1, 1.0, 2.0) + np.arange(ROWS) / 1000,
    "click": CLICKS,
}
FEATURES = [Categorical("color"), Categorical("rating"), Numeric("delay", "scaled")]


def prepared(folder, features):
    return tfctr.prepare(tfctr.Schema(features, label="click"), train=TABLE, valid=0.25, out=folder / "data")


def test_each_feature_alone(tmp_path):
    alone = prepared(tmp_path, FEATURES).alone
    assert alone.keys() == {"color", "rating", "delay"}
    assert (alone["rating"], alone["delay"]) == (1.0, 1.0)
    assert alone["color"] < 0.7


def test_what_is_said(tmp_path):
    dataset = prepared(tmp_path, FEATURES)
    assert suspicion(0.995, dataset) is None
    assert suspicion(None, dataset) is None
    assert "suspect rating (1.000), delay (1.000), each" in suspicion(0.9951, dataset)


def test_a_column_that_tells_much_alone_is_a_suspect(tmp_path):
    wrong = RNG.random(ROWS) < 0.035
    table = {**TABLE, "color": np.where(wrong, 1 - CLICKS, CLICKS)}
    schema = tfctr.Schema(FEATURES[:1], label="click")
    dataset = tfctr.prepare(schema, train=table, valid=table, out=tmp_path / "data")
    assert 0.95 < dataset.alone["color"] < 0.98
    assert "suspect color (0.9" in suspicion(0.9951, dataset)


@pytest.mark.parametrize(("features", "said"), [(FEATURES, True), (FEATURES[:1], False)])
def test_train_warns(tmp_path, features, said):
    dataset, talk = prepared(tmp_path, features), io.StringIO()
    model = {"name": "LR"}
    config = Config.from_dict({"model": model, "training": {"batch_size": 50, "epochs": 8, "learning_rate": 0.1}})
    run = train(config, dataset, tmp_path / "run", console=rich.console.Console(file=talk, width=400))
    assert ("warning: valid AUC" in talk.getvalue()) == said
    assert ("suspect rating" in load_run(tmp_path / "run").metrics.get("warning", "")) == said
    assert (run.metrics["valid"]["auc"] > 0.995) == said
