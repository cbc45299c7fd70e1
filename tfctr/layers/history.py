"""What a history says of its target: both are read together, token by token."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from tfctr.errors import ConfigError, require, require_one_of
from tfctr.layers.activations import ACTIVATIONS, Dice
from tfctr.layers.mlp import linear
from tfctr.layers.nested import Nested
from tfctr.layers.transformer import FieldTransformer
from tfctr.layers.views import HISTORY, TARGET, overflow_as_a_whole, require_floats, require_shape, shapes_of
from tfctr.types import Shape, Tensor


class HistoryLayer(Nested):
    """The base of the layers over `[history, target]`: refuses anything else before it is worked on.

    Padding is what Keras' mask of the history leaves out: that of `keras.layers.Embedding(mask_zero=True)` or of
    `FeatureEmbedding(unpooled=...)` comes by itself; `layer([history, target], mask=[present, None])` gives another one.

    Shapes:
        `[(batch, length, dim), (batch, dim)] -> (batch, units)`; the mask `(batch, length)`

    Raises:
        ConfigError: not two tensors of floats of these shapes, of one width.
    """

    def __call__(self, inputs: Sequence[Tensor], *args: Any, **kwargs: Any) -> Tensor:
        require_floats(self, *keras.tree.flatten(inputs))
        self.sizes(shapes_of(inputs))
        return super().__call__(inputs, *args, **kwargs)

    def sizes(self, shapes: Any) -> tuple[int | None, int, int]:
        """The batch, the length and the width of a history and its target of these shapes."""
        fix = "give it [history, target]: (batch, length, dim) and (batch, dim)"
        listed = isinstance(shapes, list | tuple) and len(shapes) == 2 and all(isinstance(s, list | tuple) for s in shapes)
        require(listed, f"{type(self).__name__} {self.name!r} takes two inputs. Received the shapes {shapes}.", fix=fix)
        batch, length, dim = require_shape(self, shapes[0], (HISTORY,), HISTORY[1:])
        _, width = require_shape(self, shapes[1], (TARGET,), TARGET[1:])
        problem = f"{type(self).__name__} {self.name!r}: the history is {dim} wide, its target {width}."
        require(dim == width, problem, fix="embed both by one table")
        return batch, length, dim

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> None:
        return None  # of a representation

    def read(self, inputs: Sequence[Tensor], mask: Any) -> tuple[Tensor, Tensor, Tensor]:
        """The history, its target, and which tokens of the history are no padding, `(batch, length)` bool."""
        history, target = inputs
        if self.compute_dtype == "float16":
            history, target = overflow_as_a_whole(history), overflow_as_a_whole(target)
        present = mask[0] if isinstance(mask, list | tuple) else mask
        return history, target, ops.ones_like(history[..., 0], dtype="bool") if present is None else ops.cast(present, "bool")


@keras.saving.register_keras_serializable("tfctr")
class TargetAttention(HistoryLayer):
    """The sum of a history's vectors, each weighted by a network that reads it beside the target (DIN's activation unit).

    `sum_j a([h_j, t, h_j - t, h_j * t]) h_j`, where `a` is an MLP that ends in one number. The weights are not normalized, so
    that many activities of one kind say more than one; padding weighs 0.

    Args:
        hidden_units: width of each hidden layer of the network; at least one.
        activation: a name in `ACTIVATIONS`. Dice's mean and variance leave padding out; on several devices, they are those
            of each one's rows.
        softmax: weights `softmax_j(a_j / sqrt(dim))` instead, as in the authors' code.

    Shapes:
        `[(batch, length, dim), (batch, dim)] -> (batch, dim)`; the mask `(batch, length)`

    Raises:
        ConfigError: an argument out of range, an unknown activation, or inputs of other shapes.

    >>> history, target = ops.ones((2, 5, 4)), ops.ones((2, 4))
    >>> tuple(TargetAttention([8])([history, target]).shape)
    (2, 4)

    Reference: [Zhou et al., 2018](https://arxiv.org/abs/1706.06978), section 4.3 and eq. 3.
    """

    def __init__(
        self, hidden_units: Sequence[int] = (80, 40), activation: str = "dice", softmax: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        widths = hidden_units if isinstance(hidden_units, list | tuple) else ()
        if not widths or not all(type(units) is int and units > 0 for units in widths):
            raise ConfigError(f"`hidden_units` is {hidden_units!r}.", fix="list the width of each hidden layer: [80, 40]")
        require_one_of(ACTIVATIONS, activation, "activation")
        self.hidden_units = tuple(hidden_units)
        self.activation = activation
        self.softmax = softmax

    def build(self, input_shape: Any) -> None:
        batch, length, dim = self.sizes(input_shape)
        self.dense = [linear(units, dtype=self.dtype_policy) for units in (*self.hidden_units, 1)]
        self.activations = [ACTIVATIONS[self.activation](dtype=self.dtype_policy) for _ in self.hidden_units]
        for dense, width in zip(self.dense, (4 * dim, *self.hidden_units), strict=True):
            dense.build((batch, length, width))
        for activation, units in zip(self.activations, self.hidden_units, strict=True):
            activation.build((batch, length, units))

    def call(self, inputs: Sequence[Tensor], training: bool | None = None, mask: Any = None) -> Tensor:
        history, target, present = self.read(inputs, mask)
        weights = self._weights(history, target, present, training)  # (batch, length)
        return ops.einsum("bl,bld->bd", weights, history)

    def weigh(self, inputs: Sequence[Tensor], mask: Any = None) -> Tensor:
        """What each vector of the history weighs, `(batch, length)`; 0 for padding."""
        return self._weights(*self.read(inputs, mask))

    def compute_output_shape(self, input_shape: Any) -> Shape:
        batch, _, dim = self.sizes(input_shape)
        return batch, dim

    def _weights(self, history: Tensor, target: Tensor, present: Tensor, training: bool | None = None) -> Tensor:
        target = ops.broadcast_to(target[:, None], ops.shape(history))
        x = ops.concatenate([history, target, history - target, history * target], axis=-1)  # (batch, length, 4 * dim)
        *hidden, last = self.dense
        for dense, activation in zip(hidden, self.activations, strict=True):
            x = dense(x)
            x = activation(x, mask=present, training=training) if isinstance(activation, Dice) else activation(x)
        scores = last(x)[..., 0]  # (batch, length)
        if self.softmax:
            scores = ops.where(present, ops.cast(scores, "float32") / history.shape[-1] ** 0.5, -1e9)
            scores = ops.cast(ops.softmax(scores), history.dtype)
        return scores * ops.cast(present, scores.dtype)


@keras.saving.register_keras_serializable("tfctr")
class HistoryTransformer(HistoryLayer):
    """Transformer layers over a history and its target, all of whose vectors are given side by side (BST).

    `x_j = h_j + p_j` for the history, `x = t + p_0` for the target behind it, then `FieldTransformer`, where nobody reads
    padding; its vectors are given as zeros. Positions `p` are learned and count back from the target: the last activity has
    position 1. The paper counts seconds, and has LeakyReLU in the place of ReLU.

    Args:
        num_layers, num_heads, hidden_dim, dropout: of the `FieldTransformer`; heads divide `dim`.

    Shapes:
        `[(batch, length, dim), (batch, dim)] -> (batch, (length + 1) * dim)`; the mask `(batch, length)`

    Raises:
        ConfigError: an argument out of range, or inputs of other shapes.

    >>> history, target = ops.ones((2, 5, 4)), ops.ones((2, 4))
    >>> tuple(HistoryTransformer(num_heads=2)([history, target]).shape)
    (2, 24)

    Reference: [Chen et al., 2019](https://arxiv.org/abs/1905.06874), section 2.2.
    """

    def __init__(
        self, num_layers: int = 1, num_heads: int = 1, hidden_dim: int = 64, dropout: float = 0.0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.num_layers = num_layers
        self.num_heads = num_heads
        self.hidden_dim = hidden_dim
        self.dropout = dropout
        self.transformer = FieldTransformer(num_layers, num_heads, hidden_dim, dropout, dtype=self.dtype_policy)

    def build(self, input_shape: Any) -> None:
        batch, length, dim = self.sizes(input_shape)
        self.transformer.build((batch, length + 1, dim))
        start = keras.initializers.RandomNormal(stddev=1e-4)  # as embeddings do
        self.positions = self.add_weight(name="positions", shape=(length + 1, dim), initializer=start)

    def call(self, inputs: Sequence[Tensor], training: bool = False, mask: Any = None) -> Tensor:
        history, target, present = self.read(inputs, mask)
        length = history.shape[1]
        behind = ops.flip(ops.cumsum(ops.flip(ops.cast(present, "int32"), axis=1), axis=1), axis=1)  # itself and later ones
        positions = ops.concatenate([behind, ops.zeros_like(behind[:, :1])], axis=1)  # (batch, length + 1)
        x = ops.concatenate([history, target[:, None]], axis=1)  # (batch, length + 1, dim)
        x += ops.matmul(ops.one_hot(positions, length + 1, dtype=x.dtype), ops.cast(self.positions, x.dtype))
        present = ops.concatenate([present, ops.ones_like(present[:, :1])], axis=1)  # (batch, length + 1)
        x = self.transformer.encode(x, ops.repeat(present[:, None], length + 1, axis=1), training)
        x *= ops.cast(present, x.dtype)[..., None]
        return ops.reshape(x, (-1, (length + 1) * history.shape[-1]))

    def compute_output_shape(self, input_shape: Any) -> Shape:
        batch, length, dim = self.sizes(input_shape)
        return batch, (length + 1) * dim
