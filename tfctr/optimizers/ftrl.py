"""FTRL-proximal, of which a row that is not read is at rest."""

import keras
import tensorflow as tf

from tfctr.optimizers.gradients import merge_duplicates
from tfctr.optimizers.row_sparse import RowSparse
from tfctr.replicas import resource
from tfctr.types import Tensor


@keras.saving.register_keras_serializable("tfctr")
class SparseFtrl(RowSparse, keras.optimizers.Ftrl):
    """FTRL-proximal (McMahan et al., 2013) through TensorFlow's fused kernels, over the rows of a sparse gradient only.

    With p = `learning_rate_power`: `n' = n + g^2;  z += g - (n'^-p - n^-p) / lr * w;
    w = (clip(z, -l1, l1) - z) / (n'^-p / lr + 2 l2 + beta / lr)`

    A row that is never read keeps its initial weights; over the whole table, FTRL would set them to zero at the first step.

    Raises:
        ConfigError: see `LazyAdam`.

    >>> table = keras.Variable([[0.0], [0.0]])
    >>> gradient = tf.IndexedSlices(tf.constant([[3.0]]), tf.constant([1]), tf.constant([2, 1]))
    >>> SparseFtrl(0.1, initial_accumulator_value=16.0).apply([gradient], [table])
    >>> table.numpy().ravel().astype(float).round(3).tolist()  # -3 / (sqrt(16 + 3^2) / 0.1)
    [0.0, -0.06]

    Reference: [McMahan et al., 2013](https://research.google/pubs/ad-click-prediction-a-view-from-the-trenches/), algorithm 1.
    """

    def update_step(self, gradient: Tensor, variable: keras.Variable, learning_rate: Tensor) -> None:
        index = self._get_variable_index(variable)
        slots = {"accum": self._accumulators[index], "linear": self._linears[index]}
        state = {"var": resource(variable).handle, **{name: resource(slot).handle for name, slot in slots.items()}}
        rate = tf.cast(learning_rate, variable.dtype)
        settings = {
            "lr": rate,
            "l1": self.l1_regularization_strength,
            "l2": self.l2_regularization_strength + self.beta / (2 * rate),
            "l2_shrinkage": self.l2_shrinkage_regularization_strength,
            "lr_power": self.learning_rate_power,
        }
        if isinstance(gradient, tf.IndexedSlices):
            gradient = merge_duplicates(gradient)
            tf.raw_ops.ResourceSparseApplyFtrlV2(**state, **settings, grad=gradient.values, indices=gradient.indices)
        else:
            tf.raw_ops.ResourceApplyFtrlV2(**state, **settings, grad=gradient)
