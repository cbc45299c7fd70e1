import keras
import numpy as np
import pytest
from kit.encoder_contract import check_encoder
from kit.randomized import randomize, softmax

from tfctr.errors import ConfigError
from tfctr.layers import PairAttention, SelfAttention

VIEW = np.random.default_rng(0).normal(size=(5, 4, 3)).astype("float32")


def built(layer):
    layer.build(VIEW.shape)
    return randomize(layer)


@pytest.mark.parametrize(
    ("encoder", "units"),
    [(SelfAttention(1, 1, 2), 3 * 2), (SelfAttention(3, 2, 5), 3 * 10), (PairAttention(), 4), (PairAttention(2), 4)],
)
def test_encoder_contract(encoder, units):
    check_encoder(encoder, units)


def test_self_attention_against_loops():
    layer = built(SelfAttention(num_layers=2, num_heads=2, head_dim=3))
    expected = []
    for fields in VIEW.astype("float64"):
        for step in layer.steps:
            query, key, value, residual = (weight.numpy().astype("float64") for weight in step.weights)
            new = np.zeros((4, 6))
            for m in range(4):
                for head in (slice(0, 3), slice(3, 6)):
                    scores = [(fields[m] @ query[:, head]) @ (fields[k] @ key[:, head]) for k in range(4)]
                    for k, weight in enumerate(softmax(np.array(scores))):
                        new[m, head] += weight * (fields[k] @ value[:, head])
                new[m] = np.maximum(new[m] + fields[m] @ residual, 0)
            fields = new
        expected.append(fields.ravel())
    np.testing.assert_allclose(layer(VIEW), expected, rtol=1e-5, atol=1e-5)


def test_pair_attention_against_loops():
    layer = built(PairAttention(attention_dim=2))
    kernel, bias, score = (weight.astype("float64") for weight in layer.get_weights())
    expected = []
    for fields in VIEW.astype("float64"):
        products = [fields[i] * fields[j] for i in range(4) for j in range(i + 1, 4)]
        weights = softmax(np.array([np.maximum(product @ kernel + bias, 0) @ score[:, 0] for product in products]))
        expected.append(sum(weight * product for weight, product in zip(weights, products, strict=True)))
    np.testing.assert_allclose(layer(VIEW), expected, rtol=1e-5, atol=1e-6)


def test_pair_attention_survives_large_scores():
    layer = PairAttention()
    layer.build(VIEW.shape)
    assert np.isfinite(layer(1e4 * VIEW)).all()


@pytest.mark.parametrize("encoder", [SelfAttention, PairAttention])
def test_one_field_is_refused(encoder):
    with pytest.raises(ConfigError, match="1 field has no pairs"):
        encoder()(keras.Input((1, 4)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SelfAttention(num_layers=0), "`num_layers` is 0"),
        (lambda: SelfAttention(num_heads=0), "`num_heads` is 0"),
        (lambda: SelfAttention(head_dim=0), "`head_dim` is 0"),
        (lambda: PairAttention(0), "`attention_dim` is 0"),
    ],
)
def test_bad_arguments_are_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
