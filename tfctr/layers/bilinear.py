"""Bilinear interactions, and the weighing of fields before them."""

from typing import Any

import keras
from keras import ops

from tfctr.errors import require_count, require_one_of
from tfctr.layers.interactions import require_pairs, rows_of_pairs
from tfctr.layers.mlp import linear
from tfctr.layers.views import ViewLayer
from tfctr.types import Shape, Tensor

# How many matrices there are, a list entry for each first field that has its own.
KINDS = {
    "all": lambda firsts: [1],
    "each": lambda firsts: [1] * firsts,
    "interaction": lambda firsts: range(firsts, 0, -1),
    "hadamard": lambda firsts: [],
}


@keras.saving.register_keras_serializable("tfctr")
class SqueezeExcitation(ViewLayer):
    """Each field times a weight that all fields decide (FiBiNET's SENET layer).

    `v_i = a_i e_i`, with `a = relu(W_2 relu(W_1 z))` and `z_i` the mean of field `i`'s components.

    Args:
        reduction: how many times narrower than the number of fields the layer between is; at least 1.

    Shapes:
        `(batch, fields, dim) -> (batch, fields, dim)`

    Raises:
        ConfigError: `reduction` is below 1.

    >>> tuple(SqueezeExcitation()(ops.ones((2, 3, 4))).shape)
    (2, 3, 4)

    Reference: [Huang et al., 2019](https://arxiv.org/abs/1905.09433), eq. 1-3.
    """

    def __init__(self, reduction: int = 3, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        require_count("reduction", reduction)
        self.reduction = reduction

    def build(self, input_shape: Shape) -> None:
        _, fields, _ = self.view_shape(input_shape)
        reduced = max(1, fields // self.reduction)
        options = {"activation": "relu", "use_bias": False, "dtype": self.dtype_policy}
        self.squeeze = linear(reduced, **options)
        self.excite = linear(fields, **options)
        self.squeeze.build((None, fields))
        self.excite.build((None, reduced))

    def call(self, fields: Tensor) -> Tensor:
        weights = self.excite(self.squeeze(ops.mean(fields, axis=-1)))  # (batch, fields)
        return fields * weights[..., None]


@keras.saving.register_keras_serializable("tfctr")
class BilinearInteraction(ViewLayer):
    """The element-wise products of all pairs of fields, the first of each pair turned by a matrix.

    `p_ij = (e_i W) * e_j` for `i < j`

    Args:
        kind: which pairs share a `W`: `"all"` of them, `"each"` first field's, none (`"interaction"`); or there is none
            (`"hadamard"`).

    Shapes:
        `(batch, fields, dim) -> (batch, fields * (fields - 1) / 2 * dim)`

    Raises:
        ConfigError: an unknown kind, or fewer than two fields.

    >>> BilinearInteraction("hadamard")(ops.convert_to_tensor([[[1.0, 2.0], [3.0, 4.0]]])).numpy().tolist()
    [[3.0, 8.0]]

    Reference: [Huang et al., 2019](https://arxiv.org/abs/1905.09433), eq. 4-6.
    """

    def __init__(self, kind: str = "interaction", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        require_one_of(KINDS, kind, "kind of bilinear interaction")
        self.kind = kind

    def build(self, input_shape: Shape) -> None:
        view_shape = self.view_shape(input_shape)
        require_pairs(view_shape)
        _, fields, dim = view_shape
        self.matrices = [
            self.add_weight(
                name=f"matrix_{row}",
                shape=(count, dim, dim),
                initializer=keras.initializers.RandomNormal(stddev=dim**-0.5),  # Glorot's, for each matrix
            )
            for row, count in enumerate(KINDS[self.kind](fields - 1))
        ]
        self.flatten = keras.layers.Flatten(dtype=self.dtype_policy)

    def call(self, fields: Tensor) -> Tensor:
        rows = [self.turn(i, first) * rest for i, (first, rest) in enumerate(rows_of_pairs(fields))]
        return self.flatten(ops.concatenate(rows, axis=1))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        batch, fields, dim = self.view_shape(input_shape)
        return batch, fields * (fields - 1) // 2 * dim

    def turn(self, i: int, first: Tensor) -> Tensor:
        """Field `i` as it meets the fields behind it: `(batch, 1, dim)`, or `(batch, fields - 1 - i, dim)`, one for each."""
        if self.kind == "hadamard":
            return first
        return ops.einsum("bd,jde->bje", first[:, 0], self.matrices[0 if self.kind == "all" else i])
