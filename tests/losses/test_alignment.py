import itertools

import numpy as np
import pytest
import tensorflow as tf

from tfctr import losses

FIELDS = np.random.default_rng(0).normal(size=(7, 4, 3)).astype("float32")


def test_alignment_is_the_mean_over_all_pairs_of_rows():
    distances = [((a - b) ** 2).sum(axis=-1).mean() for a, b in itertools.combinations(FIELDS.astype("float64"), 2)]
    values = losses.feature_alignment(FIELDS).numpy()
    assert values.shape == (7, 1)
    np.testing.assert_allclose(values.mean(), np.mean(distances), rtol=1e-5)


def test_alignment_gives_each_row_its_share():
    near, far = np.zeros((1, 1, 1), "float32"), np.full((1, 1, 1), 3, "float32")
    # mean 1; 2 * 3 / (3 - 1) times squared distances 1, 1, 4
    np.testing.assert_allclose(losses.feature_alignment(np.concatenate([near, near, far])), [[3.0], [3.0], [12.0]])


def test_uniformity_is_the_mean_over_all_pairs_of_fields():
    expected = []
    for row in FIELDS.astype("float64"):
        cosines = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in itertools.permutations(row, 2)]
        expected.append([np.mean(cosines)])
    np.testing.assert_allclose(losses.field_uniformity(FIELDS), expected, rtol=1e-4, atol=1e-6)


def test_released_uniformity_is_the_mean_over_all_pairs_with_a_guard():
    for scale in (1.0, 0.01):  # of the order of the guard: cosines are halved where |a| |b| is 1e-4
        expected = []
        for row in scale * FIELDS.astype("float64"):
            guarded = [a @ b / (np.linalg.norm(a) * np.linalg.norm(b) + 1e-4) for a, b in itertools.product(row, row)]
            expected.append([np.mean(guarded)])
        found = losses.released_uniformity(np.float32(scale) * FIELDS)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_released_uniformity_has_a_finite_gradient_at_zero():
    fields = tf.Variable(np.concatenate([np.zeros((2, 1, 3)), np.ones((2, 1, 3))], axis=1), dtype="float32")
    with tf.GradientTape() as tape:
        loss = losses.released_uniformity(fields)
    assert np.isfinite(tape.gradient(loss, fields)).all()


def test_squared_distance_by_hand():
    np.testing.assert_allclose(losses.squared_distance([[1.0, 2.0], [0.0, 0.0]], [[1.0, 5.0], [0.0, 0.0]]), [[9.0], [0.0]])


@pytest.mark.parametrize("loss", [losses.feature_alignment, losses.field_uniformity])
def test_without_a_pair_there_is_no_loss(loss):
    alone = FIELDS[:1] if loss is losses.feature_alignment else FIELDS[:1, :1]
    np.testing.assert_allclose(loss(alone), [[0.0]], atol=1e-6)


def test_embeddings_at_zero_stay_finite():
    assert np.isfinite(losses.field_uniformity(np.zeros((2, 3, 4), "float32"))).all()


@pytest.mark.parametrize("loss", [losses.feature_alignment, losses.field_uniformity, losses.released_uniformity])
def test_half_precision_is_computed_in_float32(loss):
    narrow = FIELDS.astype("float16")
    np.testing.assert_array_equal(loss(narrow), loss(narrow.astype("float32")))
