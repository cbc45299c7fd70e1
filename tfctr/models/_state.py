"""What training reads and writes of a model, so that it can go on in another process, or with another model."""

import json
from collections.abc import Iterable
from typing import Any

import keras
import numpy as np

_NO_ARGUMENTS = {"schema", "name", "trainable", "nested", "dtype", "graph", "embeddings"}


def arguments_of(model: Any) -> dict[str, Any]:
    """The arguments that a model is made of, its schema and any graph of its own left out, as plain data to compare."""
    return _plain({name: value for name, value in model.get_config().items() if name not in _NO_ARGUMENTS})


def settings_of(model: Any) -> dict[str, Any]:
    """What a step of a compiled model follows from, beside its weights and the learning rate, as plain data to compare."""
    return _plain(
        {
            "arguments": arguments_of(model),
            "loss": keras.losses.serialize(model.ctr_loss),
            "clip_norm": model.clip_norm,
            "optimizer": keras.optimizers.serialize(model.optimizer),
            "steps_per_execution": model.steps_per_execution,
        }
    )


def _plain(value: Any) -> Any:
    """Plain data without the names that Keras counts up, where classes lie, and the learning rate of the moment."""
    if isinstance(value, dict):
        moving = ("name", "module", "learning_rate")
        return {key: _plain(child) for key, child in value.items() if key not in moving or isinstance(child, dict)}
    if isinstance(value, list | tuple):
        return [_plain(child) for child in value]
    return json.loads(json.dumps(value, default=str))


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
