"""The cross networks and inner products of Keras Recommenders, where it is installed, give the same numbers."""

import numpy as np
import pytest
from kit.randomized import draw, randomize

from tfctr.layers import CrossNetwork, LowRankCrossNetwork, ProductLayer

keras_rs = pytest.importorskip("keras_rs")

VIEW = draw(7, 4, 3)


def chain(steps):
    """Its crossing layers with our weights, one after the other."""
    x = x0 = VIEW.reshape(7, 12)
    for options, weights in steps:
        layer = keras_rs.layers.FeatureCross(**options)
        layer(x0, x)
        layer.set_weights(weights)
        x = layer(x0, x)
    return x


def test_cross_network():
    ours = CrossNetwork(3)
    ours.build(VIEW.shape)
    randomize(ours)
    np.testing.assert_allclose(ours(VIEW), chain([({}, cross.get_weights()) for cross in ours.crosses]), rtol=1e-5, atol=1e-5)


def test_low_rank_cross_network():
    ours = LowRankCrossNetwork(3, rank=5, num_experts=1, activation="linear")
    ours.build(VIEW.shape)
    randomize(ours)
    for core in ours.cores:
        core.assign([np.eye(5)])
    steps = [[*down.get_weights(), *up.get_weights()] for down, up in zip(ours.downs, ours.ups, strict=True)]
    expected = chain([({"projection_dim": 5}, weights) for weights in steps])
    np.testing.assert_allclose(ours(VIEW), expected, rtol=1e-5, atol=1e-5)


def test_inner_products():
    theirs = keras_rs.layers.DotInteraction()([VIEW[:, i] for i in range(4)]).numpy()
    below = [(i, j) for i in range(4) for j in range(i)]  # its order of the pairs
    order = [below.index((j, i)) for i in range(4) for j in range(i + 1, 4)]
    np.testing.assert_allclose(ProductLayer()(VIEW)[:, 12:], theirs[:, order], rtol=1e-5, atol=1e-6)
