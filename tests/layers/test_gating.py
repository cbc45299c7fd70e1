import keras
import numpy as np
import pytest
from kit.encoder_contract import round_trip
from kit.randomized import dense, draw, numbers, randomize, sigmoid

import tfctr
from tfctr import layers
from tfctr.errors import ConfigError
from tfctr.layers import BilinearFusion, FeatureEmbedding, FeatureGating, FieldGate
from tfctr.models import TF4CTR, FinalMLP
from tfctr.serving.exporting.compression import CompressedTables
from tfctr.serving.runtime.saved_model import SavedModel


def embedded(layer, schema, ids):
    """The fields `(batch, fields, dim)`, by a layer that has its own test."""
    embedding = FeatureEmbedding(schema, layer.embedding_dim)
    embedding.build(ids.shape)
    embedding.set_weights(layer.embeddings[0].get_weights())
    return numbers(embedding(ids))


@pytest.mark.parametrize("separate", [True, False])
def test_feature_gating_against_numpy(separate, tiny_schema, tiny_ids):
    ids = tiny_ids(6)
    layer = FeatureGating(tiny_schema, 3, complex_context=["item", "age"], hidden_units=[7], separate_contexts=separate)
    layer.build(ids.shape)
    randomize(layer)
    fields = embedded(layer, tiny_schema, ids)
    names = [field.feature.name for field in tiny_schema.fields]
    learned = np.repeat(numbers(layer.learned_contexts[0]).reshape(1, 3), 6, axis=0)
    of_gate = fields
    if separate:
        whole = FeatureEmbedding(tiny_schema, 3)  # the table of the two features in the place of their rows
        whole.build(ids.shape)
        table = np.full(whole.table.shape, np.nan, "float32")
        rows = [row for field in tiny_schema.fields if field.feature.name in ("item", "age") for row in rows_of(field)]
        table[rows] = layer.embeddings[1].table.numpy()
        whole.set_weights([table])
        of_gate = numbers(whole(ids))
    named = np.concatenate([of_gate[:, names.index("item")], of_gate[:, names.index("age")]], axis=1)
    for view, gate, context in zip(layer(ids), layer.gates, (learned, named), strict=True):
        hidden = np.maximum(dense(gate.layers[0].steps[1], context), 0)
        weights = 2 * sigmoid(dense(gate.layers[1], hidden)).reshape(fields.shape)
        np.testing.assert_allclose(view, weights * fields, rtol=1e-5, atol=1e-6)


def rows_of(field):
    return range(field.offset, field.offset + field.feature.size)


def test_parameters_of_separate_contexts(tiny_schema):
    sizes = {field.feature.name: field.feature.size for field in tiny_schema.fields}
    separate, shared = (
        FinalMLP(tiny_schema, 4, [10], [20], simple_context=["user"], complex_context=["genres", "age"], separate_contexts=one)
        for one in (True, False)
    )
    more = 4 * (sizes["user"] + sizes["genres"] + sizes["age"])
    assert separate.count_params() == shared.count_params() + more
    assert [embedding.features for embedding in separate.embeddings] == [None, ("user",), ("genres", "age")]


@pytest.mark.sampled(1)
@pytest.mark.parametrize("optimizer", ["exact_lazy_adam", "lazy_adam"])
def test_tables_of_contexts_train_by_rows(optimizer, tiny_schema, tiny_ids, tiny_labels):
    """Rows that no batch reads stay; the exact one gives Adam's weights."""
    weights = {}
    for name in ("adam", optimizer):
        keras.utils.set_random_seed(1)
        model = FinalMLP(tiny_schema, 4, [10], [20], simple_context=["user"], complex_context=["item", "genres"])
        model.compile(optimizer=name)
        before = [table.numpy() for table in model.tables]
        for seed in range(4):
            model.train_on_batch(tiny_ids(3, seed), tiny_labels(3, seed))
        weights[name] = model.get_weights()
    if optimizer == "exact_lazy_adam":
        for ours, its in zip(weights[optimizer], weights["adam"], strict=True):
            np.testing.assert_allclose(ours, its, rtol=1e-3, atol=1e-5)
    read = {row for seed in range(4) for row in model.embeddings[2].distinct_rows(tiny_ids(3, seed)).numpy()}
    moved = set(np.flatnonzero((model.tables[2].numpy() != before[2]).any(axis=1)))
    assert moved
    assert moved <= read < set(range(len(before[2])))


def test_a_learned_context_makes_one_gate_for_all_samples(tiny_schema, tiny_ids):
    layer = FeatureGating(tiny_schema, 3, complex_context=["item"])
    layer.build(tiny_ids(4).shape)
    randomize(layer)
    fields = embedded(layer, tiny_schema, tiny_ids(4))
    present = np.abs(fields).min(axis=(1, 2)) > 1e-3  # a missing number's field may be small, but is not zero
    simple, complex_ = (numbers(view)[present] / fields[present] for view in layer(tiny_ids(4)))
    np.testing.assert_allclose(simple, np.broadcast_to(simple[:1], simple.shape), rtol=1e-3)
    assert np.abs(complex_ - complex_[:1]).max() > 0.01


def test_fresh_gates_are_open(tiny_schema, tiny_ids):
    """2 sigmoid(0) = 1: both encoders start from the plain fields."""
    layer = FeatureGating(tiny_schema, 4)
    simple, complex_ = layer(tiny_ids(5))
    np.testing.assert_allclose(simple, embedded(layer, tiny_schema, tiny_ids(5)), rtol=1e-3)
    np.testing.assert_allclose(simple, complex_, rtol=1e-3)


def test_feature_gating_config(tiny_schema):
    layer = FeatureGating(tiny_schema, 4, simple_context=["user"], complex_context=("item", "age"), hidden_units=(3,))
    twin = round_trip(round_trip(layer))
    assert twin.separate_contexts
    assert [table.features for table in twin.embeddings] == [None, ("user",), ("item", "age")]
    assert (twin.simple_context, twin.complex_context) == (("user",), ("item", "age"))
    assert (twin.hidden_units, twin.positions) == ((3,), layer.positions)


def test_unknown_context_gives_the_closest_name(tiny_schema):
    with pytest.raises(ConfigError, match="Did you mean 'item'"):
        FeatureGating(tiny_schema, 4, simple_context=["itme"])


def test_final_mlp_is_the_twin_sentence(tiny_schema, tiny_ids):
    """FinalMLP = FeatureGating + MLP, MLP + BilinearFusion: TF4CTR only adds its loss."""
    sizes = {"simple_hidden_units": [6], "complex_hidden_units": [5, 4], "gate_hidden_units": [3], "num_heads": 2}
    model = FinalMLP(tiny_schema, 4, **sizes)
    twin = TF4CTR(
        tiny_schema,
        selection=FeatureGating(tiny_schema, 4, hidden_units=[3]),
        simple_encoder=layers.MLP([6]),
        complex_encoder=layers.MLP([5, 4]),
        fusion=BilinearFusion(num_heads=2),
    )
    twin.set_weights(randomize(model).get_weights())
    np.testing.assert_array_equal(twin(tiny_ids(9))["logit"], model(tiny_ids(9))["logit"])


@pytest.mark.slow
def test_tables_of_contexts_are_served_and_compressed(tiny_schema, tiny_ids, tmp_path):
    model = randomize(FinalMLP(tiny_schema, 4, [10], [20], simple_context=["user"], complex_context=["genres", "age"]))
    model.compile()
    ids = tiny_ids(20)
    served = SavedModel(tfctr.serving.export(model, tmp_path / "ctr")).run("ids", {"ids": ids})
    np.testing.assert_allclose(served["probability"], model.predict(ids, verbose=0)[:, 0], rtol=0, atol=2e-7)
    tables = CompressedTables(model, "float16", max_difference=0.1)
    exact, halved = tables.probabilities(ids)
    assert 0 < np.abs(exact - halved).max() < 0.1
    assert tables.bytes == 2 * sum(table.shape.num_elements() for table in model.tables)


# FinalNet's


def test_field_gate_against_a_loop():
    fields = draw(5, 4, 3)
    layer = FieldGate()
    layer.build(fields.shape)
    kernel, bias = (numbers(weight) for weight in randomize(layer).weights)
    gated = np.zeros(fields.shape)
    for i in range(4):
        gate = sum(kernel[j, i] * fields[:, j] for j in range(4)) + bias[i]
        gated[:, i] = fields[:, i] * gate
    np.testing.assert_allclose(layer(fields), np.concatenate([fields, gated], axis=1), rtol=1e-5, atol=1e-6)
