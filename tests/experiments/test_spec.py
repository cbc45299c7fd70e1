"""`Spec`: what a file of a comparison may say, and which runs follow from it."""

import datetime
import math

import pytest
from kit.experiments import prepared_synthetic

import tfctr
from tfctr.errors import ConfigError
from tfctr.experiments import Spec
from tfctr.training import suggest


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compared")
    return prepared_synthetic(folder, 1_500)


def test_settings_are_those_of_the_data_and_what_stands_above_them(dataset):
    spec = Spec.from_dict(
        {
            "training": {"epochs": 3, "patience": 1},
            "models": {"DNN": None, "small": {"model": {"name": "DNN", "hidden_units": [8]}, "training": {"epochs": 2}}},
        }
    )
    found = spec.contenders(dataset)
    suggested = suggest(dataset, "DNN")
    assert found["DNN"].config.model == suggested.model
    assert found["DNN"].config.training == suggested.training.model_copy(update={"epochs": 3, "patience": 1})
    assert found["small"].config.model.arguments == {**suggested.model.arguments, "hidden_units": [8]}
    assert (found["small"].config.training.epochs, found["small"].config.training.patience) == (2, 1)
    assert [entry.is_baseline for entry in found.values()] == [True, False]


def test_a_file_names_files_beside_it(dataset, tmp_path):
    (tmp_path / "run.yaml").write_text("model: {name: FM, embedding_dim: 4}\ntraining: {batch_size: auto}\n", encoding="utf-8")
    (tmp_path / "spec.yaml").write_text("models: {mine: {config: run.yaml}}\nseeds: [7, 3]\n", encoding="utf-8")
    spec = Spec.load(tmp_path / "spec.yaml")
    config = spec.contenders(dataset)["mine"].config
    assert (config.model.name, config.model.arguments, spec.seeds) == ("FM", {"embedding_dim": 4}, (7, 3))
    assert isinstance(config.training.batch_size, int)


def test_all_combinations_of_what_varies(dataset):
    vary = {"training.loss": ["log_loss", "focal"], "model.embedding_dim": [4, 8]}
    spec = Spec.from_dict(
        {"models": {"DNN": {}, "FM": {}, "FM, too": {"model": {"name": "FM"}}}, "baselines": ["FM"], "vary": vary}
    )
    found = spec.contenders(dataset)
    assert [name for name in found if name.startswith("FM, loss")] == [
        f"FM, loss={loss}, embedding_dim={dim}" for loss in ("log_loss", "focal") for dim in (4, 8)
    ]
    assert {name.partition(", loss")[0] for name, entry in found.items() if entry.is_baseline} == {"FM"}
    assert found["FM, loss=focal, embedding_dim=8"].config.training.loss == "focal"
    assert found["FM, loss=focal, embedding_dim=8"].config.model.arguments["embedding_dim"] == 8


def test_paths_tell_apart_what_has_one_key(dataset):
    vary = {"model.simple_encoder.dropout": [0.1], "model.complex_encoder.dropout": [0.2, 0.3]}
    found = Spec.from_dict({"models": {"TF4CTR": {}}, "vary": vary}).contenders(dataset)
    names = ["TF4CTR, model.simple_encoder.dropout=0.1, model.complex_encoder.dropout=" + share for share in ("0.2", "0.3")]
    assert [*found] == names
    arguments = found[names[1]].config.model.arguments
    assert (arguments["simple_encoder"]["dropout"], arguments["complex_encoder"]["dropout"]) == (0.1, 0.3)
    assert arguments["complex_encoder"]["hidden_units"] == [256, 256]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([], "`models` is missing"),
        ({"seeds": 3}, "`models` is missing"),
        ({"models": {}}, "names none"),
        ({"models": ["DNN"]}, "`models` is"),
        ({"models": {"DNN": {"modle": {}}}}, "modle"),
        ({"models": {"DNN": {"model": "DNN"}}}, "models.DNN.model"),
        ({"models": {"DNN": {}}, "seed": 3}, "seed"),
        ({"models": {"DNN": {}}, "seeds": 0}, "`seeds` is 0"),
        ({"models": {"DNN": {}}, "seeds": [1, 1]}, "each seed once"),
        ({"models": {"DNN": {}}, "seeds": []}, "each seed once"),
        ({"models": {"DNN": {}}, "seeds": ["1"]}, "`seeds` is '1'"),
        ({"models": {"DNN": {}}, "baselines": "DNN"}, "`baselines` is"),
        ({"models": {"DNN": {}}, "baselines": ["DMN"]}, "Did you mean 'DNN'"),
        ({"models": {"DNN": {}}, "split": "train"}, "valid"),
        ({"models": {"DNN": {}}, "vary": {"loss": ["focal"]}}, "vary.loss"),
        ({"models": {"DNN": {}}, "vary": {"training.loss": "focal"}}, "vary.training.loss"),
        ({"models": {"DNN": {}}, "vary": {"training.loss": []}}, "vary.training.loss"),
        ({"models": {"DNN": {}}, "vary": {"training": ["focal"]}}, "vary.training is"),
        ({"models": {"DNN": {}}, "vary": {"training.seed": [1, 2]}}, "vary.training.seed says nothing here"),
        ({"models": {"DNN": {}}, "vary": {"model.dropout": [datetime.date(2026, 1, 1)]}}, "vary.model.dropout: .*date"),
        ({"models": {"DNN": {}}, "vary": {"model.dropout": [math.inf]}}, "vary.model.dropout: .*float"),
        ({"models": {"DNN": {}}, "vary": {1: ["focal"]}}, "`vary` has the key 1"),
        ({"models": {"DNN": {}}, "vary": False}, "`vary` is False"),
        ({"models": {"DNN": {}}, "training": []}, "`training` is"),
        ({"models": {"DNN": {}}, "training": {"seed": 7}}, "training.seed says nothing here"),
        ({"models": {"DNN": {"training": {"seed": 7}}}}, "models.DNN.training.seed says nothing here"),
        ({"models": {"DNN": {}}, "baselines": False}, "`baselines` is False"),
        ({"models": {"DNN": {}}, "baselines": []}, "`baselines` is"),
        ({"models": {"DNN": {}}, "seeds": [2**31]}, "`seeds` is 2147483648"),
        ({"models": {1: {}, "1": {}}}, "`models` has the key 1"),
        ({"models": {"a\nb": {}}}, "`models` has the name"),
        ({"models": {"": {}}}, "`models` has the name"),
        ({"models": {"DNN": {"config": {"model": {}}}}}, "models.DNN.config is"),
    ],
)
def test_what_a_spec_may_not_say(values, words):
    with pytest.raises(ConfigError, match=words.replace("`", ".").replace("[", r"\[")):
        Spec.from_dict(values)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"models": {"DMN": {}}}, "Did you mean 'DNN'"),
        ({"models": {"DNN": {"training": {"epohs": 2}}}}, "models.DNN: unknown key 'training.epohs'"),
        ({"models": {"DNN": {}}, "vary": {"training.loss": ["focul"]}}, "vary: training.loss=.focul"),
        ({"models": {"DNN": {"config": "nowhere.yaml"}}}, "nowhere.yaml"),
        ({"models": {"DNN": {}}, "vary": {"model.dropout": [0.1, 0.10]}}, "two models would be called 'DNN, dropout=0.1'"),
        ({"models": {"DNN": {}}, "vary": {"model.activation": ["1", 1]}}, "two models would be called"),
    ],
)
def test_settings_that_are_none_are_named_with_their_model(values, words, dataset):
    with pytest.raises(tfctr.errors.TfctrError, match=words):
        Spec.from_dict(values).contenders(dataset)


def test_a_section_may_be_empty_and_values_may_have_any_letters(dataset):
    spec = Spec.from_dict({"models": {"DNN": {"model": None, "training": None}}, "vary": {"model.activation": ["é😀"]}})
    ((name, entry),) = spec.contenders(dataset).items()
    assert name == "DNN, activation=é😀"
    assert entry.config.model.arguments["activation"] == "é😀"


def test_the_first_model_is_the_baseline_of_a_spec_that_python_makes(dataset):
    found = Spec(models={"LR": {}, "FM": {}}).contenders(dataset)
    assert [entry.is_baseline for entry in found.values()] == [True, False]
