"""`Space`: what a file of a search may say, and which settings follow from it."""

import math

import pytest
from kit.experiments import prepared_synthetic
from kit.places import EXAMPLES

import tfctr
from tfctr.errors import ConfigError
from tfctr.experiments import Space
from tfctr.experiments.space import in_words, with_values
from tfctr.training import suggest

pytest.importorskip("optuna")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("searched")
    return prepared_synthetic(folder, 1_500)


def test_what_does_not_vary_is_as_in_a_comparison(dataset, tmp_path):
    base = Space.from_dict({"vary": {"model.alpha": [0.1]}, "training": {"epochs": 3}, "seed": 7}).base(dataset)
    suggested = suggest(dataset)
    assert base.model == suggested.model
    assert base.training == suggested.training.model_copy(update={"epochs": 3, "seed": 7})
    (tmp_path / "run.yaml").write_text("model: {name: FM, embedding_dim: 4}\ntraining: {seed: 5}\n", encoding="utf-8")
    (tmp_path / "space.yaml").write_text("config: run.yaml\nvary: {model.embedding_l2: [0, 1]}\n", encoding="utf-8")
    base = Space.load(tmp_path / "space.yaml").base(dataset)
    assert (base.model.name, base.model.arguments, base.training.seed) == ("FM", {"embedding_dim": 4}, 1)


def test_distributions_and_their_values(dataset):
    vary = {
        "model.hidden_units": [[8], [16, 8]],
        "training.loss": ["log_loss", "focal"],
        "model.dropout": {"float": [0, 0.5], "step": 0.1},
        "training.learning_rate": {"float": [1e-4, 1e-2], "log": True},
        "model.embedding_dim": {"int": [4, 16], "step": 4},
        "training.patience": {"int": [1, 3]},
    }
    space = Space.from_dict({"model": {"name": "DNN"}, "vary": vary})
    found = space.distributions()
    assert found["model.hidden_units"].choices == ("[8]", "[16, 8]")
    assert (found["model.dropout"].low, found["model.dropout"].high, found["model.dropout"].step) == (0, 0.5, 0.1)
    assert (found["training.learning_rate"].log, found["training.learning_rate"].step) == (True, None)
    assert (found["model.embedding_dim"].high, found["model.embedding_dim"].step) == (16, 4)
    assert found["training.patience"].step == 1
    chosen = {"model.hidden_units": "[16, 8]", "training.loss": '"focal"', "model.dropout": 0.2, "model.embedding_dim": 8}
    settings = space.plain(chosen)
    assert settings["model.hidden_units"] == [16, 8]
    config = with_values(space.base(dataset), settings)
    assert config.model.arguments["hidden_units"] == [16, 8]
    assert (config.model.arguments["dropout"], config.training.loss) == (0.2, "focal")


def test_the_base_is_a_choice_where_it_lies_in_the_space(dataset):
    def chosen(vary, **model):
        space = Space.from_dict({"model": {"name": "DNN", **model}, "vary": vary})
        return space.chosen_by(space.base(dataset))

    assert chosen({"model.dropout": [0.1, 0.2]}) == {"model.dropout": "0.2"}  # as `suggest` has it
    assert chosen({"model.embedding_dim": {"int": [8, 16], "step": 8}}) == {"model.embedding_dim": 16}  # the model's default
    assert chosen({"model.dropout": {"float": [0.3, 0.5]}}) is None
    assert chosen({"model.dropout": {"float": [0, 0.5], "step": 0.1}}, dropout=0.25) is None
    assert chosen({"model.dropout": [0.2], "model.embedding_dim": [8]}) is None


def test_paths_tell_apart_what_has_one_key():
    assert in_words({"model.dropout": 0.5, "model.name": "é"}) == 'dropout=0.5, name="é"'
    twice = {"model.simple_encoder.dropout": 0.1, "model.complex_encoder.dropout": 0.25}
    assert in_words(twice) == "model.simple_encoder.dropout=0.1, model.complex_encoder.dropout=0.25"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([], "`vary` is missing"),
        ({"model": {"name": "DNN"}}, "`vary` is missing"),
        ({"vary": {}}, "`vary` names nothing"),
        ({"vary": ["model.dropout"]}, "`vary` is"),
        ({"vary": {"model.dropout": [0.1]}, "trial": 3}, "Did you mean 'trials'"),
        ({"vary": {"dropout": [0.1]}}, "vary.dropout is no value of a run"),
        ({"vary": {"dropout": {"float": [0, 1]}}}, "vary.dropout is no value of a run"),
        ({"vary": {"training.seed": {"int": [1, 9]}}}, "vary.training.seed says nothing here"),
        ({"vary": {"training.monitor": ["auc", "log_loss"]}}, "compare trials by several measures"),
        ({"vary": {"model.dropout": []}}, "vary.model.dropout is"),
        ({"vary": {"model.dropout": 0.1}}, "vary.model.dropout is 0.1"),
        ({"vary": {"model.dropout": {"flaot": [0, 1]}}}, "Did you mean 'float'"),
        ({"vary": {"model.dropout": {"log": True}}}, "vary.model.dropout is"),
        ({"vary": {"model.dropout": {"float": [0, 1], "int": [0, 1]}}}, "vary.model.dropout is"),
        ({"vary": {"model.dropout": {"float": [0]}}}, "vary.model.dropout is"),
        ({"vary": {"model.dropout": {"float": 1}}}, "vary.model.dropout is"),
        ({"vary": {"model.dropout": {"float": ["0", "1"]}}}, "vary.model.dropout is"),
        ({"vary": {"model.dropout": {"float": [False, True]}}}, "vary.model.dropout is"),
        ({"vary": {"model.dropout": {"float": [0, math.inf]}}}, "vary.model.dropout is"),
        ({"vary": {"model.embedding_dim": {"int": [0.5, 1]}}}, "vary.model.embedding_dim is"),
        ({"vary": {"model.dropout": {"float": [0.5, 0.1]}}}, "vary.model.dropout is"),
        ({"vary": {"model.dropout": {"float": [0, 0.1], "log": True}}}, "vary.model.dropout is"),
        ({"vary": {"model.dropout": {"float": [0.1, 1], "log": 1}}}, "vary.model.dropout.log is 1"),
        ({"vary": {"model.dropout": {"float": [0, 0.5], "step": 0.2}}}, "vary.model.dropout.step is 0.2"),
        ({"vary": {"model.embedding_dim": {"int": [4, 8], "step": 0}}}, "vary.model.embedding_dim.step is 0"),
        ({"vary": {"model.dropout": [0.1]}, "trials": 0}, "`trials` is 0"),
        ({"vary": {"model.dropout": [0.1]}, "seed": -1}, "`seed` is -1"),
        ({"vary": {"model.dropout": [0.1]}, "prune_from": 0}, "`prune_from` is 0"),
        ({"vary": {"model.dropout": [0.1]}, "training": {"seed": 3}}, "training.seed says nothing here"),
        ({"vary": {"model.dropout": [0.1]}, "model": "DNN"}, "`model` is 'DNN'"),
        ({"vary": {"model.dropout": [0.1]}, "config": {}}, "config is {}"),
    ],
)
def test_what_a_space_may_not_say(values, words):
    with pytest.raises(ConfigError, match=words.replace("`", ".").replace("[", r"\[")):
        Space.from_dict(values)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"model": {"name": "DMN"}, "vary": {"model.dropout": [0.1]}}, "Did you mean 'DNN'"),
        ({"model": {"name": "DNN"}, "vary": {"model.dropuot": {"float": [0, 1]}}}, "Did you mean 'dropout'"),
        ({"model": {"name": "DNN"}, "vary": {"training.epohs": [1, 2]}}, "unknown key 'training.epohs'"),
        ({"model": {"name": "DNN"}, "vary": {"training.loss": ["focul"]}}, "vary: training.loss=.focul"),
        ({"model": {"name": "DNN"}, "vary": {"training.learning_rate": {"float": [0, 1]}}}, "training.learning_rate is 0"),
        ({"model": {"name": "DNN"}, "vary": {"training.patience": {"float": [1, 2.5]}}}, "training.patience is 2.5"),
        ({"config": "nowhere.yaml", "vary": {"model.dropout": [0.1]}}, "nowhere.yaml"),
    ],
)
def test_what_no_run_can_have_is_refused_as_a_runs_settings_are(values, words, dataset):
    with pytest.raises(tfctr.errors.TfctrError, match=words):
        Space.from_dict(values).base(dataset)


def test_the_example_is_a_space(dataset):
    space = Space.load(EXAMPLES / "experiments" / "tune_tf4ctr.yaml")
    base = space.base(dataset)
    assert (base.model.name, base.training.monitor, base.model.arguments["c"]) == ("TF4CTR", "log_loss", 0.7)
    assert space.chosen_by(base) is not None  # the paper's best run is the first trial
