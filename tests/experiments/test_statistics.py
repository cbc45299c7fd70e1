"""`tfctr.experiments.statistics`: beside formulas worked by hand, and by trying every case."""

import itertools
import math

import numpy as np
import pytest

from tfctr.experiments.statistics import holm, paired_t_test, wilcoxon_test


def test_students_test_of_two_pairs_is_that_of_cauchys_distribution():
    """With one degree of freedom t has Cauchy's distribution: p = 1 - 2 / pi * atan(t)."""
    t = 3.0  # mean 3, standard deviation sqrt(2), of two: 3 / (sqrt(2) / sqrt(2))
    assert paired_t_test([2.0, 4.0], [0.0, 0.0]) == pytest.approx(1 - 2 / math.pi * math.atan(t), rel=1e-12)


def test_students_test_of_three_pairs():
    """With two: p = 1 - t / sqrt(2 + t^2)."""
    t = math.sqrt(12)
    assert paired_t_test([1.0, 2.0, 3.0], [0.0, 0.0, 0.0]) == pytest.approx(1 - t / math.sqrt(2 + t * t), rel=1e-12)


@pytest.mark.parametrize(
    ("ours", "theirs"), [([1.0], [0.5]), ([1.0, 2.0], [0.5, 1.5]), ([0.8, 0.9, 0.3], [0.7, 0.8, 0.2]), ([], [])]
)
def test_what_students_test_says_nothing_of(ours, theirs):
    assert math.isnan(paired_t_test(ours, theirs))


def test_a_difference_of_none_has_no_rank():
    assert math.isnan(wilcoxon_test([1.0, 2.0], [1.0, 2.0]))
    assert math.isnan(wilcoxon_test([0.1 + 0.2, 0.7], [0.3, 0.7]))


@pytest.mark.parametrize("seed", range(3))
def test_wilcoxon_is_the_share_of_signs_that_are_as_far_off(seed):
    differences = np.random.default_rng(seed).normal(0.3, 1, 7)
    ranks = np.argsort(np.argsort(np.abs(differences))) + 1
    found = ranks[differences > 0].sum()
    sums = [sum(rank for rank, sign in zip(ranks, signs, strict=True) if sign) for signs in itertools.product((0, 1), repeat=7)]
    lower, upper = np.mean([total <= found for total in sums]), np.mean([total >= found for total in sums])
    assert wilcoxon_test(differences, np.zeros(7)) == pytest.approx(min(1, 2 * min(lower, upper)), rel=1e-12)


def test_holm_by_his_rule():
    """Step down: while the smallest p times the tests left is below the level, it is rejected."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        values = rng.random(5) ** 3
        corrected, level = holm(values.tolist()), 0.05
        left, rejected = sorted(range(5), key=lambda place: values[place]), set()
        while left and values[left[0]] * len(left) < level:
            rejected.add(left.pop(0))
        assert {place for place in range(5) if corrected[place] < level} == rejected


def test_holm_of_nothing_and_of_no_test():
    assert holm([]) == []
    assert math.isnan(holm([math.nan])[0])
