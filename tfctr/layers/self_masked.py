"""Cross networks at half the weights: one half of the crosses is the other half, where a mask lets it through (FCN)."""

from typing import Any

import keras
from keras import ops

from tfctr.errors import ConfigError, require_count, require_number
from tfctr.layers.dropout import Dropout
from tfctr.layers.mlp import linear
from tfctr.layers.normalization import batch_normalization, layer_normalization
from tfctr.layers.views import UnitsShape, ViewLayer
from tfctr.types import Shape, Tensor


class SelfMaskedSteps(ViewLayer):
    """The base of both networks: `x[l+1] = dropout(y * ([c, c * relu(norm(c))] + b[l]) + x[l])`, with `c = W[l] x[l]`.

    What `y` is, `crossed` says. Each head reads a share of the components of all fields. Of its share of a field the first half
    is multiplied by `c`, the second half by the masked `c`. The weights are those of all heads, as in the authors' code, and
    the representation is the mean of the heads: a linear logit of it is the mean of their logits.

    Raises:
        ConfigError: an argument out of range, or a `dim` that is not a multiple of `2 * num_heads`.
    """

    def __init__(
        self,
        num_layers: int = 3,
        num_heads: int = 1,
        dropout: float = 0.0,
        layer_norm: bool = True,
        batch_norm: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        require_count("num_layers", num_layers)
        require_count("num_heads", num_heads)
        require_number("dropout", dropout, 0, 0.99)
        self.num_layers = num_layers
        self.num_heads = num_heads
        self.dropout = dropout
        self.layer_norm = layer_norm
        self.batch_norm = batch_norm

    def build(self, input_shape: Shape) -> None:
        _, units = self.compute_output_shape(input_shape)
        policy = self.dtype_policy
        steps = range(self.num_layers)
        self.crosses = [linear(units // 2, use_bias=False, dtype=policy) for _ in steps]
        # As the released code starts them: 1 + b is what a component is multiplied by before there are any crosses.
        start = keras.initializers.RandomUniform(0.0, 1.0)
        self.biases = [self.add_weight(name=f"bias_{step}", shape=(units,), initializer=start) for step in steps]
        self.batch_norms = [batch_normalization(axis=1, dtype=policy) for _ in steps] if self.batch_norm else []
        self.layer_norms = [layer_normalization(dtype=policy) for _ in steps] if self.layer_norm else []
        self.dropouts = [Dropout(self.dropout, dtype=policy) for _ in steps]
        for cross in self.crosses:
            cross.build((None, self.num_heads, units))
        for layer in (*self.batch_norms, *self.layer_norms):
            layer.build((None, self.num_heads, units // 2))

    def call(self, fields: Tensor, training: bool = False) -> Tensor:
        x0 = x = self.heads(fields)  # (batch, heads, units)
        for step in range(self.num_layers):
            cross = self.crosses[step](x)  # (batch, heads, units / 2)
            if self.batch_norm:
                cross = self.batch_norms[step](cross, training=training)
            mask = ops.relu(self.layer_norms[step](cross) if self.layer_norm else cross)
            crosses = ops.concatenate([cross, cross * mask], axis=-1)  # (batch, heads, units)
            x = self.crossed(x0, x) * (crosses + ops.cast(self.biases[step], crosses.dtype)) + x
            x = self.dropouts[step](x, training=training)
        return ops.mean(x, axis=1)

    def heads(self, fields: Tensor) -> Tensor:
        """The share of each head, its first half of all fields before the second: `(batch, heads, units)`."""
        _, count, dim = fields.shape
        halves = ops.reshape(fields, (-1, count, self.num_heads, 2, dim // (2 * self.num_heads)))
        halves = ops.transpose(halves, (0, 2, 3, 1, 4))  # (batch, heads, 2, fields, dim / heads / 2)
        return ops.reshape(halves, (-1, self.num_heads, count * dim // self.num_heads))

    def compute_output_shape(self, input_shape: Shape) -> UnitsShape:
        batch, fields, dim = self.view_shape(input_shape)
        if dim % (2 * self.num_heads):
            raise ConfigError(
                f"{type(self).__name__} {self.name!r} halves the {dim} components of a field for {self.num_heads} heads.",
                fix=f"give it a view whose dim is a multiple of {2 * self.num_heads}",
            )
        return batch, fields * dim // self.num_heads

    def crossed(self, x0: Tensor, x: Tensor) -> Tensor:
        """What the crosses of a step multiply, `(batch, heads, units)`."""
        raise NotImplementedError


@keras.saving.register_keras_serializable("tfctr")
class LinearCrossNetwork(SelfMaskedSteps):
    """Self-masked crosses with the first input: their degree grows by one a layer (LCN).

    `x[l+1] = x[0] * ([c, c * relu(norm(c))] + b[l]) + x[l]`, `c = W[l] x[l]`

    Args:
        num_layers: how many crossing steps; at least 1.
        num_heads: into how many shares the components of each field are divided; the widths of all heads add up to `dim`.
        dropout: share of the components dropped after each step in training, in [0, 0.99].
        layer_norm: whether the mask reads `c` normalized.
        batch_norm: whether `c` is normalized first: one mean and variance a head, over rows and components.

    Shapes:
        `(batch, fields, dim) -> (batch, fields * dim / num_heads)`

    Raises:
        ConfigError: an argument out of range, or a `dim` that is not a multiple of `2 * num_heads`.

    >>> tuple(LinearCrossNetwork(num_layers=2)(ops.ones((8, 3, 4))).shape)
    (8, 12)

    Reference: [Li et al., 2024](https://arxiv.org/abs/2407.13349), LCN and self-mask.
    """

    def crossed(self, x0: Tensor, x: Tensor) -> Tensor:
        return x0


@keras.saving.register_keras_serializable("tfctr")
class ExponentialCrossNetwork(SelfMaskedSteps):
    """Self-masked crosses with the last input: their degree doubles with each layer (ECN).

    `x[l+1] = x[l] * ([c, c * relu(norm(c))] + b[l]) + x[l]`, `c = W[l] x[l]`

    Arguments, shapes and errors are those of `LinearCrossNetwork`.

    >>> tuple(ExponentialCrossNetwork(num_layers=2, num_heads=2)(ops.ones((8, 3, 4))).shape)
    (8, 6)

    Reference: [Li et al., 2024](https://arxiv.org/abs/2407.13349), ECN and self-mask.
    """

    def crossed(self, x0: Tensor, x: Tensor) -> Tensor:
        return x
