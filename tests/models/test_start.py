"""`model.start_at`: whatever its form, a fresh model predicts the click rate."""

import math

import keras
import numpy as np
import pytest
from keras import ops
from kit.every_model import EVERY_MODEL_AT_LENGTH, made

from tfctr.errors import ConfigError
from tfctr.layers import FUSIONS, MLP, FactorizationMachine, FeatureEmbedding
from tfctr.models import CETN, DNN, TF4CTR, CTRModel, FiGNN, FinalNet, ids_input

RATE = 0.02
LOG_ODDS = math.log(RATE / (1 - RATE))


def mean_logits(model, ids):
    return {name: float(np.mean(value)) for name, value in model(ids).items() if value.shape[1] == 1}


@EVERY_MODEL_AT_LENGTH
def test_every_model_starts_at_the_click_rate(name, tiny_schema, tiny_ids):
    model = made(name, tiny_schema, **({"output_bias": True} if name == "FiGNN" else {}))
    model.start_at(RATE)
    # Embeddings are 1e-4 large; the layer norms of GraphFM and the logarithms of AFN make more of them.
    spread = 0.3 if name in ("AFN", "GraphFM") else 0.03
    assert mean_logits(model, tiny_ids(512))["logit"] == pytest.approx(LOG_ODDS, abs=spread)


@pytest.mark.parametrize("fusion", ["weighted_sum", "voting", "concatenation", "experts"])
def test_the_logits_of_auxiliary_losses_start_there_too(fusion, tiny_schema, tiny_ids):
    model = TF4CTR(tiny_schema, fusion=fusion)
    model.start_at(RATE)
    expected = dict.fromkeys(["logit", "simple", "complex"], LOG_ODDS)
    assert mean_logits(model, tiny_ids(64)) == pytest.approx(expected, abs=0.03)


def test_a_sum_of_two_heads_starts_at_half_each(tiny_schema, tiny_ids):
    # logit = simple + complex: the two that come nearest to log odds each, by least squares, while their sum is exactly that.
    assert "sum" in FUSIONS
    model = TF4CTR(tiny_schema, fusion="sum")
    model.start_at(RATE)
    expected = {"logit": LOG_ODDS, "simple": LOG_ODDS / 2, "complex": LOG_ODDS / 2}
    assert mean_logits(model, tiny_ids(64)) == pytest.approx(expected, abs=0.03)


def test_a_head_without_a_bias_leaves_the_prediction_to_the_other(tiny_schema, tiny_ids):
    model = TF4CTR(tiny_schema, simple_encoder=FactorizationMachine())  # its one unit is the simple logit, without a bias
    model.start_at(RATE)
    expected = {"logit": LOG_ODDS, "simple": 0.0, "complex": 2 * LOG_ODDS}  # logit = simple / 2 + complex / 2
    assert mean_logits(model, tiny_ids(64)) == pytest.approx(expected, abs=0.03)


def test_the_spaces_of_cetn_start_alike_with_equal_weights(tiny_schema, tiny_ids):
    model = CETN(tiny_schema)
    model.start_at(RATE)
    (fusion,) = (layer for layer in model.layers if type(layer).__name__ == "SpaceFusion")
    outputs = keras.Model(model.input, fusion.input)(tiny_ids(64))
    np.testing.assert_allclose(fusion.weigh(outputs), np.full((64, 3), 1 / 3), atol=1e-2)
    np.testing.assert_allclose([np.array(head.bias) for head in fusion.heads], np.full((3, 1), LOG_ODDS), rtol=0.05)


def test_both_halves_of_finalnet_start_there(tiny_schema, tiny_ids):
    model = FinalNet(tiny_schema)
    model.start_at(RATE)
    assert mean_logits(model, tiny_ids(64)) == pytest.approx(dict.fromkeys(["logit", "first", "second"], LOG_ODDS), abs=0.03)


def test_nothing_but_biases_changes(tiny_schema):
    model = TF4CTR(tiny_schema, simple_encoder=MLP([8]), complex_encoder=MLP([8]))
    before = {weight.path: np.array(weight) for weight in model.weights}
    model.start_at(RATE)
    changed = {weight.path for weight in model.weights if not np.array_equal(weight, before[weight.path])}
    assert {path.rpartition("/")[2] for path in changed} == {"bias"}
    assert len(changed) == 2


def test_a_rate_of_one_half_changes_no_bit(tiny_schema, tiny_ids):
    model = DNN(tiny_schema)
    before = model.predict(tiny_ids(64), verbose=0)
    model.start_at(0.5)
    np.testing.assert_allclose(model.predict(tiny_ids(64), verbose=0), before, atol=1e-4)


def test_a_model_of_ones_own(tiny_schema, tiny_ids):
    ids = ids_input(tiny_schema)
    embedding = FeatureEmbedding(tiny_schema, 4)
    logit = 3.0 * keras.layers.Dense(1)(ops.mean(embedding(ids), axis=1))
    model = CTRModel(tiny_schema, ids, {"logit": logit}, [embedding])
    model.start_at(0.9)
    assert mean_logits(model, tiny_ids(64))["logit"] == pytest.approx(math.log(9), abs=0.01)


@pytest.mark.parametrize("units", [1, 2])
def test_biases_of_hidden_units_are_left_alone(units, tiny_schema, tiny_ids):
    model = DNN(tiny_schema, hidden_units=[units])
    model.start_at(RATE)
    assert mean_logits(model, tiny_ids(64))["logit"] == pytest.approx(LOG_ODDS, abs=0.01)
    assert [np.array(bias).any() for bias in model.trainable_variables if bias.name == "bias"] == [False, True]


def test_a_model_without_a_bias_is_refused_and_unchanged(tiny_schema, tiny_ids):
    model = FiGNN(tiny_schema)
    before = np.array(model(tiny_ids(8))["logit"])
    with pytest.raises(ConfigError, match="FiGNN has no bias"):
        model.start_at(RATE)
    np.testing.assert_array_equal(model(tiny_ids(8))["logit"], before)


@pytest.mark.parametrize("rate", [0, 1, 1.5, -0.1, float("nan"), "0.2", None])
def test_what_is_no_click_rate(rate, tiny_schema):
    with pytest.raises(ConfigError, match="`click_rate` is"):
        DNN(tiny_schema, hidden_units=[8]).start_at(rate)
