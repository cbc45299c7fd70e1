"""QNN-alpha's network against loops, and the ensemble of itself."""

import numpy as np
import pytest
import tensorflow as tf
from kit.encoder_contract import check_encoder, round_trip
from kit.randomized import dense, draw, numbers, randomize, sigmoid

from tfctr.errors import ConfigError
from tfctr.layers import CrossNetwork, QuadraticNetwork
from tfctr.layers.self_ensemble import SelfEnsemble

VIEW = draw(5, 3, 4)


def built(layer, view=VIEW):
    layer.build(view.shape)
    return randomize(layer)


@pytest.mark.parametrize("num_heads", [1, 2])
def test_encoder_contract(num_heads):
    check_encoder(QuadraticNetwork(2, 3, num_heads, dropout=0.3, batch_norm=True), units=12)


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("num_heads", [1, 2, 4])
def test_against_loops(num_heads, batch_norm):
    layer = built(QuadraticNetwork(3, 2, num_heads, batch_norm=batch_norm))
    share = 4 // num_heads
    expected = []
    for x in VIEW.reshape(5, 12).astype("float64"):
        for step in range(3):
            gates = dense(layer.gates[step], x)
            if batch_norm:
                gain, shift, mean, variance = map(numbers, layer.norms[step].weights)
                gates = (gates - mean) / np.sqrt(variance + 1e-5) * gain + shift
            gates = np.maximum(gates, 0)
            ordered = [x[field * 4 + head * share + i] for head in range(num_heads) for field in range(3) for i in range(share)]
            products = np.zeros(12)
            for place in range(12):  # its head, and where it lies there
                head, inside = divmod(place, 3 * share)
                for product in range(2):
                    products[place] += ordered[place] * gates[(head * 2 + product) * 3 * share + inside]
            x = products + x
        expected.append(x)
    np.testing.assert_allclose(layer(VIEW), expected, rtol=1e-4, atol=1e-5)


def test_by_hand():
    layer = QuadraticNetwork(1, num_products=2)
    layer.build((None, 1, 2))
    layer.set_weights([np.array([[1.0, 0.0, 1.0, -1.0], [1.0, 2.0, 0.0, 0.0]]), np.array([0.0, 0.5, -1.0, 0.0])])
    # x = [2, 3]: gates relu([5, 6.5]) and relu([1, -2]); [2 * (5 + 1) + 2, 3 * (6.5 + 0) + 3]
    np.testing.assert_allclose(layer(np.array([[[2.0, 3.0]]])), [[14.0, 22.5]])


def test_one_open_gate_is_a_cross_of_the_input_with_itself():
    network, cross = built(QuadraticNetwork(1, 1)), built(CrossNetwork(1))
    kernel, bias = numbers(cross.crosses[0].kernel), np.full(12, 100.0)  # so that the ReLU lets all through
    for layer in (network.gates[0], cross.crosses[0]):
        layer.set_weights([kernel, bias])
    np.testing.assert_allclose(network(VIEW), cross(VIEW), rtol=1e-5, atol=1e-4)


def test_dropout_is_of_the_gates_and_of_each_layer():
    """Of inputs that are 1 and gates that are 1: 2 where both stay, 1 where the gate falls, 0 where the component does."""
    layer = QuadraticNetwork(1, 1, dropout=0.5)
    ones = np.ones((2000, 2, 2), "float32")
    layer.build(ones.shape)
    layer.gates[0].set_weights([np.zeros((4, 4)), np.ones(4)])
    found, counts = np.unique(layer(ones, training=True), return_counts=True)
    # a gate that stays is 2, a component that stays twice its value
    np.testing.assert_allclose(found, [0.0, 2.0, 6.0])
    np.testing.assert_allclose(counts / counts.sum(), [0.5, 0.25, 0.25], atol=0.03)
    np.testing.assert_allclose(layer(ones), 2 * ones.reshape(2000, 4))


@pytest.mark.parametrize("argument", ["num_layers", "num_products", "num_heads"])
def test_bad_arguments_are_refused(argument):
    with pytest.raises(ConfigError, match=f"`{argument}` is 0"):
        QuadraticNetwork(**{argument: 0})


def test_heads_that_do_not_divide_a_field_are_refused():
    with pytest.raises(ConfigError, match="divides the 4 components of a field among 3 heads"):
        QuadraticNetwork(num_heads=3)(VIEW)
    with pytest.raises(ConfigError, match="`dropout` is 1"):
        QuadraticNetwork(dropout=1.0)


# the ensemble of itself

FIRST, SECOND = np.array([[0.0], [1.5], [-30.0], [200.0]], "float32"), np.array([[2.0], [-0.5], [-40.0], [300.0]], "float32")


def test_mean_of_probabilities():
    probability = (sigmoid(FIRST.astype("float64")) + sigmoid(SECOND.astype("float64"))) / 2
    rest = (sigmoid(-FIRST.astype("float64")) + sigmoid(-SECOND.astype("float64"))) / 2
    layer = round_trip(SelfEnsemble())
    np.testing.assert_allclose(layer([FIRST, SECOND], training=True), np.log(probability) - np.log(rest), rtol=1e-5)
    np.testing.assert_array_equal(layer([FIRST, SECOND]), FIRST)


def test_both_draws_get_their_share_of_the_gradient():
    first, second = tf.constant([[0.3], [0.3]]), tf.constant([[0.3], [2.0]])
    with tf.GradientTape() as tape:
        tape.watch([first, second])
        logit = SelfEnsemble()([first, second], training=True)
    gradients = np.concatenate(tape.gradient(logit, [first, second]), axis=1)
    slopes = [sigmoid(x.numpy().astype("float64")) * sigmoid(-x.numpy().astype("float64")) for x in (first, second)]
    mean = sigmoid(numbers(logit))
    np.testing.assert_allclose(gradients, np.concatenate(slopes, axis=1) / 2 / (mean * (1 - mean)), rtol=1e-5)
    np.testing.assert_allclose(gradients[0], [0.5, 0.5], rtol=1e-6)
