"""Activations by name, as every hidden layer takes them; PReLU and Dice have weights."""

import functools

import keras
from keras import ops

from tfctr.layers.normalization import batch_normalization
from tfctr.layers.views import UNITS, VIEW, ViewLayer
from tfctr.types import Shape, Tensor


@keras.saving.register_keras_serializable("tfctr")
class Dice(ViewLayer):
    """A PReLU whose bend follows the data: `p * x + (1 - p) * alpha * x`, with `p = sigmoid((x - mean) / sqrt(var + 1e-8))`.

    Mean and variance are those of the batch in training and their moving averages otherwise; `alpha` is learned, one number a
    unit, from 0 on. What a Keras mask leaves out counts for neither.

    Shapes:
        `(batch, units) -> (batch, units)`, or `(batch, fields, dim) -> (batch, fields, dim)`

    >>> Dice()(ops.zeros((2, 3))).numpy().tolist()
    [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]

    Reference: [Zhou et al., 2018](https://arxiv.org/abs/1706.06978), eq. 3.
    """

    takes = (UNITS, VIEW)

    def build(self, input_shape: Shape) -> None:
        units = self.view_shape(input_shape)[-1]
        self.normalization = batch_normalization(epsilon=1e-8, center=False, scale=False, dtype=self.dtype_policy)
        self.normalization.build(input_shape)
        self.alpha = self.add_weight(name="alpha", shape=(units,), initializer="zeros")

    def call(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        p = ops.sigmoid(self.normalization(x, mask=mask))
        return (p + (1.0 - p) * self.alpha) * x

    def compute_mask(self, inputs: Tensor, previous_mask: Tensor | None) -> Tensor | None:
        return previous_mask


# Slopes as in the papers' code: PyTorch's LeakyReLU; PReLU has one slope a unit, from 0.01 on.
_PLAIN = ("elu", "gelu", "linear", "mish", "relu", "selu", "sigmoid", "silu", "softplus", "tanh")
ACTIVATIONS = {name: functools.partial(keras.layers.Activation, name) for name in _PLAIN} | {
    "dice": Dice,
    "leaky_relu": functools.partial(keras.layers.LeakyReLU, negative_slope=0.01),
    "prelu": functools.partial(keras.layers.PReLU, alpha_initializer=keras.initializers.Constant(0.01)),
}
