"""The multilayer perceptron, and the papers' settings of a dense layer."""

from collections.abc import Sequence
from typing import Any

import keras

from tfctr.errors import ConfigError, require_number, require_one_of
from tfctr.layers.activations import ACTIVATIONS
from tfctr.layers.dropout import Dropout
from tfctr.layers.hidden import hidden
from tfctr.layers.normalization import batch_normalization
from tfctr.layers.views import UNITS, VIEW, ViewLayer
from tfctr.types import Shape, Tensor


def linear(units: int, **kwargs: Any) -> keras.layers.Dense:
    """A dense layer without activation, as the papers' code starts it: Glorot normal kernel, zero bias."""
    return keras.layers.Dense(units, kernel_initializer="glorot_normal", **kwargs)


@keras.saving.register_keras_serializable("tfctr")
class MLP(ViewLayer):
    """Dense, batch normalization, activation, dropout, in this order, on every hidden layer.

    Args:
        hidden_units: width of each hidden layer; at least one.
        activation: a name in `ACTIVATIONS`.
        dropout: share of units dropped in training, in [0, 0.99].
        batch_norm: whether to normalize before the activation.
        use_bias: whether the dense layers have a bias. Batch normalization has its own and takes this one out again; the
            authors' code keeps it. Where the inputs vary by less than the bias moves in a few steps, the running mean lags so
            far behind it that predictions collapse, and it must go.

    Shapes:
        `(batch, fields, dim)` or `(batch, units) -> (batch, hidden_units[-1])`

    Raises:
        ConfigError: an argument out of range, or an unknown activation.

    >>> tuple(MLP([8, 5], dropout=0.1)(keras.ops.ones((2, 3, 4))).shape)
    (2, 5)
    """

    takes = (VIEW, UNITS)

    def __init__(
        self,
        hidden_units: Sequence[int],
        activation: str = "relu",
        dropout: float = 0.0,
        batch_norm: bool = False,
        use_bias: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not isinstance(hidden_units, list | tuple) or not hidden_units or not all(map(_is_width, hidden_units)):
            raise ConfigError(f"`hidden_units` is {hidden_units!r}.", fix="list the width of each hidden layer: [400, 400]")
        require_number("dropout", dropout, 0, 0.99)
        require_one_of(ACTIVATIONS, activation, "activation")
        self.hidden_units = tuple(hidden_units)
        self.activation = activation
        self.dropout = dropout
        self.batch_norm = batch_norm
        self.use_bias = use_bias

    def build(self, input_shape: Shape) -> None:
        policy = self.dtype_policy
        self.steps = [keras.layers.Flatten(dtype=policy)]
        for units in self.hidden_units:
            self.steps += [
                linear(units, use_bias=self.use_bias, dtype=policy),
                *([batch_normalization(dtype=policy)] if self.batch_norm else []),
                ACTIVATIONS[self.activation](dtype=policy),
                Dropout(self.dropout, dtype=policy),
            ]
        shape = self.view_shape(input_shape)
        for step in self.steps:
            step.build(shape)
            shape = step.compute_output_shape(shape)

    def call(self, view: Tensor, training: bool = False) -> Tensor:
        flatten, *steps = self.steps
        x = flatten(view)  # (batch, units)
        size = len(steps) // len(self.hidden_units)
        for start in range(0, len(steps), size):
            dense, *rest = steps[start : start + size]
            x = hidden(x, dense, rest, training)
        return x

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        batch, *_ = self.view_shape(input_shape)
        return batch, self.hidden_units[-1]


def _is_width(units: object) -> bool:
    return isinstance(units, int) and not isinstance(units, bool) and units >= 1
