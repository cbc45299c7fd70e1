import keras
import numpy as np
import pytest
from kit.encoder_contract import check_encoder, round_trip
from kit.randomized import randomize

from tfctr.errors import ConfigError
from tfctr.layers import BilinearInteraction, SqueezeExcitation

VIEW = np.random.default_rng(0).normal(size=(5, 4, 3)).astype("float32")
PAIRS = [(i, j) for i in range(4) for j in range(i + 1, 4)]
KINDS = {"all": 1, "each": 3, "interaction": 6, "hadamard": 0}  # matrices for four fields


@pytest.mark.parametrize("kind", KINDS)
def test_encoder_contract(kind):
    check_encoder(BilinearInteraction(kind), units=3 * 4)


@pytest.mark.parametrize("kind", KINDS)
def test_against_loops_over_pairs(kind):
    layer = BilinearInteraction(kind)
    layer.build(VIEW.shape)
    randomize(layer)
    matrices = np.concatenate([np.zeros((0, 3, 3)), *layer.get_weights()]).astype("float64")
    assert len(matrices) == KINDS[kind]
    expected = []
    for fields in VIEW.astype("float64"):
        row = []
        for pair, (i, j) in enumerate(PAIRS):
            matrix = {"all": 0, "each": i, "interaction": pair, "hadamard": None}[kind]
            row += list((fields[i] if matrix is None else fields[i] @ matrices[matrix]) * fields[j])
        expected.append(row)
    np.testing.assert_allclose(layer(VIEW), expected, rtol=1e-5, atol=1e-6)


def test_squeeze_excitation_against_loops():
    layer = SqueezeExcitation(reduction=2)
    layer.build(VIEW.shape)
    weights = [np.random.default_rng(2).uniform(-0.2, 1.0, size=weight.shape) for weight in layer.get_weights()]
    layer.set_weights(weights)
    assert [weight.shape for weight in weights] == [(4, 2), (2, 4)]
    expected = []
    for fields in VIEW.astype("float64"):
        means = np.array([sum(field) / 3 for field in fields])
        gates = np.maximum(np.maximum(means @ weights[0], 0) @ weights[1], 0)
        expected.append([gate * field for gate, field in zip(gates, fields, strict=True)])
    assert np.any(expected)
    np.testing.assert_allclose(layer(VIEW), expected, rtol=1e-5, atol=1e-6)
    twin = round_trip(layer)
    assert [weight.shape for weight in twin.weights] == [(4, 2), (2, 4)]


def test_few_fields_are_not_squeezed_away():
    layer = SqueezeExcitation(reduction=3)
    layer.build((None, 2, 3))
    assert layer.squeeze.kernel.shape == (2, 1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BilinearInteraction("al"), "Did you mean 'all'"),
        (lambda: BilinearInteraction()(keras.Input((1, 4))), "1 field has no pairs"),
        (lambda: SqueezeExcitation(0), "`reduction` is 0"),
    ],
)
def test_bad_arguments_are_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
