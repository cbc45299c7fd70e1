"""Encoders without weights of their own, but for a bias: first order, second order."""

from collections.abc import Iterator
from typing import Any

import keras
from keras import ops

from tfctr.errors import ConfigError
from tfctr.layers.nested import DTypeLike
from tfctr.layers.views import ViewLayer, ViewShape
from tfctr.types import Shape, Tensor


@keras.saving.register_keras_serializable("tfctr")
class LinearTerms(ViewLayer):
    """The sum of all components of a view, plus one bias.

    Over a table one unit wide this is logistic regression. Computed in float32 under every policy: it is a logit.

    Shapes:
        `(batch, fields, dim) -> (batch, 1)`

    >>> LinearTerms()(ops.ones((2, 3, 4))).numpy().tolist()
    [[12.0], [12.0]]
    """

    needs = ()

    def __init__(self, dtype: DTypeLike = "float32", **kwargs: Any) -> None:
        super().__init__(dtype=dtype, **kwargs)

    def build(self, input_shape: Shape) -> None:
        self.view_shape(input_shape)
        self.bias = self.add_weight(name="bias", shape=(1,), initializer="zeros")

    def call(self, fields: Tensor) -> Tensor:
        return ops.sum(fields, axis=(1, 2))[:, None] + self.bias

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        batch, _, _ = self.view_shape(input_shape)
        return batch, 1


@keras.saving.register_keras_serializable("tfctr")
class BiInteraction(ViewLayer):
    """The sum of the element-wise products of all pairs of fields, in time linear in the fields.

    `sum_{i<j} e_i * e_j = ((sum_i e_i)^2 - sum_i e_i^2) / 2`. Computed in float32 under every policy: a difference of large
    numbers.

    Shapes:
        `(batch, fields, dim) -> (batch, dim)`

    >>> BiInteraction()(ops.convert_to_tensor([[[1.0, 2.0], [3.0, 4.0]]])).numpy().tolist()
    [[3.0, 8.0]]

    Reference: [He and Chua, 2017](https://arxiv.org/abs/1708.05027), eq. 3-4.
    """

    needs = ()

    def __init__(self, dtype: DTypeLike = "float32", **kwargs: Any) -> None:
        super().__init__(dtype=dtype, **kwargs)

    def call(self, fields: Tensor) -> Tensor:
        square_of_sum = ops.square(ops.sum(fields, axis=1))  # (batch, dim)
        sum_of_squares = ops.sum(ops.square(fields), axis=1)  # (batch, dim)
        return 0.5 * (square_of_sum - sum_of_squares)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        batch, _, dim = self.view_shape(input_shape)
        return batch, dim


@keras.saving.register_keras_serializable("tfctr")
class FactorizationMachine(BiInteraction):
    """The sum of the inner products of all pairs of fields, in time linear in the fields.

    `sum_{i<j} <e_i, e_j> = (|sum_i e_i|^2 - sum_i |e_i|^2) / 2`. It holds the second order only; for the first order, add
    `LinearTerms` of a table one unit wide. Computed in float32 under every policy: a logit, and a difference of large numbers.

    Shapes:
        `(batch, fields, dim) -> (batch, 1)`

    >>> FactorizationMachine()(ops.ones((1, 3, 4))).numpy().tolist()  # three pairs, four components
    [[12.0]]

    Reference: [Rendle, 2010](https://doi.org/10.1109/ICDM.2010.127).
    """

    def call(self, fields: Tensor) -> Tensor:
        return ops.sum(super().call(fields), axis=-1, keepdims=True)  # (batch, 1)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        batch, _, _ = self.view_shape(input_shape)
        return batch, 1


def require_pairs(view_shape: ViewShape) -> None:
    """Refuse a view without a pair of fields."""
    _, fields, _ = view_shape
    if fields < 2:
        raise ConfigError(f"{fields} field has no pairs.", fix="use a model without interactions, or two fields")


def rows_of_pairs(fields: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Each field but the last, and all fields behind it: `(batch, 1, dim)` and `(batch, fields - 1 - i, dim)`, one by one.

    Splits what the last split left: the gradient of a split is one concatenation, that of a slice is as large as all fields.
    """
    for _ in range(fields.shape[1] - 1):
        first, fields = ops.split(fields, [1], axis=1)
        yield first, fields
