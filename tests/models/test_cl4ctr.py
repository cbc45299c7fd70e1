import itertools

import numpy as np
import pytest
from kit.encoder_contract import round_trip
from kit.randomized import numbers, randomize

from tfctr import layers
from tfctr.errors import ConfigError
from tfctr.losses.self_supervision import FieldSignal, ViewDistance
from tfctr.models import CL4CTR, FM, build

OPTIONS = {"embedding_dim": 3, "num_layers": 1, "hidden_dim": 5}


def test_prediction_is_the_encoders(tiny_schema, tiny_ids):
    """The default is FM: nothing of the self-supervision reaches the logit."""
    model, fm = randomize(CL4CTR(tiny_schema, **OPTIONS)), FM(tiny_schema, embedding_dim=3)
    for ours, its in zip(fm.embeddings, model.embeddings, strict=True):
        ours.set_weights(its.get_weights())
    bias = next(weight for weight in model.weights if "linear_terms" in weight.path)
    np.testing.assert_allclose(model(tiny_ids(9))["logit"], fm(tiny_ids(9))["logit"] + bias, rtol=1e-4, atol=1e-5)


def test_loss_terms_against_loops(tiny_schema, tiny_ids, tiny_labels):
    model = randomize(CL4CTR(tiny_schema, contrast_weight=2.0, regularization_weight=0.3, **OPTIONS))
    model.compile()
    ids, labels = tiny_ids(6), tiny_labels(6)[:, None]
    outputs = {name: numbers(output) for name, output in model(ids).items()}
    fields = outputs["fields"].reshape(6, len(tiny_schema.fields), 3)
    terms = model.loss_terms(ids, labels, training=False)

    distances = [((a - b) ** 2).sum() for a, b in zip(outputs["first_view"], outputs["second_view"], strict=True)]
    np.testing.assert_allclose(terms["contrast"], 2.0 * np.mean(distances), rtol=1e-5)

    pairs = [((a - b) ** 2).sum(axis=-1).mean() for a, b in itertools.combinations(fields, 2)]
    np.testing.assert_allclose(terms["alignment"], 0.3 * np.mean(pairs), rtol=1e-5)

    cosines = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for row in fields for a, b in itertools.combinations(row, 2)]
    np.testing.assert_allclose(terms["uniformity"], 0.3 * np.mean(cosines), rtol=1e-4)


def test_uniformity_of_the_released_code(tiny_schema, tiny_ids, tiny_labels):
    model = randomize(build("CL4CTR", tiny_schema, regularization_weight=0.3, uniformity="released", **OPTIONS))
    model.compile()
    ids = tiny_ids(6)
    fields = numbers(model(ids)["fields"]).reshape(6, len(tiny_schema.fields), 3)
    guarded = [a @ b / (np.linalg.norm(a) * np.linalg.norm(b) + 1e-4) for row in fields for a, b in itertools.product(row, row)]
    terms = model.loss_terms(ids, tiny_labels(6)[:, None], training=False)
    np.testing.assert_allclose(terms["uniformity"], 0.3 * np.mean(guarded), rtol=1e-4)


def test_unknown_uniformity_gives_the_closest_name(tiny_schema):
    with pytest.raises(ConfigError, match="Did you mean 'released'"):
        CL4CTR(tiny_schema, uniformity="release")


def test_the_two_views_differ_by_mask_and_projection_but_share_the_transformer(tiny_schema):
    model = CL4CTR(tiny_schema, **OPTIONS)
    transformers = [layer for layer in model.layers if isinstance(layer, layers.FieldTransformer)]
    assert len(transformers) == 1
    assert model.output["first_view"].shape == model.output["second_view"].shape == (None, 3)


@pytest.mark.parametrize(("mask", "axis"), [("feature", 2), ("dimension", 1)])
def test_a_mask_drops_whole_features_or_dimensions(mask, axis, tiny_schema):
    model = CL4CTR(tiny_schema, mask=mask, **OPTIONS)
    dropouts = [layer for layer in model.layers if type(layer).__name__ == "Dropout"]
    dropped = numbers(dropouts[0](np.ones((64, 5, 3), "float32"), training=True)) == 0
    assert 0.3 < dropped.mean() < 0.7
    assert (dropped.all(axis=axis) == dropped.any(axis=axis)).all()
    assert len(dropouts) == 2


def test_any_encoder_goes_under_it(tiny_schema, tiny_ids):
    model = build("CL4CTR", tiny_schema, encoder={"type": "MLP", "hidden_units": [4]})
    assert model(tiny_ids(3))["logit"].shape == (3, 1)


def test_unknown_mask_gives_the_closest_name(tiny_schema):
    with pytest.raises(ConfigError, match="Did you mean 'feature'"):
        CL4CTR(tiny_schema, mask="features")


@pytest.mark.parametrize(
    "loss", [ViewDistance("a", "b", weight=2.0), FieldSignal("fields", num_fields=3, signal="alignment", weight=0.5)]
)
def test_losses_survive_their_config(loss):
    assert round_trip(loss).get_config() == loss.get_config()


def test_unknown_signal_gives_the_closest_name():
    with pytest.raises(ConfigError, match="Did you mean 'uniformity'"):
        FieldSignal("fields", 3, "uniformty")
