"""Batch normalization, and layer normalization of vectors and of fields."""

from typing import Any

import keras

from tfctr.replicas import number_of_replicas
from tfctr.types import Shape, Tensor


def batch_normalization(epsilon: float = 1e-5, **kwargs: Any) -> keras.layers.BatchNormalization:
    """Batch normalization with the momentum and epsilon of the papers' code, which are PyTorch's defaults.

    The running variance is that of Keras, which divides by the rows n of a batch; PyTorch's divides by n - 1. They are 1e-4 of
    each other apart at 10,000 rows.

    Under a `tf.distribute` strategy, mean and variance are those of the global batch. The variance is there Keras'
    `E[x^2] - E[x]^2`, whose rounding is coarser: it is not a single device's to the last bit.
    """
    return keras.layers.BatchNormalization(momentum=0.9, epsilon=epsilon, synchronized=number_of_replicas() > 1, **kwargs)


def layer_normalization(**kwargs: Any) -> keras.layers.LayerNormalization:
    """Layer normalization with PyTorch's epsilon."""
    return keras.layers.LayerNormalization(epsilon=1e-5, **kwargs)


@keras.saving.register_keras_serializable("tfctr")
class FieldNormalization(keras.layers.Layer):
    """Layer normalization of each field over its components, with a gain and a bias of its own a field.

    `(e - mean(e)) / sqrt(variance(e) + epsilon) * gain_i + bias_i` for field `i`

    Shapes:
        `(batch, fields, dim) -> (batch, fields, dim)`

    >>> FieldNormalization()(keras.ops.convert_to_tensor([[[1.0, 3.0], [0.0, 0.0]]])).numpy().round(3).tolist()
    [[[-1.0, 1.0], [0.0, 0.0]]]
    """

    def __init__(self, epsilon: float = 1e-5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.epsilon = epsilon

    def build(self, input_shape: Shape) -> None:
        _, fields, dim = input_shape
        self.norm = keras.layers.LayerNormalization(epsilon=self.epsilon, center=False, scale=False, dtype=self.dtype_policy)
        self.norm.build(input_shape)
        self.gain = self.add_weight(name="gain", shape=(fields, dim), initializer="ones")
        self.bias = self.add_weight(name="bias", shape=(fields, dim), initializer="zeros")

    def call(self, fields: Tensor) -> Tensor:
        return self.norm(fields) * self.gain + self.bias
