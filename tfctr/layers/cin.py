"""The compressed interaction network."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from tfctr.errors import ConfigError, require_count
from tfctr.layers.views import ViewLayer
from tfctr.types import Shape, Tensor


@keras.saving.register_keras_serializable("tfctr")
class CIN(ViewLayer):
    """Crosses of whole fields, one degree more in every layer, pooled over their components (xDeepFM).

    `x[k]_h = sum_i sum_j W[k]_hij x[k-1]_i * x[0]_j`, where `x[0]` are the fields and `*` is element-wise; the output is the
    sum over the components of every `x[k]_h`. It is computed as `sum_j (sum_i W[k]_hij x[k-1]_i) * x[0]_j`, one field `j` after
    the other, so that the products of all `i` and `j` never stand side by side.

    Args:
        units: feature maps of each layer; at least one layer.

    Shapes:
        `(batch, fields, dim) -> (batch, sum(units))`

    Raises:
        ConfigError: `units` are not a list of whole numbers of at least 1.

    >>> tuple(CIN([6, 5])(ops.ones((2, 3, 4))).shape)
    (2, 11)

    Reference: [Lian et al., 2018](https://arxiv.org/abs/1803.05170), eq. 6-8, with all feature maps passed on and pooled, and
    no activation, as the paper finds best.
    """

    def __init__(self, units: Sequence[int] = (100, 100, 100), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not isinstance(units, list | tuple) or not units:
            raise ConfigError(f"`units` is {units!r}.", fix="list the feature maps of each layer: [100, 100]")
        for layer, maps in enumerate(units):
            require_count(f"units[{layer}]", maps)
        self.units = tuple(units)

    def build(self, input_shape: Shape) -> None:
        _, fields, _ = self.view_shape(input_shape)
        before = fields
        self.kernels = []
        for layer, units in enumerate(self.units):
            shape = (fields * before, units)
            self.kernels.append(self.add_weight(name=f"kernel_{layer}", shape=shape, initializer="glorot_normal"))
            before = units

    def call(self, fields: Tensor) -> Tensor:
        count = fields.shape[1]
        maps = ops.transpose(fields, (0, 2, 1))  # (batch, dim, fields)
        firsts = ops.split(maps, count, axis=-1)  # (batch, dim, 1) each
        pooled = []
        for kernel in self.kernels:
            weights = ops.split(kernel, count, axis=0)  # (maps before, maps) each
            maps = sum(_cross(first, maps, weight) for first, weight in zip(firsts, weights, strict=True))
            pooled.append(ops.sum(maps, axis=1))  # (batch, maps)
        return ops.concatenate(pooled, axis=-1)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        batch, _, _ = self.view_shape(input_shape)
        return batch, sum(self.units)


# Computed again in the backward pass: kept for it, each layer's `fields` products would fill as much as all `i` and `j`.
@keras.remat
def _cross(first: Tensor, maps: Tensor, weight: Tensor) -> Tensor:
    """The products of one field with all weighted sums of the maps: `(batch, dim, maps)`."""
    return first * ops.matmul(maps, weight)
