import numpy as np
import pytest
from encoder_contract import round_trip
from randomized import dense, draw, numbers, randomize, sigmoid

from tfctr import layers
from tfctr.errors import ConfigError
from tfctr.layers import BilinearFusion, FeatureEmbedding, FeatureGating, FieldGate
from tfctr.models import TF4CTR, FinalMLP


def embedded(layer, schema, ids):
    """The fields `(batch, fields, dim)`, by a layer that has its own test."""
    embedding = FeatureEmbedding(schema, layer.embedding_dim)
    embedding.build(ids.shape)
    embedding.set_weights(layer.embeddings[0].get_weights())
    return numbers(embedding(ids))


def test_feature_gating_against_numpy(tiny_schema, tiny_ids):
    ids = tiny_ids(6)
    layer = FeatureGating(tiny_schema, 3, complex_context=["item", "age"], hidden_units=[7])
    layer.build(ids.shape)
    randomize(layer)
    fields = embedded(layer, tiny_schema, ids)
    names = [field.feature.name for field in tiny_schema.fields]
    learned = np.repeat(numbers(layer.learned_contexts[0]).reshape(1, 3), 6, axis=0)
    named = np.concatenate([fields[:, names.index("item")], fields[:, names.index("age")]], axis=1)
    for view, gate, context in zip(layer(ids), layer.gates, (learned, named), strict=True):
        hidden = np.maximum(dense(gate.layers[0].steps[1], context), 0)
        weights = 2 * sigmoid(dense(gate.layers[1], hidden)).reshape(fields.shape)
        np.testing.assert_allclose(view, weights * fields, rtol=1e-5, atol=1e-6)


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
    twin = round_trip(layer)
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
