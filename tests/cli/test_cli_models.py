"""`tfctr models NAME`: what one model can be told, from its own signature and docstring."""

import inspect
import json

import pytest
from kit.commands import done, tfctr_

from tfctr import models
from tfctr.errors import ConfigError, did_you_mean
from tfctr.models import MODELS, describe_arguments


@pytest.mark.parametrize("name", sorted(MODELS))
def test_every_argument_has_a_default_and_a_meaning(name):
    arguments = describe_arguments(name)
    parameters = inspect.signature(MODELS[name].__init__).parameters
    assert list(arguments) == [parameter for parameter in parameters if parameter not in ("self", "schema", "name")]
    for argument, found in arguments.items():
        assert found["default"] == parameters[argument].default
        assert found["meaning"]
        assert "see `CTRModel`" not in found["meaning"]


def test_arguments_of_one_model_are_printed():
    text = done("models", "DeepFM").splitlines()
    assert text[0].startswith("DeepFM: ")
    assert "https://arxiv.org/abs/1703.04247" in text[0]
    lines = {line.split()[0]: line for line in text[1:]}
    assert lines.keys() == describe_arguments("DeepFM").keys()
    assert lines["embedding_dim"].split()[1] == "16"
    assert lines["l2_scope"].split(maxsplit=2)[1:] == ["'table'", describe_arguments("DeepFM")["l2_scope"]["meaning"]]
    found = json.loads(done("models", "DeepFM", "--json"))
    assert found["year"] == 2017
    assert found["arguments"]["hidden_units"] == json.loads(json.dumps(describe_arguments("DeepFM")["hidden_units"]))


def test_an_argument_that_must_be_given_says_so(monkeypatch):
    class Own(models.CTRModel):
        """A model of one's own.

        Args:
            schema: a fitted `Schema`.
            width, depth: of the network, a text that goes on
                in a second line.
        """

        def __init__(self, schema, width, depth=2, other=None, name=None):
            pass

    monkeypatch.setitem(MODELS, "Own", Own)
    meaning = "of the network, a text that goes on in a second line."
    assert describe_arguments("Own") == {
        "width": {"meaning": meaning},
        "depth": {"default": 2, "meaning": meaning},
        "other": {"default": None, "meaning": None},
    }
    assert [line.split()[:2] for line in done("models", "Own").splitlines()[1:]] == [
        ["width", "required"],
        ["depth", "2"],
        ["other", "None"],
    ]


def test_an_unknown_model_is_code_2_with_the_closest():
    for name in ("deepfm", "DeepFN"):
        result = tfctr_("models", name)
        assert (result.exit_code, "Did you mean 'DeepFM'?" in result.stderr) == (2, True)
    with pytest.raises(ConfigError, match="Did you mean 'DCNv2'"):
        describe_arguments("dcnV2")


def test_a_suggestion_looks_past_upper_case():
    assert did_you_mean("MLP", ["mlp", "cin"]) == "Did you mean 'mlp'? Expected one of: cin, mlp."
    assert did_you_mean("xyz", ["mlp", "cin"]) == "Expected one of: cin, mlp."
