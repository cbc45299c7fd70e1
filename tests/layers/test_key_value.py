import keras
import numpy as np
import pytest
from kit.encoder_contract import round_trip

from tfctr.errors import ConfigError
from tfctr.layers import KeyValueBlock

VIEW = np.random.default_rng(1).normal(size=(8, 3, 4)).astype("float32")


def test_against_numpy():
    block = KeyValueBlock([5], weight_hidden_units=[6], activation="tanh", weight_activation="relu")
    block(VIEW)
    block.set_weights([np.random.default_rng(2).normal(size=w.shape) for w in block.get_weights()])
    value_kernel, value_bias, kernel, bias, head, offset = (w.astype("float64") for w in block.get_weights())
    flat = VIEW.reshape(8, 12).astype("float64")
    weight = np.maximum(flat @ kernel + bias, 0) @ head + offset
    assert (weight < 0).any()
    assert (weight > 0).any()
    found_value, found_weight = block(VIEW)
    np.testing.assert_allclose(found_value, np.tanh(flat @ value_kernel + value_bias), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found_weight, np.where(weight > 0, weight, 0.01 * weight), rtol=1e-4, atol=1e-5)


def test_each_network_has_its_own_options():
    block = KeyValueBlock(
        [500],
        weight_hidden_units=[7],
        activation="prelu",
        weight_activation="dice",
        dropout=0.5,
        weight_dropout=0.0,
        batch_norm=False,
        weight_batch_norm=True,
    )
    value, _ = block(VIEW, training=True)
    assert 0.4 < (value.numpy() == 0).mean() < 0.6
    trained = {tuple(variable.shape) for variable in block.value.trainable_variables}
    assert trained == {(12, 500), (500,)}  # kernel; bias and slopes; no normalization
    assert len(block.value.trainable_variables) == 3
    assert len(block.weight.trainable_variables) == 2 + 2 + 1 + 2  # hidden, normalization, Dice, head


def test_shapes_config_and_mixed_precision():
    block = KeyValueBlock([6, 5], [4], activation="mish", dropout=0.1, weight_dropout=0.2, batch_norm=True)
    value, weight = block(keras.Input((3, 4)))
    assert (value.shape, weight.shape) == ((None, 5), (None, 1))
    expected = block(VIEW)
    twin = round_trip(block)
    twin(VIEW)
    twin.set_weights(block.get_weights())
    assert twin.get_config() == block.get_config()
    for found, wanted in zip(twin(VIEW), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-6)
    value, weight = KeyValueBlock([6, 5], [4], dtype="mixed_bfloat16")(VIEW)
    assert [keras.backend.standardize_dtype(x.dtype) for x in (value, weight)] == ["bfloat16", "float32"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"activation": "rellu"}, "Did you mean 'relu'"),
        ({"weight_activation": "rellu"}, "Did you mean 'relu'"),
        ({"weight_dropout": 1.0}, "`dropout` is 1.0"),
        ({"weight_hidden_units": []}, "`hidden_units` is"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        KeyValueBlock(**{"hidden_units": [4], "weight_hidden_units": [4], **arguments})
