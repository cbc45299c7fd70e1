"""The options of an export: made once, checked once, with single fields replaced."""

import dataclasses
import json

import pytest

import tfctr
from tfctr.errors import ConfigError
from tfctr.models import MODELS
from tfctr.serving import ExportOptions


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"without": "explain"}, r"`without` is 'explain'\.\n  fix: give a list"),
        ({"without": 5}, r"`without` is 5\.\n  fix: give a list"),
        ({"without": ["ids"]}, "Unknown signature to leave out 'ids'"),
        ({"negatives_kept": 0}, "`negatives_kept` is 0"),
        ({"calibration": "platt"}, "`calibration` is 'platt'"),
        ({"metrics": [0.75]}, r"`metrics` is \[0\.75\]"),
    ],
)
def test_what_cannot_be_used_is_refused_when_they_are_made(fields, problem):
    with pytest.raises(ConfigError, match=problem):
        ExportOptions(**fields)


def test_they_stay_as_they_are():
    with pytest.raises(dataclasses.FrozenInstanceError):
        ExportOptions().negatives_kept = 0.5


def test_a_field_that_does_not_exist_is_named_before_anything_is_exported(tiny_schema, tmp_path):
    model = MODELS["LR"](tiny_schema)
    for publish in (tfctr.serving.export, tfctr.serving.publish_model):
        with pytest.raises(ConfigError, match=r"option of an export 'negative_kept'\.\n  fix: Did you mean 'negatives_kept'"):
            publish(model, tmp_path / "ctr", negative_kept=0.5)
    assert list(tmp_path.iterdir()) == []


def test_given_fields_replace_those_of_the_options(tiny_schema, tmp_path):
    options = ExportOptions(metrics={"auc": 0.75}, negatives_kept=0.5, without={"explain"})
    version = tfctr.serving.export(MODELS["LR"](tiny_schema), tmp_path / "ctr", options, check=False, negatives_kept=0.25)
    card = json.loads((version / "assets.extra" / "model_card.json").read_text())
    assert (card["metrics"], card["negatives_kept"]) == ({"auc": 0.75}, 0.25)
    assert "explain" not in card["signatures"]
    assert "embedding" in card["signatures"]
    assert options.negatives_kept == 0.5
