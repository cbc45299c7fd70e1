import keras
import numpy as np
import pytest
from kit.encoder_contract import check_encoder, round_trip

from tfctr.errors import ConfigError
from tfctr.layers import ElementwiseProducts, InnerProducts, Perturbation, SpaceFusion

FIELDS = np.random.default_rng(0).normal(size=(5, 4, 3)).astype("float32")
PAIRS = [(i, j) for i in range(4) for j in range(i, 4)]


def test_elementwise_products_of_all_pairs():
    expected = np.stack([FIELDS[:, i] * FIELDS[:, j] for i, j in PAIRS], axis=1)
    np.testing.assert_allclose(ElementwiseProducts()(FIELDS), expected, rtol=1e-6)


def test_inner_products_of_all_pairs():
    expected = np.stack([(FIELDS[:, i] * FIELDS[:, j]).sum(axis=-1) for i, j in PAIRS], axis=1)
    np.testing.assert_allclose(InnerProducts()(FIELDS), expected, rtol=1e-5, atol=1e-6)


def test_inner_products_are_the_sums_of_the_elementwise_ones():
    sums = keras.ops.sum(ElementwiseProducts()(FIELDS), axis=-1)
    np.testing.assert_allclose(InnerProducts()(FIELDS), sums, rtol=1e-6, atol=1e-6)


def test_encoder_contract():
    check_encoder(InnerProducts(), units=6)


def test_elementwise_products_are_a_view():
    assert ElementwiseProducts()(keras.Input((4, 3))).shape == (None, 10, 3)
    np.testing.assert_array_equal(round_trip(ElementwiseProducts())(FIELDS), ElementwiseProducts()(FIELDS))


class TestPerturbation:
    def test_moves_away_from_zero_by_less_than_the_scale(self):
        fields = np.concatenate([FIELDS, np.zeros_like(FIELDS)]).repeat(100, axis=0)
        noise = Perturbation(scale=0.5)(fields, training=True).numpy() - fields
        assert not noise[fields == 0].any()
        sizes = (noise * np.sign(fields))[fields != 0]
        assert -1e-6 < sizes.min() < 0.01
        assert 0.49 < sizes.max() < 0.5 + 1e-6
        assert abs(sizes.mean() - 0.25) < 0.01

    def test_each_component_and_each_call_draws_anew(self):
        layer = Perturbation(scale=1.0)
        first, second = (np.abs(layer(FIELDS, training=True) - FIELDS) for _ in range(2))
        assert len(np.unique(first.round(5))) > 0.9 * FIELDS.size
        assert (first != second).mean() > 0.9

    def test_is_for_training_only(self):
        np.testing.assert_array_equal(Perturbation()(FIELDS), FIELDS)
        np.testing.assert_array_equal(Perturbation()(FIELDS, training=False), FIELDS)

    def test_config_round_trip(self):
        layer = Perturbation(scale=0.2, seed=3)
        twin = round_trip(layer)
        assert (twin.scale, twin.seed) == (0.2, 3)
        np.testing.assert_array_equal(twin(FIELDS, training=True), layer(FIELDS, training=True))

    @pytest.mark.parametrize("scale", [-0.1, float("nan")])
    def test_bad_scale_is_refused(self, scale):
        with pytest.raises(ConfigError, match="`scale` is"):
            Perturbation(scale)


VALUES = [np.array([[1.0, 2.0]], "float32"), np.array([[3.0, -1.0]], "float32")]
WEIGHTS = [np.array([[0.5]], "float32"), np.array([[-2.0]], "float32")]


class TestSpaceFusion:
    def test_one_projection_a_space_by_hand(self):
        layer = SpaceFusion()
        layer(VALUES, WEIGHTS)
        layer.set_weights([np.array(w) for w in ([[1.0], [1.0]], [0.5], [[2.0], [0.0]], [-1.0])])
        # 0.5 * (1 + 2 + 0.5) - 2 * (2 * 3 - 1)
        np.testing.assert_allclose(layer(VALUES, WEIGHTS), [[1.75 - 10.0]])

    def test_shared_projection_by_hand(self):
        layer = SpaceFusion(shared_projection=True)
        layer(VALUES, WEIGHTS)
        layer.set_weights([np.array([[1.0], [2.0]]), np.array([0.5])])
        # 0.5 * (1 + 4 + 0.5) - 2 * (3 - 2 + 0.5)
        np.testing.assert_allclose(layer(VALUES, WEIGHTS), [[2.75 - 3.0]])

    @pytest.mark.parametrize("shared_projection", [False, True])
    def test_without_weights_all_are_one(self, shared_projection):
        layer = SpaceFusion(shared_projection)
        ones = [np.ones_like(weight) for weight in WEIGHTS]
        np.testing.assert_array_equal(layer(VALUES), layer(VALUES, ones))

    @pytest.mark.parametrize("shared_projection", [False, True])
    def test_survives_json_with_its_weights(self, shared_projection):
        layer = SpaceFusion(shared_projection)
        expected = layer(VALUES, WEIGHTS)
        twin = round_trip(layer)
        twin(VALUES, WEIGHTS)
        twin.set_weights(layer.get_weights())
        np.testing.assert_array_equal(twin(VALUES, WEIGHTS), expected)

    def test_is_a_float32_logit_under_every_policy(self):
        values = [keras.ops.cast(value, "bfloat16") for value in VALUES]
        assert keras.backend.standardize_dtype(SpaceFusion()(values).dtype) == "float32"

    def test_what_does_not_fit_is_refused(self):
        with pytest.raises(ConfigError, match="2 spaces and 1 weights"):
            SpaceFusion()(VALUES, WEIGHTS[:1])
        with pytest.raises(ConfigError, match="equal widths"):
            SpaceFusion(shared_projection=True)([VALUES[0], VALUES[1][:, :1]])
