"""Tri-BCE against the formula, its weights and the gradient through them."""

import numpy as np
import pytest
import tensorflow as tf
from kit.encoder_contract import round_trip

from tfctr import losses
from tfctr.errors import ConfigError

LABELS = np.array([[1.0], [0.0], [1.0], [0.0]], "float32")
LOGIT = np.array([[0.5], [-0.2], [1.0], [0.1]], "float32")
BEHIND = np.array([[-0.5], [0.4], [0.3], [1.2]], "float32")
AHEAD = np.array([[2.0], [-1.0], [3.0], [-2.0]], "float32")


def log_losses(logits):
    logits = logits.astype("float64")
    return np.log1p(np.exp(np.where(LABELS == 1, -logits, logits)))


def slopes(logits):
    """Of the mean log loss by each logit."""
    return (1 / (1 + np.exp(-logits.astype("float64"))) - LABELS) / len(LABELS)


def test_each_head_is_weighted_by_how_far_it_is_behind():
    whole, behind = log_losses(LOGIT), log_losses(BEHIND)
    weight = behind.mean() - whole.mean()
    assert weight > 0.1
    np.testing.assert_allclose(losses.tri_bce(LABELS, LOGIT, BEHIND, AHEAD), weight * behind, rtol=1e-5)
    np.testing.assert_allclose(losses.tri_bce(LABELS, LOGIT, AHEAD, BEHIND), weight * behind, rtol=1e-5)
    np.testing.assert_allclose(losses.tri_bce(LABELS, LOGIT, BEHIND, BEHIND), 2 * weight * behind, rtol=1e-5)


def test_heads_that_are_ahead_cost_nothing():
    assert log_losses(AHEAD).mean() < log_losses(LOGIT).mean()
    np.testing.assert_array_equal(losses.tri_bce(LABELS, LOGIT, AHEAD, LOGIT), np.zeros((4, 1)))


def test_the_gradient_flows_through_the_weights_as_in_the_released_code():
    logit, behind, ahead = map(tf.constant, (LOGIT, BEHIND, AHEAD))
    with tf.GradientTape() as tape:
        tape.watch([logit, behind, ahead])
        value = tf.reduce_mean(losses.tri_bce(LABELS, logit, behind, ahead))
    found = tape.gradient(value, [logit, behind, ahead])
    # value = (B - L) * B: its slopes are -B by L, and 2 B - L by B
    whole, head = log_losses(LOGIT).mean(), log_losses(BEHIND).mean()
    np.testing.assert_allclose(found[0], -head * slopes(LOGIT), rtol=1e-5)
    np.testing.assert_allclose(found[1], (2 * head - whole) * slopes(BEHIND), rtol=1e-5)
    np.testing.assert_array_equal(found[2], np.zeros((4, 1)))


def test_as_a_loss_of_named_logits():
    loss = round_trip(losses.TriBCELoss())
    outputs = {"logit": LOGIT, "simple": BEHIND, "complex": AHEAD, "other": None}
    np.testing.assert_allclose(loss.call(LABELS, outputs), losses.tri_bce(LABELS, LOGIT, BEHIND, AHEAD))
    with pytest.raises(ConfigError, match="TriBCELoss reads the outputs 'logit', 'simple', 'complex'"):
        loss.call(LABELS, {"logit": LOGIT})
