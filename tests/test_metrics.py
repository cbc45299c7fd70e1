"""Exact metrics against values by hand, every pair of rows, and scikit-learn."""

import logging
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import log_loss as sklearn_log_loss
from sklearn.metrics import roc_auc_score

from tfctr import metrics
from tfctr.errors import ConfigError, DataError

# few distinct values, so that ties are common; zeros of both signs, numbers outside [0, 1], infinities
SCORES = st.sampled_from([-math.inf, -2.5, -0.0, 0.0, 1e-40, 0.1, 0.25, 0.5, 1.0, 7.0, math.inf])
WEIGHTS = st.sampled_from([0.0, 0.5, 1.0, 3.25])
ROWS = st.lists(st.tuples(st.booleans(), SCORES, st.integers(0, 3), WEIGHTS), min_size=1, max_size=40)


def pairs_auc(labels, scores, weights):
    """The definition, pair by pair."""
    wins = total = 0.0
    for label_i, score_i, weight_i in zip(labels, scores, weights, strict=True):
        for label_j, score_j, weight_j in zip(labels, scores, weights, strict=True):
            if label_i == 1 and label_j == 0:
                total += weight_i * weight_j
                wins += weight_i * weight_j * ((score_i > score_j) + (score_i == score_j) / 2)
    return wins / total if total else math.nan


def pairs_group_auc(labels, scores, groups, weights):
    used = []
    for group in np.unique(groups):
        rows = groups == group
        value = pairs_auc(labels[rows], scores[rows], weights[rows])
        if not math.isnan(value):
            used.append((value, weights[rows].sum()))
    total = sum(size for _, size in used)
    return sum(value * size for value, size in used) / total if used else math.nan, len(used)


def columns(rows, dtype, unit=False):
    """The drawn rows as arrays; scores clipped to [0, 1] with `unit`."""
    labels, scores, groups, weights = (np.array(column) for column in zip(*rows, strict=True))
    return labels.astype(int), (np.clip(scores, 0, 1) if unit else scores).astype(dtype), groups, weights


def sample(rows, rate, dtype=np.float32, decimals=None, seed=0):
    """Labels with the given mean, and scores in [0, 1] that know something about them; ties when rounded."""
    rng = np.random.default_rng(seed)
    labels = (rng.random(rows) < rate).astype(np.float32)
    scores = 1 / (1 + np.exp(-rng.normal(loc=labels)))
    return labels, (scores if decimals is None else scores.round(decimals)).astype(dtype), rng


def test_auc_by_hand():
    # clicks 0.8 and 0.35 against 0.1 and 0.4: wins 1 + 1 + 1 + 0 of 4
    assert metrics.auc([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8]) == 0.75
    # the click that counts three times loses, the other wins: 1 / 4
    assert metrics.auc([0, 1, 1], [0.5, 0.4, 0.6], weights=[1, 3, 1]) == 0.25
    assert metrics.auc([0, 1, 0, 1], [0.5, 0.5, 0.5, 0.5]) == 0.5


def test_group_auc_by_hand():
    labels, scores = [1, 0, 1, 0, 0, 1], [0.9, 0.1, 0.2, 0.5, 0.2, 0.3]
    # a: 1 of 1, two rows; b: 0 + 1/2 of 2, three rows; c has one class
    details = metrics.group_auc_details(labels, scores, ["a", "a", "b", "b", "b", "c"])
    assert details == pytest.approx(((2 * 1 + 3 * 0.25) / 5, 2, 1))


@pytest.mark.parametrize("unit", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(rows=ROWS)
def test_auc_is_the_share_of_pairs(dtype, unit, rows):
    labels, scores, _, weights = columns(rows, dtype, unit)
    np.testing.assert_allclose(metrics.auc(labels, scores), pairs_auc(labels, scores, np.ones(len(rows))), atol=1e-12)
    np.testing.assert_allclose(metrics.auc(labels, scores, weights), pairs_auc(labels, scores, weights), atol=1e-12)


@pytest.mark.parametrize("unit", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(rows=ROWS)
def test_group_auc_is_the_mean_of_the_groups(dtype, unit, rows):
    labels, scores, groups, weights = columns(rows, dtype, unit)
    for given_weights, row_weights in ((None, np.ones(len(rows))), (weights, weights)):
        expected, used = pairs_group_auc(labels, scores, groups, row_weights)
        details = metrics.group_auc_details(labels, scores, groups, given_weights)
        np.testing.assert_allclose(details.value, expected, atol=1e-12)
        assert (details.groups_used, details.groups_used + details.groups_skipped) == (used, len(np.unique(groups)))


@pytest.mark.parametrize("rate", [0.25, 0.03, 0.005])
@pytest.mark.parametrize("decimals", [None, 2])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_equal_to_scikit_learn(dtype, decimals, rate):
    labels, scores, rng = sample(50_000, rate, dtype, decimals)
    weights = rng.gamma(1.0, size=len(labels))
    for sample_weights in (None, weights):
        ours = metrics.auc(labels, scores, sample_weights)
        assert ours == pytest.approx(roc_auc_score(labels, scores, sample_weight=sample_weights), abs=1e-9)
        ours = metrics.log_loss(labels, scores, sample_weights)
        clipped = np.clip(scores.astype(np.float64), 1e-7, 1 - 1e-7)
        assert ours == pytest.approx(sklearn_log_loss(labels, clipped, sample_weight=sample_weights), abs=1e-9)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_group_auc_equal_to_scikit_learn_a_group(dtype):
    labels, scores, rng = sample(20_000, 0.1, dtype, decimals=2)
    groups, weights = rng.zipf(1.5, size=len(labels)) % 500, rng.gamma(1.0, size=len(labels))
    for sample_weights in (np.ones(len(labels)), weights):
        values, sizes = [], []
        for group in np.unique(groups):
            rows = groups == group
            if len(set(labels[rows])) == 2:
                values.append(roc_auc_score(labels[rows], scores[rows], sample_weight=sample_weights[rows]))
                sizes.append(sample_weights[rows].sum())
        assert metrics.group_auc(labels, scores, groups, sample_weights) == pytest.approx(
            np.average(values, weights=sizes), abs=1e-9
        )
        assert 0 < len(values) < len(np.unique(groups))


@pytest.mark.parametrize(
    "rename",
    [
        lambda codes: codes - 2**62,
        lambda codes: codes * 2**40,
        lambda codes: (codes - 128).astype(np.int8),
        lambda codes: codes.astype(np.uint64) + np.uint64(2**63),
        lambda codes: np.array([f"ユーザー {code}" for code in codes]),
        lambda codes: np.array([f"user {code}" for code in codes], dtype=object),
    ],
)
def test_groups_may_be_anything_that_sorts(rename):
    labels, scores, rng = sample(3_000, 0.3)
    codes = rng.integers(0, 256, size=len(labels))
    assert metrics.group_auc(labels, scores, rename(codes)) == metrics.group_auc(labels, scores, codes)
    renamed = metrics.group_codes(rename(codes))
    assert 0 <= renamed.min() <= renamed.max() < 2**31


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_zeros_of_both_signs_are_equal(dtype):
    scores = np.array([-0.0, 0.0, 0.0, -0.0], dtype)
    assert metrics.auc([0, 1, 0, 1], scores) == 0.5
    assert metrics.group_auc([0, 1, 0, 1], scores, [1, 1, 2, 2]) == 0.5


def test_order_of_rows_does_not_matter():
    labels, scores, rng = sample(10_000, 0.2, decimals=3)
    groups, order = rng.integers(0, 50, size=len(labels)), rng.permutation(len(labels))
    assert metrics.auc(labels[order], scores[order]) == metrics.auc(labels, scores)
    expected = metrics.group_auc(labels, scores, groups)
    assert metrics.group_auc(labels[order], scores[order], groups[order]) == pytest.approx(expected, abs=1e-12)


@given(rows=ROWS, scale=st.sampled_from([0.5, 8.0]), shift=st.sampled_from([-4.0, 16.0]))
def test_auc_depends_on_the_order_of_scores_only(rows, scale, shift):
    labels, scores, _, _ = columns(rows, np.float64)
    scores = np.where(np.abs(scores) < 1e-30, 0.0, scores)  # a shift swallows these
    np.testing.assert_array_equal(metrics.auc(labels, scale * scores + shift), metrics.auc(labels, scores))


def test_a_column_vector_is_a_vector():
    labels, scores, _ = sample(100, 0.5)
    assert metrics.auc(labels[:, None], scores[:, None]) == metrics.auc(labels, scores)


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_is_nan_and_says_so(label, caplog):
    labels, scores = [label] * 3, [0.1, 0.2, 0.3]
    with caplog.at_level(logging.WARNING, "tfctr"):
        assert math.isnan(metrics.auc(labels, scores))
        value, used, skipped = metrics.group_auc_details(labels, scores, [7, 7, 8])
    assert (math.isnan(value), used, skipped) == (True, 0, 2)
    assert [record.message.split(" is")[0] for record in caplog.records] == ["AUC", "Grouped AUC"]
    assert math.isnan(metrics.calibration([0, 0], [0.1, 0.2]))


def test_a_class_without_weight_is_absent():
    assert math.isnan(metrics.auc([0, 1], [0.1, 0.2], weights=[1, 0]))
    assert math.isnan(metrics.log_loss([0, 1], [0.1, 0.2], weights=[0, 0]))


def test_log_loss_by_hand():
    assert metrics.log_loss([0, 1], [0.2, 0.5]) == pytest.approx(-(math.log(0.8) + math.log(0.5)) / 2, rel=1e-15)
    assert metrics.log_loss([0, 1], [0.2, 0.5], weights=[3, 1]) == pytest.approx(
        -(3 * math.log(0.8) + math.log(0.5)) / 4, rel=1e-15
    )
    # certain and wrong: -ln(1e-7), in float32 as well
    assert metrics.log_loss([0, 1], np.array([1, 0], np.float32)) == pytest.approx(-math.log(1e-7), rel=1e-9)


def test_calibration_by_hand():
    assert metrics.calibration([0, 1, 0, 1], [0.1, 0.5, 0.2, 0.8]) == pytest.approx(0.8)
    # (2 * 0.1 + 0.5) / 1
    assert metrics.calibration([0, 1], [0.1, 0.5], weights=[2, 1]) == pytest.approx(0.7)


def test_calibration_error_by_hand():
    # bins of 0.1 and of 0.8: |3 * 0.1 - 0.9| + |0.8 - 0.2|, over weights of 6
    error = metrics.expected_calibration_error([0, 1, 0, 1], [0.1, 0.1, 0.8, 0.8], [3, 1, 1, 1], bins=2)
    assert error == pytest.approx(0.2)
    assert metrics.expected_calibration_error([0, 1, 0, 0], [0.25] * 4) == 0  # one bin, in whatever order
    assert math.isnan(metrics.expected_calibration_error([0, 1], [0.1, 0.2], [0, 0]))
    with pytest.raises(ConfigError, match="`bins` is 0"):
        metrics.expected_calibration_error([0, 1], [0.1, 0.2], bins=0)


def test_calibration_error_of_bins_of_equally_many_rows():
    labels, scores, rng = sample(1_000, 0.2, np.float64)
    bins = np.array_split(np.argsort(scores), 20)
    expected = np.mean([abs(np.mean(scores[rows] - labels[rows])) for rows in bins])
    assert metrics.expected_calibration_error(labels, scores) == pytest.approx(expected, rel=1e-12)
    order = rng.permutation(1_000)
    assert metrics.expected_calibration_error(labels[order], scores[order]) == pytest.approx(expected, rel=1e-12)


def test_auc_by_group_by_hand():
    # a: the click against 0.1 (won, weight 3) and 0.4 (lost, weight 1); b has no click
    each = metrics.auc_by_group([0, 1, 0, 0], [0.1, 0.2, 0.4, 0.5], ["a", "a", "a", "b"], [3, 2, 1, 5])
    np.testing.assert_array_equal(each.auc, [0.75, np.nan])
    np.testing.assert_array_equal(each.weight, [6, 5])


def test_relative_improvement_by_hand():
    # CETN, Table 7 prints 100 times this
    assert metrics.relative_improvement(0.8, 0.75) == pytest.approx(0.2)
    assert metrics.relative_improvement(0.7, 0.75) == pytest.approx(-0.2)
    assert math.isnan(metrics.relative_improvement(0.7, 0.5))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], []), "no rows"),
        (([0, 2], [0.1, 0.2]), "labels must be 0 or 1; row 1 holds 2."),
        (([0, math.nan], [0.1, 0.2]), "row 1 holds nan"),
        ((["0", "1"], [0.1, 0.2]), "row 0 holds '0'"),
        (([0, 1], [0.1, math.nan]), "scores must be numbers; row 1 holds nan"),
        (([0, 1], [0.1]), r"`scores` has the shape \(1,\)"),
        (([0, 1], [[0.1, 0.2]]), r"`scores` has the shape \(1, 2\)"),
        (([0, 1], ["low", "high"]), "`scores` are not numbers"),
        (([0, 1], [0.1, 0.2], [1]), r"`weights` has the shape"),
        (([0, 1], [0.1, 0.2], [1, -1]), "weights must be finite and not negative; row 1 holds -1.0"),
        (([0, 1], [0.1, 0.2], [math.inf, 1]), "row 0 holds inf"),
    ],
)
@pytest.mark.parametrize("metric", [metrics.auc, metrics.log_loss, metrics.calibration, metrics.expected_calibration_error])
def test_impossible_input_is_refused(metric, arguments, message):
    with pytest.raises(DataError, match=message):
        metric(*arguments)


def test_probabilities_are_in_range():
    for metric in (metrics.log_loss, metrics.calibration, metrics.expected_calibration_error):
        with pytest.raises(DataError, match=r"probabilities must lie in \[0, 1\]; row 1 holds 1.5"):
            metric([0, 1], [0.5, 1.5])


def test_impossible_groups_are_refused():
    with pytest.raises(DataError, match=r"`groups` has the shape \(1,\)"):
        metrics.group_auc([0, 1], [0.1, 0.2], ["a"])
    with pytest.raises(DataError, match="groups cannot be sorted"):
        metrics.group_auc([0, 1], [0.1, 0.2], np.array(["a", None], dtype=object))


def test_an_alarm_is_none_of_chance():
    """50,000 rows of 3 %: a click rate that moves by 30 % is told 50 times of 50; what chance does, once in 100 at most."""
    rng = np.random.default_rng(0)
    p = rng.beta(3, 97, 50_000)

    def alarms(factor, times):
        clicks = [int((rng.random(len(p)) < factor * p).sum()) for _ in range(times)]
        return sum(metrics.pcoc_excess(p.sum() / number, number) is not None for number in clicks)

    assert alarms(1.3, 50) == 50
    assert alarms(1 / 1.3, 50) == 50
    assert alarms(1.0, 1000) <= 10
    assert metrics.pcoc_excess(math.nan, 0) == "predicted over observed clicks is not defined: there are no clicks"
    assert metrics.pcoc_excess(1.2, 10**9, 0.25) is None
    assert metrics.pcoc_excess(1 / 1.26, 10**9, 0.25) is not None
