"""`tfctr.evaluation.importance`: what permuting a feature costs, beside the same in NumPy; and `tfctr importance`."""

import json
import math

import keras
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import tfctr
from tfctr import Categorical, Numeric, Schema, Sequence
from tfctr.cli import app
from tfctr.config import Config
from tfctr.data import Split
from tfctr.data.view import View
from tfctr.errors import ConfigError, DataError, StorageError
from tfctr.evaluation import evaluate, importance
from tfctr.layers import FeatureEmbedding
from tfctr.models import LR, CTRModel, ids_input

SCHEMA = Schema(
    [
        Categorical("user", size=6),
        Sequence("genres", 2, size=7),
        Categorical("day", size=5),
        Numeric("price", "scaled", mean=0.0, scale=1.0, size=4),  # no two rows have equal logits
    ],
    label="click",
)
COLUMNS = {"user": slice(0, 1), "genres": slice(1, 3), "day": slice(3, 4), "price": slice(4, 5)}
ROWS = 60


def ids_of(rows, seed=0):
    """User, two genres, of which the second may be padding, day, price; with the offsets 0, 6, 13 and 18."""
    rng = np.random.default_rng(seed)
    second = np.where(rng.random(rows) < 0.4, 0, rng.integers(3, 7, rows))
    columns = [rng.integers(1, 6, rows), 6 + rng.integers(3, 7, rows), 6 + second, 13 + rng.integers(1, 5, rows)]
    price = rng.normal(size=rows).astype(np.float32).view(np.int32)
    return np.stack([*columns, price], axis=1).astype(np.int32)


def linear(seed=0):
    """LR with drawn weights, and its logits in NumPy: the weights of user, genres (their mean), day and price."""
    model = LR(SCHEMA)
    rng = np.random.default_rng(seed)
    for variable in model.trainable_variables:
        variable.assign(rng.normal(size=variable.shape))
    table = next(v.numpy().astype(float)[:, 0] for v in model.trainable_variables if v.shape[0] == SCHEMA.table_rows)
    bias = sum(float(v.numpy().sum()) for v in model.trainable_variables if v.shape[0] != SCHEMA.table_rows)

    def logits(ids):
        second = ids[:, 2] != 6
        genres = (table[ids[:, 1]] + np.where(second, table[ids[:, 2]], 0)) / (1 + second)
        price = ids[:, 4].astype(np.int32).view(np.float32) * table[21]
        return table[ids[:, 0]] + genres + table[ids[:, 3]] + price + bias

    return model, logits


def figures_of(labels, logits, groups, weights):
    """AUC and gAUC over all pairs of rows, and log loss."""
    wins = (logits[:, None] > logits) + (logits[:, None] == logits) / 2
    pairs = weights[:, None] * weights * (labels[:, None] > labels)
    per_group = []
    for group in np.unique(groups):
        of = np.ix_(groups == group, groups == group)
        if pairs[of].sum():
            per_group.append(((wins[of] * pairs[of]).sum() / pairs[of].sum(), weights[groups == group].sum()))
    values, sizes = np.array(per_group).T
    log_loss = np.average(np.logaddexp(0, np.where(labels == 1, -logits, logits)), weights=weights)
    return np.array([(wins * pairs).sum() / pairs.sum(), np.average(values, weights=sizes), log_loss])


def rows_of(rows=ROWS, seed=0, weighted=True):
    rng = np.random.default_rng(seed + 1)
    labels = (rng.random(rows) < 0.4).astype(np.float32)
    weights = rng.integers(0, 4, rows).astype(np.float32) if weighted else None
    return Split.from_arrays(ids_of(rows, seed), labels, rng.integers(0, 5, rows), weights, name="valid")


@pytest.mark.parametrize("weighted", [True, False])
def test_the_figures_are_those_of_numpy_for_the_same_permutations(weighted):
    model, logits = linear()
    split = rows_of(weighted=weighted)
    weights = np.ones(ROWS) if split.weights is None else split.weights.astype(float)

    def measured(ids):
        return figures_of(split.labels, logits(ids), split.groups, weights)

    found = importance(model, split, repeats=3, seed=7, batch_size=13)
    for name, columns in COLUMNS.items():
        changes = []
        for repeat in (1, 2, 3):
            ids = split.ids.copy()
            ids[:, columns] = ids[np.random.default_rng([7, repeat]).permutation(ROWS), columns]
            changes.append((measured(ids) - measured(split.ids)) * [-1, -1, 1])
        keys = ("auc_fall", "group_auc_fall", "log_loss_rise")
        np.testing.assert_allclose([found["features"][name][key] for key in keys], np.mean(changes, axis=0), atol=2e-6)
        spreads = [found["features"][name][f"{key}_std"] for key in keys]
        np.testing.assert_allclose(spreads, np.std(changes, axis=0, ddof=1), atol=2e-6)
        assert min(spreads) > 1e-4
    falls = [figures["auc_fall"] for figures in found["features"].values()]
    assert falls == sorted(falls, reverse=True)
    expected = {**evaluate(model, split, batch_size=13)}
    del expected["shares"]
    assert found["base"] == expected
    assert {name: found[name] for name in ("split", "rows", "of_rows", "repeats", "seed")} == {
        "split": "valid",
        "rows": ROWS,
        "of_rows": ROWS,
        "repeats": 3,
        "seed": 7,
    }


def test_a_feature_that_the_model_ignores_has_exactly_0():
    ids = ids_input(SCHEMA)
    fields = FeatureEmbedding(SCHEMA, 4)(ids)
    user = keras.layers.Dense(1)(keras.layers.Dense(8, "relu")(fields[:, 0]))
    found = importance(CTRModel(SCHEMA, ids, {"logit": user}), rows_of(), batch_size=13)["features"]
    assert set(found["genres"].values()) == set(found["day"].values()) == {0.0}
    assert all(math.copysign(1, value) == 1 for value in found["day"].values())  # no -0
    assert found["user"]["log_loss_rise_std"] > 0


def test_a_constant_feature_costs_no_pass(monkeypatch):
    model, _ = linear()
    ids = ids_of(ROWS)
    ids[:, 3] = 15
    split = Split.from_arrays(ids, rows_of().labels)
    scored = []
    predict = model.predict
    monkeypatch.setattr(model, "predict", lambda batches, **options: scored.append(1) or predict(batches, **options))
    found = importance(model, split, repeats=4)
    assert len(scored) == 1 + 3 * 4
    assert found["features"]["day"]["auc_fall"] == found["features"]["day"]["log_loss_rise"] == 0
    assert math.isnan(found["features"]["user"]["group_auc_fall"])
    assert found["base"]["undefined"] == {"group_auc": "the schema names no group column"}


def test_the_seed_decides_and_drawn_rows_are_those_of_the_split():
    model, _ = linear()
    split = rows_of()
    found = importance(model, split, rows=25, seed=3)
    assert found == importance(model, split, rows=25, seed=3)
    assert found["features"] != importance(model, split, rows=25, seed=4)["features"]
    assert (found["rows"], found["of_rows"]) == (25, ROWS)
    chosen = np.sort(np.random.default_rng(3).choice(ROWS, 25, replace=False))
    arrays = (split.ids, split.labels, split.groups, split.weights)
    expected = importance(model, Split.from_arrays(*(array[chosen] for array in arrays), name="valid"), seed=3)
    assert {**found, "of_rows": 25} == expected
    assert importance(model, split, rows=ROWS + 1, repeats=2) == importance(model, split, repeats=2)


def test_one_repeat_has_no_deviation():
    found = importance(linear()[0], rows_of(), repeats=1)["features"]["user"]
    assert found["auc_fall"] != 0
    assert math.isnan(found["auc_fall_std"])


def test_no_more_rows_than_a_batch_are_copied(monkeypatch):
    seen = []
    ids_of_rows = View.ids_of
    monkeypatch.setattr(View, "ids_of", lambda view, rows: seen.append(len(rows)) or ids_of_rows(view, rows))
    importance(linear()[0], rows_of(1_000), repeats=2, batch_size=64)
    assert max(seen) == 64
    assert sum(seen) == 1_000 * (1 + 4 * 2) + seen.count(1)  # and one row to see the shapes
    assert seen.count(1) == 1 + 4 * 2


def test_what_cannot_be_measured_is_refused_before_any_pass(monkeypatch):
    model, _ = linear()
    monkeypatch.setattr(model, "predict", None)
    split = rows_of()

    def refused(error, match, split=split, **arguments):
        with pytest.raises(error, match=match):
            importance(model, split, **arguments)

    refused(DataError, "has no labels", Split("test", [split.ids], None))
    refused(DataError, "60 rows of the valid split are of one class only", Split("valid", [split.ids], np.ones(ROWS)))
    refused(DataError, "have no weight", Split.from_arrays(split.ids, split.labels, weights=np.zeros(ROWS)))
    refused(DataError, "1 rows of the valid split are of one class", Split("valid", [split.ids], split.labels), rows=1)
    refused(DataError, "none of its ids", Split.from_arrays(split.ids + 9, split.labels))
    refused(ConfigError, "another fit", Split("valid", [split.ids], split.labels, digest="b"))
    refused(ConfigError, "there are no rows", None)
    refused(ConfigError, "there are no rows", "valid")
    for argument, value in (("repeats", 0), ("rows", 0), ("batch_size", 0), ("seed", -1), ("repeats", 2.5)):
        refused(ConfigError, f"`{argument}` is {value}", **{argument: value})
    with pytest.raises(ConfigError, match="neither a run nor a model"):
        importance(LR, split)


def clicks(rows, seed):
    rng = np.random.default_rng(seed)
    user = rng.integers(0, 8, rows)
    columns = {"user": user.astype(str), "price": rng.normal(size=rows), "day": rng.integers(0, 3, rows)}
    return pd.DataFrame(columns).assign(click=(rng.random(rows) < 0.1 + 0.8 * (user % 2)).astype(int))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    schema = Schema([Categorical("user"), Numeric("price", "scaled"), Categorical("day")], label="click", group="day")
    dataset = tfctr.prepare(schema, train=clicks(3_000, 0), valid=clicks(600, 1), test=clicks(500, 2), out=folder / "data")
    config = Config.from_dict({"model": {"name": "LR"}, "training": {"epochs": 2, "batch_size": 64, "learning_rate": 0.05}})
    return tfctr.training.train(config, dataset, folder / "run")


def test_a_run_is_measured_on_its_valid_split(run):
    found = importance(run, repeats=2)
    assert next(iter(found["features"])) == "user"
    assert found["features"]["user"]["auc_fall"] > 0.2 > 0.02 > found["features"]["day"]["auc_fall"]
    assert found["base"]["auc"] == evaluate(run, "valid")["auc"]
    assert importance(run.model, run.dataset().test, repeats=2) == importance(run, "test", repeats=2)
    with pytest.raises(ConfigError, match="Did you mean 'valid'"):
        importance(run, "vald")


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_the_command_line(run, ending, tmp_path):
    pytest.importorskip("matplotlib")
    picture = tmp_path / f"importance.{ending}"
    command = ["importance", str(run.folder), "--repeats", "2", "--seed", "5", "--rows", "400"]
    done = CliRunner().invoke(app, [*command, "--plot", str(picture)])
    assert done.exit_code == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()][:2] == ["feature", "user"]
    assert "valid: 400 rows of 600, drawn by the seed 5; AUC 0." in done.stderr
    assert picture.stat().st_size > 4_000
    assert CliRunner().invoke(app, [*command, "--plot", str(picture)]).exit_code == StorageError.exit_code
    wrong = CliRunner().invoke(app, [*command, "--plot", f"{tmp_path}/importance.txt"])
    assert wrong.exit_code == ConfigError.exit_code
    said = json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout)
    assert said == json.loads(json.dumps(importance(run, repeats=2, seed=5, rows=400)))
    one = json.loads(CliRunner().invoke(app, ["importance", str(run.folder), "--repeats", "1", "--json"]).stdout)
    assert one["features"]["user"]["auc_fall_std"] is None
