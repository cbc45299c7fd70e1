"""`tfctr.training.warm_start`: rows go by their token, whatever ids it has; and `train(warm_start=...)`, with replayed rows."""

import io
import json
import logging
import os
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
import rich.console

import tfctr
from tfctr import Categorical, Numeric, Schema, Sequence, models
from tfctr.config import Config
from tfctr.data.earlier_ids import carried, earlier_ids
from tfctr.errors import ConfigError, StorageError
from tfctr.layers import MLP
from tfctr.models._graph import embeddings_of
from tfctr.training import load_run, train, trainer, warm_start

FEATURES = [
    Categorical("user"),
    Sequence("tags", 3),
    Numeric("price", "quantile", buckets=4),
    Numeric("age", "scaled"),
    Categorical("page", hash_buckets=5),
]
USERS = {"monday": "abcde", "tuesday": "cdefgh"}


def table(day, rows=400, seed=0):
    rng = np.random.default_rng(seed)
    users = rng.choice(list(USERS[day]), rows)
    return {
        "user": users.tolist(),
        "tags": ["|".join(rng.choice(list("xyz" if day == "monday" else "yzw"), rng.integers(0, 4))) for _ in range(rows)],
        "price": rng.normal(size=rows).tolist(),
        "age": rng.integers(18, 80, rows).tolist(),
        "page": rng.choice(["p", "q", "r"], rows).tolist(),
        "click": (rng.random(rows) < np.where(np.isin(users, list("ace")), 0.8, 0.2)).astype(int).tolist(),
    }


@pytest.fixture(scope="module")
def days(tmp_path_factory):
    """Datasets: monday; tuesday, which extends it; and anew, with monday's features fitted on tuesday's tokens."""
    folder = tmp_path_factory.mktemp("days")
    schema = Schema(features=FEATURES, label="click")
    monday = tfctr.prepare(schema, train=table("monday"), valid=0.2, out=folder / "monday")
    tuesday = tfctr.prepare(extend=monday, train=table("tuesday", seed=1), valid=0.2, out=folder / "tuesday")
    return {"monday": monday, "tuesday": tuesday}


def model_of(dataset, optimizer="adam", name="DeepFM", seed=1, **arguments):
    keras.utils.set_random_seed(seed)
    model = models.build(
        name, dataset.schema, **({"embedding_dim": 4, "hidden_units": [8]} if name != "LR" else {}) | arguments
    )
    model.compile(optimizer)
    return model


def trained(dataset, optimizer="adam", epochs=2, **arguments):
    model = model_of(dataset, optimizer, **arguments)
    model.fit(dataset.train.batches(64, seed=5), epochs=epochs, verbose=0)
    return model


def tokens(dataset, name):
    """`{token: row of the shared table}` of one feature, the reserved ids by their number."""
    field = next(field for field in dataset.schema.fields if field.feature.name == name)
    known = range(3, field.size)
    if getattr(field.feature, "vocabulary_sha256", None):
        known = dataset.schema.vocabulary_file(field.feature).read_text().splitlines()
    return {token: field.offset + place for place, token in enumerate([0, 1, 2, *known])}


def slots(model):
    optimizer = model.optimizer
    return {variable.path.split("/")[-1]: variable for variable in optimizer.variables}


# the rows


@pytest.mark.parametrize("new_rows", ["out_of_vocabulary", "random"])
def test_each_row_goes_by_its_token(days, new_rows):
    before = trained(days["monday"], batch_norm=True)
    model = model_of(days["tuesday"], batch_norm=True, seed=2)
    fresh = [np.array(embedding.table) for embedding in embeddings_of(model)]
    report = warm_start(model, before, new_rows)
    assert len(fresh) == 2
    for new, old, drawn in zip(embeddings_of(model), embeddings_of(before), fresh, strict=True):
        new, old = np.array(new.table), np.array(old.table)
        for feature in FEATURES:
            rows, earlier = tokens(days["tuesday"], feature.name), tokens(days["monday"], feature.name)
            for token, row in rows.items():
                expected = old[earlier[token]] if token in earlier else old[earlier[2]]
                if token not in earlier and new_rows == "random":
                    expected = drawn[row]
                np.testing.assert_array_equal(new[row], expected, err_msg=f"{feature.name} {token}")
    assert report == {
        "features": {"user": {"carried": 5, "new": 3, "forgotten": 0}, "tags": {"carried": 3, "new": 1, "forgotten": 0}},
        "moments": True,
    }
    tables = [embedding.table for embedding in embeddings_of(model)]
    for new, old in zip(model.weights, before.weights, strict=True):
        if not any(new is table for table in tables):
            np.testing.assert_array_equal(new, old)
    assert any("moving_variance" in weight.path for weight in model.weights)


@pytest.mark.parametrize("optimizer", ["adam", "lazy_adam", "exact_lazy_adam"])
def test_moments_go_with_the_rows(days, optimizer):
    before = trained(days["monday"], optimizer)
    model = model_of(days["tuesday"], optimizer, seed=2)
    warm_start(model, before)
    assert int(model.optimizer.iterations) == int(before.optimizer.iterations) > 0
    place = [weight.path for weight in before.optimizer._trainable_variables].index(embeddings_of(before)[0].table.path)
    rows, earlier = tokens(days["tuesday"], "user"), tokens(days["monday"], "user")
    read = [*earlier.values()]
    table_before = embeddings_of(before)[0].table
    for kind, number in (("_momentums", 0), ("_velocities", 1)):
        new = np.array(getattr(model.optimizer, kind)[place])
        old = np.array(getattr(before.optimizer, kind)[place])[read]
        if optimizer == "exact_lazy_adam":  # as they are after the steps that were put off
            old = np.array(before.optimizer.read_moments(table_before, read)[number])
        assert np.abs(old).sum() > 0
        for token, row in rows.items():
            expected = old[read.index(earlier[token])] if token in earlier else np.zeros_like(old[0])
            np.testing.assert_array_equal(new[row], expected, err_msg=str(token))


def test_the_same_answers_whatever_the_ids(days, tmp_path):
    """A fit anew gives tokens other ids: a warm start finds them by their text."""
    raw = table("monday")
    schema = Schema(features=[Categorical("user"), Sequence("tags", 3)], label="click")
    one = tfctr.prepare(schema, train=raw, out=tmp_path / "one")
    rarest = list(tokens(one, "user"))[-1]
    often = {**raw, "user": [rarest] * 300 + raw["user"][300:], "tags": ["z|y"] * 300 + raw["tags"][300:]}
    other = tfctr.prepare(schema, train=often, out=tmp_path / "other")
    assert tokens(one, "user") != tokens(other, "user")
    before, model = trained(one), model_of(other, seed=2)
    warm_start(model, before)
    ids = tfctr.encode(other, raw, out=tmp_path / "encoded").test.ids
    np.testing.assert_array_equal(model.predict(ids, verbose=0), before.predict(one.train.ids, verbose=0))


@pytest.mark.parametrize("optimizer", ["adam", "lazy_adam", "exact_lazy_adam", "adagrad", "ftrl", "rmsprop", "nadam"])
def test_training_goes_on_as_if_it_had_not_ended(days, optimizer):
    before = trained(days["monday"], optimizer)
    model = model_of(days["monday"], optimizer, seed=2)
    warm_start(model, before)
    before.settle()
    batches = [model.fit(days["monday"].train.batches(64, seed=6), epochs=2, verbose=0) for model in (model, before)]
    assert len(batches) == 2
    for new, old in zip(model.get_weights(), before.get_weights(), strict=True):
        if optimizer == "exact_lazy_adam":  # its moments fade in one step, and not in two: two roundings apart
            np.testing.assert_allclose(new, old, rtol=1e-5, atol=1e-7)
        else:
            np.testing.assert_array_equal(new, old)


@pytest.mark.parametrize("dense_rows", [(0, 10_000), (10_000, 0)])
def test_a_table_that_begins_or_ends_to_be_updated_by_rows(days, dense_rows):
    optimizers = [tfctr.optimizers.ExactLazyAdam(0.001, dense_rows=rows) for rows in dense_rows]
    before = trained(days["monday"], optimizers[0])
    model = model_of(days["monday"], optimizers[1], seed=2)
    warm_start(model, before)
    before.settle()
    for each in (model, before):
        each.fit(days["monday"].train.batches(64, seed=6), epochs=2, verbose=0)
    for new, old in zip(model.get_weights(), before.get_weights(), strict=True):
        np.testing.assert_allclose(new, old, rtol=1e-4, atol=1e-6)  # Adam by rows and whole: rounding


def test_another_optimizer_begins_anew_and_says_so(days, caplog):
    before = trained(days["monday"], "adam")
    model = model_of(days["tuesday"], "ftrl", seed=2)
    assert warm_start(model, before)["moments"] is False
    assert "the optimizer begins anew: it is SparseFtrl, and was Adam" in caplog.text
    assert int(model.optimizer.iterations) == 0


def test_loss_scaling_is_looked_through(days):
    before = trained(days["monday"], keras.optimizers.LossScaleOptimizer(tfctr.optimizers.Adam()))
    model = model_of(days["tuesday"], "adam", seed=2)
    assert warm_start(model, before)["moments"] is True
    assert int(model.optimizer.iterations) == int(before.optimizer.inner_optimizer.iterations) > 0


def test_ids_forgotten_and_their_rows(tmp_path):
    schema = Schema(features=[Categorical("user")], label="click")
    one = tfctr.prepare(schema, train={"user": ["a", "b", "a"], "click": [0, 1, 1]}, out=tmp_path / "one")
    given = {"user": ["c", "a"], "click": [0, 1]}
    two = tfctr.prepare(extend=one, train=given, evict_after=1, out=tmp_path / "two")
    found = earlier_ids(two.schema, one.schema)
    assert found["user"].tolist() == [0, 1, 2, 3, -1]  # the row of b is c's now
    assert carried(np.array([[3], [4], [2], [1]], "int32"), two.schema, one.schema, found)[:, 0].tolist() == [3, 2, 2, 1]
    before, model = trained(one), model_of(two, seed=2)
    assert warm_start(model, before)["features"]["user"] == {"carried": 1, "new": 1, "forgotten": 1}
    new, old = np.array(embeddings_of(model)[0].table), np.array(embeddings_of(before)[0].table)
    np.testing.assert_array_equal(new, old[[0, 1, 2, 3, 2]])


# what cannot be carried


def test_another_architecture_is_refused_with_what_differs(days):
    before = trained(days["monday"])
    weights = model_of(days["tuesday"]).get_weights()
    for name, arguments, problem in (
        ("DNN", {}, "the earlier model is a DeepFM, this one a DNN"),
        ("DeepFM", {"hidden_units": [9]}, r"`hidden_units` was \[8\] in the earlier model and is \[9\]"),
        ("DeepFM", {"embedding_dim": 5}, "`embedding_dim` was 4 in the earlier model and is 5"),
        ("DeepFM", {"batch_norm": True}, "`batch_norm` was False in the earlier model and is True"),
    ):
        model = model_of(days["tuesday"], name=name, **arguments)
        with pytest.raises(ConfigError, match=problem):
            warm_start(model, before)
    model = model_of(days["tuesday"], embedding_l2=0.1, dropout=0.0)
    warm_start(model, before)  # how strongly weights are held small may change
    assert [weight.shape for weight in weights] == [weight.shape for weight in model.get_weights()]


def test_a_frozen_table_keeps_its_rows_and_has_no_moments(days):
    before = trained(days["monday"])
    model = models.build("DeepFM", days["tuesday"].schema, embedding_dim=4, hidden_units=[8])
    frozen, free = embeddings_of(model)
    frozen.trainable = False
    model.compile()
    assert warm_start(model, before)["moments"] is True
    rows, earlier = tokens(days["tuesday"], "user"), tokens(days["monday"], "user")
    old = np.array(embeddings_of(before)[0].table)
    np.testing.assert_array_equal(np.array(frozen.table)[rows["c"]], old[earlier["c"]])
    place = [weight.path for weight in model.optimizer._trainable_variables].index(free.table.path)
    there = [weight.path for weight in before.optimizer._trainable_variables].index(embeddings_of(before)[1].table.path)
    moments, kept = (np.array(each.optimizer._momentums[at]) for each, at in ((model, place), (before, there)))
    np.testing.assert_array_equal(moments[rows["c"]], kept[earlier["c"]])
    model.fit(days["tuesday"].train.batches(64), verbose=0)


def test_the_data_are_those_of_the_earlier_model(days):
    before = trained(days["monday"])
    with pytest.raises(ConfigError, match="tuesday is of another fit"):
        warm_start(model_of(days["tuesday"]), before, data=days["tuesday"].folder)
    warm_start(model_of(days["tuesday"]), before, data=days["monday"].folder)


def test_layers_are_compared_by_what_they_are(days):
    def dual(units, dataset):
        encoders = {name: MLP(hidden_units=[units], dropout=0.0) for name in ("simple_encoder", "complex_encoder")}
        model = models.TF4CTR(dataset.schema, embedding_dim=4, **encoders)
        model.compile()
        return model

    warm_start(dual(8, days["tuesday"]), dual(8, days["monday"]))
    with pytest.raises(ConfigError, match="`simple_encoder` was"):
        warm_start(dual(9, days["tuesday"]), dual(8, days["monday"]))


def test_another_fit_of_numbers_is_refused(tmp_path):
    def prepared(name, prices=(1.0, 2.0, 3.0, 4.0), **changed):
        features = {"user": Categorical("user"), "price": Numeric("price", "quantile", buckets=2)} | changed
        schema = Schema(features=list(features.values()), label="click")
        raw = {"user": list("aabb"), "price": list(prices), "click": [0, 1, 0, 1]}
        return tfctr.prepare(schema, train=raw, out=tmp_path / name)

    before = model_of(prepared("one"))
    for name, dataset, problem in (
        ("edges", prepared("edges", (1.0, 2.0, 7.0, 8.0)), "feature 'price' has another `edges` than the earlier fit"),
        ("hashed", prepared("hashed", user=Categorical("user", hash_buckets=4)), "feature 'user' has another `hash_buckets`"),
        ("type", prepared("type", price=Categorical("price")), "feature 'price' has another `type`"),
        (
            "order",
            prepared("order", user=Categorical("visitor", column="user")),
            "the features differ: 'user' there, 'visitor' here",
        ),
    ):
        with pytest.raises(ConfigError, match=problem):
            warm_start(model_of(dataset), before)
        assert name


def test_wrong_use(days, tmp_path):
    model = model_of(days["tuesday"])
    with pytest.raises(ConfigError, match="Unknown new_rows 'mean'"):
        warm_start(model, model_of(days["monday"]), "mean")
    plain = models.LR(days["tuesday"].schema)
    with pytest.raises(ConfigError, match="not compiled"):
        warm_start(plain, model_of(days["monday"]))
    with pytest.raises(StorageError, match="is not a run"):
        warm_start(model, tmp_path)
    with pytest.raises(ConfigError, match="`earlier` is None"):
        warm_start(model, None)
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


# runs


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
    best = run.history[run.metrics["best_epoch"] - 1]["learning_rate"]
    changed = {"epochs": 1, "learning_rate": pytest.approx(best)}
    assert second.config.to_dict()["training"] == {**run.config.to_dict()["training"], **changed}
    assert second.config.model == run.config.model


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
