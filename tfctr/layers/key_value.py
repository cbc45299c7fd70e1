"""The Key-Value Block: what is read in a semantic space, and how much it counts (simMHN, CETN)."""

from collections.abc import Sequence
from typing import Any

import keras

from tfctr.layers.activations import ACTIVATIONS
from tfctr.layers.mlp import MLP, linear
from tfctr.layers.views import UNITS, VIEW, ViewLayer
from tfctr.types import Shape, Tensor


@keras.saving.register_keras_serializable("tfctr")
class KeyValueBlock(ViewLayer):
    """Two networks over one view: the value read there, and one number a sample that weighs it.

    `V = MLP_v(view)`, `K = leaky_relu(w . MLP_k(view) + b)`. The weight is not normalized, and can be slightly negative.

    Args:
        hidden_units, activation, dropout, batch_norm: of the value network, as in `MLP`.
        weight_hidden_units, weight_activation, weight_dropout, weight_batch_norm: of the weight network.
        use_bias: of both networks, as in `MLP`.

    Shapes:
        `(batch, fields, dim)` or `(batch, units) -> (batch, hidden_units[-1]), (batch, 1)`, value and weight; the weight is
        float32 under every policy

    Raises:
        ConfigError: an argument out of range, or an unknown activation.

    >>> value, weight = KeyValueBlock([8, 5], weight_hidden_units=[4])(keras.ops.ones((2, 3, 4)))
    >>> tuple(value.shape), tuple(weight.shape)
    ((2, 5), (2, 1))

    Reference: [CETN](https://arxiv.org/abs/2312.09715), eq. 8, 10. As in the authors' code, the value's last layer has its
    activation and dropout too.
    """

    takes = (VIEW, UNITS)

    def __init__(
        self,
        hidden_units: Sequence[int],
        weight_hidden_units: Sequence[int],
        activation: str = "leaky_relu",
        weight_activation: str = "leaky_relu",
        dropout: float = 0.0,
        weight_dropout: float = 0.0,
        batch_norm: bool = False,
        weight_batch_norm: bool = False,
        use_bias: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.hidden_units = hidden_units
        self.weight_hidden_units = weight_hidden_units
        self.activation = activation
        self.weight_activation = weight_activation
        self.dropout = dropout
        self.weight_dropout = weight_dropout
        self.batch_norm = batch_norm
        self.weight_batch_norm = weight_batch_norm
        self.use_bias = use_bias
        common = {"use_bias": use_bias, "dtype": self.dtype_policy}
        self.value = MLP(hidden_units, activation, dropout, batch_norm, **common)
        self.weight = keras.Sequential(
            [
                MLP(weight_hidden_units, weight_activation, weight_dropout, weight_batch_norm, **common),
                linear(1, dtype="float32"),
                ACTIVATIONS["leaky_relu"](dtype="float32"),
            ]
        )

    def build(self, input_shape: Shape) -> None:
        input_shape = self.view_shape(input_shape)
        self.value.build(input_shape)
        self.weight.build(input_shape)

    def call(self, view: Tensor) -> tuple[Tensor, Tensor]:
        return self.value(view), self.weight(view)

    def compute_output_shape(self, input_shape: Shape) -> tuple[Shape, Shape]:
        batch, *_ = self.view_shape(input_shape)
        return (batch, self.hidden_units[-1]), (batch, 1)

    def compute_output_spec(self, view: Tensor) -> tuple[keras.KerasTensor, keras.KerasTensor]:
        value, weight = self.compute_output_shape(view.shape)
        return keras.KerasTensor(value, self.compute_dtype), keras.KerasTensor(weight, "float32")

    def start_weight(self, value: float) -> None:
        """Let the weight of a fresh layer start at `value`, above 0; it starts at 0 otherwise."""
        self.weight.layers[1].bias.assign([value])
