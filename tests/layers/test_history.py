"""Attention of a target over its history: against loops, and whatever stands in the padding."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from kit.randomized import dense, draw, numbers, randomize, sigmoid, softmax
from kit.transformer_oracle import transformed

from tfctr import Categorical, Schema, Sequence
from tfctr.errors import ConfigError
from tfctr.layers import FeatureEmbedding, HistoryTransformer, TargetAttention

HISTORY, TARGET = draw(6, 4, 2), draw(6, 2, seed=1)
LENGTHS = np.array([4, 2, 0, 1, 3, 4])  # of the histories; the rest is padding
PRESENT = np.arange(4) < LENGTHS[:, None]
LAYERS = [
    lambda **options: TargetAttention([5, 3], **options),
    lambda **options: TargetAttention([5], "relu", softmax=True, **options),
    lambda **options: HistoryTransformer(num_layers=2, num_heads=2, hidden_dim=6, **options),
]
OF_EACH = pytest.mark.parametrize("make", LAYERS, ids=["attention", "softmax", "transformer"])


def made(make):
    layer = make()
    layer.build([HISTORY.shape, TARGET.shape])
    return randomize(layer)


def dice(layer, x, mean, variance):
    p = sigmoid((x - mean) / np.sqrt(variance + 1e-8))
    return (p + (1 - p) * numbers(layer.alpha)) * x


def pair(token, target):
    return np.concatenate([token, target, token - target, token * target]).astype("float64")


def test_attention_against_a_loop_over_tokens():
    layer = made(LAYERS[0])
    for row, (history, target) in enumerate(zip(HISTORY, TARGET, strict=True)):
        expected = np.zeros(2)
        for token in history[: LENGTHS[row]]:
            x = pair(token, target)
            for step, activation in zip(layer.dense, layer.activations, strict=False):
                norm = activation.normalization
                x = dice(activation, dense(step, x), numbers(norm.moving_mean), numbers(norm.moving_variance))
            expected += dense(layer.dense[-1], x)[0] * token
        found = layer([HISTORY, TARGET], mask=[PRESENT, None])[row]
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_softmax_against_a_loop_over_tokens():
    layer = made(LAYERS[1])
    first, last = layer.dense
    for row, (history, target) in enumerate(zip(HISTORY, TARGET, strict=True)):
        tokens = history[: LENGTHS[row]]
        scores = [dense(last, np.maximum(dense(first, pair(token, target)), 0))[0] / np.sqrt(2) for token in tokens]
        expected = softmax(np.array(scores)) @ tokens if len(tokens) else np.zeros(2)
        found = layer([HISTORY, TARGET], mask=[PRESENT, None])[row]
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    weights = numbers(layer.weigh([HISTORY, TARGET], [PRESENT, None]))
    np.testing.assert_allclose(weights.sum(axis=1), LENGTHS > 0, rtol=1e-5)
    assert (weights[~PRESENT] == 0).all()


def test_dice_in_training_knows_the_tokens_that_are_there_alone():
    layer = TargetAttention([5])
    layer.build([HISTORY.shape, TARGET.shape])
    randomize(layer)
    layer([HISTORY, TARGET], mask=[PRESENT, None], training=True)
    pairs = [pair(token, target) for row, target in enumerate(TARGET) for token in HISTORY[row, : LENGTHS[row]]]
    before = randomize(made(lambda: TargetAttention([5]))).activations[0].normalization
    x = dense(layer.dense[0], np.array(pairs))
    norm = layer.activations[0].normalization
    expected = 0.9 * numbers(before.moving_mean) + 0.1 * x.mean(axis=0)
    np.testing.assert_allclose(norm.moving_mean, expected, rtol=1e-4)
    np.testing.assert_allclose(norm.moving_variance, 0.9 * numbers(before.moving_variance) + 0.1 * x.var(axis=0), rtol=1e-4)


def test_transformer_against_a_loop_over_the_tokens_that_are_there():
    layer = made(LAYERS[2])
    positions = numbers(layer.positions)
    found = numbers(layer([HISTORY, TARGET], mask=[PRESENT, None])).reshape(6, 5, 2)
    for row, length in enumerate(LENGTHS):
        x = np.stack([*HISTORY[row, :length], TARGET[row]]).astype("float64")
        x += np.stack([positions[length - place] for place in range(length + 1)])  # the last one has 1, the target 0
        expected = transformed(layer.transformer, x)
        np.testing.assert_allclose(found[row, :length], expected[:-1], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found[row, -1], expected[-1], rtol=1e-4, atol=1e-5)
        assert (found[row, length:-1] == 0).all()


@OF_EACH
@pytest.mark.parametrize("training", [False, True])
def test_padding_never_changes_an_answer(make, training):
    answers, gradients = [], []
    for fill in (0.0, 1.0, -1e3):
        layer = made(make)
        history = tf.Variable(np.where(PRESENT[..., None], HISTORY, fill).astype("float32"))
        with tf.GradientTape() as tape:
            answer = layer([history, TARGET], mask=[PRESENT, None], training=training)
            loss = tf.reduce_sum(answer**2)
        answers.append(answer)
        gradients.append(tape.gradient(loss, history).numpy())
        assert (gradients[-1][~PRESENT] == 0).all()
    for answer, gradient in zip(answers[1:], gradients[1:], strict=True):
        np.testing.assert_allclose(answer, answers[0], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(gradient, gradients[0], rtol=1e-4, atol=1e-4)


def test_a_longer_column_changes_no_attention():
    layer = made(LAYERS[0])
    longer = np.concatenate([HISTORY, np.ones((6, 3, 2), "float32")], axis=1)
    mask = np.concatenate([PRESENT, np.zeros((6, 3), bool)], axis=1)
    expected = layer([HISTORY, TARGET], mask=[PRESENT, None])
    np.testing.assert_allclose(layer([longer, TARGET], mask=[mask, None]), expected, rtol=1e-6)


@pytest.mark.parametrize("make", [LAYERS[0], pytest.param(LAYERS[2], marks=pytest.mark.slow)], ids=["attention", "transformer"])
def test_in_a_model_of_ones_own(make, tmp_path):
    """Ids with padding 0, and Keras' embedding, whose mask comes by itself: trained, saved, loaded, cloned."""
    history, item = keras.Input((4,), dtype="int32"), keras.Input((), dtype="int32")
    embedding = keras.layers.Embedding(9, 2, mask_zero=True)
    answer = make()([embedding(history), embedding(item)])
    model = keras.Model([history, item], keras.layers.Dense(1)(answer))
    model.compile("adam", keras.losses.BinaryCrossentropy(from_logits=True))
    rng = np.random.default_rng(0)
    ids, items = rng.integers(1, 9, (64, 4)) * (np.arange(4) < rng.integers(0, 5, (64, 1))), rng.integers(1, 9, 64)
    model.fit([ids, items], items % 2, verbose=0)
    randomize(model)
    expected = model.predict([ids, items], verbose=0)
    rows = embedding.embeddings.numpy()
    rows[0] = 100.0  # of the padding
    embedding.embeddings.assign(rows)
    np.testing.assert_allclose(model.predict([ids, items], verbose=0), expected, rtol=1e-5, atol=1e-6)
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(
        keras.saving.load_model(tmp_path / "model.keras").predict([ids, items], verbose=0),
        model.predict([ids, items], verbose=0),
    )
    twin = keras.models.clone_model(model)
    twin.set_weights(model.get_weights())
    np.testing.assert_array_equal(twin.predict([ids, items], verbose=0), model.predict([ids, items], verbose=0))


@OF_EACH
def test_config_round_trip(make):
    layer = made(make)
    twin = keras.saving.deserialize_keras_object(json.loads(json.dumps(keras.saving.serialize_keras_object(layer))))
    twin.set_weights(layer.get_weights())
    np.testing.assert_array_equal(twin([HISTORY, TARGET]), layer([HISTORY, TARGET]))


@OF_EACH
@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ((None, 4, 2), "takes two inputs"),
        ([(None, 4, 2)], "takes two inputs"),
        ([(None, 4, 2), (None, 3)], "the history is 2 wide, its target 3"),
        ([(None, 2), (None, 2)], r"takes \(batch, length, dim\)"),
        ([(None, 4, 2), (None, 1, 2)], r"takes \(batch, dim\)"),
        ([(None, None, 2), (None, 2)], "it must know `length`"),
    ],
)
def test_other_inputs_are_refused(make, shapes, message):
    inputs = [keras.KerasTensor(s) for s in shapes] if isinstance(shapes, list) else keras.KerasTensor(shapes)
    with pytest.raises(ConfigError, match=message):
        make()(inputs)


@pytest.mark.parametrize("arguments", [{"hidden_units": []}, {"hidden_units": [0]}, {"activation": "reul"}])
def test_bad_arguments_are_refused(arguments):
    with pytest.raises(ConfigError, match=r"hidden_units|Did you mean 'relu'"):
        TargetAttention(**arguments)


def test_ids_are_no_history():
    with pytest.raises(ConfigError, match="int32"):
        TargetAttention()([keras.KerasTensor((None, 4, 2), dtype="int32"), keras.KerasTensor((None, 2))])


# the embedding of whole sequences

SCHEMA = Schema(
    [
        Categorical("user", size=5),
        Sequence("history", 3, vocabulary_of="item"),
        Categorical("item", size=7),
        Sequence("tags", 2, size=6),
    ],
    label="click",
)
# History: two items and padding; missing; then three items. Offsets: user 0, item 5, tags 12.
IDS = np.int32([[3, 5 + 4, 5 + 3, 5, 5 + 3, 12 + 3, 12], [4, 5 + 1, 5, 5, 5 + 4, 12 + 1, 12], [1, 8, 9, 10, 8, 16, 17]])


def embedding(**options):
    layer = FeatureEmbedding(SCHEMA, 2, **options)
    layer.build(IDS.shape)
    layer.set_weights([draw(18, 2)])
    return layer


def test_a_sequence_is_given_whole():
    layer, rows = embedding(unpooled=["history"]), draw(18, 2)
    fields, history = layer(IDS)
    np.testing.assert_array_equal(fields, embedding()(IDS).numpy()[:, [0, 2, 3]])
    expected = np.where((IDS[:, 1:4] != 5)[..., None], rows[IDS[:, 1:4]], 0)
    np.testing.assert_array_equal(history, expected)
    np.testing.assert_array_equal(history._keras_mask, IDS[:, 1:4] != 5)
    assert getattr(fields, "_keras_mask", None) is None
    _, tags, history = embedding(unpooled=["tags", "history"])(IDS)  # in this order
    assert (tags.shape, history.shape) == ((3, 2, 2), (3, 3, 2))
    twin = FeatureEmbedding.from_config(layer.get_config())
    assert twin.unpooled == ("history",)
    assert "unpooled" not in embedding().get_config()


def test_a_shared_history_is_read_once_with_the_same_bits():
    layer, ids, read = embedding(unpooled=["history"]), np.repeat(IDS[:1], 4, axis=0), []
    ids[:, 4] = 5 + np.arange(3, 7)
    expected = layer(ids)

    def gather(cells):
        read.append(tuple(cells.shape))
        return tf.nn.embedding_lookup(layer.table.value, cells)

    with layer.sharing(["user", "history", "tags"]), layer.reading(gather):
        found = layer(ids)
    assert read == [(4, 2), (1, 2), (1, 3)]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_rows_of_a_whole_sequence_are_updated():
    layer = embedding(unpooled=["history"])
    with tf.GradientTape() as tape:
        loss = sum(tf.reduce_sum(part**2) for part in layer(IDS))
    gradient = tape.gradient(loss, layer.table.value)
    assert isinstance(gradient, tf.IndexedSlices)
    assert set(gradient.indices.numpy()) == set(layer.distinct_rows(IDS).numpy())
    of_padding = tf.convert_to_tensor(gradient).numpy()[[5, 12]]
    assert (of_padding == 0).all()


@pytest.mark.parametrize(("names", "message"), [(["item"], "sequence in `unpooled`"), (["histroy"], "Did you mean 'history'")])
def test_only_sequences_are_given_whole(names, message):
    with pytest.raises(ConfigError, match=message):
        FeatureEmbedding(SCHEMA, 2, unpooled=names)
    with pytest.raises(ConfigError, match="leaves no field"):
        FeatureEmbedding(SCHEMA, 2, features=["history"], unpooled=["history"])
