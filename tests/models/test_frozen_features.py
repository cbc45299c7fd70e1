"""`frozen`: rows of a feature that no step moves, whichever optimizer and L2 term there is; all others are trained."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from kit.encoder_contract import round_trip

from tfctr import Categorical, Numeric, Schema, Sequence
from tfctr.errors import ConfigError
from tfctr.layers import MLP, FeatureEmbedding
from tfctr.models import DIN, DNN, LR, TF4CTR, CTRModel, DeepFM, ids_input

SCHEMA = Schema(
    [
        Categorical("user", size=6),
        Categorical("item", size=7),
        Sequence("history", 3, vocabulary_of="item"),
        Numeric("age", "scaled", mean=0.0, scale=1.0, size=4),
    ],
    label="click",
)
USER, ITEM, AGE = slice(0, 6), slice(6, 13), slice(13, 17)


def rows(number=64, seed=0):
    rng = np.random.default_rng(seed)
    history = rng.integers(3, 7, (number, 3))
    history[rng.random((number, 3)) < 0.3] = 0
    history = np.take_along_axis(history, np.argsort(history == 0, axis=1, kind="stable"), axis=1)
    history[history[:, 0] == 0, 0] = 1
    numbers = rng.normal(size=(number, 1)).astype("float32").view("int32")
    columns = [rng.integers(1, 6, (number, 1)), 6 + rng.integers(1, 7, (number, 1)), 6 + history, numbers]
    return np.concatenate(columns, axis=1).astype("int32")


IDS = rows()
LABELS = (IDS[:, 1] % 2).astype("float32")


def table(layer):
    return np.array(layer.table)


@pytest.mark.parametrize("frozen", [["item"], ["history", "user"], ["user", "item", "age"]])
def test_fields_are_those_of_a_table_that_is_trained(frozen):
    free, still = (FeatureEmbedding(SCHEMA, 4, unpooled=["history"], frozen=names) for names in ([], frozen))
    for layer in (free, still):
        layer.build(IDS.shape)
    still.set_weights(free.get_weights())
    with tf.GradientTape() as tape:
        outputs = still(IDS)
        loss = sum(keras.ops.sum(keras.ops.square(output)) for output in outputs)
    for ours, theirs in zip(outputs, free(IDS), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    gradient = tape.gradient(loss, still.table.value)
    trained = {*range(17)} - {*range(6, 13)} - ({*range(6)} if "user" in frozen else set())
    trained -= {*range(13, 17)} if "age" in frozen else set()
    assert gradient is None if not trained else {*gradient.indices.numpy().tolist()} <= trained
    squares = table(still) ** 2
    np.testing.assert_allclose(float(still.squared_norm()), squares[sorted(trained)].sum(), rtol=1e-6)
    assert round_trip(still).frozen == tuple(frozen)
    assert "frozen" not in free.get_config()


@pytest.mark.parametrize(
    ("optimizer", "l2"),
    [
        ("adam", {"embedding_l2": 0.1}),
        ("adam", {"embedding_l2": 0.1, "l2_scope": "batch"}),
        ("exact_lazy_adam", {"embedding_l2": 0.1, "l2_scope": "batch"}),
        ("lazy_adam", {"embedding_l2": 0.1, "l2_scope": "batch"}),
        ("adagrad", {}),
        ("ftrl", {"embedding_l2": 0.1, "l2_scope": "batch"}),
        ("sgd", {"embedding_l2": 0.1}),
    ],
)
def test_no_optimizer_moves_frozen_rows(optimizer, l2):
    model = DIN(SCHEMA, embedding_dim=4, hidden_units=[8], attention_units=[4], frozen=["item"], **l2)
    (layer,) = model.embeddings
    layer.table.assign(np.random.default_rng(0).normal(size=(17, 4)))
    model.compile(optimizer, run_eagerly=True)
    before = table(layer)
    for seed in range(3):
        model.train_on_batch(rows(32, seed), LABELS[:32])
    model.settle()
    after = table(layer)
    np.testing.assert_array_equal(after[ITEM], before[ITEM])
    assert (after[USER] != before[USER]).any(axis=1).sum() >= 4
    assert (after[AGE][3] != before[AGE][3]).any()


def test_vectors_are_frozen_and_weights_of_the_first_order_are_trained(tmp_path):
    model = DeepFM(SCHEMA, embedding_dim=4, hidden_units=[8], frozen=["history"])
    model.compile("sgd")
    wide, vectors = sorted(model.embeddings, key=lambda layer: layer.embedding_dim)
    before = table(wide), table(vectors)
    model.fit(IDS, LABELS, epochs=1, verbose=0)
    assert (table(wide)[ITEM] != before[0][ITEM]).any()
    np.testing.assert_array_equal(table(vectors)[ITEM], before[1][ITEM])
    assert (table(vectors)[USER] != before[1][USER]).any()
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again.predict(IDS, verbose=0), model.predict(IDS, verbose=0))
    wide, vectors = sorted(again.embeddings, key=lambda layer: layer.embedding_dim)
    assert (wide.frozen, vectors.frozen) == ((), ("history",))
    again.fit(IDS, LABELS, epochs=1, verbose=0)
    np.testing.assert_array_equal(table(vectors)[ITEM], before[1][ITEM])


def test_a_config_says_what_is_frozen_and_nothing_where_nothing_is():
    encoders = {"simple_encoder": MLP([4]), "complex_encoder": MLP([4])}
    model = TF4CTR(SCHEMA, embedding_dim=4, frozen=["item"], **encoders)
    assert [layer.frozen for layer in model.embeddings] == [("item",)] * 2
    again = TF4CTR.from_config(model.get_config())
    assert [layer.frozen for layer in again.embeddings] == [("item",)] * 2
    assert "frozen" not in str(TF4CTR(SCHEMA, embedding_dim=4, **encoders).get_config())
    ids = ids_input(SCHEMA)
    fields = keras.layers.Flatten()(FeatureEmbedding(SCHEMA, 4)(ids))
    own = CTRModel(SCHEMA, ids, {"logit": keras.layers.Dense(1)(fields)}, frozen=["user"])
    assert [layer.frozen for layer in CTRModel.from_config(own.get_config()).embeddings] == [("user",)]


def test_tables_of_some_features_are_frozen_by_those_that_share_their_rows():
    ids = ids_input(SCHEMA)
    some = FeatureEmbedding(SCHEMA, 4, features=["age", "item"])
    fields = keras.layers.Flatten()(some(ids))
    CTRModel(SCHEMA, ids, {"logit": keras.layers.Dense(1)(fields)}, frozen=["history"])
    assert some.rows_of("history") == some.rows_of("item") == (0, 7)
    assert (some.rows_of("age"), some.rows_of("user")) == ((7, 4), (0, 0))
    with tf.GradientTape() as tape:
        loss = keras.ops.sum(some(IDS))
    assert {*tape.gradient(loss, some.table.value).indices.numpy().tolist()} == {10}
    np.testing.assert_allclose(float(some.squared_norm()), (table(some)[7:] ** 2).sum(), rtol=1e-6)


def test_what_cannot_be_frozen_is_refused():
    for model, names, message in (
        (DNN, ["itme"], "item"),
        (DNN, "item", "list of names"),
        (LR, ["item"], "has no vectors"),
    ):
        with pytest.raises(ConfigError, match=message):
            model(SCHEMA, frozen=names)
    with pytest.raises(ConfigError, match="itme"):
        FeatureEmbedding(SCHEMA, 4, frozen=["itme"])
    model = DNN(SCHEMA, frozen=["item"])
    for optimizer in (keras.optimizers.AdamW(), keras.optimizers.Ftrl(), keras.optimizers.SGD(use_ema=True)):
        with pytest.raises(ConfigError, match="moves rows without a gradient"):
            model.compile(optimizer)
    DNN(SCHEMA).compile(keras.optimizers.AdamW())
