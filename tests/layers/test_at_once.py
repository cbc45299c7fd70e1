"""Formulas that XLA compiles for training give what they give op by op, and so do their gradients."""

import multiprocessing

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfctr.layers import hidden
from tfctr.layers.bridge import BridgedCross, Regulation
from tfctr.layers.hidden import at_once, usual_batches

ROWS, FIELDS, DIM = 60, 3, 4
# In a process that has had no server, which would have switched XLA off.
FORKSERVER = multiprocessing.get_context("forkserver")
LAYERS = {
    "Regulation": lambda: Regulation(temperature=0.5, batch_norm=True),
    "BridgedCross": lambda: BridgedCross(2, batch_norm=True),
}


@pytest.fixture(scope="module")
def child():
    with FORKSERVER.Pool(1) as pool:
        yield pool


def trained(name, rows):
    """Outputs, gradients and moving statistics of two steps, by name; `rows`: those that layers are compiled for."""
    rng = np.random.default_rng(0)
    x = tf.Variable(rng.normal(size=(ROWS, FIELDS, DIM), loc=0.5).astype("float32"))
    keras.utils.set_random_seed(1)
    layer = LAYERS[name]()
    layer(x)
    for variable in layer.trainable_variables:  # gates that differ, biases that are not zero
        variable.assign(rng.normal(size=variable.shape, scale=0.5))
    found = []
    for step in range(2):
        with usual_batches(rows), tf.GradientTape() as tape:
            outputs = tf.nest.flatten(layer(x, training=True))
            total = tf.add_n([tf.reduce_sum(y * rng.normal(size=y.shape).astype("float32")) for y in outputs])
        names = ["x", *(variable.path for variable in layer.trainable_variables)]
        gradients = tape.gradient(total, [x, *layer.trainable_variables])
        found += [(f"step {step}, gradient of {name}", value) for name, value in zip(names, gradients, strict=True)]
        found += [(f"step {step}, {variable.path}", variable.numpy()) for variable in layer.non_trainable_variables]
        found += [(f"step {step}, output {number}", y) for number, y in enumerate(outputs)]
    return [(name, np.array(value)) for name, value in found]


@pytest.mark.parametrize("rows", [ROWS, ROWS + 1])
@pytest.mark.parametrize("name", LAYERS)
def test_all_that_a_layer_gives_op_by_op(name, rows, child):
    expected, found = child.starmap(trained, [(name, None), (name, rows)])
    for (what, values), (_, compiled) in zip(expected, found, strict=True):
        # Sums over 60 rows and 12 units, in another order: some hundred roundings of 6e-8.
        np.testing.assert_allclose(compiled, values, rtol=1e-5, atol=1e-5 * (1 + abs(values).max()), err_msg=what)


def _doubled(x):
    return 2 * x


def test_only_float32_of_usual_batches_is_compiled(monkeypatch):
    def compiled(formula):
        raise AssertionError("compiled")

    monkeypatch.setattr(hidden, "_compiled", compiled)
    x = tf.ones((ROWS, 2))
    with usual_batches(ROWS), pytest.raises(AssertionError, match="compiled"):
        at_once(_doubled, x)
    for rows, tensor in ((None, x), (ROWS + 1, x), (ROWS, tf.cast(x, tf.bfloat16))):
        with usual_batches(rows):
            np.testing.assert_array_equal(at_once(_doubled, tensor), 2 * tensor)


def test_a_norm_that_was_changed_is_called_as_it_is():
    """Two views of one batch are normalized by its mean and variance only where both norms are as they were made."""
    x = tf.constant(np.random.default_rng(0).normal(size=(ROWS, FIELDS, DIM)).astype("float32"))
    layer = Regulation(batch_norm=True)
    together = [y.numpy() for y in layer(x, training=True)]
    again = Regulation(batch_norm=True)
    again.build(x.shape)
    again.norms[1].trainable = False  # then it uses its moving statistics
    first, second = again(x, training=True)
    np.testing.assert_allclose(first, together[0], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(
        second, tf.reshape(x / FIELDS / np.sqrt(1 + again.norms[1].epsilon), (ROWS, -1)), rtol=1e-5, atol=1e-6
    )
    for together, alone in zip(layer.norms[0].weights, again.norms[0].weights, strict=True):
        np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-6)
    assert not np.array_equal(layer.norms[1].moving_variance, again.norms[1].moving_variance)
