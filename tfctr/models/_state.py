"""All that a training step of a model reads and writes, so that training can go on from there in another process."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np


def step_variables(model: Any) -> list[keras.Variable]:
    """The weights, the states of random generators, those of the optimizer, and the sums behind the logs of the epoch."""
    model._symbolic_build()  # of compiled metrics, which have no variables before the first step
    compiled = [] if model._compile_metrics is None else model._compile_metrics.variables
    logged = [variable for tracker in (*model.trackers, model.added) for variable in tracker.variables]
    variables = [*model.variables, *model.optimizer.variables, *logged, *compiled]
    return list({id(variable): variable for variable in variables}.values())


def adds_losses(model: Any) -> bool:
    """Whether a training step has found that layers add a loss, which is then logged."""
    return model._adds


def restore_step_variables(model: Any, values: Sequence[np.ndarray], adds: bool) -> None:
    """Put back what `step_variables` and `adds_losses` gave: rows that owe steps owe them still."""
    for variable, value in zip(step_variables(model), values, strict=True):
        variable.assign(value)
    model._adds = adds
    model._settled_at = None
