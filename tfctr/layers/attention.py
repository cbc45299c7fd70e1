"""Attention between fields, and over pairs of fields."""

from typing import Any

import keras
from keras import ops

from tfctr.errors import require_count
from tfctr.layers.interactions import require_pairs, rows_of_pairs
from tfctr.layers.mlp import linear
from tfctr.layers.views import ViewLayer
from tfctr.types import Shape, Tensor


@keras.saving.register_keras_serializable("tfctr")
class SelfAttention(ViewLayer):
    """Each field attends to all fields, several times over (AutoInt's interacting layers).

    For each head, with `a = softmax_k(<Q e_m, K e_k>)`, `e'_m = sum_k a_k V e_k`; the heads are concatenated, and the layer
    gives `relu(e'_m + R e_m)`.

    Args:
        num_layers: how many interacting layers; at least 1.
        num_heads: heads a layer; at least 1.
        head_dim: width of each head; at least 1.

    Shapes:
        `(batch, fields, dim) -> (batch, fields * num_heads * head_dim)`

    Raises:
        ConfigError: a number below 1, or fewer than two fields.

    >>> tuple(SelfAttention(num_layers=2, num_heads=2, head_dim=5)(ops.ones((8, 3, 4))).shape)
    (8, 30)

    Reference: [Song et al., 2019](https://arxiv.org/abs/1810.11921), eq. 5-8.
    """

    def __init__(self, num_layers: int = 3, num_heads: int = 2, head_dim: int = 32, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        require_count("num_layers", num_layers)
        require_count("num_heads", num_heads)
        require_count("head_dim", head_dim)
        self.num_layers = num_layers
        self.num_heads = num_heads
        self.head_dim = head_dim

    def build(self, input_shape: Shape) -> None:
        require_pairs(self.view_shape(input_shape))
        self.flatten = keras.layers.Flatten(dtype=self.dtype_policy)
        self.steps = [InteractingLayer(self.num_heads, self.head_dim, dtype=self.dtype_policy) for _ in range(self.num_layers)]
        shape = input_shape
        for step in self.steps:
            step.build(shape)
            shape = (*shape[:2], self.num_heads * self.head_dim)

    def call(self, fields: Tensor) -> Tensor:
        for step in self.steps:
            fields = step(fields)  # (batch, fields, heads * head_dim)
        return self.flatten(fields)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        batch, fields, _ = self.view_shape(input_shape)
        return batch, fields * self.num_heads * self.head_dim


class InteractingLayer(keras.layers.Layer):
    """One interacting layer: `(batch, fields, dim) -> (batch, fields, num_heads * head_dim)`."""

    def __init__(self, num_heads: int, head_dim: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.head_dim = head_dim

    def build(self, input_shape: Shape) -> None:
        units = self.num_heads * self.head_dim
        maps = [linear(units, use_bias=False, dtype=self.dtype_policy) for _ in range(4)]
        for layer in maps:
            layer.build(input_shape)
        self.query, self.key, self.value, self.residual = maps

    def call(self, fields: Tensor) -> Tensor:
        query, key, value = (self.split_heads(layer(fields)) for layer in (self.query, self.key, self.value))
        weights = ops.softmax(ops.einsum("bmhd,bkhd->bhmk", query, key))  # (batch, heads, fields, fields), not scaled
        attended = ops.einsum("bhmk,bkhd->bmhd", weights, value)  # (batch, fields, heads, head_dim)
        residual = self.residual(fields)  # (batch, fields, heads * head_dim)
        return ops.relu(ops.reshape(attended, (-1, *residual.shape[1:])) + residual)

    def split_heads(self, x: Tensor) -> Tensor:
        return ops.reshape(x, (-1, x.shape[1], self.num_heads, self.head_dim))


@keras.saving.register_keras_serializable("tfctr")
class PairAttention(ViewLayer):
    """The element-wise products of all pairs of fields, weighted by how much each pair matters (AFM's attention-based pooling).

    `sum_{i<j} a_ij e_i * e_j`, with `a = softmax(h . relu(W (e_i * e_j) + b))` over all pairs. The sum is taken as
    `sum_i e_i * sum_{j>i} a_ij e_j`, without the products.

    Args:
        attention_dim: width of the attention network; at least 1.

    Shapes:
        `(batch, fields, dim) -> (batch, dim)`

    Raises:
        ConfigError: fewer than two fields, or `attention_dim` below 1.

    >>> PairAttention()(ops.convert_to_tensor([[[1.0, 2.0], [3.0, 4.0]]])).numpy().tolist()  # the only pair weighs 1
    [[3.0, 8.0]]

    Reference: [Xiao et al., 2017](https://arxiv.org/abs/1708.04617), eq. 4-5.
    """

    def __init__(self, attention_dim: int = 16, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        require_count("attention_dim", attention_dim)
        self.attention_dim = attention_dim

    def build(self, input_shape: Shape) -> None:
        require_pairs(self.view_shape(input_shape))
        self.hidden = linear(self.attention_dim, activation="relu", dtype=self.dtype_policy)
        self.score = linear(1, use_bias=False, dtype=self.dtype_policy)
        self.hidden.build((None, None, input_shape[-1]))
        self.score.build((None, None, self.attention_dim))

    def call(self, fields: Tensor) -> Tensor:
        rows = list(rows_of_pairs(fields))
        scores = [self.score(self.hidden(first * rest)) for first, rest in rows]  # (batch, fields - 1 - i, 1) each
        total = ops.logsumexp(ops.concatenate(scores, axis=1), axis=1, keepdims=True)  # (batch, 1, 1)
        sums = [
            first * ops.sum(ops.exp(score - total) * rest, axis=1, keepdims=True)
            for score, (first, rest) in zip(scores, rows, strict=True)
        ]  # (batch, 1, dim) each
        return ops.sum(ops.concatenate(sums, axis=1), axis=1)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        batch, _, dim = self.view_shape(input_shape)
        return batch, dim
