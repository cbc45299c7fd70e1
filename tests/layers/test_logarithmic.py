import keras
import numpy as np
import pytest
from kit.encoder_contract import check_encoder

from tfctr.errors import ConfigError
from tfctr.layers import MLP, LogarithmicNetwork, LogarithmicTransform

VIEW = np.random.default_rng(0).normal(size=(5, 3, 4)).astype("float32")


@pytest.mark.parametrize(
    ("encoder", "units"),
    [(LogarithmicTransform(1), 4), (LogarithmicTransform(6), 24), (LogarithmicNetwork(3, [7, 2], dropout=0.5), 2)],
)
def test_encoder_contract(encoder, units):
    check_encoder(encoder, units)


def without_normalization(layer):
    """Statistics and scales at which both normalizations give their input back."""
    for norm in (layer.log_norm, layer.norm):
        norm.moving_variance.assign(np.full(norm.moving_variance.shape, 1 - 1e-5))
    return layer


def test_by_hand():
    layer = LogarithmicTransform(neurons=2)
    layer.build((None, 2, 1))
    layer.powers.set_weights([np.array([[2.0, 1.0], [1.0, -1.0]])])  # e_0^2 e_1 and e_0 / e_1
    without_normalization(layer)
    np.testing.assert_allclose(layer(np.array([[[-3.0], [4.0]]])), [[36.0, 0.75]], rtol=1e-5)


def test_against_products_of_powers():
    layer = LogarithmicTransform(neurons=3)
    layer.build(VIEW.shape)
    rng = np.random.default_rng(1)
    for weight in layer.weights:
        weight.assign(rng.uniform(0.5, 1.5, size=weight.shape))
    powers = layer.powers.kernel.numpy().astype("float64")
    gamma, beta, mean, variance = (weight.numpy().astype("float64") for weight in layer.log_norm.weights)
    after = [weight.numpy().astype("float64") for weight in layer.norm.weights]
    expected = np.zeros((5, 4, 3))
    for b in range(5):
        for d in range(4):
            for j in range(3):
                product = 1.0
                for i in range(3):
                    log = np.log(abs(float(VIEW[b, i, d])))
                    normal = (log - mean[i]) / np.sqrt(variance[i] + 1e-5) * gamma[i] + beta[i]
                    product *= np.exp(normal) ** powers[i, j]
                normal = (product - after[2][j]) / np.sqrt(after[3][j] + 1e-5)
                expected[b, d, j] = normal * after[0][j] + after[1][j]
    np.testing.assert_allclose(layer(VIEW), expected.reshape(5, 12), rtol=1e-5, atol=1e-5)


def test_zero_is_taken_for_a_small_number():
    layer = LogarithmicTransform(neurons=1)
    layer.build((None, 1, 1))
    layer.powers.set_weights([np.array([[1.0]])])
    without_normalization(layer)
    np.testing.assert_allclose(layer(np.array([[[0.0]], [[1e-6]], [[-1e-4]]])), [[1e-5], [1e-5], [1e-4]], rtol=1e-4)


@pytest.mark.parametrize("policy", ["mixed_float16", "float16"])
def test_it_is_all_in_float32_whatever_the_policy(policy):
    """A cross of 30 fields near 1e-4 may be e^20, and float16 ends at e^11."""
    tiny = np.full((2, 30, 4), 1e-4, "float16")
    for cls, arguments in ((LogarithmicTransform, [5]), (LogarithmicNetwork, [5, [2]])):
        keras.config.set_dtype_policy(policy)
        try:
            layer = cls(*arguments)
        finally:
            keras.config.set_dtype_policy("float32")
        layer.build(tiny.shape)
        twin = cls(*arguments)
        twin.build(tiny.shape)
        twin.set_weights(layer.get_weights())
        found = layer(tiny)
        assert keras.backend.standardize_dtype(found.dtype) == "float32"
        assert np.isfinite(found).all()
        np.testing.assert_array_equal(found, twin(tiny.astype("float32")))


@pytest.mark.slow
def test_it_learns_over_a_stock_embedding_in_float16():
    """Gradients of logarithms overflow first where Keras' loss scaling does not look: in a table's row that is read twice."""
    keras.config.set_dtype_policy("mixed_float16")
    try:
        inputs = keras.Input((20,), dtype="int32")
        crosses = LogarithmicNetwork(50, [16, 8])(keras.layers.Embedding(50, 8)(inputs))
        model = keras.Model(inputs, keras.layers.Dense(1, dtype="float32")(crosses))
    finally:
        keras.config.set_dtype_policy("float32")
    model.compile("adam", keras.losses.BinaryCrossentropy(from_logits=True))
    ids = np.random.default_rng(0).integers(0, 50, (256, 20))
    labels = (ids[:, :1] % 2).astype("float32")
    losses = model.fit(ids, labels, epochs=5, batch_size=64, verbose=0).history["loss"]
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]
    assert np.isfinite(model.predict(ids, verbose=0)).all()
    assert int(model.optimizer.iterations) > 5  # of 20 steps, the first ones find the scale


def test_network_is_the_mlp_over_the_transform():
    network = LogarithmicNetwork(3, [7, 2], activation="tanh", batch_norm=False)
    network.build(VIEW.shape)
    mlp = MLP([7, 2], activation="tanh")
    mlp.build((None, 12))
    mlp.set_weights(network.mlp.get_weights())
    np.testing.assert_array_equal(network(VIEW), mlp(network.transform(VIEW)))


@pytest.mark.parametrize("encoder", [LogarithmicTransform, LogarithmicNetwork])
def test_bad_neurons_are_refused(encoder):
    with pytest.raises(ConfigError, match="`neurons` is 0"):
        encoder(0)
