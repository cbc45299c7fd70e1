"""Eight random bits a unit drop as many units as any other number of bits would."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfctr.layers import Dropout

ROWS, UNITS = 20_000, 101  # not whole words of four units


def of_ones(rate, shape=(ROWS, UNITS), **arguments):
    return Dropout(rate, seed=1, **arguments)(tf.ones(shape), training=True).numpy()


@pytest.mark.parametrize("rate", [0.001, 0.01, 0.1, 0.2, 0.25, 0.5, 0.9, 0.99])
def test_each_unit_is_dropped_with_the_probability_that_is_asked_for(rate):
    dropped = of_ones(rate) == 0
    # A row's threshold is one of two neighbours: its share varies by 1/256 at most beside that of independent units.
    deviation = np.sqrt((rate * (1 - rate) / UNITS + 0.25 / 256**2) / ROWS)
    assert abs(dropped.mean() - rate) < 5 * deviation
    assert (abs(dropped.mean(axis=0) - rate) < 6 * np.sqrt(rate * (1 - rate) / ROWS)).all()


def test_units_and_rows_are_dropped_apart_from_each_other():
    dropped = (of_ones(0.3) == 0) - 0.3
    bound = 6 / np.sqrt(ROWS)  # of a correlation of independent units
    for distance in (1, 2, 3, 4, 5, 8):
        assert abs(np.mean(dropped[:, distance:] * dropped[:, :-distance], axis=0)).max() < bound * 0.3 * 0.7
        assert abs(np.mean(dropped[distance:] * dropped[:-distance], axis=0)).max() < bound * 0.3 * 0.7


def test_what_is_kept_is_scaled_and_the_gradient_with_it():
    x = tf.random.normal((50, 6), seed=1)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = Dropout(0.2, seed=1)(x, training=True)
        total = tf.reduce_sum(y * 3.0)
    kept = y.numpy() != 0
    assert 0 < kept.mean() < 1
    np.testing.assert_array_equal(y.numpy(), np.where(kept, x.numpy() * np.float32(1.25), 0))
    np.testing.assert_array_equal(tape.gradient(total, x).numpy(), np.where(kept, np.float32(3.75), 0))


def test_masks_follow_the_seed():
    first, second = (Dropout(0.5, seed=4) for _ in range(2))
    x = tf.ones((30, 7))
    masks = [layer(x, training=True).numpy() for layer in (first, first, second, second)]
    np.testing.assert_array_equal(masks[0], masks[2])
    np.testing.assert_array_equal(masks[1], masks[3])
    assert (masks[0] != masks[1]).any()
    np.testing.assert_array_equal(first(x), x)  # without training


@pytest.mark.parametrize("shape", [(5, 3), (4, 3, 2), (2, 3, 4, 5), (0, 3), (6,)])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_any_shape_and_type(shape, dtype):
    y = Dropout(0.5, seed=1, dtype=dtype)(tf.ones(shape, dtype), training=True)
    assert (y.shape, y.dtype.name) == (shape, dtype)
    assert set(np.unique(y.numpy().astype("float32"))) <= {0.0, 2.0}


def test_what_eight_bits_cannot_do_is_left_to_keras():
    rows = of_ones(0.5, noise_shape=(None, 1))
    assert ((rows == rows[:, :1]).all(axis=1)).all()
    assert set(np.unique(rows)) == {0.0, 2.0}
    assert (of_ones(0.9999) == 0).mean() > 0.999
    assert (of_ones(1.0) == 0).all()
    assert (of_ones(0.0) == 1).all()


def test_in_a_graph_of_unknown_batches():
    inputs = keras.Input((5,))
    model = keras.Model(inputs, Dropout(0.5, seed=1)(inputs))
    assert model(tf.ones((3, 5)), training=True).shape == (3, 5)
    restored = keras.Model.from_config(model.get_config())
    assert type(restored.layers[1]) is Dropout
