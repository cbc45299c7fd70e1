"""The cross networks, step by step, against loops."""

import numpy as np
import pytest
from kit.encoder_contract import check_encoder
from kit.randomized import randomize, sigmoid

from tfctr.errors import ConfigError
from tfctr.layers import CrossNetwork, GatedCrossNetwork, LowRankCrossNetwork, VectorCrossNetwork

VIEW = np.random.default_rng(0).normal(size=(5, 2, 3)).astype("float32")


def built(layer):
    """The layer with weights at which every term matters."""
    layer.build(VIEW.shape)
    return randomize(layer)


@pytest.mark.parametrize(
    "encoder",
    [
        VectorCrossNetwork(1),
        VectorCrossNetwork(3),
        GatedCrossNetwork(2),
        LowRankCrossNetwork(2, rank=3),
        LowRankCrossNetwork(1, rank=2, num_experts=1, activation="linear"),
    ],
)
def test_encoder_contract(encoder):
    check_encoder(encoder, units=12)


def test_vector_cross_by_hand():
    layer = VectorCrossNetwork(num_layers=1)
    layer.build((None, 1, 2))
    layer.products[0].kernel.assign([[3.0], [-1.0]])
    layer.biases[0].assign([0.5, 1.0])
    # <w, x> = 3 * 1 - 1 * 2 = 1;  x0 * 1 + b + x0 = [1 + 0.5 + 1, 2 + 1 + 2]
    np.testing.assert_allclose(layer(np.array([[[1.0, 2.0]]])), [[2.5, 5.0]])


def test_vector_cross_against_loops():
    layer = built(VectorCrossNetwork(num_layers=3))
    expected = []
    for x0 in VIEW.reshape(5, 6).astype("float64"):
        x = x0
        for product, bias in zip(layer.products, layer.biases, strict=True):
            x = np.outer(x0, x) @ product.kernel.numpy()[:, 0] + bias.numpy() + x
        expected.append(x)
    np.testing.assert_allclose(layer(VIEW), expected, rtol=1e-5, atol=1e-5)


def test_vector_cross_is_the_matrix_cross_whose_rows_are_equal():
    """DCNv2, section 3.2: with `W = 1 w^T` it is DCN, but for the bias, which DCN does not multiply."""
    vector, matrix = built(VectorCrossNetwork(2)), built(CrossNetwork(2))
    for step in range(2):
        vector.biases[step].assign(np.zeros(6))
        matrix.crosses[step].bias.assign(np.zeros(6))
        matrix.crosses[step].kernel.assign(np.tile(vector.products[step].kernel.numpy(), (1, 6)))
    np.testing.assert_allclose(matrix(VIEW), vector(VIEW), rtol=1e-5, atol=1e-5)


def test_gated_cross_against_loops():
    layer = built(GatedCrossNetwork(num_layers=3))
    expected = []
    for x0 in VIEW.reshape(5, 6).astype("float64"):
        x = x0
        for cross, gate in zip(layer.crosses, layer.gates, strict=True):
            x = x0 * (cross.kernel.numpy().T @ x + cross.bias.numpy()) * sigmoid(gate.kernel.numpy().T @ x) + x
        expected.append(x)
    np.testing.assert_allclose(layer(VIEW), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("num_experts", [1, 3])
@pytest.mark.parametrize(("activation", "g"), [("tanh", np.tanh), ("linear", np.copy)])
def test_low_rank_cross_against_loops_over_experts(num_experts, activation, g):
    layer = built(LowRankCrossNetwork(num_layers=2, rank=2, num_experts=num_experts, activation=activation))
    expected = []
    for x0 in VIEW.reshape(5, 6).astype("float64"):
        x = x0
        for step in range(2):
            down = layer.downs[step].kernel.numpy().reshape(6, num_experts, 2)
            up = layer.ups[step].kernel.numpy().reshape(num_experts, 2, 6)
            bias = layer.ups[step].bias.numpy()
            experts = []
            for i in range(num_experts):
                inside = g(layer.cores[step].numpy()[i].T @ g(down[:, i].T @ x))
                experts.append(x0 * (up[i].T @ inside + bias))  # E_i(x), eq. 4
            gate = (
                np.exp(layer.gates[step].kernel.numpy().T @ x + layer.gates[step].bias.numpy()) if layer.gates else np.ones(1)
            )
            x = sum(weight * expert for weight, expert in zip(gate / gate.sum(), experts, strict=True)) + x
        expected.append(x)
    np.testing.assert_allclose(layer(VIEW), expected, rtol=1e-5, atol=1e-5)


def test_one_linear_expert_is_a_factored_matrix():
    low, full = built(LowRankCrossNetwork(1, rank=2, num_experts=1, activation="linear")), built(CrossNetwork(1))
    low.cores[0].assign([np.eye(2)])
    full.crosses[0].kernel.assign(low.downs[0].kernel.numpy() @ low.ups[0].kernel.numpy())
    full.crosses[0].bias.assign(low.ups[0].bias.numpy())
    np.testing.assert_allclose(low(VIEW), full(VIEW), rtol=1e-5, atol=1e-6)


def test_low_rank_saves_weights():
    low, full = LowRankCrossNetwork(1, rank=2, num_experts=2), CrossNetwork(1)
    for layer in (low, full):
        layer.build((None, 10, 16))
    # V and U of two experts, C, b, gate
    assert low.count_params() == 2 * 160 * 4 + 2 * 2 * 2 + 160 + 160 * 2 + 2
    assert full.count_params() == 160 * 160 + 160


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: VectorCrossNetwork(0), "`num_layers` is 0"),
        (lambda: GatedCrossNetwork(-1), "`num_layers` is -1"),
        (lambda: LowRankCrossNetwork(rank=0), "`rank` is 0"),
        (lambda: LowRankCrossNetwork(num_experts=0), "`num_experts` is 0"),
        (lambda: LowRankCrossNetwork(activation="tahn"), "Did you mean 'tanh'"),
    ],
)
def test_bad_arguments_are_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
