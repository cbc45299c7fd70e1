"""Dense layers that multiply: a stack doubles the degree of the interactions with each layer (FinalNet)."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from tfctr.errors import ConfigError, require_one_of
from tfctr.layers.dropout import Dropout
from tfctr.layers.mlp import ACTIVATIONS, linear
from tfctr.layers.normalization import batch_normalization
from tfctr.layers.views import UNITS, VIEW, ViewLayer
from tfctr.types import Shape, Tensor

RESIDUALS = {"sum": sum, "concatenation": lambda terms: ops.concatenate(terms, axis=-1)}


@keras.saving.register_keras_serializable("tfctr")
class FinalBlock(ViewLayer):
    """An MLP whose linear layers are factorized interactions (FINAL).

    `h_1 = W_1 x + b_1`, `h_n = h_{n-1} * g(W_n x + b_n)`, and the layer gives `h_1 + ... + h_N`; then batch normalization,
    activation, dropout, as in `MLP`.

    Args:
        hidden_units: width of each layer; at least one.
        order: `N`; the degree of the products in one layer.
        gate_activation: `g`, a name in `ACTIVATIONS`.
        residual: `"sum"`, or `"concatenation"`: the `h_n` side by side, each `1 / N` as wide, with the weights of an `MLP`.
        activation, dropout, batch_norm: as in `MLP`.

    Shapes:
        `(batch, fields, dim)` or `(batch, units) -> (batch, hidden_units[-1])`

    Raises:
        ConfigError: an unknown residual or activation, or a width that the order does not divide.

    >>> tuple(FinalBlock([8, 6])(ops.ones((2, 3, 4))).shape)
    (2, 6)

    Reference: [Zhu et al., 2023](https://doi.org/10.1145/3539618.3591988), FINAL layer and block.
    """

    takes = (VIEW, UNITS)

    def __init__(
        self,
        hidden_units: Sequence[int],
        order: int = 2,
        gate_activation: str = "linear",
        residual: str = "sum",
        activation: str = "linear",
        dropout: float = 0.0,
        batch_norm: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        require_one_of(RESIDUALS, residual, "residual")
        for name in (gate_activation, activation):
            require_one_of(ACTIVATIONS, name, "activation")
        parts = order if residual == "concatenation" else 1
        if order < 1 or not hidden_units or any(units < 1 or units % parts for units in hidden_units):
            raise ConfigError(
                f"`hidden_units` is {hidden_units}, `order` {order}.", fix="list widths that are multiples of the order"
            )
        self.hidden_units = tuple(hidden_units)
        self.order = order
        self.gate_activation = gate_activation
        self.residual = residual
        self.activation = activation
        self.dropout = dropout
        self.batch_norm = batch_norm

    def build(self, input_shape: Shape) -> None:
        policy = self.dtype_policy
        self.flatten = keras.layers.Flatten(dtype=policy)
        shape = self.flatten.compute_output_shape(self.view_shape(input_shape))
        self.projections = []
        self.gates = []
        self.rests = []
        for units in self.hidden_units:
            width = units // self.order if self.residual == "concatenation" else units
            projection = linear(width * self.order, dtype=policy)
            gate = ACTIVATIONS[self.gate_activation](dtype=policy)
            rest = keras.Sequential(
                [
                    *([batch_normalization(dtype=policy)] if self.batch_norm else []),
                    ACTIVATIONS[self.activation](dtype=policy),
                    Dropout(self.dropout, dtype=policy),
                ]
            )
            projection.build(shape)
            gate.build((None, width))
            rest.build((None, units))
            self.projections.append(projection)
            self.gates.append(gate)
            self.rests.append(rest)
            shape = (None, units)

    def call(self, view: Tensor, training: bool = False) -> Tensor:
        x = self.flatten(view)
        for projection, gate, rest in zip(self.projections, self.gates, self.rests, strict=True):
            first, *factors = ops.split(projection(x), self.order, axis=-1)
            terms = [first]  # h_1, h_2, ...
            for factor in factors:
                terms.append(terms[-1] * gate(factor))
            x = rest(RESIDUALS[self.residual](terms), training=training)
        return x

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        batch, *_ = self.view_shape(input_shape)
        return batch, self.hidden_units[-1]
