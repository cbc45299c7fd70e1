"""Exact metrics of click predictions, in NumPy.

All take one value a row, shape `(rows,)` or `(rows, 1)`: labels 0 or 1, scores or probabilities, and optional non-negative
weights. A metric that is not defined is NaN, never 0, so that it cannot be taken for a bad result. Input that cannot be right
(unequal lengths, a label that is neither 0 nor 1, a NaN score, no rows) is a `DataError`.

Ranking metrics sort one integer a row, `group << 32 | score << 1 | label`: the bits of a float32 in [0, 1] are in the order of
its value, so scores need no index sort. Other scores are replaced by their dense ranks first: slower, equally exact.
"""

import logging
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from tfctr.errors import DataError, require_count

_LOG = logging.getLogger(__name__)

# The authors' code clips here. In float32 it makes the largest probability 1 - 2^-23; our arithmetic is float64.
SMALLEST_PROBABILITY = 1e-7
_DEVIATIONS = 3  # of the number of clicks, which is drawn by chance: what is within is no fault of a model


def auc(labels: ArrayLike, scores: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Area under the ROC curve: how often a click is ranked above a non-click.

    `AUC = sum over pairs w_i w_j ([s_i > s_j] + [s_i = s_j] / 2) / sum over pairs w_i w_j`, for clicks i and non-clicks j.

    Exact: no thresholds, ties count one half. NaN, and a logged warning, when all rows with weight have one label.

    >>> auc([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])
    0.75
    >>> auc([1, 1], [0.1, 0.4])
    nan
    """
    labels, scores, weights = _checked_columns(labels, scores, weights)
    value = _auc_of_blocks(_tied_blocks(_sort_keys(labels, scores), weights)).auc[0]
    if np.isnan(value):
        _LOG.warning("AUC is not defined: the %d rows have one class only.", len(labels))
    return float(value)


class GroupAUC(NamedTuple):
    """A grouped AUC, the number of groups it is a mean of, and the number left out because they have one class only."""

    value: float
    groups_used: int
    groups_skipped: int


def group_auc(labels: ArrayLike, scores: ArrayLike, groups: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Grouped AUC (gAUC): the AUC within each group, averaged with the rows of each group as weight.

    `gAUC = sum over groups n_g AUC_g / sum over groups n_g`, over the groups (users) that have clicks and non-clicks;
    with `weights`, n_g is the sum of the group's weights. NaN, and a logged warning, when there is no such group.

    >>> group_auc([0, 1, 0, 0, 1, 1], [0.1, 0.2, 0.6, 0.5, 0.5, 0.9], ["a", "a", "b", "b", "b", "c"])  # (2 * 1 + 3 * 0.25) / 5
    0.55
    """
    return group_auc_details(labels, scores, groups, weights).value


def group_auc_details(labels: ArrayLike, scores: ArrayLike, groups: ArrayLike, weights: ArrayLike | None = None) -> GroupAUC:
    """The same as `group_auc`, as a `GroupAUC` that says how many groups count.

    >>> group_auc_details([0, 1, 1], [0.1, 0.2, 0.9], ["a", "a", "b"])
    GroupAUC(value=1.0, groups_used=1, groups_skipped=1)
    """
    each = auc_by_group(labels, scores, groups, weights)
    used = ~np.isnan(each.auc)
    if not used.any():
        _LOG.warning("Grouped AUC is not defined: each of the %d groups has one class only.", len(used))
        return GroupAUC(float("nan"), 0, len(used))
    value = np.average(each.auc[used], weights=each.weight[used])
    return GroupAUC(float(value), int(used.sum()), int((~used).sum()))


class AUCByGroup(NamedTuple):
    """The AUC of each group, in the order of the sorted groups, NaN for one class only; and its rows, or its weight."""

    auc: np.ndarray
    weight: np.ndarray


def auc_by_group(labels: ArrayLike, scores: ArrayLike, groups: ArrayLike, weights: ArrayLike | None = None) -> AUCByGroup:
    """The AUC within each group, of which `group_auc` is the weighted mean.

    >>> each = auc_by_group([0, 1, 0, 0, 1, 1], [0.1, 0.2, 0.6, 0.5, 0.5, 0.9], ["a", "a", "b", "b", "b", "c"])
    >>> each.auc.tolist(), each.weight.tolist()
    ([1.0, 0.25, nan], [2, 3, 1])
    """
    labels, scores, weights = _checked_columns(labels, scores, weights)
    codes = group_codes(_column(groups, "groups", len(labels)))
    return _auc_of_blocks(_tied_blocks(_sort_keys(labels, scores, codes), weights))


def group_codes(groups: np.ndarray) -> np.ndarray:
    """A whole number in [0, 2^31) for each distinct value of `groups`, in sorted order.

    >>> group_codes(np.array(["b", "a", "b"])).tolist()
    [1, 0, 1]
    """
    if np.issubdtype(groups.dtype, np.integer) and len(groups):
        least = groups.min()
        if int(groups.max()) - int(least) < 2**31:
            return groups.astype(np.int64) - least.astype(np.int64)
    try:
        return np.unique(groups, return_inverse=True)[1]
    except TypeError as error:
        raise DataError(f"groups cannot be sorted: {error}.", fix="give numbers, or text without nulls") from error


def log_loss(labels: ArrayLike, probabilities: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Mean negative log likelihood, natural logarithm: `-mean(y ln(p) + (1 - y) ln(1 - p))`.

    Probabilities are clipped to [1e-7, 1 - 1e-7], as in the code of the papers, so that one certain error is not infinite.

    >>> round(log_loss([0, 1], [0.2, 0.5]), 6)  # (-ln 0.8 - ln 0.5) / 2
    0.458145
    """
    labels, probabilities, weights = _checked_columns(labels, probabilities, weights)
    _require_probabilities(probabilities)
    clipped = np.clip(probabilities.astype(np.float64), SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY)
    return _mean(-np.log(np.where(labels, clipped, 1 - clipped)), weights)


def click_rate(labels: ArrayLike, weights: ArrayLike | None = None) -> float:
    """The share of clicks: `sum of the clicks' weights / sum of weights`.

    >>> click_rate([0, 1, 0, 1], weights=[3, 1, 0, 0])
    0.25
    """
    labels, _, weights = _checked_columns(labels, labels, weights)
    return _mean(labels.astype(np.float64), weights)


def constant_figures(labels: ArrayLike, weights: ArrayLike | None = None) -> dict[str, float]:
    """What the best constant probability, the click rate of these rows, achieves on them.

    `log_loss_of_constant = -(r ln(r) + (1 - r) ln(1 - r))`: a model whose log loss is larger is worth less than the rate alone.

    >>> constant_figures([0, 1, 0, 1])
    {'click_rate': 0.5, 'log_loss_of_constant': 0.6931471805599453}
    """
    rate = click_rate(labels, weights)
    entropy = -sum(share * math.log(share) for share in (rate, 1 - rate) if share) + 0.0
    return {"click_rate": rate, "log_loss_of_constant": entropy}


_FEW = 30  # clicks, or non-clicks: the constant knows their rate, and no model can


def worse_than_constant(figures: Mapping[str, float], labels: ArrayLike | None = None) -> str | None:
    """Why a model is useless: one sentence if its `log_loss` is above its `log_loss_of_constant`, else None.

    With the `labels` of the rows it also says where they have too few of one class to tell.

    >>> worse_than_constant({"log_loss": 0.6931, "log_loss_of_constant": 0.47651})
    'the log loss is 0.6931, and 0.47651 for a constant click rate'
    >>> worse_than_constant({"log_loss": 0.6931, "log_loss_of_constant": 0.47651}, [0, 1, 0])
    'the log loss is 0.6931, and 0.47651 for a constant click rate (1 of these 3 rows are clicks: too few to tell)'
    """
    found, constant = (figures.get(name) for name in ("log_loss", "log_loss_of_constant"))
    if found is None or constant is None or not found > constant:
        return None
    return f"the log loss is {found:.6g}, and {constant:.6g} for a constant click rate{_too_few(labels)}"


def _too_few(labels: ArrayLike | None) -> str:
    """The end of the sentence where a class has few rows; nothing where both have enough, or no labels are known."""
    values = np.ravel(() if labels is None else labels)
    clicks = np.count_nonzero(values)
    others = len(values) - clicks
    if not len(values) or min(clicks, others) >= _FEW:
        return ""
    return f" ({clicks:,} of these {len(values):,} rows are clicks: too few to tell)"


def calibration(labels: ArrayLike, probabilities: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Predicted over observed click-through rate (PCOC): 1 is calibrated, above 1 promises too many clicks; NaN without clicks.

    >>> calibration([0, 1, 0, 1], [0.1, 0.5, 0.2, 0.8])
    0.8
    """
    labels, probabilities, weights = _checked_columns(labels, probabilities, weights)
    _require_probabilities(probabilities)
    observed = _mean(labels.astype(np.float64), weights)
    return _mean(probabilities.astype(np.float64), weights) / observed if observed > 0 else float("nan")


def expected_calibration_error(
    labels: ArrayLike, probabilities: ArrayLike, weights: ArrayLike | None = None, bins: int = 20
) -> float:
    """Expected calibration error (ECE): how far mean predictions are from click rates, over bins of the predictions.

    `ECE = sum over bins W_b |mean p_b - mean y_b| / sum over bins W_b`, with the weights W_b of the bins' rows. The bins hold
    equally many rows; equal predictions are in one bin, so that the order of rows does not matter.

    Raises `ConfigError` for `bins` below 1.

    Source: [Naeini et al., 2015](https://ojs.aaai.org/index.php/AAAI/article/view/9602), with bins of equal rows in place of
    equal widths, since click rates are small.

    >>> round(expected_calibration_error([0, 1, 0, 1], [0.1, 0.1, 0.8, 0.8], bins=2), 6)  # (2 |0.1 - 0.5| + 2 |0.8 - 0.5|) / 4
    0.35
    """
    _, excess, weight = _calibration_bins(labels, probabilities, weights, bins)
    return float(np.abs(excess).sum() / weight.sum()) if weight.any() else float("nan")


def calibration_curve(
    labels: ArrayLike, probabilities: ArrayLike, weights: ArrayLike | None = None, bins: int = 20
) -> dict[str, np.ndarray]:
    """The bins of `expected_calibration_error` that have rows: means `predicted` and `observed`, and their `weight`.

    >>> {name: values.tolist() for name, values in calibration_curve([0, 1, 0, 1], [0.1, 0.1, 0.8, 0.8], bins=2).items()}
    {'predicted': [0.1, 0.8], 'observed': [0.5, 0.5], 'weight': [2.0, 2.0]}
    """
    sums = _calibration_bins(labels, probabilities, weights, bins)
    predicted, excess, weight = sums[:, sums[2] > 0]
    return {"predicted": predicted / weight, "observed": (predicted - excess) / weight, "weight": weight}


def _calibration_bins(labels: ArrayLike, probabilities: ArrayLike, weights: ArrayLike | None, bins: int) -> np.ndarray:
    """The sums of the predictions of each bin, of the predictions less the labels, and of the weights, `(3, bins)`."""
    require_count("bins", bins)
    labels, probabilities, weights = _checked_columns(labels, probabilities, weights)
    _require_probabilities(probabilities)
    values = probabilities.astype(np.float64)
    edges = np.quantile(values, np.arange(1, bins) / bins, method="inverted_cdf")
    bin_of = np.searchsorted(edges, values, side="left")
    weighted = np.ones(len(values)) if weights is None else weights
    return np.stack([np.bincount(bin_of, weighted * part, bins) for part in (values, values - labels, 1.0)])


def pcoc_excess(pcoc: float, clicks: int, most: float = 0.0) -> str | None:
    """Why predicted clicks are no longer the observed ones: one sentence if PCOC is outside of `1 / (1 + a)` and `1 + a`, with
    `a = most + 3 / sqrt(clicks)`, or NaN, as there are no clicks; else None.

    The second part of `a` is chance's: about one sample of 370 is further away.

    Args:
        most: how far it may be, beyond chance.

    >>> pcoc_excess(0.95, 1000) is None, pcoc_excess(0.77, 1000)
    (True, 'predicted over observed clicks is 0.77 on 1,000 clicks, further from 1 than 0.09487')
    """
    if math.isnan(pcoc):
        return "predicted over observed clicks is not defined: there are no clicks"
    allowed = most + _DEVIATIONS / math.sqrt(clicks)
    if 1 / (1 + allowed) <= pcoc <= 1 + allowed:
        return None
    return f"predicted over observed clicks is {pcoc:.4g} on {clicks:,} clicks, further from 1 than {allowed:.4g}"


def relative_improvement(auc: float, base_auc: float) -> float:
    """RelaImpr: how much more of the distance to a random ranking, as a fraction: `(auc - 0.5) / (base_auc - 0.5) - 1`.

    CETN, Eq. 22, prints it in percent. NaN when the base is a random ranking.

    >>> round(relative_improvement(0.816, 0.812), 6)  # + 1.28 %
    0.012821
    """
    return (auc - 0.5) / (base_auc - 0.5) - 1 if base_auc != 0.5 else float("nan")


def without_nan(value: Any) -> Any:
    """The same plain data with None for NaN, what is not defined: JSON has no NaN.

    >>> without_nan({"auc": [0.5, float("nan")]})
    {'auc': [0.5, None]}
    """
    if isinstance(value, dict):
        return {key: without_nan(child) for key, child in value.items()}
    if isinstance(value, list):
        return [without_nan(child) for child in value]
    return None if isinstance(value, float) and math.isnan(value) else value


# what a user passes, checked once


def is_positive(labels: ArrayLike) -> np.ndarray:
    """Which labels are 1. Raises `DataError` for one that is neither 0 nor 1, with its row."""
    values = _column(labels, "labels")
    positive = values == 1
    _require_no_row(~(positive | (values == 0)), values, "labels must be 0 or 1")
    return positive


def _checked_columns(
    labels: ArrayLike, scores: ArrayLike, weights: ArrayLike | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Which labels are 1, the scores and the weights, `(rows,)` each. Raises `DataError` for what cannot be right."""
    positive = is_positive(labels)
    scores = _column(scores, "scores", len(positive))
    if len(positive) == 0:
        raise DataError("a metric of no rows is not defined.", fix="check that the table or split is not empty")
    if not np.issubdtype(scores.dtype, np.floating):
        scores = _as_numbers(scores, "scores")
    _require_no_row(np.isnan(scores), scores, "scores must be numbers")
    if weights is not None:
        weights = _as_numbers(_column(weights, "weights", len(positive)), "weights")
        _require_no_row(~((weights >= 0) & (weights < np.inf)), weights, "weights must be finite and not negative")
    return positive, scores, weights


def _column(given: ArrayLike, name: str, rows: int | None = None) -> np.ndarray:
    values = np.asarray(given)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1 or rows not in (None, len(values)):
        expected = "(rows,) or (rows, 1)" if rows is None else f"({rows},) or ({rows}, 1)"
        raise DataError(f"`{name}` has the shape {values.shape}.", fix=f"give one value a row, shape {expected}")
    return values


def _as_numbers(values: np.ndarray, name: str) -> np.ndarray:
    try:
        return values.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"`{name}` are not numbers: {error}.", fix="give one number a row") from error


def _require_probabilities(values: np.ndarray) -> None:
    _require_no_row((values < 0) | (values > 1), values, "probabilities must lie in [0, 1]")


def _require_no_row(wrong: np.ndarray, values: np.ndarray, rule: str) -> None:
    """Raise `DataError`, with the first row and the rule that it breaks, where a row is `wrong`."""
    if wrong.any():
        row = int(np.argmax(wrong))
        count = int(wrong.sum())
        value = values[row : row + 1].tolist()[0]
        raise DataError(f"{rule}; row {row} holds {value!r}.", fix=f"correct the rows like it: {count} of {len(wrong)}")


# ranking


class _Blocks(NamedTuple):
    """Rows with equal group and score, merged, in ascending order: the group, the weight of clicks and of non-clicks."""

    group: np.ndarray
    positive: np.ndarray
    negative: np.ndarray


def _sort_keys(positive: np.ndarray, scores: np.ndarray, groups: np.ndarray | None = None) -> np.ndarray:
    keys = (_ordered_codes(scores) << 1) | positive
    return keys if groups is None else (groups.astype(np.uint64) << 32) | keys


def _ordered_codes(scores: np.ndarray) -> np.ndarray:
    """Whole numbers in [0, 2^31), as uint32, in the order of the scores."""
    if scores.dtype == np.float32 and scores.min() >= 0 and scores.max() <= 1:
        return (scores + np.float32(0)).view(np.uint32)  # adding 0 turns -0 into 0
    return np.unique(scores, return_inverse=True)[1].astype(np.uint32)


def _tied_blocks(keys: np.ndarray, weights: np.ndarray | None) -> _Blocks:
    order = None if weights is None else np.argsort(keys)
    keys = np.sort(keys) if weights is None else keys[order]
    starts = _starts(keys >> 1)
    clicks = keys & 1
    if weights is None:  # whole numbers: exact, and faster
        positive = np.add.reduceat(clicks, starts, dtype=np.int64)
        negative = np.diff(starts, append=len(keys)) - positive
    else:
        positive = np.add.reduceat(weights[order] * clicks, starts)
        negative = np.add.reduceat(weights[order] * (1 - clicks), starts)
    return _Blocks(keys[starts].astype(np.uint64) >> 32, positive, negative)


def _auc_of_blocks(blocks: _Blocks) -> AUCByGroup:
    starts = _starts(blocks.group)
    positive = np.add.reduceat(blocks.positive, starts)
    negative = np.add.reduceat(blocks.negative, starts)
    below = np.cumsum(blocks.negative) - blocks.negative  # non-clicks with a smaller score, those of earlier groups included
    below -= np.repeat(below[starts], np.diff(starts, append=len(below)))
    wins = np.add.reduceat(blocks.positive * (below + blocks.negative / 2), starts)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = np.where((positive > 0) & (negative > 0), wins / (positive * negative), np.nan)
    return AUCByGroup(value, positive + negative)


def _starts(values: np.ndarray) -> np.ndarray:
    """Where each run of equal values begins."""
    return np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]]))


def _mean(values: np.ndarray, weights: np.ndarray | None) -> float:
    if weights is not None and not weights.any():
        return float("nan")
    return float(np.average(values, weights=weights))
