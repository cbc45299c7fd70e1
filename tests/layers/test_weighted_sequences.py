"""`FeatureEmbedding` of sequences with weights, against loops and TensorFlow's sparse lookup."""

import numpy as np
import pytest
import tensorflow as tf

from tfctr import Categorical, Numeric, Schema, Sequence
from tfctr.errors import ConfigError
from tfctr.layers import FeatureEmbedding

WEIGHTS = np.float32([[0.5, 0.3, 0], [2, 0, 1e15], [1e-15, 0, 0], [0, 0, 0], [1, 0, 0], [3, 1, 2]])
TOKENS = np.int32([[3, 4, 0], [5, 3, 4], [4, 0, 0], [3, 3, 0], [1, 0, 0], [4, 4, 2]])  # and padding


def bits(numbers):
    return np.asarray(numbers, np.float32).view(np.int32)


def made(pooling, **arguments):
    """(layer, ids): a weighted sequence between a token, a plain sequence and a scaled number."""
    features = [
        Categorical("user", size=5),
        Sequence("tags", 3, weight_separator=":", pooling=pooling, size=6),
        Sequence("plain", 2, pooling=pooling, size=5),
        Numeric("price", "scaled", mean=0.0, scale=1.0, size=4),
    ]
    layer = FeatureEmbedding(Schema(features, label="click"), embedding_dim=4, **arguments)
    price = bits([[1.5], [np.nan], [0], [-2], [1], [3]])
    plain = 5 + 6 + np.int32([[3, 4], [4, 0], [1, 0], [3, 3], [4, 2], [3, 0]])
    ids = np.concatenate([np.full((6, 1), 4, np.int32), 5 + TOKENS, bits(WEIGHTS), plain, price], axis=1)
    layer.build(ids.shape)
    layer.table.assign(np.random.default_rng(0).normal(size=layer.table.shape).astype("float32"))
    return layer, ids


def pooled(vectors, weights, pooling):
    """One row, in float64: 0 where what divides is 0."""
    total = sum((weight * vector for weight, vector in zip(weights, vectors, strict=True)), np.zeros(4))
    divisor = {"sum": 1.0, "mean": sum(weights), "sqrtn": sum(weight**2 for weight in weights) ** 0.5}[pooling]
    return total / divisor if divisor else np.zeros(4)


@pytest.mark.parametrize("pooling", ["mean", "sum", "sqrtn"])
def test_against_a_loop(pooling):
    layer, ids = made(pooling)
    table = layer.table.numpy().astype(np.float64)
    expected = []
    for tokens, weights in zip(TOKENS, WEIGHTS.astype(np.float64), strict=True):
        given = [place for place, token in enumerate(tokens) if token]
        expected.append(pooled([table[5 + tokens[place]] for place in given], weights[given], pooling))
    np.testing.assert_allclose(layer(ids)[:, 1], expected, rtol=1e-5, atol=1e-30)


@pytest.mark.parametrize("pooling", ["mean", "sum", "sqrtn"])
def test_against_the_sparse_lookup_of_tensorflow(pooling):
    layer, ids = made(pooling)
    rows = [0, 1, 2, 5]  # those with a weight above 0
    tokens, weights = (tf.ragged.boolean_mask(x[rows], TOKENS[rows] > 0).to_sparse() for x in (5 + TOKENS, WEIGHTS))
    expected = tf.nn.embedding_lookup_sparse(layer.table.value, tokens, weights, combiner=pooling)
    np.testing.assert_allclose(tf.gather(layer(ids)[:, 1], rows), expected, rtol=1e-5)


@pytest.mark.parametrize("pooling", ["mean", "sum", "sqrtn"])
def test_weights_of_1_are_as_good_as_none_and_neighbours_are_left_alone(pooling):
    layer, ids = made(pooling)
    ids[:, 4:7] = bits(np.where(TOKENS > 0, 1.0, 0.0))
    plain = Schema(
        [
            Categorical("user", size=5),
            Sequence("tags", 3, pooling=pooling, size=6),
            Sequence("plain", 2, pooling=pooling, size=5),
            Numeric("price", "scaled", mean=0.0, scale=1.0, size=4),
        ],
        label="click",
    )
    twin = FeatureEmbedding(plain, embedding_dim=4)
    twin.build((None, plain.width))
    twin.table.assign(layer.table)
    np.testing.assert_array_equal(layer(ids), twin(np.delete(ids, [4, 5, 6], axis=1)))


def test_rows_that_are_read_and_moved():
    layer, ids = made("mean")
    with tf.GradientTape() as tape:
        fields = layer(ids)
    gradient = tape.gradient(fields, layer.table.value)
    read = {4, *(5 + TOKENS).ravel().tolist(), *ids[:, 7:9].ravel().tolist(), 16 + 1, 16 + 3}
    assert set(layer.distinct_rows(ids).numpy().tolist()) == set(gradient.indices.numpy().tolist()) == read
    assert not np.isnan(gradient.values).any()


def test_some_features_and_a_row_for_all():
    layer, ids = made("sqrtn")
    some, _ = made("sqrtn", features=["tags", "price"])
    some.table.assign(np.concatenate([layer.table[5:11], layer.table[16:]]))
    np.testing.assert_array_equal(some(ids), tf.gather(layer(ids), [1, 3], axis=1))
    assert max(some.distinct_rows(ids)) < 10
    repeated = ids.copy()
    repeated[:, 1:7] = ids[:1, 1:7]
    with layer.sharing(["tags"]):
        shared = layer(ids)
    np.testing.assert_array_equal(shared, layer(repeated))


def test_a_weighted_sequence_is_not_given_whole():
    with pytest.raises(ConfigError, match="`unpooled` names 'tags', whose tokens have weights"):
        made("mean", unpooled=["tags"])
