"""Gradients, dense or of some rows of a table (`tf.IndexedSlices`)."""

import keras
import tensorflow as tf


class MergedRows(tf.IndexedSlices):
    """`IndexedSlices` in which each row stands once."""


def merge_duplicates(gradient):
    """`MergedRows` with the sum of each row's slices; a dense gradient, and one that is merged, passes through.

    Adaptive optimizers square the gradient, and the square of a sum is not the sum of the squares.
    """
    if not isinstance(gradient, tf.IndexedSlices) or isinstance(gradient, MergedRows):
        return gradient
    rows, position = tf.unique(gradient.indices)
    values = tf.math.unsorted_segment_sum(gradient.values, position, tf.size(rows))
    return MergedRows(values, rows, gradient.dense_shape)


def global_norm(gradients):
    """The square root of the sum of squares of all gradients, in float64 if one is, else in float32.

    Duplicates must be merged before. Tables are float32 under every dtype policy, so gradients are of several types.
    """
    values = [g.values if isinstance(g, tf.IndexedSlices) else g for g in gradients]
    dtype = tf.float64 if any(value.dtype == tf.float64 for value in values) else tf.float32
    return tf.linalg.global_norm([tf.cast(value, dtype) for value in values])


def scale(gradient, factor):
    """`gradient * factor`; a sparse gradient stays sparse."""
    factor = tf.cast(factor, gradient.dtype)
    if isinstance(gradient, tf.IndexedSlices):
        return type(gradient)(gradient.values * factor, gradient.indices, gradient.dense_shape)
    return gradient * factor


def resource(variable):
    """The plain `tf.Variable` of this replica behind a Keras variable."""
    variable = variable.value if isinstance(variable, keras.Variable) else variable
    return variable._get_on_device_or_primary() if hasattr(variable, "_get_on_device_or_primary") else variable


def subtract_rows(table, values, rows):
    """`table[rows] -= values` for distinct rows, by reading and writing them: half the time of TensorFlow's `scatter_sub`."""
    table = resource(table)
    table.scatter_update(tf.IndexedSlices(table.sparse_read(rows) - values, rows))
