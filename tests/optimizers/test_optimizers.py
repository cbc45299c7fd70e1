import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework import indexed_slices

from tfctr.errors import ConfigError, TrainingError
from tfctr.optimizers import Adam, global_norm, merge_duplicates, minimize, scale, stop_on_non_finite


def slices(rows, values, size=5):
    return tf.IndexedSlices(tf.constant(values, "float32"), tf.constant(rows), tf.constant([size, len(values[0])]))


def test_merge_duplicates_sums_each_row_once():
    merged = merge_duplicates(slices([4, 1, 4], [[1.0], [2.0], [3.0]]))
    assert dict(zip(merged.indices.numpy().tolist(), merged.values.numpy().ravel().tolist(), strict=True)) == {4: 4.0, 1: 2.0}


def test_global_norm_and_scale_of_dense_and_sparse():
    gradients = [tf.constant([3.0]), slices([2], [[4.0]])]
    assert float(global_norm(gradients)) == 5.0  # sqrt(3^2 + 4^2)
    dense, sparse = (scale(gradient, 0.5) for gradient in gradients)
    assert dense.numpy().tolist() == [1.5]
    assert isinstance(sparse, tf.IndexedSlices)
    assert (sparse.indices.numpy().tolist(), sparse.values.numpy().tolist()) == ([2], [[2.0]])


@pytest.mark.parametrize("gradient", [0.3, 0.0])
def test_clip_leaves_small_and_zero_gradients_alone(gradient):
    variable = keras.Variable([0.0])
    minimize(keras.optimizers.SGD(1.0), lambda: {"ctr": gradient * variable.value[0]}, [variable], clip_norm=1.0)
    np.testing.assert_array_equal(variable.numpy(), np.float32([-gradient]))


def test_non_finite_gradient_of_a_finite_term_stops_before_the_weights():
    variable = keras.Variable([0.0])
    with pytest.raises(TrainingError, match=r"the norm of the gradient became (nan|inf) at step 0"), stop_on_non_finite():
        minimize(keras.optimizers.SGD(0.1), lambda: {"ctr": tf.sqrt(variable.value[0])}, [variable], clip_norm=1.0)
    assert variable.numpy().tolist() == [0.0]


def test_loss_scaling_clips_the_unscaled_gradient_and_leaves_out_an_overflow():
    variable = keras.Variable([0.0])
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(1.0), initial_scale=2.0**10)
    minimize(optimizer, lambda: {"ctr": 5.0 * variable.value[0]}, [variable], clip_norm=2.0)
    assert variable.numpy().tolist() == [-2.0]
    minimize(optimizer, lambda: {"ctr": tf.sqrt(variable.value[0] + 2.0)}, [variable], clip_norm=2.0)  # infinite slope
    assert variable.numpy().tolist() == [-2.0]


def test_adam_refuses_amsgrad():
    with pytest.raises(ConfigError, match="amsgrad"):
        Adam(amsgrad=True)


def adam_by_hand(weights, gradients, lr, b1=0.9, b2=0.999, epsilon=1e-8):
    m, v = np.zeros_like(weights), np.zeros_like(weights)
    for step, gradient in enumerate(gradients, start=1):
        m = b1 * m + (1 - b1) * gradient
        v = b2 * v + (1 - b2) * gradient**2
        weights = weights - lr * np.sqrt(1 - b2**step) / (1 - b1**step) * m / (np.sqrt(v) + epsilon)
    return weights


def test_adam_is_adam_dense_and_sparse():
    rng = np.random.default_rng(0)
    start = rng.normal(size=(5, 2))
    rows = rng.integers(0, 5, size=(20, 8))  # duplicates at every step
    values = rng.normal(size=(20, 8, 2))
    dense = np.zeros((20, 5, 2))
    for step in range(20):
        np.add.at(dense[step], rows[step], values[step])
    expected = adam_by_hand(start, dense, lr=0.1)

    for sparse in (False, True):
        variable = keras.Variable(start.astype("float32"))
        optimizer = Adam(learning_rate=0.1)
        for step in range(20):
            gradient = slices(rows[step], values[step]) if sparse else tf.constant(dense[step], "float32")
            optimizer.apply([gradient], [variable])
        np.testing.assert_allclose(variable.numpy(), expected, rtol=2e-5, atol=2e-6)


def test_adam_warns_of_no_large_table(monkeypatch):
    monkeypatch.setattr(indexed_slices, "_LARGE_SPARSE_NUM_ELEMENTS", 10)
    table, optimizer = keras.Variable(np.zeros((5, 2), "float32")), Adam(0.1)
    optimizer.build([table])
    tf.function(lambda: optimizer.apply([slices([4, 1, 4], np.ones((3, 2)))], [table]))()
    np.testing.assert_allclose(table.numpy()[:, 0], [0, -0.1, 0, 0, -0.1], rtol=1e-5)


def test_adam_equals_keras_adam():
    gradients = np.random.default_rng(1).normal(size=(30, 4, 3)).astype("float32")
    results = []
    for optimizer in (Adam(0.01), keras.optimizers.Adam(0.01, epsilon=1e-8)):
        variable = keras.Variable(np.ones((4, 3), "float32"))
        for gradient in gradients:
            optimizer.apply([tf.constant(gradient)], [variable])
        results.append(variable.numpy())
    np.testing.assert_allclose(*results, rtol=1e-5)


def test_adam_round_trip():
    optimizer = Adam(learning_rate=0.5, beta_1=0.8)
    twin = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert type(twin) is Adam
    assert (float(twin.learning_rate), twin.beta_1, twin.epsilon) == (0.5, 0.8, 1e-8)


def test_minimize_steps_once_on_the_sum_of_the_terms():
    variable = keras.Variable([1.0])
    optimizer = keras.optimizers.SGD(0.1)
    terms = minimize(optimizer, lambda: {"a": 2.0 * variable.value[0], "b": 3.0 * variable.value[0]}, [variable])
    assert [float(term) for term in terms.values()] == [2.0, 3.0]
    np.testing.assert_allclose(variable.numpy(), [1.0 - 0.1 * (2 + 3)], rtol=1e-6)


def test_minimize_clips_the_true_norm_of_a_repeated_row():
    table = keras.Variable(np.zeros((3, 1), "float32"))
    # The row stands twice: its gradient is 1 + 1 = 2. Unmerged, the norm would be sqrt(2).
    minimize(
        keras.optimizers.SGD(1.0),
        lambda: {"sum": tf.reduce_sum(tf.nn.embedding_lookup(table.value, [1, 1]))},
        [table],
        clip_norm=1.0,
    )
    np.testing.assert_allclose(table.numpy().ravel(), [0.0, -1.0, 0.0], rtol=1e-6)


def test_minimize_leaves_what_no_term_trains():
    trained, untouched = keras.Variable([1.0]), keras.Variable([1.0])
    minimize(Adam(0.1), lambda: {"a": trained.value[0]}, [trained, untouched])
    assert untouched.numpy().tolist() == [1.0]
    assert trained.numpy()[0] < 1.0


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_non_finite_term_stops_before_the_weights(value):
    variable = keras.Variable([1.0])
    optimizer = keras.optimizers.SGD(0.1)

    @tf.function
    def step(factor):
        return minimize(optimizer, lambda: {"ctr": variable.value[0], "twin_focus": factor * variable.value[0]}, [variable])

    optimizer.build([variable])
    step(tf.constant(1.0))
    before = variable.numpy()
    with pytest.raises(TrainingError, match=r"'twin_focus' became (nan|inf) at step 1"), stop_on_non_finite():
        step(tf.constant(value, "float32"))
    assert variable.numpy().tolist() == before.tolist()


@pytest.mark.parametrize("scale", [1.0, 1024.0])
def test_minimize_holds_small_the_rows_that_are_read(scale):
    table = keras.Variable([[1.0], [2.0], [3.0]])
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(1.0), initial_scale=scale)

    def read():
        return {"sum": tf.reduce_sum(tf.nn.embedding_lookup(table.value, [1, 1]))}

    terms = minimize(optimizer, read, [table], row_l2=0.1, tables=[table])
    assert float(terms["l2"]) == pytest.approx(0.1 / 2 * 2.0**2)  # each row once
    np.testing.assert_allclose(table.numpy().ravel(), [1.0, 2.0 - (2 + 0.1 * 2.0), 3.0], rtol=1e-6)


def test_epsilon_is_in_the_place_of_tensorflow():
    """`g / (|g| + epsilon / sqrt(1 - b2))` at step 1; PyTorch's would be `g / (|g| + epsilon)`."""
    variable, gradient = keras.Variable([0.0]), 1e-7
    Adam(1.0).apply([tf.constant([gradient])], [variable])
    np.testing.assert_allclose(variable.numpy(), [-gradient / (gradient + 1e-8 / np.sqrt(0.001))], rtol=1e-4)
