"""Adagrad, of which a row that is not read is at rest."""

from typing import Any

import keras
import tensorflow as tf

from tfctr.optimizers.gradients import LearningRate, merge_duplicates
from tfctr.optimizers.row_sparse import RowSparse
from tfctr.replicas import resource
from tfctr.types import Tensor


@keras.saving.register_keras_serializable("tfctr")
class SparseAdagrad(RowSparse, keras.optimizers.Adagrad):
    """Adagrad (Duchi et al., 2011) through TensorFlow's fused kernels, over the rows of a sparse gradient only.

    `a += g^2;  w -= lr g / (sqrt(a) + epsilon)`

    A zero gradient changes nothing, so this is Adagrad, not an approximation.

    Raises:
        ConfigError: see `LazyAdam`.

    >>> table = keras.Variable([[1.0], [2.0], [3.0]])
    >>> gradient = tf.IndexedSlices(tf.constant([[3.0], [1.0]]), tf.constant([1, 1]), tf.constant([3, 1]))
    >>> SparseAdagrad(0.1, initial_accumulator_value=9.0).apply([gradient], [table])
    >>> table.numpy().ravel().astype(float).round(3).tolist()  # 2 - 0.1 * 4 / sqrt(9 + 4^2)
    [1.0, 1.92, 3.0]

    Reference: [Duchi et al., 2011](https://jmlr.org/papers/v12/duchi11a.html).
    """

    def __init__(
        self,
        learning_rate: LearningRate = 0.001,
        initial_accumulator_value: float = 0.1,
        epsilon: float = 1e-7,
        name: str = "adagrad",
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, initial_accumulator_value, epsilon, name=name, **kwargs)

    def update_step(self, gradient: Tensor, variable: keras.Variable, learning_rate: Tensor) -> None:
        accumulator = self._accumulators[self._get_variable_index(variable)]
        state = {"var": resource(variable).handle, "accum": resource(accumulator).handle}
        settings = {"lr": tf.cast(learning_rate, variable.dtype), "epsilon": self.epsilon}
        if isinstance(gradient, tf.IndexedSlices):
            gradient = merge_duplicates(gradient)
            tf.raw_ops.ResourceSparseApplyAdagradV2(**state, **settings, grad=gradient.values, indices=gradient.indices)
        else:
            tf.raw_ops.ResourceApplyAdagradV2(**state, **settings, grad=gradient)
