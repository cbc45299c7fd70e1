"""What optimizers have in common that write the rows of a gradient only."""

from collections.abc import Sequence
from typing import Any

import keras

from tfctr.errors import ConfigError

DENSE_FIX = "set l2_scope='batch', or use optimizer='adam'"

_DENSE_OPTIONS = {
    "weight_decay": "embedding_l2 with l2_scope='batch'",
    "global_clipnorm": "clip_norm of model.compile",
    "use_ema": "the weights of the best epoch, which training keeps",
    "loss_scale_factor": "keras.optimizers.LossScaleOptimizer",
    "gradient_accumulation_steps": "a larger batch",
}


class RowSparse:
    """An optimizer that writes the rows of a sparse gradient only.

    Raises:
        ConfigError: an option of Keras' optimizers with which every row would be written at every step.
    """

    name: str  # of Keras' class, beside which this one stands
    dense_rows: int = 0  # tables of fewer rows are updated whole

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for option, instead in _DENSE_OPTIONS.items():
            if getattr(self, option):
                raise ConfigError(f"`{option}` of {self.name} would write every row at every step.", fix=f"use {instead}")

    def updates_rows(self, variable: keras.Variable) -> bool:
        """Whether a sparse gradient of this variable is applied to its rows only."""
        return variable.shape[0] >= self.dense_rows


def unwrap_loss_scaling(optimizer: Any) -> Any:
    """The optimizer behind a `LossScaleOptimizer`, or the optimizer itself."""
    return getattr(optimizer, "inner_optimizer", optimizer)


def updated_by_rows(optimizer: keras.optimizers.Optimizer, tables: Sequence[keras.Variable]) -> list[keras.Variable]:
    """Those of the variables `tables` that the optimizer updates by rows."""
    optimizer = unwrap_loss_scaling(optimizer)
    return [table for table in tables if isinstance(optimizer, RowSparse) and optimizer.updates_rows(table)]
