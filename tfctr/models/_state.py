"""All that a training step of a model reads and writes, so that training can go on from there in another process."""

from collections.abc import Iterable
from typing import Any

import keras
import numpy as np


def step_variables(model: Any) -> list[keras.Variable]:
    """The weights, the states of random generators, those of the optimizer, and last the `log_variables`."""
    variables = [*model.variables, *model.optimizer.variables, *log_variables(model)]
    return list({id(variable): variable for variable in variables}.values())


def log_variables(model: Any) -> list[keras.Variable]:
    """The sums behind the logs of an epoch, which Keras sets back when one begins."""
    model._symbolic_build()  # compiled metrics have no variables before the first step
    compiled = [] if model._compile_metrics is None else model._compile_metrics.variables
    return [*(variable for tracker in (*model.trackers, model.added) for variable in tracker.variables), *compiled]


def adds_losses(model: Any) -> bool:
    """Whether a training step has found that layers add a loss, which is then logged."""
    return model._adds


def restore_step_variables(model: Any, values: Iterable[np.ndarray], adds: bool) -> None:
    """Put back what `step_variables` and `adds_losses` gave: rows that owe steps owe them still."""
    for variable, value in zip(step_variables(model), values, strict=True):
        variable.assign(value)
    model._adds = adds
    model._settled_at = None
