import keras
import numpy as np
import pytest
from kit.encoder_contract import check_encoder

from tfctr.errors import ConfigError
from tfctr.layers import CrossNetwork, FactorizationMachine, LinearTerms


@pytest.mark.parametrize(
    ("encoder", "units"),
    [(LinearTerms(), 1), (FactorizationMachine(), 1), (CrossNetwork(1), 12), (CrossNetwork(num_layers=3), 12)],
)
def test_encoder_contract(encoder, units):
    check_encoder(encoder, units)


@pytest.mark.parametrize("encoder", [LinearTerms, FactorizationMachine])
def test_logits_are_float32_under_a_mixed_policy(encoder):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        logit = encoder()(keras.ops.ones((2, 3, 4), dtype="bfloat16"))
    finally:
        keras.config.set_dtype_policy("float32")
    assert keras.backend.standardize_dtype(logit.dtype) == "float32"


def test_linear_terms_by_hand():
    layer = LinearTerms()
    layer.build((None, 2, 2))
    assert not layer.get_weights()[0].any()
    layer.set_weights([np.array([0.5])])
    np.testing.assert_allclose(layer(np.array([[[1.0, 2.0], [3.0, -4.0]]])), [[2.5]])


def test_factorization_machine_by_hand():
    # <[1, 2], [3, 4]> = 11
    np.testing.assert_allclose(FactorizationMachine()(np.array([[[1.0, 2.0], [3.0, 4.0]]])), [[11.0]])


def test_factorization_machine_against_all_pairs():
    fields = np.random.default_rng(0).normal(size=(5, 4, 3)).astype("float32")
    pairs = [(i, j) for i in range(4) for j in range(i + 1, 4)]
    expected = sum((fields[:, i] * fields[:, j]).sum(-1, keepdims=True) for i, j in pairs)
    np.testing.assert_allclose(FactorizationMachine()(fields), expected, rtol=1e-5, atol=1e-6)


def test_cross_network_by_hand():
    layer = CrossNetwork(num_layers=1)
    layer.build((None, 1, 2))
    layer.set_weights([np.ones((2, 2)), np.array([0.0, 1.0])])
    # W x + b = [3, 4];  x0 * (W x + b) + x0 = [1*3 + 1, 2*4 + 2]
    np.testing.assert_allclose(layer(np.array([[[1.0, 2.0]]])), [[4.0, 10.0]])


def test_cross_network_multiplies_by_the_first_input_at_every_layer():
    fields = np.random.default_rng(0).normal(size=(5, 2, 3)).astype("float32")
    layer = CrossNetwork(num_layers=3)
    layer.build(fields.shape)
    weights = [np.random.default_rng(i).normal(size=w.shape) for i, w in enumerate(layer.get_weights())]
    layer.set_weights(weights)
    x0 = x = fields.reshape(5, 6).astype("float64")
    for kernel, bias in zip(weights[::2], weights[1::2], strict=True):
        x = x0 * (x @ kernel + bias) + x
    np.testing.assert_allclose(layer(fields), x, rtol=1e-3, atol=1e-3)


def test_cross_network_needs_a_layer():
    with pytest.raises(ConfigError, match="`num_layers` is 0"):
        CrossNetwork(num_layers=0)
