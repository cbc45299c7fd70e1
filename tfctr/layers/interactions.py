"""Encoders with a closed form: first order, second order, crosses."""

import math

import keras
from keras import ops

from tfctr.errors import require_count
from tfctr.layers.mlp import linear


@keras.saving.register_keras_serializable("tfctr")
class LinearTerms(keras.layers.Layer):
    """The sum of all components of a view, plus one bias.

    Over a table one unit wide this is logistic regression. Computed in float32 under every policy: it is a logit.

    Shapes:
        `(batch, fields, dim) -> (batch, 1)`

    >>> LinearTerms()(ops.ones((2, 3, 4))).numpy().tolist()
    [[12.0], [12.0]]
    """

    def __init__(self, dtype="float32", **kwargs):
        super().__init__(dtype=dtype, **kwargs)

    def build(self, input_shape):
        self.bias = self.add_weight(name="bias", shape=(1,), initializer="zeros")

    def call(self, fields):
        return ops.sum(fields, axis=(1, 2))[:, None] + self.bias


@keras.saving.register_keras_serializable("tfctr")
class FactorizationMachine(keras.layers.Layer):
    """The sum of the inner products of all pairs of fields, in time linear in the fields.

    `sum_{i<j} <e_i, e_j> = (|sum_i e_i|^2 - sum_i |e_i|^2) / 2`. It holds the second order only; for the first order, add
    `LinearTerms` of a table one unit wide. Computed in float32 under every policy: a logit, and a difference of large numbers.

    Shapes:
        `(batch, fields, dim) -> (batch, 1)`

    >>> FactorizationMachine()(ops.ones((1, 3, 4))).numpy().tolist()  # three pairs, four components
    [[12.0]]

    Reference: [Rendle, 2010](https://doi.org/10.1109/ICDM.2010.127).
    """

    def __init__(self, dtype="float32", **kwargs):
        super().__init__(dtype=dtype, **kwargs)

    def call(self, fields):
        square_of_sum = ops.square(ops.sum(fields, axis=1))  # (batch, dim)
        sum_of_squares = ops.sum(ops.square(fields), axis=1)  # (batch, dim)
        return 0.5 * ops.sum(square_of_sum - sum_of_squares, axis=-1, keepdims=True)  # (batch, 1)


@keras.saving.register_keras_serializable("tfctr")
class CrossNetwork(keras.layers.Layer):
    """Explicit feature crosses of growing degree (DCNv2, full rank).

    `x[l+1] = x[0] * (W[l] x[l] + b[l]) + x[l]`, so `num_layers` layers reach crosses of degree `num_layers + 1`.

    Args:
        num_layers: how many crossing steps; at least 1.

    Shapes:
        `(batch, fields, dim) -> (batch, fields * dim)`

    Raises:
        ConfigError: `num_layers` is below 1.

    >>> tuple(CrossNetwork(num_layers=2)(ops.ones((8, 3, 4))).shape)
    (8, 12)

    Reference: [Wang et al., 2021](https://arxiv.org/abs/2008.13535), eq. 1.
    """

    def __init__(self, num_layers=3, **kwargs):
        super().__init__(**kwargs)
        require_count("num_layers", num_layers)
        self.num_layers = num_layers

    def build(self, input_shape):
        units = math.prod(input_shape[1:])
        self.flatten = keras.layers.Flatten(dtype=self.dtype_policy)
        self.crosses = [linear(units, dtype=self.dtype_policy) for _ in range(self.num_layers)]
        for cross in self.crosses:
            cross.build((None, units))

    def call(self, fields):
        x0 = x = self.flatten(fields)  # (batch, fields * dim)
        for cross in self.crosses:
            x = x0 * cross(x) + x
        return x
