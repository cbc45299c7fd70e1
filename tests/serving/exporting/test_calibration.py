"""Calibration: the maps against formulas and an oracle, and the same numbers inside the served graph."""

import json
import math

import numpy as np
import pytest
import tensorflow as tf
from kit.at_length import at_length
from kit.served_rows import spread, usual_rows

import tfctr
from tfctr.data import Split
from tfctr.errors import ConfigError, DataError
from tfctr.models import MODELS
from tfctr.serving.exporting.calibration import METHODS, IsotonicCalibration, SigmoidCalibration, all_negatives, calibration_of
from tfctr.serving.exporting.raw_features import RawFeatures
from tfctr.serving.runtime.saved_model import SavedModel


def sigmoid(logits):
    return 1 / (1 + np.exp(-np.asarray(logits, np.float64)))


def clicks(rows=4000, slope=0.5, intercept=-1.0, seed=0):
    """Labels and logits with `P(click) = sigmoid(slope * logit + intercept)`."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=2.0, size=rows).astype(np.float32)
    return (rng.random(rows) < sigmoid(slope * logits + intercept)).astype(np.float32), logits


def test_platt_is_where_the_gradient_vanishes():
    labels, logits = clicks()
    weights = np.random.default_rng(1).uniform(0.5, 2.0, len(labels))
    found = calibration_of(labels, logits, weights, "platt")
    high, low = weights[labels == 1].sum(), weights[labels == 0].sum()
    targets = np.where(labels == 1, (high + 1) / (high + 2), 1 / (low + 2))
    errors = weights * (sigmoid(found.slope * logits.astype(np.float64) + found.intercept) - targets)
    np.testing.assert_allclose([errors.mean(), (errors * logits).mean()], 0.0, atol=1e-8)


def test_temperature_keeps_even_odds():
    labels, logits = clicks(intercept=0.0)
    found = calibration_of(labels, logits, method="temperature")
    assert (round(found.slope, 1), found.intercept) == (0.5, 0.0)


def test_a_whole_weight_counts_as_so_many_rows():
    labels, logits = clicks(rows=300)
    times = np.random.default_rng(2).integers(0, 3, 300)
    for method in METHODS:
        weighed = calibration_of(labels, logits, times, method)
        repeated = calibration_of(np.repeat(labels, times), np.repeat(logits, times), method=method)
        at = tf.linspace(-6.0, 6.0, 50)
        np.testing.assert_allclose(weighed(at), repeated(at), rtol=1e-5)


def nearest_non_decreasing(rates):
    """The max-min formula of isotonic regression, with equal weights."""
    n = len(rates)
    return [max(min(np.mean(rates[low : high + 1]) for high in range(i, n)) for low in range(i + 1)) for i in range(n)]


def test_isotonic_is_the_nearest_non_decreasing_function():
    labels, logits = clicks(rows=80)
    order = np.argsort(logits)
    found = calibration_of(labels, logits, method="isotonic")
    expected = np.clip(nearest_non_decreasing(labels[order].astype(np.float64)), 1e-7, 1 - 1e-7)
    np.testing.assert_allclose(found(tf.constant(logits[order])), expected, rtol=1e-6, atol=1e-12)


def test_isotonic_never_falls_and_never_leaves_its_knots():
    labels, logits = clicks(rows=5000)
    found = calibration_of(labels, np.round(logits, 2), method="isotonic")
    at = np.sort(np.concatenate([np.float32(found.logits), np.linspace(-20, 20, 100_001, dtype=np.float32)]))
    answers = found(tf.constant(at)).numpy()
    assert (np.diff(answers) >= 0).all()
    np.testing.assert_allclose(answers, np.interp(at, found.logits, found.probabilities), rtol=1e-4, atol=1e-7)
    assert np.isnan(found(tf.constant([math.nan])).numpy()).all()
    crowded = IsotonicCalibration((0.0, 1e-45, 1.0), (0.0, 1.0, 1.0))  # a slope beyond float32
    assert np.isfinite(crowded(tf.constant([-1.0, 0.0, 1e-45, 0.5, 2.0]))).all()


@pytest.mark.parametrize("method", METHODS)
def test_logits_that_separate_the_labels_give_no_certainty(method):
    labels = np.repeat([0.0, 1.0], 50)
    found = calibration_of(labels, labels * 2 - 1, method=method)
    answers = found(tf.constant([-1.0, 1.0])).numpy()
    assert 0 < answers[0] < 0.1 < 0.9 < answers[1] < 1


def test_the_figures_are_those_of_rows_held_out():
    """Pure noise: isotonic regression fits it, and must not be praised for that."""
    rng = np.random.default_rng(3)
    labels, logits = rng.integers(0, 2, 500), rng.normal(scale=1e-3, size=500)
    figures = calibration_of(labels, logits, method="isotonic").figures
    assert figures["rows"] == 500
    assert figures["before"]["log_loss"] == pytest.approx(math.log(2), abs=1e-3)
    assert figures["after"]["isotonic"]["log_loss"] > math.log(2)


def test_the_best_has_the_least_log_loss():
    labels, logits = clicks()
    found = calibration_of(labels, logits)
    after = found.figures["after"]
    assert sorted(after) == sorted([*METHODS, "none"])
    assert found.method == min(after, key=lambda name: after[name]["log_loss"]) == "platt"
    assert after["platt"]["log_loss"] < found.figures["before"]["log_loss"]
    assert after["platt"]["pcoc"] == pytest.approx(1.0, abs=0.01)


def test_no_calibration_is_a_candidate_too():
    """Probabilities that are the click rates of all rows: a map from four folds leans away from the fifth, and is worse."""
    logits = np.repeat(np.float32([-np.log(3), np.log(3)]), 40)  # of 1 / 4 and 3 / 4
    labels = np.concatenate([np.repeat([1.0, 0.0], [10, 30]), np.repeat([1.0, 0.0], [30, 10])]).astype(np.float32)
    mixed = np.random.default_rng(0).permutation(80)  # so that the folds differ
    labels, logits = labels[mixed], logits[mixed]
    best = calibration_of(labels, logits)
    assert best.figures["before"]["log_loss"] == pytest.approx(math.log(4) - 0.75 * math.log(3), rel=1e-6)
    for method in METHODS:
        assert best.figures["after"][method]["log_loss"] > best.figures["before"]["log_loss"]
    assert best.method == "none"
    assert best.figures["after"]["none"] == best.figures["before"]
    assert best.describe()["method"] == "none"
    np.testing.assert_array_equal(best(tf.constant(logits, tf.float32)), tf.sigmoid(tf.constant(logits, tf.float32)))


@pytest.mark.parametrize(
    ("labels", "logits", "problem"),
    [
        (np.repeat([0, 1], [20, 4]), np.zeros(24), "4 clicks are too few"),
        (np.repeat([0, 1], [4, 20]), np.zeros(24), "4 non-clicks are too few"),
        (np.repeat([0, 1], 20), np.where(np.arange(40) == 7, np.inf, 0.0), "row 7: the logit is inf"),
        (np.repeat([0, 1], 20), np.repeat([1.0, 0.0], 20), "platt: the lowest logit, 0, gets 0.955, the highest, 1, 0.0455"),
        (np.repeat([0, 1], 20), np.zeros((40, 1)), r"shapes \(\(40,\), \(40, 1\), \(40,\)\)"),
        (np.repeat([0, 2], 20), np.zeros(40), "labels must be 0 or 1"),
    ],
)
def test_rows_that_cannot_calibrate_are_refused(labels, logits, problem):
    with pytest.raises(DataError, match=problem):
        calibration_of(labels, logits, method="platt")


def test_a_model_that_expects_far_more_clicks_needs_an_intercept():
    labels, logits = clicks(rows=20_000, slope=1.0, intercept=-8.0)
    logits += 4.0  # nearly all above 0, and clicks are rare: the best slope alone is below 0
    with pytest.raises(DataError, match=r"temperature: the lowest logit, .*\n  fix: use platt, which also shifts"):
        calibration_of(labels, logits, method="temperature")
    assert calibration_of(labels, logits).method == "platt"


def test_a_map_without_a_rise_is_refused():
    labels, logits = clicks(slope=-0.5)
    for method in (*METHODS, "best"):
        with pytest.raises(DataError, match="the lowest logit, "):
            calibration_of(labels, logits, method=method)


@pytest.mark.parametrize("split", [None, "valid"])
def test_a_calibration_needs_rows(split, tiny_schema):
    with pytest.raises(ConfigError, match=f"`split` is {split!r}: there are no rows"):
        tfctr.serving.fit_calibration(MODELS["LR"](tiny_schema), split)


def test_an_unknown_method_is_refused():
    with pytest.raises(ConfigError, match=r"Unknown calibration method 'plat'\.\n.*Did you mean 'platt'"):
        calibration_of(*clicks(50), method="plat")


@pytest.mark.parametrize("calibration", [None, SigmoidCalibration(0.5, 0.25), IsotonicCalibration((-1.0, 1.0), (0.1, 0.9))])
def test_dropped_non_clicks_are_given_back(calibration):
    logits = tf.constant([-5.0, -1.0, 0.0, 1.0, 5.0])
    kept = (calibration or SigmoidCalibration())(logits).numpy().astype(np.float64)
    whole = all_negatives(calibration, 0.05)(logits).numpy()
    np.testing.assert_allclose(whole, kept / (kept + (1 - kept) / 0.05), rtol=1e-5)
    assert all_negatives(calibration, 1) is calibration


@pytest.mark.parametrize("kept", [0, 0.0, -0.1, 1.5, "0.1", math.nan, None])
def test_a_share_of_non_clicks_lies_in_0_to_1(kept, tiny_schema, tmp_path):
    with pytest.raises(ConfigError, match="`negatives_kept` is"):
        tfctr.serving.export(MODELS["LR"](tiny_schema), tmp_path / "ctr", negatives_kept=kept)
    assert not (tmp_path / "ctr").exists()


def test_a_method_is_no_calibration(tiny_schema, tmp_path):
    with pytest.raises(ConfigError, match=r"`calibration` is 'platt'\.\n  fix: pass fit_calibration\("):
        tfctr.serving.export(MODELS["LR"](tiny_schema), tmp_path / "ctr", calibration="platt")


@pytest.fixture(scope="module")
def model(tiny_schema):
    return spread(MODELS["LR"](tiny_schema), scale=1.0)


@pytest.fixture(scope="module")
def valid(model, tiny_ids):
    """Rows whose clicks are rarer than the model believes."""
    ids = tiny_ids(2000)
    chance = sigmoid(0.5 * np.asarray(model(ids)["logit"])[:, 0] - 1.0)
    return Split.from_arrays(ids, np.random.default_rng(5).random(2000) < chance, name="valid")


@pytest.mark.parametrize("method", at_length(METHODS, "platt"))
def test_the_served_graph_is_calibrated(method, model, valid, tiny_schema, tmp_path):
    calibration = tfctr.serving.fit_calibration(model, valid, method)
    version = tfctr.serving.export(model, tmp_path / "ctr", calibration=calibration, negatives_kept=0.1, candidates=["item"])
    raw = usual_rows(tiny_schema, 200)
    logits = np.asarray(model(RawFeatures(tiny_schema)(raw))["logit"])[:, 0]
    if method == "isotonic":
        kept = np.interp(logits, calibration.logits, calibration.probabilities)
        expected = kept / (kept + (1 - kept) / 0.1)
    else:
        expected = sigmoid(calibration.slope * logits + calibration.intercept + math.log(0.1))
    served = SavedModel(version)
    answers = served.run("serving_default", raw)["probability"]
    np.testing.assert_allclose(answers, expected, rtol=1e-4)
    explained = served.run("explain", raw)
    np.testing.assert_array_equal(explained["probability"], answers)
    np.testing.assert_allclose(explained["logit"], logits, rtol=1e-4, atol=1e-5)
    easy = sigmoid(logits) >= 0.6  # by the model's own probability
    assert [text == b"easy" for text in explained["difficulty_if_click"]] == easy.tolist()
    card = json.loads((version / "assets.extra" / "model_card.json").read_text())
    assert card["negatives_kept"] == 0.1
    assert card["calibration"]["method"] == method
    assert card["calibration"]["after"] == calibration.figures["after"]
    assert card["calibration"]["before"]["pcoc"] > 1.2


@pytest.mark.slow
@pytest.mark.parametrize("method", ["platt", "isotonic"])
def test_dropped_non_clicks_are_given_back_in_rows_that_keep_theirs(method, model, tiny_ids):
    """A million rows with a fifth of clicks: the sample has 200,000 of those and 80,000 of the others.

    So the fitted odds are off by `(1 / 200_000 + 1 / 80_000) ** 0.5` = 0.4 %, and the clicks that are observed by 0.2 %: 2 %
    are five times both together. A bin of 50,000 rows has a click rate that is off by 0.0018, and 0.0014 in the mean of all.
    """
    rows, kept, rng = 1_000_000, 0.1, np.random.default_rng(6)
    scorer = tf.function(lambda ids: model(ids)["logit"][:, 0], reduce_retracing=True)

    def draw(seed):
        ids = tiny_ids(rows, seed)
        logits = np.concatenate([scorer(part) for part in np.array_split(ids, 100)])
        return ids, logits, rng.random(rows) < sigmoid(0.5 * logits - 1.5)

    ids, _, clicked = draw(1)
    sample = clicked | (rng.random(rows) < kept)
    calibration = tfctr.serving.fit_calibration(model, Split.from_arrays(ids[sample], clicked[sample]), method)
    _, logits, clicked = draw(2)
    predicted = all_negatives(calibration, kept)(tf.constant(logits)).numpy().astype(np.float64)
    assert 0.98 <= predicted.sum() / clicked.sum() <= 1.02
    bins = np.array_split(np.argsort(predicted), 20)
    assert np.mean([abs(predicted[rows].mean() - clicked[rows].mean()) for rows in bins]) <= 0.005


@pytest.mark.slow
def test_a_correction_alone_needs_no_fit(model, tiny_schema, tmp_path):
    version = tfctr.serving.export(model, tmp_path / "ctr", negatives_kept=0.25, check=False)
    raw = usual_rows(tiny_schema, 50)
    kept = model.predict(RawFeatures(tiny_schema)(raw).numpy(), verbose=0)[:, 0].astype(np.float64)
    answers = SavedModel(version).run("serving_default", raw)["probability"]
    np.testing.assert_allclose(answers, kept / (kept + (1 - kept) / 0.25), rtol=1e-5)
