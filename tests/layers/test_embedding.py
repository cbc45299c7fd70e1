import keras
import numpy as np
import pytest
import tensorflow as tf
from kit.encoder_contract import round_trip

from tfctr.errors import ConfigError
from tfctr.features import Categorical, Numeric, Sequence
from tfctr.layers import FeatureEmbedding
from tfctr.schema import Schema


def bits(*numbers):
    return np.array(numbers, "float32").view("int32")


def embed(feature, *rows):
    """The single field of each row, from a table whose row i is [i, 10 i]."""
    layer = FeatureEmbedding(Schema(features=[feature], label="click"), embedding_dim=2)
    layer.build((None, feature.width))
    layer.set_weights([np.arange(feature.size)[:, None] * [1.0, 10.0]])
    fields = layer(np.array(rows, "int32")).numpy()
    assert fields.shape == (len(rows), 1, 2)
    return fields[:, 0].tolist()


def test_token_is_its_row():
    assert embed(Categorical("user", size=6), [3], [1], [5]) == [[3, 30], [1, 10], [5, 50]]


@pytest.mark.parametrize(("pooling", "of_3_and_5"), [("sum", [8, 80]), ("mean", [4, 40]), ("sqrtn", [8 / 2**0.5, 80 / 2**0.5])])
def test_sequence_pools_what_is_not_padding(pooling, of_3_and_5):
    feature = Sequence("genres", max_length=3, pooling=pooling, size=6)
    both, one, none = embed(feature, [3, 5, 0], [4, 0, 0], [0, 0, 0])
    np.testing.assert_allclose(both, of_3_and_5, rtol=1e-6)
    assert one == [4, 40]
    assert none == [0, 0]  # padding is a zero vector, whatever its row holds


def test_padding_row_is_never_trained():
    layer = FeatureEmbedding(Schema(features=[Sequence("genres", max_length=2, size=5)], label="click"), embedding_dim=1)
    with tf.GradientTape() as tape:
        loss = keras.ops.sum(layer(np.array([[3, 0], [0, 0]], "int32")))
    gradient = tf.convert_to_tensor(tape.gradient(loss, layer.table.value))
    assert gradient.numpy().ravel().tolist() == [0, 0, 0, 1, 0]


def test_scaled_number_times_its_row_and_missing():
    feature = Numeric("price", "scaled", mean=0.0, scale=1.0, size=4)
    assert embed(feature, bits(2.0), bits(-0.5), bits(0.0), bits(np.nan)) == [[6, 60], [-1.5, -15], [0, 0], [1, 10]]


def test_all_kinds_against_a_loop(tiny_schema, tiny_ids):
    layer = FeatureEmbedding(tiny_schema, embedding_dim=3)
    ids = tiny_ids(64)
    layer.build(ids.shape)
    table = np.random.default_rng(0).normal(size=(tiny_schema.table_rows, 3))
    layer.set_weights([table])
    fields = layer(ids).numpy()
    for row in range(64):
        for position, field in enumerate(tiny_schema.fields):
            cells = ids[row, field.columns]
            if isinstance(field.feature, Numeric) and field.feature.transform == "scaled":
                number = cells.view("float32")[0]
                expected = table[field.offset + 1] if np.isnan(number) else number * table[field.offset + 3]
            else:
                kept = [table[cell] for cell in cells if not (isinstance(field.feature, Sequence) and cell == field.offset)]
                expected = np.sum(kept, axis=0) / len(kept)
            np.testing.assert_allclose(fields[row, position], expected, rtol=1e-5, atol=1e-6)


def test_gradient_is_sparse_and_the_table_is_never_read_whole(tiny_schema, tiny_ids):
    layer = FeatureEmbedding(tiny_schema, embedding_dim=3)
    layer.build((None, tiny_schema.width))

    @tf.function
    def gradient(ids):
        with tf.GradientTape() as tape:
            loss = keras.ops.sum(layer(ids))
        return tape.gradient(loss, layer.table.value)

    ids = tf.constant(tiny_ids(8))
    assert isinstance(gradient(ids), tf.IndexedSlices)
    table = layer.table.value.handle
    graph = gradient.get_concrete_function(ids).graph
    captured = next(inside for outside, inside in graph.captures if outside is table)
    assert {op.type for op in captured.consumers()} <= {"ResourceGather", "VariableShape"}


@pytest.mark.sampled(12)
@pytest.mark.parametrize("rows", [0, 1, 7, 512])
@pytest.mark.parametrize("length", [1, 3, 20, 1000])
@pytest.mark.parametrize("pooling", ["mean", "sum", "sqrtn"])
def test_a_shared_sequence_is_pooled_once_with_the_same_bits(rows, length, pooling):
    history = Sequence("history", max_length=length, pooling=pooling, size=50)
    age, user, item = (
        Numeric("age", "scaled", mean=0.0, scale=1.0, size=4),
        Categorical("user", size=50),
        Categorical("item", size=50),
    )
    layer = FeatureEmbedding(Schema(features=[item, history, age, user], label="click"), embedding_dim=16)
    rng = np.random.default_rng(rows)
    ids = np.repeat(rng.integers(1, 50, size=(1, length + 3), dtype="int32"), rows, axis=0)
    ids[:, 0] = rng.integers(1, 50, size=rows)
    ids[:, 1:-2] += 50
    ids[:, length // 2 + 1 : -2] = 50  # padding
    ids[:, -2] = bits(0.3)
    ids[:, -1] += 104
    layer.build(ids.shape)
    layer.set_weights([rng.normal(size=layer.table.shape)])
    expected, read = layer(ids).numpy(), []

    def gather(cells):
        read.append(cells.shape)
        return tf.nn.embedding_lookup(layer.table.value, cells)

    with layer.sharing({"history", "user"}), layer.reading(gather):
        fields = layer(ids).numpy()
    np.testing.assert_array_equal(fields.view("int32"), expected.view("int32"))
    assert read == [(rows, 3), (min(rows, 1), length)]
    np.testing.assert_array_equal(layer(ids).numpy(), expected)


def test_squared_norm_of_the_table():
    layer = FeatureEmbedding(Schema(features=[Categorical("user", size=4)], label="click"), embedding_dim=1)
    layer.build((None, 1))
    layer.set_weights([np.array([[1.0], [2.0], [3.0], [4.0]])])
    assert float(layer.squared_norm()) == 1 + 4 + 9 + 16


def test_distinct_rows_of_a_batch():
    schema = Schema(
        features=[Numeric("price", "scaled", mean=0.0, scale=1.0, size=4), Categorical("user", size=5)], label="click"
    )
    layer = FeatureEmbedding(schema, embedding_dim=1)
    users = np.array([7, 5, 7], "int32")
    assert layer.distinct_rows(np.stack([bits(0.25, 7.0, 7.0), users], axis=1)).numpy().tolist() == [3, 7, 5]
    assert layer.distinct_rows(np.stack([bits(0.25, np.nan, 7.0), users], axis=1)).numpy().tolist() == [3, 7, 1, 5]


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_table_stays_float32_under_mixed_precision(policy, tiny_schema, tiny_ids):
    layer = FeatureEmbedding(tiny_schema, embedding_dim=2, dtype=policy)
    fields = layer(tiny_ids(4))
    assert layer.table.dtype == "float32"
    assert keras.backend.standardize_dtype(fields.dtype) == policy.removeprefix("mixed_")


def test_config_round_trip(tiny_schema, tiny_ids):
    layer = FeatureEmbedding(tiny_schema, embedding_dim=2)
    expected = layer(tiny_ids(4))
    twin = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    twin.set_weights(layer.get_weights())
    np.testing.assert_array_equal(twin(tiny_ids(4)), expected)
    assert twin.schema == tiny_schema


def test_refuses_an_unfitted_schema_and_no_width(tiny_schema):
    with pytest.raises(ConfigError, match="not fitted"):
        FeatureEmbedding(Schema(features=[Categorical("user")], label="click"), embedding_dim=2)
    with pytest.raises(ConfigError, match="embedding_dim"):
        FeatureEmbedding(tiny_schema, embedding_dim=0)


@pytest.mark.parametrize("names", [["item"], ["price", "genres"], ["age", "user", "genres"]])
def test_a_table_of_some_features_has_their_rows_only(names, tiny_schema, tiny_ids):
    ids = tiny_ids(64)
    whole = FeatureEmbedding(tiny_schema, embedding_dim=3)
    whole.build(ids.shape)
    table = np.random.default_rng(0).normal(size=(tiny_schema.table_rows, 3))
    whole.set_weights([table])
    some = FeatureEmbedding(tiny_schema, embedding_dim=3, features=names)
    positions = [position for position, field in enumerate(tiny_schema.fields) if field.feature.name in names]
    fields = [tiny_schema.fields[position] for position in positions]
    some.build(ids.shape)
    some.set_weights([np.concatenate([table[field.offset :][: field.feature.size] for field in fields])])
    expected = whole(ids).numpy()[:, positions]
    np.testing.assert_array_equal(some(ids), expected)
    assert some(keras.Input((tiny_schema.width,), dtype="int32")).shape == (None, len(names), 3)
    with some.sharing(["genres"]), whole.sharing(["genres"]):
        np.testing.assert_array_equal(some(ids), whole(ids).numpy()[:, positions])
    assert round_trip(some).features == tuple(names)

    with tf.GradientTape() as tape:
        loss = keras.ops.sum(some(ids))
    gradient = tape.gradient(loss, some.table.value)
    read = some.distinct_rows(ids).numpy()
    assert sorted(read) == sorted(set(gradient.indices.numpy()))


def test_a_table_of_an_unknown_feature_gives_the_closest_name(tiny_schema):
    with pytest.raises(ConfigError, match="Did you mean 'item'"):
        FeatureEmbedding(tiny_schema, 3, features=["itme"])
