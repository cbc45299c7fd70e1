"""FCN's two cross networks against loops, one head and one component at a time."""

import numpy as np
import pytest
from kit.encoder_contract import check_encoder
from kit.randomized import draw, normalize, numbers, randomize

from tfctr.errors import ConfigError
from tfctr.layers import CrossNetwork, ExponentialCrossNetwork, LinearCrossNetwork

VIEW = draw(5, 3, 4)
NETWORKS = pytest.mark.parametrize("network", [LinearCrossNetwork, ExponentialCrossNetwork])


def built(layer, view=VIEW):
    layer.build(view.shape)
    return randomize(layer)


@NETWORKS
@pytest.mark.parametrize(("num_heads", "units"), [(1, 12), (2, 6)])
def test_encoder_contract(network, num_heads, units):
    check_encoder(network(2, num_heads, dropout=0.3, batch_norm=True), units)


def share(fields, head, num_heads):
    """What a head reads of a row: the first half of its share of each field, then the second."""
    width = fields.shape[1] // num_heads
    shares = [field[head * width : (head + 1) * width] for field in fields]
    return np.array([x for part in (slice(0, width // 2), slice(width // 2, None)) for field in shares for x in field[part]])


@NETWORKS
@pytest.mark.parametrize("num_heads", [1, 2])
@pytest.mark.parametrize(("layer_norm", "batch_norm"), [(True, False), (False, False), (True, True)])
def test_against_loops(network, num_heads, layer_norm, batch_norm):
    layer = built(network(3, num_heads, layer_norm=layer_norm, batch_norm=batch_norm))
    expected = []
    for fields in VIEW.astype("float64"):
        heads = []
        for head in range(num_heads):
            x0 = x = share(fields, head, num_heads)
            for step in range(3):
                c = numbers(layer.crosses[step].kernel).T @ x
                if batch_norm:
                    gain, shift, mean, variance = (numbers(weight)[head] for weight in layer.batch_norms[step].weights)
                    c = (c - mean) / np.sqrt(variance + 1e-5) * gain + shift
                mask = np.maximum(normalize(c, layer.layer_norms[step]) if layer_norm else c, 0)
                y = x0 if network is LinearCrossNetwork else x
                x = y * (np.concatenate([c, c * mask]) + numbers(layer.biases[step])) + x
            heads.append(x)
        expected.append(np.mean(heads, axis=0))
    np.testing.assert_allclose(layer(VIEW), expected, rtol=1e-4, atol=1e-5)


def test_by_hand():
    linear, exponential = (network(2, layer_norm=False) for network in (LinearCrossNetwork, ExponentialCrossNetwork))
    for layer in (linear, exponential):
        layer.build((None, 1, 2))
        for cross, bias in zip(layer.crosses, layer.biases, strict=True):
            cross.kernel.assign([[1.0], [-1.0]])
            bias.assign([0.5, 0.0])
    # x = [3, 1], c = 2, masked 2 * 2: [3 * 2.5 + 3, 1 * 4 + 1] = [10.5, 5]; then c = 5.5, masked 30.25
    np.testing.assert_allclose(linear(np.array([[[3.0, 1.0]]])), [[3 * 6 + 10.5, 1 * 30.25 + 5]])
    np.testing.assert_allclose(exponential(np.array([[[3.0, 1.0]]])), [[10.5 * 6 + 10.5, 5 * 30.25 + 5]])


def test_a_mask_of_zeros_leaves_the_second_half_to_the_bias():
    layer = built(LinearCrossNetwork(1))
    (norm,) = layer.layer_norms
    norm.set_weights([np.zeros(6), np.full(6, -1.0)])
    x = np.array([share(fields, 0, 1) for fields in VIEW])[:, 6:]
    np.testing.assert_allclose(layer(VIEW)[:, 6:], x * (1 + numbers(layer.biases[0])[6:]), rtol=1e-5)


def test_degrees_grow_by_one_and_double():
    """Of `t * x`, with a mask that is on and no bias, the highest power of t in the output is the degree."""
    for network, degree in ((LinearCrossNetwork, 4), (ExponentialCrossNetwork, 8)):
        layer = built(network(3))
        for step in range(3):
            layer.layer_norms[step].set_weights([np.zeros(6), np.ones(6)])
            layer.biases[step].assign(np.zeros(12))
        large = [np.linalg.norm(numbers(layer(np.float32(scale) * VIEW))) for scale in (1e3, 1e4)]
        assert np.log10(large[1] / large[0]) == pytest.approx(degree, abs=0.05)


def test_half_the_weights_of_a_cross_network():
    masked, full = LinearCrossNetwork(3, layer_norm=False), CrossNetwork(3)
    for layer in (masked, full):
        layer.build(VIEW.shape)
    assert masked.count_params() == 3 * (12 * 6 + 12)
    assert full.count_params() == 3 * (12 * 12 + 12)


def test_biases_start_between_zero_and_one_as_in_the_released_code():
    layer = ExponentialCrossNetwork(2)
    layer.build((None, 50, 4))
    start = numbers(layer.biases)
    assert 0 <= start.min() < 0.1
    assert 0.9 < start.max() <= 1


@NETWORKS
def test_what_cannot_be_halved_is_refused(network):
    for num_heads, dim in ((1, 3), (2, 6)):
        with pytest.raises(ConfigError, match=f"halves the {dim} components of a field for {num_heads} heads"):
            network(1, num_heads)(draw(2, 3, dim))
    for arguments in ({"num_layers": 0}, {"num_heads": 0}, {"dropout": 1.0}):
        with pytest.raises(ConfigError, match=f"`{next(iter(arguments))}` is"):
            network(**arguments)
