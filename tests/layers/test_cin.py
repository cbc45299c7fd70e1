import numpy as np
import pytest
import tensorflow as tf
from kit.encoder_contract import check_encoder
from kit.randomized import draw, randomize

from tfctr.errors import ConfigError
from tfctr.layers import CIN


@pytest.mark.parametrize(("encoder", "units"), [(CIN([5]), 5), (CIN([4, 3, 2]), 9)])
def test_encoder_contract(encoder, units):
    check_encoder(encoder, units)


def test_by_hand():
    layer = CIN([1])
    layer.build((None, 2, 2))
    # rows of the kernel: pairs (j, i) = (0, 0), (0, 1), (1, 0), (1, 1)
    layer.set_weights([np.array([[1.0], [10.0], [100.0], [1000.0]])])
    # e_0 * e_0 = [1, 4], e_0 * e_1 = [3, 8], e_1 * e_1 = [9, 16]; summed: 5, 11, 25
    np.testing.assert_allclose(layer(np.array([[[1.0, 2.0], [3.0, 4.0]]])), [[5 + 110 * 11 + 1000 * 25]])


def test_against_loops():
    rng = np.random.default_rng(0)
    view = rng.normal(size=(5, 3, 4)).astype("float32")
    layer = CIN([6, 2, 3])
    layer.build(view.shape)
    kernels = [rng.normal(size=kernel.shape, scale=0.5).astype("float32") for kernel in layer.get_weights()]
    layer.set_weights(kernels)
    expected = []
    for fields in view.astype("float64"):
        maps, pooled = fields, []
        for kernel in kernels:
            weights = kernel.reshape(3, len(maps), -1)  # (fields j, maps i, maps h)
            new = np.zeros((weights.shape[2], 4))
            for h in range(weights.shape[2]):
                for i in range(len(maps)):
                    for j in range(3):
                        new[h] += weights[j, i, h] * maps[i] * fields[j]
            maps = new
            pooled += list(maps.sum(axis=1))
        expected.append(pooled)
    np.testing.assert_allclose(layer(view), expected, rtol=1e-5, atol=1e-5)


def test_gradients_are_those_of_the_products_side_by_side():
    """The products are computed again in the backward pass."""
    view = tf.constant(draw(4, 3, 2))
    layer = CIN([3, 2])
    layer.build(view.shape)
    randomize(layer)

    def side_by_side(view):
        maps, pooled = view, []
        for kernel in layer.trainable_variables:
            products = tf.einsum("bjd,bid->bjid", view, maps)
            maps = tf.einsum("bjid,jih->bhd", products, tf.reshape(kernel, (3, maps.shape[1], -1)))
            pooled.append(tf.reduce_sum(maps, axis=-1))
        return tf.concat(pooled, axis=-1)

    gradients = []
    for form in (layer, tf.function(layer), side_by_side):
        with tf.GradientTape() as tape:
            tape.watch(view)
            total = tf.reduce_sum(form(view) ** 2)
        gradients.append(tape.gradient(total, [view, *layer.trainable_variables]))
    for found in gradients[:2]:
        for one, other in zip(found, gradients[2], strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("units", "message"), [([], "`units` is"), (100, "`units` is 100"), ([4, 0], r"`units\[1\]` is 0")])
def test_bad_units_are_refused(units, message):
    with pytest.raises(ConfigError, match=message):
        CIN(units)
