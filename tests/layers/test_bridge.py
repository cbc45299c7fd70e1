import keras
import numpy as np
import pytest
from kit.encoder_contract import check_encoder
from kit.randomized import dense, draw, numbers, randomize, softmax

from tfctr.errors import ConfigError
from tfctr.layers import BridgedCross, Regulation
from tfctr.layers.bridge import BRIDGES

VIEW = draw(5, 4, 3)


FORMS = [*((bridge, "units") for bridge in sorted(BRIDGES)), ("attention", "sides")]


@pytest.mark.sampled(4)
@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize(("bridge", "attention"), FORMS)
def test_encoder_contract(bridge, attention, batch_norm):
    check_encoder(BridgedCross(num_layers=2, bridge=bridge, dropout=0.5, batch_norm=batch_norm, attention=attention), 36)


def bridge_by_hand(layer, x, h):
    return {
        "hadamard": lambda: x * h,
        "addition": lambda: x + h,
        "concatenation": lambda: np.maximum(dense(layer.project, np.concatenate([x, h], axis=1)), 0),
        "attention": lambda: attention_by_hand(layer, x, h),
    }


def attention_by_hand(layer, x, h):
    hidden = [np.maximum(dense(part, side), 0) for part, side in zip(layer.hidden, (x, h), strict=True)]
    scores = [dense(score, part) for score, part in zip(layer.scores, hidden, strict=True)]
    if layer.attention == "units":
        return softmax(scores[0]) * x + softmax(scores[1]) * h
    weights = softmax(np.concatenate(scores, axis=1))
    return weights[:, :1] * x + weights[:, 1:] * h


def regulate(layer, flat):
    """Each gate multiplies the components of its field; then batch normalization as it is at rest."""
    views = []
    for view, gate in enumerate(numbers(layer.gates)):
        shares = softmax(gate / layer.temperature)
        x = flat * np.repeat(shares, flat.shape[1] // len(shares))
        if layer.batch_norm:
            scale, shift, mean, variance = (weight.astype("float64") for weight in layer.norms[view].get_weights())
            x = (x - mean) / np.sqrt(variance + 1e-5) * scale + shift
        views.append(x)
    return views


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize(("bridge", "attention"), FORMS)
def test_against_numpy(bridge, attention, batch_norm):
    layer = BridgedCross(num_layers=3, bridge=bridge, temperature=0.7, batch_norm=batch_norm, attention=attention)
    layer.build(VIEW.shape)
    randomize(layer)
    bridged = VIEW.reshape(5, 12).astype("float64")
    start = None
    for number in range(3):
        cross, deep = regulate(layer.regulations[number], bridged)
        start = cross if number == 0 else start
        weight = numbers(layer.crosses[number].kernel)[:, 0]
        cross = start * (cross @ weight)[:, None] + numbers(layer.biases[number]) + cross
        deep = np.maximum(dense(layer.denses[number], deep), 0)
        bridged = bridge_by_hand(layer.bridges[number], cross, deep)[bridge]()
    np.testing.assert_allclose(layer(VIEW), np.concatenate([cross, deep, bridged], axis=1), rtol=1e-5, atol=1e-5)


def test_regulation_by_hand():
    layer = Regulation(temperature=0.5)
    layer.build((None, 2, 2))
    layer.set_weights([np.array([[0.0, 0.5 * np.log(3.0)], [1.0, 1.0]])])
    # softmax([0, ln 3]) = [1/4, 3/4]; softmax([2, 2]) = [1/2, 1/2]
    first, second = layer(np.array([[[4.0, 8.0], [12.0, 16.0]]]))
    np.testing.assert_allclose(first, [[1, 2, 9, 12]], rtol=1e-6)
    np.testing.assert_allclose(second, [[2, 4, 6, 8]], rtol=1e-6)


def test_attention_bridge_by_hand():
    layer = BRIDGES["attention"]()
    layer.build([(None, 2), (None, 2)])
    same, none = [np.eye(2), np.zeros(2)], np.zeros((2, 2))
    layer.set_weights([*same, *same, np.eye(2), none])
    # x = [ln 3, -1]: relu gives [ln 3, 0], of which the softmax is [3/4, 1/4]; h has scores of 0: [1/2, 1/2]
    bridged = layer([np.array([[np.log(3.0), -1.0]]), np.array([[4.0, 8.0]])])
    np.testing.assert_allclose(bridged, [[0.75 * np.log(3.0) + 2, -0.25 + 4]], rtol=1e-6)


@pytest.mark.parametrize(("attention", "parameters"), [("units", 2 * (9 + 3) + 2 * 9), ("sides", 2 * (9 + 3) + 3)])
def test_attention_bridge_reads_both_sides_with_their_own_weights(attention, parameters):
    layer = BRIDGES["attention"](attention)
    layer.build([(None, 3), (None, 3)])
    assert layer.count_params() == parameters
    sides = [draw(5, 3), draw(5, 3, seed=1)]
    assert np.abs(randomize(layer)(sides) - layer(sides[::-1])).max() > 0.1


def test_dropout_is_of_the_dense_layers_in_training():
    layer = BridgedCross(num_layers=1, bridge="addition", dropout=0.5, batch_norm=False)
    cross, deep, _ = np.split(layer(VIEW), 3, axis=1)
    dropped = np.split(layer(VIEW, training=True), 3, axis=1)
    np.testing.assert_array_equal(dropped[0], cross)
    assert ((dropped[1] == 0) & (deep != 0)).any()


@pytest.mark.parametrize("arguments", [{"num_layers": 0}, {"temperature": 0.0}, {"bridge": "hadamart"}, {"attention": "unit"}])
def test_bad_arguments_are_refused(arguments):
    with pytest.raises(ConfigError):
        BridgedCross(**arguments)


def test_mixed_precision_computes_in_half_precision():
    assert keras.backend.standardize_dtype(BridgedCross(dtype="mixed_bfloat16")(VIEW).dtype) == "bfloat16"
