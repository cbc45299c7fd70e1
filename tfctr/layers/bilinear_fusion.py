"""Fusion by the products of two representations (FinalMLP)."""

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from tfctr.errors import ConfigError
from tfctr.layers.fusion import Fusion
from tfctr.layers.views import UnitsShape
from tfctr.types import Tensor


@keras.saving.register_keras_serializable("tfctr")
class BilinearFusion(Fusion):
    """`logit = simple + complex + sum over heads of s_h . W_h c_h`, each representation cut into `num_heads` equal parts.

    Args:
        num_heads: divides the units of both representations; 1 multiplies every pair of units.

    Raises:
        ConfigError: heads that do not divide a representation.

    >>> BilinearFusion(num_heads=2)([ops.ones((1, 4)), ops.ones((1, 6))])["logit"].shape
    TensorShape([1, 1])

    Reference: [Mao et al., 2023](https://arxiv.org/abs/2304.00902), figure 1c.
    """

    def __init__(self, num_heads: int = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_heads = num_heads

    def build(self, input_shape: Sequence[UnitsShape]) -> None:
        super().build(input_shape)
        widths = [shape[1] for shape in input_shape]
        if self.num_heads < 1 or any(width % self.num_heads for width in widths):
            raise ConfigError(f"{self.num_heads} heads do not divide {widths} units.", fix="use a common divisor")
        parts = [width // self.num_heads for width in widths]
        # As wide as a linear layer over all products, which is how the released code starts it.
        start = keras.initializers.RandomNormal(stddev=math.sqrt(2.0 / (self.num_heads * math.prod(parts) + 1)))
        self.products = self.add_weight(name="products", shape=(self.num_heads, *parts), initializer=start)

    def fuse(self, logits: Tensor, representations: Sequence[Tensor], training: bool) -> Tensor:
        simple, complex_ = (ops.reshape(x, (-1, self.num_heads, x.shape[1] // self.num_heads)) for x in representations)
        bilinear = ops.einsum("bhi,hij->bhj", simple, self.products) * complex_  # (batch, heads, part)
        return ops.sum(logits, axis=-1, keepdims=True) + ops.sum(bilinear, axis=(1, 2))[:, None]
