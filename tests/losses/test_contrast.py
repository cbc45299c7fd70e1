import json
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from kit.encoder_contract import round_trip
from kit.places import KIT, ROOT

from tfctr import losses
from tfctr.errors import ConfigError
from tfctr.losses import contrast

BOTH = pytest.mark.parametrize("name", ["info_nce", "do_info_nce"])


def draw(rows, units=6, seed=0):
    generator = np.random.default_rng(seed)
    left, right = generator.normal(size=(2, rows, units))
    return left, left + 0.5 * right  # alike, so that the positive pairs matter


def oracle(name, left, right, temperature):
    """One row at a time, in float64."""
    unit_left, unit_right = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (left, right))
    values = []
    for i, vector in enumerate(unit_left):
        similarities = unit_right @ vector / temperature
        positive = similarities[i] if name == "info_nce" else 1 / temperature
        values.append([-np.log(np.exp(positive) / np.exp(similarities).sum())])
    return np.array(values)


def full_matrix(name, left, right, temperature):
    """The same out of the whole similarity matrix, for TensorFlow to differentiate."""
    left, right = tf.math.l2_normalize(left, -1), tf.math.l2_normalize(right, -1)
    similarities = tf.matmul(left, right, transpose_b=True) / temperature
    positive = tf.linalg.diag_part(similarities)[:, None] if name == "info_nce" else 1 / temperature
    return tf.reduce_logsumexp(similarities, axis=1, keepdims=True) - positive


def value_and_gradients(loss, left, right, weights=1.0):
    left, right = tf.convert_to_tensor(left), tf.convert_to_tensor(right)
    with tf.GradientTape() as tape:
        tape.watch([left, right])
        values = loss(left, right)
        total = tf.reduce_mean(values * tf.cast(weights, values.dtype))
    return [x.numpy() for x in (values, *tape.gradient(total, [left, right]))]


def relative_error(found, expected):
    return np.linalg.norm(found - expected) / max(np.linalg.norm(expected), 1e-30)


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(contrast, "BLOCK", 4)


@pytest.mark.sampled(24)
@BOTH
@pytest.mark.parametrize("rows", [1, 3, 4, 5, 8, 11])
@pytest.mark.parametrize(("temperature", "traced"), [(0.05, False), (0.3, False), (2.0, False), (0.3, True)])
@pytest.mark.parametrize("weighted", [False, True])
def test_values_and_gradients_against_the_full_matrix(name, rows, temperature, traced, weighted, small_blocks):
    left, right = draw(rows)
    weights = np.random.default_rng(1).uniform(0, 2, size=(rows, 1)) if weighted else 1.0

    def loss(left, right):
        return getattr(losses, name)(left, right, temperature)

    if traced:  # for a batch of unknown size
        loss = tf.function(loss, input_signature=[tf.TensorSpec([None, 6], tf.float64)] * 2)
    found = value_and_gradients(loss, left, right, weights)
    expected = value_and_gradients(lambda a, b: full_matrix(name, a, b, temperature), left, right, weights)
    np.testing.assert_allclose(found[0], oracle(name, left, right, temperature), rtol=1e-10, atol=1e-12)
    for ours, theirs in zip(found[1:], expected[1:], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)


@BOTH
def test_gradients_against_finite_differences(name, small_blocks):
    left, right = draw(5)
    _, left_gradient, right_gradient = value_and_gradients(lambda a, b: getattr(losses, name)(a, b, 0.3), left, right)
    for side, gradient in ((left, left_gradient), (right, right_gradient)):
        for place in np.ndindex(side.shape):
            start, step, around = side[place], 1e-6, []
            for moved in (start + step, start - step):
                side[place] = moved
                around.append(oracle(name, left, right, 0.3).mean())
            side[place] = start
            np.testing.assert_allclose(gradient[place], (around[0] - around[1]) / (2 * step), atol=1e-8)


@BOTH
def test_float32_within_a_millionth_at_the_real_block_size(name):
    left, right = draw(2 * contrast.BLOCK + 100, units=32)
    expected = value_and_gradients(lambda a, b: full_matrix(name, a, b, 0.3), left, right)
    narrow = left.astype("float32"), right.astype("float32")
    found = value_and_gradients(lambda a, b: getattr(losses, name)(a, b, 0.3), *narrow)
    assert found[0].dtype == np.float32
    for ours, theirs in zip(found, expected, strict=True):
        assert relative_error(ours, theirs) < 1e-6


@BOTH
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_computed_in_float32(name, dtype):
    left, right = (tf.cast(x, dtype) for x in draw(20))
    found = value_and_gradients(lambda a, b: getattr(losses, name)(a, b, 0.1), left, right)
    wide = value_and_gradients(
        lambda a, b: getattr(losses, name)(a, b, 0.1), tf.cast(left, "float32"), tf.cast(right, "float32")
    )
    np.testing.assert_array_equal(found[0], wide[0])
    for ours, theirs in zip(found[1:], wide[1:], strict=True):
        np.testing.assert_array_equal(ours, tf.cast(theirs, dtype).numpy())


def test_one_row_has_no_other():
    left, right = [[1.0, 0.0]], [[3.0, 4.0]]
    np.testing.assert_allclose(losses.info_nce(left, right, 0.5), [[0.0]], atol=1e-6)
    np.testing.assert_allclose(losses.do_info_nce(left, right, 0.5), [[(0.6 - 1) / 0.5]], rtol=1e-6)


def test_the_two_differ_by_the_agreement_only():
    left, right = draw(9)
    difference = losses.info_nce(left, right, 0.2) - losses.do_info_nce(left, right, 0.2)
    np.testing.assert_allclose(difference, losses.cosine_distance(left, right) / 0.2, rtol=1e-9)


def test_descent_of_do_info_nce_parts_the_pairs_that_info_nce_joins():
    left, right = (x.astype("float32") for x in draw(16))
    for name, sign in (("info_nce", -1), ("do_info_nce", 1)):
        _, gradient, _ = value_and_gradients(lambda a, b, name=name: getattr(losses, name)(a, b, 0.3), left, right)
        moved = losses.cosine_distance(left - gradient, right) - losses.cosine_distance(left, right)
        assert sign * moved.numpy().mean() > 0


@BOTH
@pytest.mark.parametrize("temperature", [0.001, 0.0249, 0.0251])
@pytest.mark.parametrize("sign", [1, -1], ids=["equal", "opposite"])
def test_low_temperature_stays_finite(name, temperature, sign):
    left = np.array([[1.0, 0.0], [1.0, 0.0]], "float32")
    found = value_and_gradients(lambda a, b: getattr(losses, name)(a, b, temperature), left, sign * left)
    expected = np.log(2) + (0 if name == "info_nce" else (sign - 1) / temperature)
    np.testing.assert_allclose(found[0], expected, rtol=1e-6, atol=2e-7 / temperature)
    assert all(np.isfinite(x).all() for x in found)


@pytest.mark.parametrize("loss", [losses.cosine_distance, lambda a, b: losses.do_info_nce(a, b, 0.3)])
def test_a_zero_vector_has_no_direction_and_no_gradient(loss):
    left, right = (x.astype("float32") for x in draw(4))
    left[1] = 0
    values, left_gradient, right_gradient = value_and_gradients(loss, left, right)
    assert np.isfinite(values).all()
    assert np.isfinite(right_gradient).all()
    assert not left_gradient[1].any()
    assert left_gradient[[0, 2, 3]].any(axis=1).all()


def test_only_directions_count():
    left, right = draw(7)
    np.testing.assert_allclose(losses.info_nce(1e-6 * left, right, 0.3), losses.info_nce(left, 5 * right, 0.3), rtol=1e-9)


def test_cosine_distance_by_hand():
    left = np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 1.0]], "float32")
    right = np.array([[2.0, 0.0], [-3.0, 0.0], [0.0, 5.0]], "float32")
    expected = [[0.0], [2.0], [1 - np.sqrt(0.5)]]
    np.testing.assert_allclose(losses.cosine_distance(left, right), expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("temperature", [0, -1.0, float("nan")])
def test_a_temperature_that_is_not_above_zero_is_refused(temperature):
    with pytest.raises(ConfigError, match="`temperature` is"):
        losses.do_info_nce(np.ones((2, 3)), np.ones((2, 3)), temperature)
    with pytest.raises(ConfigError, match="`temperature` is"):
        losses.ContrastLoss("a", "b", temperature=temperature)


@pytest.mark.parametrize("right", [np.ones((4, 2)), np.ones(4), np.ones((4, 3, 1))])
def test_other_shapes_are_refused(right):
    for loss in (losses.cosine_distance, lambda a, b: losses.info_nce(a, b, 0.1)):
        with pytest.raises(ConfigError, match="must have the shape"):
            loss(np.ones((4, 3)), right)


LOSS_OBJECTS = [
    losses.ContrastLoss("a", "b", "info_nce", temperature=0.5, weight=0.25, name="near"),
    losses.ContrastLoss("a", "b", temperature=0.3),
    losses.CosineLoss("b", "a", weight=0.7),
]


@pytest.mark.parametrize("loss", LOSS_OBJECTS, ids=lambda loss: loss.name)
def test_loss_classes_read_their_outputs_and_survive_json(loss):
    left, right = draw(6)
    outputs = {"a": left, "b": right, "logit": left[:, :1]}
    labels = np.ones((6, 1))
    if isinstance(loss, losses.CosineLoss):
        expected = 0.7 * losses.cosine_distance(right, left)
    else:
        function = losses.info_nce if loss.contrast == "info_nce" else losses.do_info_nce
        expected = loss.weight * function(left, right, loss.temperature)
    twin = round_trip(loss)
    assert twin.get_config() == loss.get_config()
    for one in (loss, twin):
        np.testing.assert_allclose(one.call(labels, outputs), expected, rtol=1e-9)


def test_unknown_contrast_gives_the_closest_name():
    with pytest.raises(ConfigError, match="Did you mean 'info_nce'"):
        losses.ContrastLoss("a", "b", contrast="infonce")


@pytest.mark.slow
def test_two_devices_contrast_the_rows_of_both():
    run = subprocess.run(
        [sys.executable, str(KIT / "mirrored_contrast.py")],
        capture_output=True,
        check=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    for name, (one, two) in json.loads(run.stdout).items():
        for found, expected in zip(two, one, strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7, err_msg=name)
