"""Semantic spaces: products of the fields, noise on the fields, and the weighted sum of what was read in each space (CETN)."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from tfctr.errors import ConfigError, require_number
from tfctr.layers.mlp import linear
from tfctr.layers.nested import DTypeLike, Nested
from tfctr.layers.views import UnitsShape, ViewLayer, require_floats, require_representations, shapes_of
from tfctr.replicas import SeedGenerator
from tfctr.types import Shape, Tensor


@keras.saving.register_keras_serializable("tfctr")
class ElementwiseProducts(ViewLayer):
    """The element-wise product of each pair of fields, squares included: `e_i * e_j` for i <= j, in the order of (i, j).

    Shapes:
        `(batch, fields, dim) -> (batch, fields * (fields + 1) / 2, dim)`

    >>> ElementwiseProducts()(ops.convert_to_tensor([[[1.0, 2.0], [3.0, 4.0]]])).numpy().tolist()
    [[[1.0, 4.0], [3.0, 8.0], [9.0, 16.0]]]

    Reference: [CETN](https://arxiv.org/abs/2312.09715), eq. 9, 13.
    """

    needs = ("fields",)

    def call(self, fields: Tensor) -> Tensor:
        return ops.concatenate(_products(fields), axis=1)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        batch, fields, dim = self.view_shape(input_shape)
        return batch, fields * (fields + 1) // 2, dim


@keras.saving.register_keras_serializable("tfctr")
class InnerProducts(ViewLayer):
    """The inner product of each pair of fields, squared lengths included: `<e_i, e_j>` for i <= j, in the order of (i, j).

    These are the sums of `ElementwiseProducts` over the last axis: where those are at hand, sum them.

    Shapes:
        `(batch, fields, dim) -> (batch, fields * (fields + 1) / 2)`

    >>> InnerProducts()(ops.convert_to_tensor([[[1.0, 2.0], [3.0, 4.0]]])).numpy().tolist()
    [[5.0, 11.0, 25.0]]

    Reference: [CETN](https://arxiv.org/abs/2312.09715), eq. 9, 13.
    """

    needs = ("fields",)

    def call(self, fields: Tensor) -> Tensor:
        return ops.concatenate([ops.sum(products, axis=-1) for products in _products(fields)], axis=1)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        batch, fields, _ = self.view_shape(input_shape)
        return batch, fields * (fields + 1) // 2


def _products(fields: Tensor) -> list[Tensor]:
    """One tensor a field: its products with itself and with all fields behind it. Slices are cheaper than a gather."""
    return [fields[:, i : i + 1] * fields[:, i:] for i in range(fields.shape[1])]


@keras.saving.register_keras_serializable("tfctr")
class Perturbation(ViewLayer):
    """Noise that moves each component away from zero, in training only: `e + scale * u * sign(e)`, with `u ~ U(0, 1)`.

    Args:
        scale: of the noise; at least 0.
        seed: of the noise; None follows `keras.utils.set_random_seed`.

    Shapes:
        `(batch, ...) -> (batch, ...)`

    Raises:
        ConfigError: a negative `scale`.

    >>> Perturbation(scale=0.1)(ops.ones((1, 2))).numpy().tolist()
    [[1.0, 1.0]]

    Reference: [CETN](https://arxiv.org/abs/2312.09715), eq. 12, where `scale` is 1.
    """

    # The authors' code adds the noise to the products, scaled to a length of 1e-5, at evaluation too, and has it off in all
    # published results.

    takes = ()

    def __init__(self, scale: float = 1.0, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        require_number("scale", scale, least=0)
        self.scale = scale
        self.seed = seed
        self.seed_generator = SeedGenerator(seed)

    def call(self, fields: Tensor, training: bool = False) -> Tensor:
        if not training:
            return fields
        noise = keras.random.uniform(ops.shape(fields), dtype=fields.dtype, seed=self.seed_generator)
        return fields + self.scale * noise * ops.sign(fields)


@keras.saving.register_keras_serializable("tfctr")
class SpaceFusion(Nested):
    """The logit of several spaces: the sum of linear heads, each times the weight of its space.

    `logit = sum_i K_i * (w_i . V_i + b_i)`; without weights, all `K_i` are 1. All of it is float32 under every policy.

    Args:
        shared_projection: whether all spaces share one `w` and `b`.

    Shapes:
        `[(batch, units), ...], [(batch, 1), ...] or None -> (batch, 1)`

    Raises:
        ConfigError: no space, not one weight a space, or a shared projection of unequal widths.

    >>> values, weights = [ops.ones((2, 3)), ops.ones((2, 4))], [ops.ones((2, 1)), ops.ones((2, 1))]
    >>> tuple(SpaceFusion()(values, weights).shape)
    (2, 1)

    Reference: [CETN](https://arxiv.org/abs/2312.09715), eq. 11 and 17. As in the authors' code, each space has its own `w` and
    `b` by default; eq. 17 shares them.
    """

    explains = "fusion_weights"

    def __init__(self, shared_projection: bool = False, dtype: DTypeLike = "float32", **kwargs: Any) -> None:
        super().__init__(dtype=dtype, **kwargs)
        self.shared_projection = shared_projection

    def build(self, values_shape: Sequence[Shape], weights_shape: Sequence[Shape] | None = None) -> None:
        widths = [units for _, units in self._require_spaces_alike(values_shape, weights_shape)]
        if self.shared_projection and len(set(widths)) > 1:
            raise ConfigError(f"the spaces are {widths} units wide.", fix="a shared projection needs equal widths")
        heads = [linear(1, dtype=self.dtype_policy) for _ in (widths[:1] if self.shared_projection else widths)]
        for head, shape in zip(heads, values_shape, strict=False):
            head.build(shape)
        self.heads = heads * len(widths) if self.shared_projection else heads

    def __call__(self, values: Sequence[Tensor], weights: Sequence[Tensor] | None = None, **kwargs: Any) -> Tensor:
        require_floats(self, *keras.tree.flatten([values, weights or []]))
        self._require_spaces_alike(shapes_of(values), weights and shapes_of(weights), needs=())
        return super().__call__(values, weights, **kwargs)

    def compute_output_shape(self, values_shape: Sequence[Shape], weights_shape: Sequence[Shape] | None = None) -> Shape:
        (batch, _), *_ = self._require_spaces_alike(values_shape, weights_shape)
        return batch, 1

    def call(self, values: Sequence[Tensor], weights: Sequence[Tensor] | None = None) -> Tensor:
        logits = [head(value) for head, value in zip(self.heads, values, strict=True)]  # (batch, 1) each
        if weights is not None:
            logits = [weight * logit for weight, logit in zip(weights, logits, strict=True)]
        return sum(logits)

    def _require_spaces_alike(self, values: Any, weights: Any, needs: Sequence[str] = ("units",)) -> list[UnitsShape]:
        shapes = require_representations(self, values, needs=needs)
        if weights is not None and len(weights) != len(shapes):
            raise ConfigError(f"{len(shapes)} spaces and {len(weights)} weights.", fix="give one weight a space")
        for _, width in require_representations(self, weights) if weights is not None else ():
            if width != 1:
                raise ConfigError(f"a weight is {width} units wide.", fix="give one number a row: (batch, 1)")
        return shapes

    def weigh(self, values_and_weights: Sequence[Tensor]) -> Tensor:
        """The weight of each space, `(batch, spaces)`, from `[*values, *weights]`; ones without weights."""
        weights = values_and_weights[len(self.heads) :] or [ops.ones_like(value[:, :1]) for value in values_and_weights]
        return ops.concatenate([ops.cast(weight, self.compute_dtype) for weight in weights], axis=-1)
