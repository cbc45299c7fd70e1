"""Quadratic neurons: layers that multiply their input by what a ReLU lets through of it (QNN-alpha)."""

import math
from typing import Any

import keras
from keras import ops

from tfctr.errors import ConfigError, require_count, require_number
from tfctr.layers.dropout import Dropout
from tfctr.layers.mlp import linear
from tfctr.layers.normalization import batch_normalization
from tfctr.layers.views import UnitsShape, ViewLayer
from tfctr.types import Shape, Tensor


@keras.saving.register_keras_serializable("tfctr")
class QuadraticNetwork(ViewLayer):
    """Layers that add to each component its products with several gates of all of them (QNN-alpha).

    `x[l+1] = dropout(sum_r P x[l] * dropout(relu(W[l, r] x[l] + b[l, r])) + x[l])`, from the flattened view on

    The activation is within the product, and none follows it. `P` puts the components in the order of the heads, each with its
    share of all fields; one head leaves them as they are. With several, a product is added to the component in whose place it
    lies, as in the authors' code, so that components of different fields meet.

    Args:
        num_layers: at least 1.
        num_products: how many gates each component is multiplied by; at least 1. The paper's M, the authors' `num_row`.
        num_heads: must divide `dim`.
        dropout: share of the gates, and of the components after each layer, dropped in training; in [0, 0.99].
        batch_norm: whether to normalize before the ReLU.

    Shapes:
        `(batch, fields, dim) -> (batch, fields * dim)`

    Raises:
        ConfigError: an argument out of range, or a `dim` that `num_heads` does not divide.

    >>> tuple(QuadraticNetwork(num_layers=2)(ops.ones((8, 3, 4))).shape)
    (8, 12)

    Reference: [Li et al., 2025](https://arxiv.org/abs/2505.17999), multi-head Khatri-Rao product and mid-activation.
    """

    def __init__(
        self,
        num_layers: int = 3,
        num_products: int = 2,
        num_heads: int = 1,
        dropout: float = 0.0,
        batch_norm: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        for name, value in (("num_layers", num_layers), ("num_products", num_products), ("num_heads", num_heads)):
            require_count(name, value)
        require_number("dropout", dropout, 0, 0.99)
        self.num_layers = num_layers
        self.num_products = num_products
        self.num_heads = num_heads
        self.dropout = dropout
        self.batch_norm = batch_norm

    def build(self, input_shape: Shape) -> None:
        _, units = self.compute_output_shape(input_shape)
        policy = self.dtype_policy
        steps = range(self.num_layers)
        self.flatten = keras.layers.Flatten(dtype=policy)
        self.gates = [linear(units * self.num_products, dtype=policy) for _ in steps]
        self.norms = [batch_normalization(dtype=policy) for _ in steps] if self.batch_norm else []
        self.gate_dropouts = [Dropout(self.dropout, dtype=policy) for _ in steps]
        self.dropouts = [Dropout(self.dropout, dtype=policy) for _ in steps]
        for gate in self.gates:
            gate.build((None, units))
        for norm in self.norms:
            norm.build((None, units * self.num_products))

    def call(self, fields: Tensor, training: bool = False) -> Tensor:
        _, *sizes = fields.shape
        x = self.flatten(fields)  # (batch, fields * dim)
        for step in range(self.num_layers):
            gates = self.gates[step](x)  # (batch, products * fields * dim)
            if self.batch_norm:
                gates = self.norms[step](gates, training=training)
            gates = self.gate_dropouts[step](ops.relu(gates), training=training)
            gates = ops.reshape(gates, (-1, self.num_heads, self.num_products, math.prod(sizes) // self.num_heads))
            # A sum of products with the same factor: the gates are added before they are multiplied.
            gates = ops.reshape(ops.sum(gates, axis=2), (-1, math.prod(sizes)))
            x = self.dropouts[step](self.by_head(x, *sizes) * gates + x, training=training)
        return x

    def by_head(self, x: Tensor, fields: int, dim: int) -> Tensor:
        """The components in the order of the heads, each with its share of every field: `(batch, fields * dim)`."""
        if self.num_heads == 1:
            return x
        shares = ops.reshape(x, (-1, fields, self.num_heads, dim // self.num_heads))
        return ops.reshape(ops.transpose(shares, (0, 2, 1, 3)), (-1, fields * dim))

    def compute_output_shape(self, input_shape: Shape) -> UnitsShape:
        batch, fields, dim = self.view_shape(input_shape)
        if dim % self.num_heads:
            raise ConfigError(
                f"{type(self).__name__} {self.name!r} divides the {dim} components of a field among {self.num_heads} heads.",
                fix="give it a view whose dim is a multiple of `num_heads`",
            )
        return batch, fields * dim
