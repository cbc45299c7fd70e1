"""Feed-forward blocks that multiply by a mask made from the instance (MaskNet)."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from tfctr.errors import ConfigError, require_one_of
from tfctr.layers.dropout import Dropout
from tfctr.layers.mlp import linear
from tfctr.layers.normalization import FieldNormalization, layer_normalization
from tfctr.layers.views import UnitsShape, ViewLayer
from tfctr.types import Shape, Tensor

ARRANGEMENTS = {"serial": lambda outputs: outputs[-1], "parallel": lambda outputs: ops.concatenate(outputs, axis=-1)}


@keras.saving.register_keras_serializable("tfctr")
class MaskBlocks(ViewLayer):
    """Blocks that multiply their input, feature by feature, by a mask made from all fields, and then project it.

    `block(x) = relu(norm(W (mask(v) * x)))`, `mask(v) = W_2 relu(W_1 v + b_1) + b_2`, `v` the fields side by side.

    In series, the first block reads the normalized fields, each other block the one before. In parallel, all blocks read the
    normalized fields, and the representation is their concatenation.

    Args:
        hidden_units: width of each block; at least one.
        arrangement: `"serial"` or `"parallel"`.
        reduction_ratio: width of a mask's hidden layer for each unit of the mask.
        dropout: share of a block's units dropped in training, in [0, 1).
        field_norms: whether the norm of each field has a gain and a bias of its own, as in FuxiCTR. The paper's eq. 9 does not
            say. One gain for all is no less, as the block's projection follows; one bias for all is: the ratio of bias to gain
            is that of all fields.

    Shapes:
        `(batch, fields, dim) -> (batch, hidden_units[-1])`, or `(batch, sum(hidden_units))` in parallel

    Raises:
        ConfigError: an unknown arrangement, an empty or non-positive width or ratio.

    >>> tuple(MaskBlocks((8, 5))(ops.ones((2, 3, 4))).shape)
    (2, 5)
    >>> tuple(MaskBlocks((8, 5), arrangement="parallel")(ops.ones((2, 3, 4))).shape)
    (2, 13)

    Reference: [Wang et al., 2021](https://arxiv.org/abs/2102.07619), eq. 5-15.
    """

    def __init__(
        self,
        hidden_units: Sequence[int],
        arrangement: str = "serial",
        reduction_ratio: float = 2.0,
        dropout: float = 0.0,
        field_norms: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        require_one_of(ARRANGEMENTS, arrangement, "arrangement")
        if not hidden_units or min(hidden_units) < 1 or reduction_ratio <= 0:
            raise ConfigError(
                f"`hidden_units` is {hidden_units}, `reduction_ratio` {reduction_ratio}.",
                fix="list the width of each block, and use a ratio above 0",
            )
        self.hidden_units = tuple(hidden_units)
        self.arrangement = arrangement
        self.reduction_ratio = reduction_ratio
        self.dropout = dropout
        self.field_norms = field_norms

    def build(self, input_shape: Shape) -> None:
        _, fields, dim = self.view_shape(input_shape)
        policy = self.dtype_policy
        self.flatten = keras.layers.Flatten(dtype=policy)
        # Eq. 9 normalizes each field by itself.
        self.norm = FieldNormalization(dtype=policy) if self.field_norms else layer_normalization(dtype=policy)
        self.norm.build(input_shape)
        self.blocks = []
        width = fields * dim
        for units in self.hidden_units:
            block = MaskBlock(units, self.reduction_ratio, self.dropout, dtype=policy)
            block.build([(None, fields * dim), (None, width)])
            self.blocks.append(block)
            width = units if self.arrangement == "serial" else width

    def call(self, fields: Tensor, training: bool = False) -> Tensor:
        instance = self.flatten(fields)  # (batch, fields * dim)
        normalized = hidden = self.flatten(self.norm(fields))
        outputs = []
        for block in self.blocks:
            outputs.append(block([instance, hidden], training=training))
            hidden = outputs[-1] if self.arrangement == "serial" else normalized
        return ARRANGEMENTS[self.arrangement](outputs)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        batch, _, _ = self.view_shape(input_shape)
        return batch, self.hidden_units[-1] if self.arrangement == "serial" else sum(self.hidden_units)


@keras.saving.register_keras_serializable("tfctr")
class MaskBlock(keras.layers.Layer):
    """One block: `[(batch, instance), (batch, width)] -> (batch, units)`."""

    def __init__(self, units: int, reduction_ratio: float, dropout: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units
        self.reduction_ratio = reduction_ratio
        self.dropout = dropout

    def build(self, input_shape: Sequence[UnitsShape]) -> None:
        instance, (_, width) = input_shape
        policy = self.dtype_policy
        aggregated = max(1, int(self.reduction_ratio * width))
        self.aggregate = linear(aggregated, activation="relu", dtype=policy)
        self.project = linear(width, dtype=policy)
        self.feed_forward = linear(self.units, use_bias=False, dtype=policy)
        self.norm = layer_normalization(dtype=policy)
        self.drop = Dropout(self.dropout, dtype=policy)
        self.aggregate.build(instance)
        self.project.build((None, aggregated))
        self.feed_forward.build((None, width))
        self.norm.build((None, self.units))

    def call(self, inputs: Sequence[Tensor], training: bool = False) -> Tensor:
        instance, hidden = inputs
        mask = self.project(self.aggregate(instance))  # (batch, width)
        return self.drop(ops.relu(self.norm(self.feed_forward(mask * hidden))), training=training)
