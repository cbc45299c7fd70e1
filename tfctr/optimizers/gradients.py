"""Gradients, dense or of some rows of a table (`tf.IndexedSlices`)."""

from collections.abc import Iterable
from typing import Any, TypeAlias

import keras
import tensorflow as tf

from tfctr.replicas import resource
from tfctr.types import Tensor

# What Keras' optimizers take as the learning rate: a number, or one that changes by the step.
LearningRate: TypeAlias = float | keras.optimizers.schedules.LearningRateSchedule


class MergedRows(tf.IndexedSlices):
    """`IndexedSlices` in which each row stands once."""


def merge_duplicates(gradient: Tensor) -> Tensor:
    """`MergedRows` with the sum of each row's slices; a dense gradient, and one that is merged, passes through.

    Adaptive optimizers square the gradient, and the square of a sum is not the sum of the squares.
    """
    if not isinstance(gradient, tf.IndexedSlices) or isinstance(gradient, MergedRows):
        return gradient
    rows, position = tf.unique(gradient.indices)
    values = tf.math.unsorted_segment_sum(gradient.values, position, tf.size(rows))
    return MergedRows(values, rows, gradient.dense_shape)


def global_norm(gradients: Iterable[Tensor]) -> Tensor:
    """The square root of the sum of squares of all gradients, in float64 if one is, else in float32.

    Duplicates must be merged before. Tables are float32 under every dtype policy, so gradients are of several types.
    """
    values = [g.values if isinstance(g, tf.IndexedSlices) else g for g in gradients]
    dtype = tf.float64 if any(value.dtype == tf.float64 for value in values) else tf.float32
    return tf.linalg.global_norm([tf.cast(value, dtype) for value in values])


def scale(gradient: Tensor, factor: Tensor) -> Tensor:
    """`gradient * factor`; a sparse gradient stays sparse."""
    factor = tf.cast(factor, gradient.dtype)
    if isinstance(gradient, tf.IndexedSlices):
        return type(gradient)(gradient.values * factor, gradient.indices, gradient.dense_shape)
    return gradient * factor


def subtract_rows(table: Any, values: Tensor, rows: Tensor) -> None:
    """`table[rows] -= values` for distinct rows, by reading and writing them: half the time of TensorFlow's `scatter_sub`."""
    table = resource(table)
    table.scatter_update(tf.IndexedSlices(table.sparse_read(rows) - values, rows))
