import math

import keras
import numpy as np
import pytest
from kit.encoder_contract import round_trip

from tfctr.layers import MLP, Dice
from tfctr.layers.activations import ACTIVATIONS

X = np.array([[-2.0, -0.5], [0.0, 1.5], [3.0, 0.25]], "float32")


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("relu", lambda x: max(x, 0.0)),
        ("leaky_relu", lambda x: x if x > 0 else 0.01 * x),
        ("prelu", lambda x: x if x > 0 else 0.01 * x),
        ("mish", lambda x: x * math.tanh(math.log1p(math.exp(x)))),
        ("gelu", lambda x: x * (1 + math.erf(x / math.sqrt(2))) / 2),
        ("silu", lambda x: x / (1 + math.exp(-x))),
        ("dice", lambda x: x / (1 + math.exp(-x / math.sqrt(1 + 1e-8)))),  # moving mean 0, variance 1, alpha 0
    ],
)
def test_at_rest_by_formula(name, formula):
    np.testing.assert_allclose(ACTIVATIONS[name]()(X), np.vectorize(formula)(X), rtol=1e-5, atol=1e-7)


def test_dice_in_training_by_hand():
    layer = Dice()
    layer.build(X.shape)
    layer.alpha.assign([0.25, -1.0])
    p = 1 / (1 + np.exp(-(X - X.mean(0)) / np.sqrt(X.var(0) + 1e-8)))
    np.testing.assert_allclose(layer(X, training=True), p * X + (1 - p) * np.array([0.25, -1.0]) * X, rtol=1e-5)
    mean, variance = layer.normalization.moving_mean, layer.normalization.moving_variance
    np.testing.assert_allclose(mean, 0.1 * X.mean(0), rtol=1e-5)
    np.testing.assert_allclose(variance, 0.9 + 0.1 * X.var(0), rtol=1e-5)


def test_dice_of_a_constant_unit_is_finite():
    assert np.isfinite(Dice()(np.full((4, 2), 7.0, "float32"), training=True)).all()


@pytest.mark.parametrize("name", ["prelu", "dice"])
def test_slopes_are_one_a_unit_and_trained(name):
    layer = MLP([4, 3], activation=name)
    layer.build((None, 2))
    assert sorted(tuple(w.shape) for w in layer.trainable_variables if w.path.endswith("alpha")) == [(3,), (4,)]


def test_dice_survives_json():
    twin = round_trip(Dice(name="dice"))
    assert isinstance(twin, Dice)
    assert isinstance(twin, keras.layers.Layer)
    np.testing.assert_array_equal(twin(X), Dice()(X))
