"""Whether a difference is more than noise: paired tests, and the correction for many of them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

_DIGITS = 12  # behind the point: what is less is rounding, not a difference


def paired_t_test(ours: ArrayLike, theirs: ArrayLike) -> float:
    """The two-sided p-value of Student's paired test; NaN for fewer than two pairs, or if all differences are equal.

    `t = mean(d) / (std(d) / sqrt(n))` with n - 1 degrees of freedom, for differences d.

    >>> round(paired_t_test([0.81, 0.82, 0.83], [0.80, 0.80, 0.80]), 4)  # d = .01, .02, .03: t = 2 sqrt(3)
    0.0742
    """
    from scipy import stats

    differences = np.round(np.subtract(ours, theirs, dtype=np.float64), _DIGITS)
    if len(differences) < 2 or np.ptp(differences) == 0:
        return float("nan")
    result: Any = stats.ttest_1samp(differences, 0.0)  # scipy's types do not know what it holds
    return float(result.pvalue)


def wilcoxon_test(ours: ArrayLike, theirs: ArrayLike) -> float:
    """The two-sided p-value of Wilcoxon's signed-rank test; NaN where all differences are 0.

    It asks for no normal distribution. Of n pairs it is at least `2 / 2^n`: of five seeds 0.0625, whatever they say.

    >>> wilcoxon_test([2, 3, 4, 5, 6], [1, 1, 1, 1, 1])
    0.0625
    """
    from scipy import stats

    differences = np.round(np.subtract(ours, theirs, dtype=np.float64), _DIGITS)
    if not np.any(differences):
        return float("nan")
    result: Any = stats.wilcoxon(differences)
    return float(result.pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's correction: the p-values multiplied so that one false alarm among all of them is as rare as one of one test.

    In ascending order, the i-th of m is `max(p_1 m, p_2 (m - 1), ..., p_i (m - i + 1))`, at most 1. NaN stays, and is no test.

    Source: [Holm, 1979](https://www.jstor.org/stable/4615733).

    >>> [round(p, 6) for p in holm([0.01, 0.04, float("nan"), 0.03])]
    [0.03, 0.06, nan, 0.06]
    """
    values = np.asarray(p_values, np.float64)
    tests = np.flatnonzero(~np.isnan(values))
    order = tests[np.argsort(values[tests], kind="stable")]
    corrected = values.copy()
    factors = np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(values[order] * factors), 1)
    return corrected.tolist()
