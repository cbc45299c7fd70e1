import numpy as np
import pytest
from kit.encoder_contract import check_encoder

from tfctr.errors import ConfigError
from tfctr.layers import ThroughConnection, ThroughNetwork

VIEW = np.random.default_rng(1).normal(size=(8, 3, 4)).astype("float32")


@pytest.mark.parametrize("residual", [False, True])
def test_encoder_contract(residual):
    check_encoder(ThroughNetwork([6, 5], shallow_hidden_units=[7, 5], dropout=0.5, residual=residual), units=5)


def test_connection_adds():
    deep, shallow = np.array([[1.0, -2.0]], "float32"), np.array([[0.5, 3.0]], "float32")
    np.testing.assert_array_equal(ThroughConnection()(deep, shallow), [[1.5, 1.0]])


@pytest.mark.parametrize("residual", [False, True])
def test_the_deep_network_reads_the_view_or_the_shallow_output(residual):
    layer = ThroughNetwork([5, 5], shallow_hidden_units=[5], residual=residual)
    layer(VIEW)
    layer.set_weights([np.random.default_rng(2).normal(size=w.shape) for w in layer.get_weights()])
    kernel, bias, first, first_bias, second, second_bias = layer.get_weights()
    flat = VIEW.reshape(8, 12)
    shallow = np.maximum(flat @ kernel + bias, 0)
    deep = np.maximum((shallow if residual else flat) @ first + first_bias, 0)
    deep = np.maximum(deep @ second + second_bias, 0)
    np.testing.assert_allclose(layer(VIEW), deep + shallow, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("residual", [False, True])
def test_32_layers_deep_is_at_least_the_shallow_network(residual):
    """Where the deep part has collapsed to zero, the shallow one still speaks: the point of section 4.7."""
    layer = ThroughNetwork([4] * 32, shallow_hidden_units=[4, 4, 4], residual=residual)
    layer(VIEW)
    for weight in layer.deep.weights:
        weight.assign(np.zeros(weight.shape))
    np.testing.assert_array_equal(layer(VIEW), layer.shallow(VIEW))
    assert len(layer.deep.trainable_variables) == 2 * 32


def test_unequal_widths_are_refused():
    with pytest.raises(ConfigError, match="joins 5 units with 6"):
        ThroughNetwork([5], shallow_hidden_units=[6])(VIEW)
