"""Products of learned powers of the fields, as sums of logarithms."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from tfctr.errors import require_count
from tfctr.layers.mlp import MLP, linear
from tfctr.layers.nested import DTypeLike
from tfctr.layers.normalization import batch_normalization
from tfctr.layers.views import ViewLayer
from tfctr.types import Shape, Tensor

SMALLEST = 1e-5  # The paper says only "a small positive number"; fresh embeddings are about 1e-4.


@keras.saving.register_keras_serializable("tfctr")
class LogarithmicTransform(ViewLayer):
    """Crosses of learned degree: each neuron multiplies all fields, each field to a power of its own (AFN).

    `y_j = exp(sum_i w_ij ln |e_i|) = prod_i |e_i|^w_ij`, component by component. The logarithms are batch-normalized field by
    field, the powers neuron by neuron. Computed in float32 under every policy: it goes through logarithms.

    Args:
        neurons: how many crosses; at least 1.

    Shapes:
        `(batch, fields, dim) -> (batch, dim * neurons)`

    Raises:
        ConfigError: `neurons` is below 1.

    >>> tuple(LogarithmicTransform(neurons=5)(ops.ones((2, 3, 4))).shape)
    (2, 20)

    Reference: [Cheng et al., 2020](https://arxiv.org/abs/1909.03276), section "Logarithmic Transformation Layer".
    """

    def __init__(self, neurons: int = 600, dtype: DTypeLike = "float32", **kwargs: Any) -> None:
        super().__init__(dtype=dtype, **kwargs)
        require_count("neurons", neurons)
        self.neurons = neurons

    def build(self, input_shape: Shape) -> None:
        _, fields, dim = self.view_shape(input_shape)
        self.log_norm = batch_normalization(dtype="float32")
        self.norm = batch_normalization(dtype="float32")
        self.powers = linear(self.neurons, use_bias=False, dtype="float32")
        self.flatten = keras.layers.Flatten(dtype="float32")
        shape = (None, dim, fields)
        self.log_norm.build(shape)
        self.powers.build(shape)
        self.norm.build((*shape[:2], self.neurons))

    def call(self, fields: Tensor) -> Tensor:
        logs = ops.log(ops.maximum(ops.abs(ops.cast(fields, "float32")), SMALLEST))
        logs = self.log_norm(ops.transpose(logs, (0, 2, 1)))  # (batch, dim, fields)
        crosses = ops.exp(self.powers(logs))  # (batch, dim, neurons)
        return ops.cast(self.flatten(self.norm(crosses)), self.compute_dtype)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        batch, _, dim = self.view_shape(input_shape)
        return batch, dim * self.neurons


@keras.saving.register_keras_serializable("tfctr")
class LogarithmicNetwork(ViewLayer):
    """An `MLP` over the crosses of a `LogarithmicTransform`: AFN without its last linear layer.

    Computed in float32 under every policy: until training has seen the crosses, they can be of any size.

    Args:
        neurons: of the `LogarithmicTransform`.
        hidden_units, activation, dropout, batch_norm: of the `MLP`.

    Shapes:
        `(batch, fields, dim) -> (batch, hidden_units[-1])`

    Raises:
        ConfigError: an argument that the two layers refuse.

    >>> tuple(LogarithmicNetwork(neurons=5, hidden_units=[7])(ops.ones((2, 3, 4))).shape)
    (2, 7)

    Reference: [Cheng et al., 2020](https://arxiv.org/abs/1909.03276).
    """

    def __init__(
        self,
        neurons: int = 600,
        hidden_units: Sequence[int] = (400, 400, 400),
        activation: str = "relu",
        dropout: float = 0.0,
        batch_norm: bool = True,
        dtype: DTypeLike = "float32",
        **kwargs: Any,
    ) -> None:
        super().__init__(dtype=dtype, **kwargs)
        self.transform = LogarithmicTransform(neurons)
        self.mlp = MLP(hidden_units, activation, dropout, batch_norm, dtype="float32")
        self.neurons = neurons
        self.hidden_units = tuple(hidden_units)
        self.activation = activation
        self.dropout = dropout
        self.batch_norm = batch_norm

    def build(self, input_shape: Shape) -> None:
        self.transform.build(self.view_shape(input_shape))
        self.mlp.build(self.transform.compute_output_shape(input_shape))

    def call(self, fields: Tensor) -> Tensor:
        return ops.cast(self.mlp(self.transform(fields)), self.compute_dtype)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        batch, _, _ = self.view_shape(input_shape)
        return batch, self.hidden_units[-1]
