"""What every encoder promises, in one function."""

import json

import keras
import numpy as np

# The most by which one rounding moves a number, relative to it: half a unit in the last place. Beside float64, float32 rounds.
MIXED = {"mixed_bfloat16": 2.0**-9, "mixed_float16": 2.0**-12}
ROUNDING = {"float64": 2.0**-24, "bfloat16": 2.0**-9, "float16": 2.0**-12, **MIXED}
ROUNDINGS = 10


def round_trip(layer):
    """The layer that its own JSON describes."""
    return keras.saving.deserialize_keras_object(json.loads(json.dumps(keras.saving.serialize_keras_object(layer))))


def check_encoder(encoder, units, fields=3, dim=4):
    """`(batch, fields, dim) -> (batch, units)`: shapes, config round trip with equal outputs, every precision."""
    view = np.random.default_rng(0).normal(size=(8, fields, dim)).astype("float32")
    assert encoder(keras.Input((fields, dim))).shape == (None, units)
    expected = encoder(view)
    assert expected.shape == (8, units)

    twin = round_trip(round_trip(encoder))
    twin(view)
    twin.set_weights(encoder.get_weights())
    assert twin.name == encoder.name
    np.testing.assert_allclose(twin(view), expected, rtol=1e-6)
    check_precision(encoder, view)


def check_precision(layer, *inputs, policies=tuple(MIXED)):
    """Under every policy the outputs of a built layer are those of float32, as near as rounding lets them be.

    What low precision gives is what exact arithmetic would give for weights and inputs that are each some roundings off. How
    much one rounding of each of them, up or down by chance, moves this layer's outputs is measured in float32; the outputs may
    be `ROUNDINGS` times that far off: a number is rounded itself, then as a product, as a sum and behind each function, and
    processors differ in how often they round within a sum.
    """
    weights, expected = layer.get_weights(), outputs(layer, *inputs)
    moved = _moved(layer, weights, inputs, expected)
    for policy in policies:
        other = type(layer).from_config({**layer.get_config(), "dtype": policy})
        other.build(keras.tree.map_structure(np.shape, inputs[0])) if len(inputs) == 1 else other(*inputs)
        assert other.get_config()["dtype"]["config"]["name"] == policy
        if policy.startswith("mixed"):
            assert all(weight.dtype == "float32" for weight in other.weights if "seed" not in weight.path)
        other.set_weights(weights)
        for one, true, most in zip(outputs(other, *inputs), expected, moved, strict=True):
            assert np.isfinite(one).all(), policy
            np.testing.assert_allclose(one, true, rtol=0, atol=ROUNDINGS * ROUNDING[policy] * most, err_msg=policy)


def outputs(layer, *inputs):
    """What a layer gives, as a list of float64 arrays."""
    given = keras.tree.flatten(layer(*inputs))
    return [np.asarray(keras.ops.cast(tensor, "float32"), "float64") for tensor in given]


def _moved(layer, weights, inputs, expected, draws=4, rounding=2.0**-12):
    """How far each output moves at most, in units of the rounding, one of its own included."""
    rng = np.random.default_rng(0)

    def move(x):
        x = np.asarray(x)
        signs = rng.choice([-1.0, 1.0], size=x.shape)
        return (x * (1 + rounding * signs)).astype(x.dtype) if x.dtype.kind == "f" else x

    most = [np.abs(true).max() for true in expected]
    for _ in range(draws):
        layer.set_weights([move(weight) for weight in weights])
        moved = outputs(layer, *keras.tree.map_structure(move, list(inputs)))
        most = [max(far, np.abs(one - true).max() / rounding) for far, one, true in zip(most, moved, expected, strict=True)]
    layer.set_weights(weights)
    return most
