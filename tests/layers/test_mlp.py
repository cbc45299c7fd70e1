import keras
import numpy as np
import pytest
from kit.encoder_contract import check_encoder

from tfctr.errors import ConfigError
from tfctr.layers import MLP
from tfctr.layers.mlp import ACTIVATIONS

VIEW = np.random.default_rng(1).normal(size=(8, 3, 4)).astype("float32")


def random_weights(layer):
    """Weights far from their start; variances positive."""
    generator = np.random.default_rng(2)
    layer.set_weights([generator.uniform(0.2, 1.0, size=w.shape) for w in layer.get_weights()])
    return layer.get_weights()


@pytest.mark.sampled(8)
@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_encoder_contract(activation, batch_norm):
    check_encoder(MLP([6, 5], activation=activation, dropout=0.5, batch_norm=batch_norm), units=5)


def test_by_hand():
    layer = MLP([2])
    layer.build((None, 1, 2))
    layer.set_weights([np.array([[1.0, -1.0], [2.0, 1.0]]), np.array([0.5, -3.0])])
    # [1, 2] @ W + b = [5 + 0.5, 1 - 3]; ReLU
    np.testing.assert_allclose(layer(np.array([[[1.0, 2.0]]])), [[5.5, 0.0]])


def test_order_is_dense_normalization_activation():
    layer = MLP([5], activation="tanh", batch_norm=True)
    layer.build(VIEW.shape)
    kernel, bias, scale, shift, mean, variance = random_weights(layer)
    x = VIEW.reshape(8, 12) @ kernel + bias
    expected = np.tanh((x - mean) / np.sqrt(variance + 1e-5) * scale + shift)
    np.testing.assert_allclose(layer(VIEW), expected, rtol=1e-4, atol=1e-5)


def test_normalization_moves_as_in_the_papers_code():
    layer = MLP([5], activation="linear", batch_norm=True)
    layer.build(VIEW.shape)
    kernel, bias, *_ = layer.get_weights()
    x = VIEW.reshape(8, 12) @ kernel + bias
    found = layer(VIEW, training=True)
    np.testing.assert_allclose(found, (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5), rtol=1e-4, atol=1e-4)
    mean, variance = layer.get_weights()[-2:]
    np.testing.assert_allclose(mean, 0.1 * x.mean(0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(variance, 0.9 + 0.1 * x.var(0), rtol=1e-4)


def test_normalization_takes_a_bias_out_again():
    with_bias, without = MLP([5], batch_norm=True), MLP([5], batch_norm=True, use_bias=False)
    for layer in (with_bias, without):
        layer.build(VIEW.shape)
    kernel, _, *rest = with_bias.get_weights()
    with_bias.set_weights([kernel, np.full(5, 0.7), *rest])
    without.set_weights([kernel, *rest])
    np.testing.assert_allclose(without(VIEW, training=True), with_bias(VIEW, training=True), rtol=1e-4, atol=1e-5)
    # In validation the running mean still lags behind the bias: one step of momentum 0.9.
    lag = (with_bias.steps[2].moving_mean - without.steps[2].moving_mean).numpy()
    np.testing.assert_allclose(lag, 0.1 * 0.7, rtol=1e-4)


def test_dropout_comes_last_and_in_training_only():
    layer = MLP([1000], activation="sigmoid", dropout=0.25)
    at_rest = layer(VIEW).numpy()
    np.testing.assert_array_equal(layer(VIEW), at_rest)
    dropped = layer(VIEW, training=True).numpy()
    kept = dropped != 0
    assert 0.7 < kept.mean() < 0.8
    np.testing.assert_allclose(dropped[kept], at_rest[kept] / 0.75, rtol=1e-5)


def test_kernels_are_glorot_normal_and_biases_zero():
    layer = MLP([400])
    layer.build((None, 30, 20))
    kernel, bias = layer.get_weights()
    np.testing.assert_allclose(kernel.std(), np.sqrt(2 / (600 + 400)), rtol=0.02)
    assert np.abs(kernel).max() > np.sqrt(6 / 1000), "a uniform distribution would end here"
    assert not bias.any()


def test_flat_views_go_too():
    np.testing.assert_allclose(MLP([3])(VIEW.reshape(8, 12)).shape, (8, 3))


def test_unknown_activation_gives_the_closest_name():
    with pytest.raises(ConfigError, match="Did you mean 'relu'"):
        MLP([4], activation="rellu")


@pytest.mark.parametrize("hidden_units", [[], [0], [-3], [2.5], [True], 400, "400", None])
def test_bad_hidden_units_are_refused(hidden_units):
    with pytest.raises(ConfigError, match="`hidden_units` is"):
        MLP(hidden_units)


@pytest.mark.parametrize("dropout", [-0.1, 1.0, 1.5])
def test_bad_dropout_is_refused(dropout):
    with pytest.raises(ConfigError, match="`dropout` is"):
        MLP([4], dropout=dropout)


def test_mixed_precision_computes_in_half_precision():
    layer = MLP([4], batch_norm=True, dtype="mixed_bfloat16")
    assert keras.backend.standardize_dtype(layer(VIEW).dtype) == "bfloat16"


def test_running_variance_divides_by_the_rows():
    """Of outputs 0 and 2 by 2: 1, where PyTorch has 2; then 0.9 of the start, 1, and 0.1 of it."""
    layer = MLP([1], batch_norm=True)
    layer.build((None, 1))
    layer.steps[1].set_weights([np.array([[1.0]]), np.array([0.0])])
    layer(np.array([[0.0], [2.0]]), training=True)
    *_, mean, variance = (weight.numpy() for weight in layer.steps[2].weights)
    np.testing.assert_allclose([mean, variance], [[0.1], [0.9 + 0.1 * 1]], rtol=1e-6)
