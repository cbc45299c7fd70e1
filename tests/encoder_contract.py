"""What every encoder promises, in one function."""

import json

import keras
import numpy as np


def round_trip(layer):
    """The layer that its own JSON describes."""
    return keras.saving.deserialize_keras_object(json.loads(json.dumps(keras.saving.serialize_keras_object(layer))))


def check_encoder(encoder, units, fields=3, dim=4):
    """`(batch, fields, dim) -> (batch, units)`: shapes, config round trip with equal outputs, mixed precision."""
    view = np.random.default_rng(0).normal(size=(8, fields, dim)).astype("float32")
    assert encoder(keras.Input((fields, dim))).shape == (None, units)
    expected = encoder(view)
    assert expected.shape == (8, units)

    twin = round_trip(round_trip(encoder))
    twin(view)
    twin.set_weights(encoder.get_weights())
    assert twin.name == encoder.name
    np.testing.assert_allclose(twin(view), expected, rtol=1e-6)

    config = encoder.get_config()
    for policy in ("mixed_bfloat16", "mixed_float16"):
        mixed = type(encoder).from_config({**config, "dtype": policy})
        mixed.build(view.shape)
        mixed.set_weights(encoder.get_weights())
        assert all(weight.dtype == "float32" for weight in mixed.weights if "seed" not in weight.path)
        assert mixed.get_config()["dtype"]["config"]["name"] == policy
        np.testing.assert_allclose(np.asarray(keras.ops.cast(mixed(view), "float32")), expected, rtol=0.1, atol=0.1)
