"""What `compile` is given: a loss on logits, and Keras' metrics on probabilities."""

from collections.abc import Collection
from typing import Any

import keras

from tfctr import losses
from tfctr.errors import ConfigError, choose, require_number
from tfctr.losses import LOSSES
from tfctr.models._graph import PREDICTION, embeddings_of
from tfctr.optimizers import DENSE_FIX, unwrap_loss_scaling, updated_by_rows

# What Keras calls these losses; its own of these names read probabilities.
_KERAS_LOSSES = {
    "binary_crossentropy": losses.LogLoss,
    "bce": losses.LogLoss,
    "BinaryCrossentropy": losses.LogLoss,
    "binary_focal_crossentropy": losses.FocalLoss,
    "BinaryFocalCrossentropy": losses.FocalLoss,
}
_FUNCTIONS = {
    losses.log_loss: losses.LogLoss,
    losses.focal: losses.FocalLoss,
    losses.robust_cross_entropy: losses.RobustCrossEntropy,
    keras.losses.binary_crossentropy: losses.LogLoss,
    keras.losses.binary_focal_crossentropy: losses.FocalLoss,
}
_ON_LOGITS = (keras.losses.BinaryCrossentropy, keras.losses.BinaryFocalCrossentropy)
_ON_SCORES = (keras.losses.Hinge, keras.losses.SquaredHinge)
_EXACT = ("loss", "log_loss", "auc")  # what `evaluate` gives by itself


def require_compile_arguments(clip_norm: float | None, jit_compile: bool | str | None, loss_weights: Any) -> None:
    """Raise `ConfigError` for an argument of `compile` that cannot be."""
    if isinstance(clip_norm, list | tuple | dict):  # what comes third in Keras
        raise ConfigError(f"`clip_norm` is {clip_norm!r}.", fix="name what comes after the loss: compile(..., metrics=[...])")
    if clip_norm is not None:
        require_number("clip_norm", clip_norm, least=0)
    if jit_compile not in (False, None, "auto"):
        raise ConfigError("`jit_compile` is True: XLA cannot merge duplicate ids.", fix="leave it out")
    if loss_weights is not None:
        raise ConfigError("`loss_weights` are given.", fix="weigh the auxiliary losses by their own arguments")


def require_one_step(steps_per_execution: int, strategy: Any) -> None:
    """Raise `ConfigError` for several steps in one call on several devices: Keras' loop around them fails there."""
    if steps_per_execution != 1 and strategy.num_replicas_in_sync > 1:
        problem = f"`steps_per_execution` is {steps_per_execution}, and there are {strategy.num_replicas_in_sync} devices."
        raise ConfigError(problem, fix="leave it out: under a tf.distribute strategy each step is a call of its own")


def require_optimizer(model: Any, optimizer: keras.optimizers.Optimizer) -> None:
    """Raise `ConfigError` for rows that nothing brings up to date, or that move though they are frozen."""
    inner = unwrap_loss_scaling(optimizer)
    if model.table_l2 and updated_by_rows(optimizer, model.tables):
        problem = f"{inner.name} moves the rows of a batch, and embedding_l2 all rows of the tables."
        raise ConfigError(problem, fix=DENSE_FIX)
    by_itself = [option for option in ("weight_decay", "use_ema") if getattr(inner, option, None)]
    by_itself += ["Ftrl"] if isinstance(inner, keras.optimizers.Ftrl) and not updated_by_rows(optimizer, model.tables) else []
    if by_itself and any(embedding.frozen for embedding in embeddings_of(model)):
        problem = f"{by_itself[0]} of {inner.name} moves rows without a gradient, and some are frozen."
        raise ConfigError(problem, fix='use "adam", "exact_lazy_adam", "lazy_adam", "adagrad", "ftrl" or "sgd"')


def loss_on_logits(loss: Any) -> keras.losses.Loss:
    """The `keras.losses.Loss` that `compile(loss=...)` means. Raises `ConfigError` for what reads no logits."""
    if isinstance(loss, dict) and set(loss) == {PREDICTION}:
        loss = loss[PREDICTION]
    if isinstance(loss, str):
        return choose(LOSSES | _KERAS_LOSSES, loss, "loss")()
    if isinstance(loss, type) and issubclass(loss, keras.losses.Loss):
        loss = loss()
    loss = next((cls() for function, cls in _FUNCTIONS.items() if loss is function), loss)
    fix = 'give "log_loss" or another name, or a keras.losses.Loss with call(labels, logits)'
    if not isinstance(loss, keras.losses.Loss):
        if isinstance(loss, dict):
            fix = "give the loss of the prediction alone; other heads have theirs in `CTRModel(..., auxiliary={...})`"
        raise ConfigError(f"`loss` is {loss!r}.", fix=fix)
    kind = type(loss).__name__
    if not getattr(loss, "from_logits", True):
        fix = f'use keras.losses.{kind}(from_logits=True), or loss="log_loss"'
        raise ConfigError(f"the loss {kind} reads probabilities, and the model gives logits.", fix=fix)
    if type(loss).__module__.startswith("keras.") and not isinstance(loss, _ON_LOGITS + _ON_SCORES):
        fix = 'use loss="log_loss", or keras.losses.BinaryCrossentropy(from_logits=True)'
        raise ConfigError(f"the loss {kind} is not for the logit of a click.", fix=fix)
    if loss.reduction not in ("sum_over_batch_size", "mean", "none", None):
        fix = "leave `reduction` out: each loss term is the mean over the rows"
        raise ConfigError(f"the loss has the reduction {loss.reduction!r}.", fix=fix)
    return loss


def metrics_on_probabilities(metrics: Any, terms: Collection[str]) -> list[Any] | None:
    """The metrics of `compile` as a list, or None. Raises `ConfigError` for one that cannot be used.

    Args:
        metrics: what the user gave.
        terms: names of the loss terms, which the same log shows.
    """
    if isinstance(metrics, dict) and set(metrics) == {PREDICTION}:
        metrics = metrics[PREDICTION]
    if metrics is None:
        return None
    if isinstance(metrics, dict):
        raise ConfigError(f"`metrics` are of {sorted(metrics)}.", fix="give a list: they are of the prediction")
    metrics = keras.tree.flatten(metrics)
    for metric in metrics:
        _require_metric(metric, terms)
    return metrics


def _require_metric(metric: Any, terms: Collection[str]) -> None:
    """Raise `ConfigError` for what is no metric of probabilities, or has a name that is taken."""
    if metric in ("ce", "crossentropy", "acc", "accuracy"):  # Keras chooses by the shapes
        return
    try:
        found: Any = keras.metrics.get(metric)
    except ValueError as error:
        fix = 'give a name such as "AUC" or "BinaryAccuracy", or an object of keras.metrics'
        raise ConfigError(f"there is no metric {metric!r}.", fix=fix) from error
    options = found.get_config() if isinstance(found, keras.metrics.Metric) else {}
    if options.get("from_logits"):
        raise ConfigError(f"the metric {found.name!r} reads logits.", fix="leave `from_logits` out: it gets probabilities")
    name = metric if isinstance(metric, str) else getattr(found, "name", getattr(found, "__name__", None))
    # Keras' AUC is an approximation of what `evaluate` gives under the same name; its area under precision and recall is not.
    approximates = isinstance(found, keras.metrics.AUC) and options["curve"] == "ROC" and not options["multi_label"]
    if name in (*_EXACT, *terms) and not (name == "auc" and approximates):
        fix = f"give it another name, such as keras.metrics.{type(found).__name__}(..., name='my_{name}')"
        raise ConfigError(f"the name {name!r} of a metric is taken.", fix=fix)
