"""The transformer encoder, over the fields of a row."""

from typing import Any

import keras

from tfctr.errors import ConfigError
from tfctr.layers.dropout import Dropout
from tfctr.layers.mlp import linear
from tfctr.layers.views import ViewLayer
from tfctr.types import Shape, Tensor


@keras.saving.register_keras_serializable("tfctr")
class FieldTransformer(ViewLayer):
    """Transformer layers over the fields of a row, without positions: each field has its own table.

    `x <- norm(x + attention(x))`, then `x <- norm(x + W_2 relu(W_1 x + b_1) + b_2)`, with dropout on the attention weights, the
    hidden layer and both sums.

    Args:
        num_layers: at least 1.
        num_heads: divides the width of a field.
        hidden_dim: width of the feed-forward networks.
        dropout: share of units dropped in training, in [0, 1).

    Shapes:
        `(batch, fields, dim) -> (batch, fields * dim)`

    Raises:
        ConfigError: an argument below 1, or heads that do not divide the width.

    >>> tuple(FieldTransformer(num_layers=1, num_heads=2)(keras.ops.ones((8, 3, 4))).shape)
    (8, 12)

    Reference: [Vaswani et al., 2017](https://arxiv.org/abs/1706.03762), section 3.
    """

    def __init__(
        self, num_layers: int = 3, num_heads: int = 1, hidden_dim: int = 128, dropout: float = 0.2, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if min(num_layers, num_heads, hidden_dim) < 1:
            raise ConfigError(
                f"`num_layers` is {num_layers}, `num_heads` {num_heads}, `hidden_dim` {hidden_dim}.", fix="use at least 1 each"
            )
        self.num_layers = num_layers
        self.num_heads = num_heads
        self.hidden_dim = hidden_dim
        self.dropout = dropout

    def build(self, input_shape: Shape) -> None:
        _, _, dim = self.view_shape(input_shape)
        policy = self.dtype_policy
        if dim % self.num_heads:
            raise ConfigError(f"{self.num_heads} heads do not divide {dim}.", fix="use a divisor of the fields' width")
        self.flatten = keras.layers.Flatten(dtype=policy)
        self.attentions = []
        self.networks = []
        self.norms = []
        for _ in range(self.num_layers):
            attention = keras.layers.MultiHeadAttention(
                self.num_heads, dim // self.num_heads, dropout=self.dropout, dtype=policy
            )
            attention.build(input_shape, input_shape)
            network = keras.Sequential(
                [
                    linear(self.hidden_dim, activation="relu", dtype=policy),
                    Dropout(self.dropout, dtype=policy),
                    linear(dim, dtype=policy),
                ]
            )
            network.build(input_shape)
            self.attentions.append(attention)
            self.networks.append(network)
        self.norms = [keras.layers.LayerNormalization(epsilon=1e-5, dtype=policy) for _ in range(2 * self.num_layers)]
        for norm in self.norms:
            norm.build(input_shape)
        self.drop = Dropout(self.dropout, dtype=policy)

    def call(self, fields: Tensor, training: bool = False) -> Tensor:
        return self.flatten(self.encode(fields, training=training))

    def encode(self, x: Tensor, attention_mask: Tensor | None = None, training: bool = False) -> Tensor:
        """The fields after all layers, `(batch, fields, dim)`; the mask `(batch, fields, fields)` says who reads whom."""
        norms = iter(self.norms)
        for attention, network in zip(self.attentions, self.networks, strict=True):
            attended = attention(x, x, attention_mask=attention_mask, training=training)
            x = next(norms)(x + self.drop(attended, training=training))
            x = next(norms)(x + self.drop(network(x, training=training), training=training))
        return x

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        batch, fields, dim = self.view_shape(input_shape)
        return batch, fields * dim
