"""Models saved before an argument existed are what they were: what their config leaves out has its earlier meaning."""

import json
import zipfile

import keras
import numpy as np
import pytest
from kit.at_length import at_length
from kit.randomized import randomize

from tfctr.layers import MLP, BridgedCross, ExpertEmbedding, FeatureGating, GatedEmbedding
from tfctr.models import AFN, EDCN, TF4CTR, DualMLP, FinalMLP

SIZES = {"simple_hidden_units": [5], "complex_hidden_units": [6]}


def encoders():
    return {"simple_encoder": MLP([5], batch_norm=True), "complex_encoder": MLP([6], dropout=0.5, batch_norm=True)}


def learned(cls):
    return lambda schema: TF4CTR(schema, 4, cls(schema, 4), **encoders())


# name: (a model as it was, the change that makes its config the one that was written)
EARLIER = {
    "gated": (learned(GatedEmbedding), {"selection": "gated"}),
    "experts": (learned(ExpertEmbedding), {"selection": "experts"}),
    "dual gated": (
        lambda schema: DualMLP(schema, 4, **SIZES, batch_norm=True, selection=GatedEmbedding(schema, 4)),
        {"selection": "gated"},
    ),
    "attention": (lambda schema: EDCN(schema, 4, bridge="attention", attention="sides"), {"attention": ...}),
    "hadamard": (lambda schema: EDCN(schema, 4), {"attention": ...}),
    "afn": (lambda schema: AFN(schema, 4, 3, [5], [6], joint=True), {"joint": ...}),
    "afn alone": (lambda schema: AFN(schema, 4, 3, [5], None), {"joint": ...}),
    "contexts": (
        lambda schema: FinalMLP(schema, 4, [10], [20], simple_context=["user"], separate_contexts=False),
        {"separate_contexts": ...},
    ),
}


def as_written_before(file, changes, layers=()):
    """Change a `.keras` file's config: `...` takes a key out; `layers` are the keys that the config of a layer did not have."""
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    model = json.loads(members["config.json"])
    for key, value in changes.items():
        if value is ...:
            del model["config"][key]
        else:
            model["config"][key] = value
    _without(model, set(layers))
    members["config.json"] = json.dumps(model)
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def _without(value, keys):
    for part in value.values() if isinstance(value, dict) else value:
        if isinstance(part, dict | list):
            _without(part, keys)
    if isinstance(value, dict):
        for key in keys & set(value):
            del value[key]


@pytest.mark.parametrize("name", at_length(sorted(EARLIER), *sorted(EARLIER)[:3]))
def test_a_file_of_before_gives_the_same_bits(name, tiny_schema, tiny_ids, tmp_path):
    make, changes = EARLIER[name]
    model = randomize(make(tiny_schema))
    expected = model.predict(tiny_ids(50), verbose=0)
    model.save(tmp_path / "model.keras")
    as_written_before(tmp_path / "model.keras", changes)
    for _ in range(2):  # and once more, saved by the code of today
        restored = keras.saving.load_model(tmp_path / "model.keras")
        np.testing.assert_array_equal(restored.predict(tiny_ids(50), verbose=0), expected)
        restored.save(tmp_path / "model.keras")


@pytest.mark.parametrize("selection", ["gated", "experts"])
def test_a_named_selection_of_today_is_saved_as_it_is(selection, tiny_schema, tiny_ids, tmp_path):
    model = randomize(TF4CTR(tiny_schema, 4, selection, **encoders()))
    model.save(tmp_path / "model.keras")
    restored = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(restored.predict(tiny_ids(50), verbose=0), model.predict(tiny_ids(50), verbose=0))
    assert [weight.shape for weight in restored.weights] == [weight.shape for weight in model.weights]


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    ("layer", "key"),
    [
        (lambda schema: TF4CTR(schema, 4, simple_encoder=BridgedCross(2, "attention", attention="sides")), "attention"),
        (lambda schema: TF4CTR(schema, 4, FeatureGating(schema, 4, ["user"], separate_contexts=False)), "separate_contexts"),
    ],
)
def test_a_layer_of_before_in_a_model_gives_the_same_bits(layer, key, tiny_schema, tiny_ids, tmp_path):
    model = randomize(layer(tiny_schema))
    expected = model.predict(tiny_ids(50), verbose=0)
    model.save(tmp_path / "model.keras")
    as_written_before(tmp_path / "model.keras", {}, [key])
    restored = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(restored.predict(tiny_ids(50), verbose=0), expected)
