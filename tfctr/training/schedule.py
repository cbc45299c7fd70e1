"""The learning-rate rule and early stopping of the papers' training loop."""

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeAlias

import keras
import numpy as np

from tfctr.errors import ConfigError, choose
from tfctr.optimizers import learning_rate_of

# A name in `MONITORS`.
Monitor: TypeAlias = Literal["auc", "log_loss", "auc_minus_log_loss"]

MONITORS: dict[str, Callable[[Mapping[str, float]], float]] = {
    "auc": lambda logs: logs["val_auc"],
    "log_loss": lambda logs: -logs["val_log_loss"],
    "auc_minus_log_loss": lambda logs: logs["val_auc"] - logs["val_log_loss"],
}


def paper_callbacks(
    monitor: Monitor = "auc",
    patience: int = 2,
    patience_from: int = 0,
    factor: float = 0.1,
    min_learning_rate: float = 1e-6,
    min_delta: float = 1e-6,
) -> list[keras.callbacks.Callback]:
    """The early stopping and learning-rate rule of both papers' code, for `model.fit(..., validation_data=..., callbacks=...)`.

    Arguments as in `PlateauSchedule`.

    >>> [type(callback).__name__ for callback in paper_callbacks(patience=3)]
    ['PlateauSchedule']
    """
    return [PlateauSchedule(monitor, patience, patience_from, factor, min_learning_rate, min_delta)]


class PlateauSchedule(keras.callbacks.Callback):
    """Each epoch without improvement lowers the learning rate; `patience` of them in a row end the training.

    An epoch improves when its monitored value exceeds the best so far by more than `min_delta`. One that does not multiplies
    the learning rate by `factor` (down to `min_learning_rate`) and counts one; an improvement sets the count back to 0. At a
    drop the weights and the optimizer's state stay as they are; at the end the weights of the best epoch come back. An
    undefined AUC (NaN) is never an improvement.

    Args:
        monitor: `"auc"` (exact validation AUC), `"log_loss"`, or both: `"auc_minus_log_loss"` (CETN).
        patience: epochs in a row without improvement that end the training.
        patience_from: the first epoch, counted from 1, that can lower the learning rate or count; before it only the best is
            kept. Not in the papers: with BatchNorm, validation may wobble in the first epochs.
        factor: what a drop multiplies the learning rate by.
        min_learning_rate: the learning rate is not lowered below this.
        min_delta: see above.

    Raises:
        ConfigError: an unknown monitor, an optimizer with a learning-rate schedule of its own, or `fit` without
            `validation_data`.

    Reference: FuxiCTR 2.0.1, `checkpoint_and_earlystop`, with which both papers' results were made.
    """

    best: float
    best_epoch: int | None
    best_weights: list[np.ndarray] | None
    stalled: int
    keeps_best = True  # its weights, in memory; without, the model at the end is the last one

    def __init__(
        self,
        monitor: Monitor = "auc",
        patience: int = 2,
        patience_from: int = 0,
        factor: float = 0.1,
        min_learning_rate: float = 1e-6,
        min_delta: float = 1e-6,
    ) -> None:
        super().__init__()
        self.value_of = choose(MONITORS, monitor, "monitor")
        self.patience = patience
        self.patience_from = patience_from
        self.factor = factor
        self.min_learning_rate = min_learning_rate
        self.min_delta = min_delta

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        assert self.model is not None
        optimizer = self.model.optimizer
        try:
            optimizer.learning_rate = learning_rate_of(optimizer) + 0.0  # a new object: TensorFlow would skip the same one
        except (TypeError, AttributeError) as error:  # Keras: of a LearningRateSchedule, of a function
            raise ConfigError(
                "the optimizer has a learning-rate schedule of its own, so this one cannot lower its rate.",
                fix="give it a number, such as learning_rate=0.001, or leave paper_callbacks out",
            ) from error
        self.best = -math.inf
        self.best_epoch = None
        self.best_weights = None
        self.stalled = 0

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        assert self.model is not None
        assert logs is not None  # Keras gives them after every epoch
        learning_rate = logs["learning_rate"] = learning_rate_of(self.model.optimizer)
        if "val_auc" not in logs:
            raise ConfigError(
                "there is no validation AUC to monitor.", fix="model.fit(..., validation_data=dataset.valid.batches(10_000))"
            )
        value = self.value_of(logs)
        if value > self.best + self.min_delta:
            self.best = value
            self.best_epoch = epoch + 1
            self.stalled = 0
            self.best_weights = self.model.get_weights() if self.keeps_best else None
        elif epoch + 1 >= self.patience_from:
            self.stalled += 1
            # A rate that starts below the floor stays where it is.
            self.model.optimizer.learning_rate = min(learning_rate, max(learning_rate * self.factor, self.min_learning_rate))
            if self.stalled >= self.patience:
                self.model.stop_training = True

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        if self.best_weights is not None:
            assert self.model is not None
            self.model.set_weights(self.best_weights)

    def get_state(self) -> dict[str, Any]:
        """What a checkpoint keeps of it."""
        best = self.best if self.best_epoch else None  # JSON knows no -inf
        return {"best": best, "best_epoch": self.best_epoch, "stalled": self.stalled, "best_weights": self.best_weights}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what `get_state` gave; the learning rate is the optimizer's."""
        self.best_epoch, self.stalled, self.best_weights = state["best_epoch"], state["stalled"], state["best_weights"]
        self.best = -math.inf if state["best"] is None else state["best"]
