"""Feature interactions of learned orders in the complex plane (EulerNet)."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from tfctr.errors import ConfigError, require_number
from tfctr.layers.dropout import Dropout
from tfctr.layers.normalization import layer_normalization
from tfctr.layers.views import ViewLayer, ViewShape
from tfctr.types import Shape, Tensor


@keras.saving.register_keras_serializable("tfctr")
class EulerInteraction(ViewLayer):
    """Products of powers of the fields, with learned exponents, next to a dense layer, in the complex plane (EulerNet).

    - mapping: field `e_j` becomes `mu_j exp(i e_j)`, that is `r_j = mu_j cos(e_j)`, `p_j = mu_j sin(e_j)`
    - explicit: `prod_j (r_j + i p_j)^a_jk = exp(sum_j a_jk log(lambda_j)) exp(i sum_j a_jk theta_j)`, with modulus `lambda` and
      angle `theta`, and a bias under each exponential: sums and one matrix `a` instead of products
    - implicit: `relu(W r + b)` and `relu(W p + b)`, the same `W`
    - a layer's output is explicit plus implicit, normalized; the last layer's `r + p` is the representation, as the paper's
      head is `w . r + w . p`

    Computed in float32 under every policy: logarithms and exponentials of products.

    Args:
        num_layers: at least 1.
        num_orders: how many products a layer makes; None is as many as there are fields.
        dropout: share of the inputs of both parts dropped in training, in [0, 0.99].
        layer_norm: whether to normalize each product over its components.
        explicit_dropout, implicit_dropout: the share of each part, as the authors' `drop_ex` and `drop_im`; None is `dropout`.

    Shapes:
        `(batch, fields, dim) -> (batch, num_orders * dim)`

    Raises:
        ConfigError: `num_layers` or `num_orders` is below 1, or a dropout is out of range.

    >>> tuple(EulerInteraction(num_orders=5)(ops.ones((8, 3, 4))).shape)
    (8, 20)

    Reference: [Tian et al., 2023](https://arxiv.org/abs/2304.10711), Euler interaction layer.
    """

    def __init__(
        self,
        num_layers: int = 2,
        num_orders: int | None = None,
        dropout: float = 0.0,
        layer_norm: bool = True,
        explicit_dropout: float | None = None,
        implicit_dropout: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        rates = {"dropout": dropout, "explicit_dropout": explicit_dropout, "implicit_dropout": implicit_dropout}
        for name, rate in rates.items():
            if name == "dropout" or rate is not None:
                require_number(name, rate, 0, 0.99)
        if num_layers < 1 or (num_orders is not None and num_orders < 1):
            raise ConfigError(f"`num_layers` is {num_layers}, `num_orders` {num_orders}.", fix="use at least 1")
        self.num_layers = num_layers
        self.num_orders = num_orders
        self.dropout = dropout
        self.layer_norm = layer_norm
        self.explicit_dropout = dropout if explicit_dropout is None else explicit_dropout
        self.implicit_dropout = dropout if implicit_dropout is None else implicit_dropout

    def build(self, input_shape: Shape) -> None:
        _, fields, dim = self.view_shape(input_shape)
        orders = self.num_orders or fields
        self.modulus = self.add_weight(name="modulus", shape=(fields, 1), initializer="ones")
        self.steps = []
        for _ in range(self.num_layers):
            step = EulerStep(orders, self.explicit_dropout, self.layer_norm, self.implicit_dropout, dtype="float32")
            step.build([(None, fields, dim)] * 2)
            self.steps.append(step)
            fields = orders

    def call(self, fields: Tensor, training: bool = False) -> Tensor:
        fields = ops.cast(fields, "float32")
        modulus = ops.cast(self.modulus, "float32")
        pair = [modulus * ops.cos(fields), modulus * ops.sin(fields)]  # (batch, fields, dim) each
        for step in self.steps:
            pair = step(pair, training=training)  # (batch, orders, dim) each
        sums = ops.reshape(pair[0] + pair[1], (-1, pair[0].shape[1] * pair[0].shape[2]))
        return ops.cast(sums, self.compute_dtype)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        batch, fields, dim = self.view_shape(input_shape)
        return batch, (self.num_orders or fields) * dim


@keras.saving.register_keras_serializable("tfctr")
class EulerStep(keras.layers.Layer):
    """One layer: `[(batch, fields, dim), (batch, fields, dim)] -> [(batch, orders, dim), (batch, orders, dim)]`.

    `dropout` is that of the explicit part, and that of the implicit one, too, where `implicit_dropout` is None.
    """

    def __init__(
        self, orders: int, dropout: float, layer_norm: bool, implicit_dropout: float | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.orders = orders
        self.dropout = dropout
        self.layer_norm = layer_norm
        self.implicit_dropout = dropout if implicit_dropout is None else implicit_dropout

    def build(self, input_shape: Sequence[ViewShape]) -> None:
        _, fields, dim = input_shape[0]
        # The authors' start: each product is one field, or nearly so where there are not as many products as fields.
        start = "identity" if fields == self.orders else _one_field_each
        self.exponents = self.add_weight(name="exponents", shape=(fields, self.orders), initializer=start)
        noise = keras.initializers.RandomNormal(stddev=0.01)
        self.log_bias = self.add_weight(name="log_bias", shape=(self.orders, dim), initializer=noise)
        self.angle_bias = self.add_weight(name="angle_bias", shape=(self.orders, dim), initializer=noise)
        policy = self.dtype_policy
        self.implicit = keras.layers.Dense(self.orders * dim, activation="relu", dtype=policy)
        self.implicit.build((None, fields * dim))
        self.drop = Dropout(self.dropout, dtype=policy)
        # One layer for both where the shares are one: a model saved with one source of noise has no place for two.
        same = self.implicit_dropout == self.dropout
        self.drop_implicit = self.drop if same else Dropout(self.implicit_dropout, dtype=policy)
        self.norms = [layer_normalization(dtype=policy) for _ in range(2 * self.layer_norm)]
        for norm in self.norms:
            norm.build((None, self.orders, dim))

    def call(self, inputs: Sequence[Tensor], training: bool = False) -> list[Tensor]:
        real, imaginary = inputs
        explicit = self.multiply(real, imaginary, training)
        _, fields, dim = real.shape
        outputs = []
        for x, product in zip(inputs, explicit, strict=True):
            flat = self.drop_implicit(ops.reshape(x, (-1, fields * dim)), training=training)
            outputs.append(ops.reshape(self.implicit(flat), (-1, self.orders, dim)) + product)
        return [norm(x) for norm, x in zip(self.norms, outputs, strict=True)] if self.layer_norm else outputs

    def multiply(self, real: Tensor, imaginary: Tensor, training: bool) -> tuple[Tensor, Tensor]:
        """Real and imaginary part of the products of powers, `(batch, orders, dim)` each."""
        logarithm = 0.5 * ops.log(ops.square(real) + ops.square(imaginary) + 1e-8)
        # The angle of 0 is 0, and so must its gradient be finite.
        angle = ops.arctan2(imaginary, ops.where(ops.logical_and(real == 0, imaginary == 0), 1.0, real))
        logarithm, angle = (self.drop(x, training=training) for x in (logarithm, angle))
        logarithm = ops.einsum("bfd,fk->bkd", logarithm, self.exponents) + self.log_bias
        angle = ops.einsum("bfd,fk->bkd", angle, self.exponents) + self.angle_bias
        return ops.exp(logarithm) * ops.cos(angle), ops.exp(logarithm) * ops.sin(angle)


def _one_field_each(shape: Shape, dtype: str | None = None) -> Tensor:
    return ops.softmax(100.0 * keras.random.normal(shape, dtype=dtype), axis=0)
