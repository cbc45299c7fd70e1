"""Optimizers whose cost is that of the rows a batch reads, and the gradient step that keeps gradients sparse and exact."""

from collections.abc import Mapping
from typing import Any

import keras

from tfctr.errors import ConfigError, did_you_mean
from tfctr.optimizers.adagrad import SparseAdagrad
from tfctr.optimizers.adam import Adam, LazyAdam
from tfctr.optimizers.exact_lazy_adam import ExactLazyAdam
from tfctr.optimizers.ftrl import SparseFtrl
from tfctr.optimizers.gradients import LearningRate, global_norm, merge_duplicates, scale
from tfctr.optimizers.row_sparse import DENSE_FIX, unwrap_loss_scaling, updated_by_rows
from tfctr.optimizers.step import label_check, minimize, stop_on_non_finite

OPTIMIZERS = {
    "adam": Adam,
    "lazy_adam": LazyAdam,
    "exact_lazy_adam": ExactLazyAdam,
    "adagrad": SparseAdagrad,
    "ftrl": SparseFtrl,
}

ROWS_WORTH_SKIPPING = 300_000  # below, a fused pass over the whole table is as fast as reading and writing rows


def optimizer_named(
    optimizer: Any, learning_rate: LearningRate | None = None, table_l2: bool = False
) -> keras.optimizers.Optimizer:
    """An optimizer by its name: one of `OPTIMIZERS`, any of Keras', or the one that `"auto"` stands for.

    `"auto"` has Adam's result at the lower cost: `ExactLazyAdam`, with small tables updated whole; and `Adam` where `table_l2`
    says that an L2 term moves every row at every step. Keras' own optimizers (`"sgd"`, `"rmsprop"`, ...) update whole tables.

    Args:
        optimizer: a name; an optimizer, or the config of one, is taken as it is.
        learning_rate: None is 0.001, and for Keras' optimizers their own default.
        table_l2: whether an L2 term moves whole tables.

    Raises:
        ConfigError: an unknown name, or what is no optimizer.

    >>> optimizer_named("auto", table_l2=True).name
    'adam'
    >>> type(optimizer_named("sgd")).__name__
    'SGD'
    """
    if _is_optimizer_class(optimizer):
        optimizer = optimizer()
    if not isinstance(optimizer, str):
        if not isinstance(optimizer, keras.optimizers.Optimizer | dict):
            fix = 'give a name such as "adam", or an object such as keras.optimizers.SGD(0.1)'
            raise ConfigError(f"`optimizer` is {optimizer!r}.", fix=fix)
        return keras.optimizers.get(optimizer)
    if optimizer in OPTIMIZERS:
        return OPTIMIZERS[optimizer](0.001 if learning_rate is None else learning_rate)
    if optimizer == "auto":
        rate = 0.001 if learning_rate is None else learning_rate
        return Adam(rate) if table_l2 else ExactLazyAdam(rate, dense_rows=ROWS_WORTH_SKIPPING)
    stock = _keras_optimizers()
    if optimizer.lower() not in stock:
        fix = f"{did_you_mean(optimizer, {*OPTIMIZERS, 'auto', *stock})} Or give an optimizer object."
        raise ConfigError(f"Unknown optimizer {optimizer!r}.", fix=fix)
    return stock[optimizer.lower()](**({} if learning_rate is None else {"learning_rate": learning_rate}))


def learning_rate_of(optimizer: keras.optimizers.Optimizer) -> float:
    """The rate of the next step. `float(optimizer.learning_rate)` fails under a `tf.distribute` strategy of several devices.

    >>> round(learning_rate_of(optimizer_named("adam", 0.5)), 3)
    0.5
    """
    return float(keras.ops.convert_to_numpy(optimizer.learning_rate))


def _is_optimizer_class(given: Any) -> bool:
    return isinstance(given, type) and issubclass(given, keras.optimizers.Optimizer)


def _keras_optimizers() -> Mapping[str, Any]:
    """`{name: class}` of those of Keras, ours in the place of namesakes; not those that need others within them."""
    found = {name.lower(): cls for name, cls in vars(keras.optimizers).items() if isinstance(cls, type)}
    around = ("optimizer", "lossscaleoptimizer", "multioptimizer")
    stock = {name: cls for name, cls in found.items() if issubclass(cls, keras.optimizers.Optimizer) and name not in around}
    return stock | OPTIMIZERS


__all__ = [
    "DENSE_FIX",
    "OPTIMIZERS",
    "ROWS_WORTH_SKIPPING",
    "Adam",
    "ExactLazyAdam",
    "LazyAdam",
    "SparseAdagrad",
    "SparseFtrl",
    "global_norm",
    "label_check",
    "learning_rate_of",
    "merge_duplicates",
    "minimize",
    "optimizer_named",
    "scale",
    "stop_on_non_finite",
    "unwrap_loss_scaling",
    "updated_by_rows",
]
