"""Optimizers whose cost is that of the rows a batch reads, and the gradient step that keeps gradients sparse and exact."""

from tfctr.errors import choose
from tfctr.optimizers.adagrad import SparseAdagrad
from tfctr.optimizers.adam import Adam, LazyAdam
from tfctr.optimizers.exact_lazy_adam import ExactLazyAdam
from tfctr.optimizers.ftrl import SparseFtrl
from tfctr.optimizers.gradients import global_norm, merge_duplicates, scale
from tfctr.optimizers.row_sparse import DENSE_FIX, unwrap_loss_scaling, updated_by_rows
from tfctr.optimizers.step import minimize, stop_on_non_finite

OPTIMIZERS = {
    "adam": Adam,
    "lazy_adam": LazyAdam,
    "exact_lazy_adam": ExactLazyAdam,
    "adagrad": SparseAdagrad,
    "ftrl": SparseFtrl,
}

ROWS_WORTH_SKIPPING = 300_000  # below, a fused pass over the whole table is as fast as reading and writing rows


def optimizer_named(name, learning_rate=0.001, table_l2=False):
    """A new optimizer by its name in `OPTIMIZERS`, or the one that `"auto"` stands for.

    `"auto"` has Adam's result at the lower cost: `ExactLazyAdam`, with small tables updated whole; and `Adam` where `table_l2`
    says that an L2 term moves every row at every step.

    Raises:
        ConfigError: an unknown name.

    >>> optimizer_named("auto", table_l2=True).name
    'adam'
    """
    if name == "auto":
        return Adam(learning_rate) if table_l2 else ExactLazyAdam(learning_rate, dense_rows=ROWS_WORTH_SKIPPING)
    return choose({**OPTIMIZERS, "auto": None}, name, "optimizer")(learning_rate)


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
    "merge_duplicates",
    "minimize",
    "optimizer_named",
    "scale",
    "stop_on_non_finite",
    "unwrap_loss_scaling",
    "updated_by_rows",
]
