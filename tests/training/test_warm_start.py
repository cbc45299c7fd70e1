"""`tfctr.training.warm_start`: rows go by their token, whatever ids it has; and `train(warm_start=...)`, with replayed rows."""

import keras
import numpy as np
import pytest
from kit.days import FEATURES, prepared, table, tokens

import tfctr
from tfctr import Categorical, Numeric, Schema, Sequence, models
from tfctr.data.earlier_ids import carried, earlier_ids
from tfctr.errors import ConfigError, StorageError
from tfctr.layers import MLP
from tfctr.models._graph import embeddings_of
from tfctr.training import warm_start


@pytest.fixture(scope="module")
def days(tmp_path_factory):
    return prepared(tmp_path_factory.mktemp("days"))


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


@pytest.mark.sampled(1)
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


@pytest.mark.sampled(1)
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
