"""How good a model is on rows it has not seen."""

import logging
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfctr import metrics
from tfctr.data.encoding import Reading
from tfctr.data.separated import Layout
from tfctr.data.split import Split
from tfctr.data.staging import Wanted
from tfctr.errors import CalibrationError, ConfigError, require_number
from tfctr.evaluation.scoring import model_and_split, scored_table
from tfctr.models import CTRModel
from tfctr.schema import RawTable
from tfctr.training import Run
from tfctr.types import StrPath, Tensor

_LOG = logging.getLogger(__name__)


def evaluate(
    model: Run | CTRModel,
    split: Split | str | None = None,
    batch_size: int = 10_000,
    data: StrPath | None = None,
    *,
    table: RawTable | None = None,
    max_pcoc: float | None = None,
    memory_limit: str = "1GB",
    threads: int | None = None,
    separator: str | None = None,
    columns: Sequence[str] | None = None,
    missing: Sequence[str] = (),
    encoding: str | None = None,
) -> dict[str, Any]:
    """Exact AUC, gAUC, log loss and calibration of a run or model, on one split of a prepared dataset or on a raw table.

    Rows count by their weight where the dataset has weights. A metric that is not defined is NaN, never 0, and `undefined`
    says why. A log loss that is worse than a constant's is a logged warning.

    Args:
        model: a `tfctr.training.Run`, or a model.
        split: for a run, the name of a split of its dataset: `"train"`, `"valid"` or, the default, `"test"`; for a model, a
            split itself: `dataset.test`.
        batch_size: rows scored at a time.
        data: for a run, the folder of its dataset, if that is no longer where the run was trained; or one that `encode` has
            written by the same fit.
        table: in place of a split, a raw table with labels, as in `tfctr.prepare`: it is read by the model's fit, and nothing
            is learnt from it. What does not fit into memory lies in the folder for temporary files meanwhile.
        max_pcoc: how far `pcoc` may be from 1 beyond what chance makes of the number of clicks, such as 0.05: see
            `tfctr.metrics.pcoc_excess`.
        memory_limit, threads, separator, columns, missing, encoding: of the table, as in `tfctr.prepare`.

    Returns:
        A mapping: `auc`, `group_auc`, `log_loss`; `log_loss_of_constant`, that of the split's own click rate for every row;
        `click_rate`; `pcoc`, predicted over observed clicks; `ece`, the expected calibration error; `rows`, `groups_used`,
        `groups_left_out` (one class only); `undefined`, `{metric: reason}`; and `shares`, what the split has of each feature
        that the fit does not know: see `Split`, whose `findings` are logged as warnings.

    Raises:
        CalibrationError: `pcoc` is further from 1, or is not defined.
        ConfigError: no such split, one of another fit than the model, both a split and a table, or `max_pcoc` is below 0.
        DataError: a value of the table that cannot be read, or rows without labels.
        StorageError: the run's model or dataset is missing, corrupt, or not the one it was trained on.
    """
    if max_pcoc is not None:
        require_number("max_pcoc", max_pcoc, least=0)
    if table is not None:
        if split is not None:
            raise ConfigError("both a split and a table are given.", fix="leave one of them out")
        layout = Layout(separator, columns, missing, encoding)
        scored, found = scored_table(model, table, batch_size, data, Reading(Wanted(), layout, memory_limit, threads))
        where = "given table"
    else:
        model, split = model_and_split(model, split, data, default="test")
        labels = split.labels  # where there are none, it is said before any row is scored
        probabilities = model.predict(split.batches(batch_size, shuffle=False), verbose=0)
        scored = {"labels": labels, "probabilities": probabilities, "groups": split.groups, "weights": split.weights}
        found = {"shares": getattr(split, "shares", None), "findings": getattr(split, "findings", ())}
        where = f"{split.name} split"
    for finding in found["findings"]:
        _LOG.warning(finding)
    values = figures(**scored)
    if problem := metrics.worse_than_constant(values, scored["labels"]):
        _LOG.warning("worse than a constant on the %s: %s", where, problem)
    evaluated = {**values, "shares": found["shares"]}
    if max_pcoc is not None:
        clicks = int(np.sum(np.asarray(scored["labels"]) == 1))
        if problem := metrics.pcoc_excess(values["pcoc"], clicks, max_pcoc):
            raise CalibrationError(evaluated, problem)
    return evaluated


def figures(
    labels: Tensor, probabilities: Tensor, groups: Tensor | None = None, weights: Tensor | None = None
) -> dict[str, Any]:
    """The metrics of `evaluate` for given probabilities.

    >>> scores = figures([0, 1, 1], [0.1, 0.5, 0.2], groups=["a", "a", "b"])
    >>> scores["auc"], scores["group_auc"], scores["groups_used"], scores["groups_left_out"], scores["undefined"]
    (1.0, 1.0, 1, 1, {})
    """
    values = {
        "auc": metrics.auc(labels, probabilities, weights),
        "group_auc": math.nan,
        "log_loss": metrics.log_loss(labels, probabilities, weights),
        **metrics.constant_figures(labels, weights),
        "pcoc": metrics.calibration(labels, probabilities, weights),
        "ece": metrics.expected_calibration_error(labels, probabilities, weights),
        "rows": len(labels),
        "groups_used": 0,
        "groups_left_out": 0,
    }
    if groups is not None:
        grouped = metrics.group_auc_details(labels, probabilities, groups, weights)
        values |= {
            "group_auc": grouped.value,
            "groups_used": grouped.groups_used,
            "groups_left_out": grouped.groups_skipped,
        }
    reasons = {
        "auc": "the rows have one class only",
        "group_auc": "each group has one class only" if groups is not None else "the schema names no group column",
        "log_loss": "all weights are 0",
        "log_loss_of_constant": "all weights are 0",
        "click_rate": "all weights are 0",
        "pcoc": "there are no clicks",
        "ece": "all weights are 0",
    }
    return {**values, "undefined": {name: reason for name, reason in reasons.items() if math.isnan(values[name])}}
