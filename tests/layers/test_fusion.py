import keras
import numpy as np
import pytest
from kit.encoder_contract import round_trip

from tfctr.errors import ConfigError
from tfctr.layers import (
    FUSIONS,
    ConcatenationFusion,
    ExpertFusion,
    MeanFusion,
    StackedFusion,
    SumFusion,
    VotingFusion,
    WeightedSumFusion,
)

generator = np.random.default_rng(0)
REPRESENTATIONS = [generator.normal(size=(6, 3)).astype("float32"), generator.normal(size=(6, 5)).astype("float32")]
BOTH = np.concatenate(REPRESENTATIONS, axis=1)


def built(fusion, representations=None):
    """The fusion with weights that are all different and far from their start, and its outputs by name."""
    representations = REPRESENTATIONS if representations is None else representations
    fusion(representations)
    weights = [np.random.default_rng(i).normal(size=v.shape).astype("float32") for i, v in enumerate(fusion.trainable_weights)]
    for variable, value in zip(fusion.trainable_weights, weights, strict=True):
        variable.assign(value)
    return {name: np.asarray(logit) for name, logit in fusion(representations).items()}


def dense(layer, x):
    return x @ layer.kernel.numpy() + layer.bias.numpy()


def softmax(x):
    return np.exp(x) / np.exp(x).sum(1, keepdims=True)


@pytest.mark.parametrize("name", sorted(FUSIONS))
class TestEveryFusion:
    def test_gives_three_named_logits(self, name):
        inputs = [keras.Input((3,)), keras.Input((5,))]
        outputs = FUSIONS[name]()(inputs)
        assert {key: logit.shape for key, logit in outputs.items()} == dict.fromkeys(("logit", "simple", "complex"), (None, 1))

    def test_heads_are_linear_in_their_representation(self, name):
        fusion = FUSIONS[name]()
        outputs = built(fusion)
        for key, head, representation in zip(("simple", "complex"), fusion.heads, REPRESENTATIONS, strict=True):
            np.testing.assert_allclose(outputs[key], dense(head, representation), rtol=1e-5, atol=1e-6)

    def test_one_unit_is_a_logit_already(self, name):
        representations = [REPRESENTATIONS[0][:, :1], REPRESENTATIONS[1]]
        fusion = FUSIONS[name]()
        np.testing.assert_array_equal(built(fusion, representations)["simple"], representations[0])
        assert not fusion.heads[0].weights
        assert len(fusion.heads[1].weights) == 2

    def test_saved_model_is_the_same(self, name, tmp_path):
        inputs = [keras.Input((3,)), keras.Input((5,))]
        fusion = FUSIONS[name]()
        model = keras.Model(inputs, fusion(inputs))
        expected = built(fusion)
        model.save(tmp_path / "model.keras")
        restored = keras.saving.load_model(tmp_path / "model.keras")
        for key, logit in restored(REPRESENTATIONS).items():
            np.testing.assert_allclose(logit, expected[key], rtol=1e-6)

    def test_logits_are_float32_under_a_mixed_policy(self, name):
        keras.config.set_dtype_policy("mixed_bfloat16")
        try:
            fusion = FUSIONS[name]()
        finally:
            keras.config.set_dtype_policy("float32")
        half = [keras.ops.cast(x, "bfloat16") for x in REPRESENTATIONS]
        for representations in (half, [half[0][:, :1], half[1]]):
            outputs = round_trip(fusion)(representations)
            assert {keras.backend.standardize_dtype(logit.dtype) for logit in outputs.values()} == {"float32"}

    @pytest.mark.parametrize("shapes", [[(3,)], [(3,), (5,), (5,)], [(2, 3), (5,)]])
    def test_other_inputs_are_refused(self, name, shapes):
        with pytest.raises(ConfigError, match="two representations"):
            FUSIONS[name]()([keras.Input(shape) for shape in shapes])


def test_sum():
    outputs = built(SumFusion())
    np.testing.assert_allclose(outputs["logit"], outputs["simple"] + outputs["complex"], rtol=1e-6)


def test_mean_is_half_of_the_sum():
    fusion = MeanFusion()
    outputs = built(fusion)
    np.testing.assert_allclose(outputs["logit"], (outputs["simple"] + outputs["complex"]) / 2, rtol=1e-6)


def test_weighted_sum_starts_at_one_half():
    fusion = WeightedSumFusion()
    outputs = fusion(REPRESENTATIONS)
    np.testing.assert_array_equal(fusion.shares, [0.5, 0.5])
    np.testing.assert_allclose(outputs["logit"], 0.5 * (outputs["simple"] + outputs["complex"]), rtol=1e-6)


def test_weighted_sum_is_not_constrained():
    fusion = WeightedSumFusion()
    built(fusion)
    fusion.shares.assign([-1.5, 2.0])
    outputs = fusion(REPRESENTATIONS)
    np.testing.assert_allclose(outputs["logit"], -1.5 * outputs["simple"] + 2.0 * outputs["complex"], rtol=1e-5)


def test_voting_takes_the_raw_votes():
    fusion = VotingFusion(temperature=0.5)
    outputs = built(fusion)
    votes = np.concatenate([dense(vote, x) for vote, x in zip(fusion.votes, REPRESENTATIONS, strict=True)], axis=1)
    assert (votes < 0).any(), "a logarithm of these votes would be NaN"
    shares = softmax(votes / 0.5)
    np.testing.assert_allclose(fusion.weigh(REPRESENTATIONS), shares, rtol=1e-5)
    expected = (shares * np.concatenate([outputs["simple"], outputs["complex"]], axis=1)).sum(1, keepdims=True)
    np.testing.assert_allclose(outputs["logit"], expected, rtol=1e-5, atol=1e-6)


def test_voting_is_noisy_in_training_only():
    fusion = VotingFusion(seed=7)
    built(fusion)
    at_rest = np.asarray(fusion(REPRESENTATIONS)["logit"])
    np.testing.assert_array_equal(fusion(REPRESENTATIONS)["logit"], at_rest)
    first, second = (np.asarray(fusion(REPRESENTATIONS, training=True)["logit"]) for _ in range(2))
    assert (first != at_rest).all()
    assert (first != second).all(), "each call draws anew"
    twin = VotingFusion(seed=7)
    built(twin)
    np.testing.assert_array_equal(twin(REPRESENTATIONS, training=True)["logit"], first)
    np.testing.assert_array_equal(twin(REPRESENTATIONS, training=True)["simple"], twin(REPRESENTATIONS)["simple"])


def test_voting_noise_follows_the_global_seed():
    noisy = []
    for _ in range(2):
        keras.utils.set_random_seed(3)
        fusion = VotingFusion()
        built(fusion)
        noisy.append(np.asarray(fusion(REPRESENTATIONS, training=True)["logit"]))
    np.testing.assert_array_equal(*noisy)


def test_voting_noise_is_gumbel():
    # The difference of two Gumbel variables is logistic: of votes a and b the first wins with sigmoid(a - b),
    # at any temperature.
    rows = 20_000
    fusion = VotingFusion(seed=1)
    representations = [np.ones((rows, 1), "float32"), np.ones((rows, 1), "float32")]
    fusion(representations)
    for vote, value in zip(fusion.votes, (1.0, -0.5), strict=True):
        vote.set_weights([np.array([[value]]), np.zeros(1)])
    wins = np.asarray(fusion.weigh(representations, training=True))[:, 0] > 0.5
    assert abs(wins.mean() - 1 / (1 + np.exp(-1.5))) < 5 * np.sqrt(0.15 / rows)


def test_voting_keeps_its_arguments():
    twin = round_trip(VotingFusion(temperature=0.3, seed=5))
    assert (twin.temperature, twin.seed) == (0.3, 5)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_voting_refuses_a_bad_temperature(temperature):
    with pytest.raises(ConfigError, match="`temperature` is"):
        VotingFusion(temperature=temperature)


def test_stacked():
    fusion = StackedFusion()
    outputs = built(fusion)
    first, second = fusion.shares.numpy()
    expected = first * outputs["simple"] + second * outputs["complex"] + fusion.bias.numpy()
    np.testing.assert_allclose(outputs["logit"], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(fusion.weigh(REPRESENTATIONS), [[first, second]] * 6, rtol=1e-6)
    fresh = StackedFusion()([np.float32([[1.0]]), np.float32([[3.0]])])
    np.testing.assert_allclose(fresh["logit"], [[0.5 * 1 + 0.5 * 3 + 0]])


def test_concatenation():
    fusion = ConcatenationFusion()
    outputs = built(fusion)
    np.testing.assert_allclose(outputs["logit"], dense(fusion.joint_head, BOTH), rtol=1e-5, atol=1e-6)


def test_experts():
    fusion = ExpertFusion()
    outputs = built(fusion)
    gates, experts = softmax(dense(fusion.gate, BOTH)), dense(fusion.experts, BOTH)
    np.testing.assert_allclose(fusion.weigh(REPRESENTATIONS), gates, rtol=1e-5)
    np.testing.assert_allclose(outputs["logit"], (gates * experts).sum(1, keepdims=True), rtol=1e-5, atol=1e-6)


# by hand, for representations of 3 and 5 units: the heads' 4 + 6, then the fusion's own
@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("sum", 0),
        ("mean", 0),
        ("weighted_sum", 2),
        ("voting", 4 + 6),
        ("concatenation", 9),
        ("experts", 18 + 18),
        ("stacked", 3),
    ],
)
def test_parameter_counts(name, own):
    fusion = FUSIONS[name]()
    fusion(REPRESENTATIONS)
    assert sum(int(np.prod(weight.shape)) for weight in fusion.trainable_weights) == 10 + own
