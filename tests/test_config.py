"""`tfctr.config`: every wrong key or value is one `ConfigError` that says where and what to write instead."""

import subprocess
import sys

import pytest
from kit.places import EXAMPLES

from tfctr.config import Config, Training
from tfctr.errors import ConfigError, StorageError

DNN = {"model": {"name": "DNN"}}


def test_defaults_are_those_of_the_papers():
    training = Config.from_dict(DNN).training
    assert (training.batch_size, training.learning_rate, training.clip_norm) == (10_000, 1e-3, 10.0)
    assert (training.monitor, training.patience, training.learning_rate_factor) == ("auc", 2, 0.1)
    assert (training.optimizer, training.loss, training.precision) == ("adam", "log_loss", "float32")


def test_a_file_with_overrides(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text(
        "model: {name: TF4CTR, alpha: 0.25, simple_encoder: {type: MLP, hidden_units: [8]}}\ntraining: {epochs: 3}\n"
    )
    overrides = ["training.batch_size=512", "training.clip_norm=null", "model.alpha=0.5", "model.simple_encoder.dropout=0.1"]
    config = Config.load(file, [*overrides, "model.simple_encoder.hidden_units=[4, 2]"])
    assert config.model.name == "TF4CTR"
    assert config.model.arguments == {"alpha": 0.5, "simple_encoder": {"type": "MLP", "hidden_units": [4, 2], "dropout": 0.1}}
    assert (config.training.epochs, config.training.batch_size, config.training.clip_norm) == (3, 512, None)


def test_an_exponent_without_a_point_is_a_number(tmp_path):
    # YAML 1.1 alone reads 1e-5 as text.
    file = tmp_path / "run.yaml"
    file.write_text("model: {name: DNN, embedding_l2: 1e-5}\ntraining: {learning_rate: 5e-4, min_learning_rate: 1E-7}\n")
    config = Config.load(file, ["model.dropout=2e-1"])
    assert config.model.arguments == {"embedding_l2": 1e-5, "dropout": 0.2}
    assert (config.training.learning_rate, config.training.min_learning_rate) == (5e-4, 1e-7)


def test_a_batch_size_may_follow_from_the_rows():
    config = Config.from_dict(DNN | {"training": {"batch_size": "auto"}})
    assert config.for_rows(6_400).training.batch_size == 128
    assert Config.from_dict(DNN).for_rows(6_400) == Config.from_dict(DNN)
    with pytest.raises(ConfigError, match=r"training\.batch_size is 'many'\. Input should be 'auto'"):
        Config.from_dict(DNN, ["training.batch_size=many"])


def test_a_whole_number_is_a_number():
    assert Config.from_dict(DNN, ["training.clip_norm=5", "training.learning_rate=1"]).training.clip_norm == 5.0


def test_the_saved_configuration_is_whole_and_loads_as_the_same_run(tmp_path):
    config = Config.from_dict(DNN | {"training": {"seed": 7}}, ["model.hidden_units=[400, 400]"])
    config.save(tmp_path / "config.yaml")
    assert Config.load(tmp_path / "config.yaml") == config
    assert config.to_dict()["training"] == Training(seed=7).model_dump()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, "key 'model' is missing"),
        ([], "a run is a mapping"),
        ({"model": {}}, "key 'model.name' is missing"),
        ({"model": "DNN"}, "model is 'DNN'"),
        ({"model": {"name": 3}}, "model.name is 3"),
        (DNN | {"trainig": {}}, "unknown key 'trainig'. Did you mean 'training'?"),
        (DNN | {"training": {"batch_sise": 3}}, "unknown key 'training.batch_sise'. Did you mean 'batch_size'?"),
        (DNN | {"training": {"batch_size": 0}}, "training.batch_size is 0"),
        (DNN | {"training": {"batch_size": 512.5}}, "training.batch_size is 512.5"),
        (DNN | {"training": {"batch_size": "512"}}, "training.batch_size is '512'"),
        (DNN | {"training": {"epochs": True}}, "training.epochs is True"),
        (DNN | {"training": {"learning_rate": float("nan")}}, "training.learning_rate is nan"),
        (DNN | {"training": {"learning_rate": "1e309"}}, "training.learning_rate is '1e309'"),
        (DNN | {"training": {"learning_rate_factor": 1.5}}, "training.learning_rate_factor is 1.5"),
        (DNN | {"training": {"loss": "os.system"}}, "training.loss is 'os.system'. Input should be 'log_loss', 'focal' or"),
        (DNN | {"training": {"optimizer": "adm"}}, "training.optimizer is 'adm'"),
        (DNN | {"training": {"seed": -1}}, "training.seed is -1"),
        ({"model": {"name": "DNN", "dropout": float("inf")}}, "model.dropout is inf"),
        ({"model": {"name": "DNN", "encoder": {1: 2}}}, "model.encoder has the key 1, which is not text"),
        ({"model": {"name": "DNN", "units": {400}}}, "model.units is {400}"),
    ],
)
def test_wrong_values_are_named_with_their_path(values, expected):
    with pytest.raises(ConfigError, match="fix:") as caught:
        Config.from_dict(values)
    assert expected in str(caught.value)


def test_all_wrong_keys_are_reported_at_once():
    with pytest.raises(ConfigError) as caught:
        Config.from_dict(DNN | {"training": {"epoch": 3, "patience": 0}})
    assert "training.epoch'. Did you mean 'epochs'?" in str(caught.value)
    assert "training.patience is 0" in str(caught.value)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("training.batch_size", "this is not `section.key=value`"),
        ("batch_size=512", "this is not `section.key=value`"),
        (".batch_size=512", "this is not `section.key=value`"),
        ("training.batch_size=[1", "the value is not valid YAML"),
        ("training.batch_size=!!python/object/apply:os.getcwd []", "the value is not valid YAML"),
        ("training.batch_size=", "training.batch_size is None"),
        ("training.batch_sise=512", "unknown key 'training.batch_sise'. Did you mean 'batch_size'?"),
        ("model.name.x=3", "'name' has no keys of its own"),
        ("training=5", "this is not `section.key=value`"),
        ("model.dropout=.inf", "model.dropout is inf"),
        ("model.day=2026-01-01", "model.day is datetime.date(2026, 1, 1)"),
    ],
)
def test_wrong_overrides_are_named_and_not_the_file(override, expected, tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("model: {name: DNN}")
    with pytest.raises(ConfigError, match="fix:") as caught:
        Config.load(file, ["training.epochs=3", override])
    assert str(caught.value).startswith(f"--set {override}: {expected}")
    assert str(file) not in str(caught.value)


def test_each_of_several_faults_is_named_with_its_place(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("model: {name: DNN}\ntraining: {patience: 0, epochs: 0, seed: -2}")
    # The last override of a key counts, and one that is right takes the file's fault away.
    with pytest.raises(ConfigError) as caught:
        Config.load(file, ["training.seed=-3", "training.epochs=5", "training.seed=-1"])
    lines = caught.value.problem.splitlines()
    assert [line.strip().partition(" is ")[0] for line in lines] == [
        f"{file}: training.patience",
        "--set training.seed=-1: training.seed",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("model: {name: DNN, name: LR}", "the key 'name' is given twice"),
        ("model: !!python/object/apply:os.mkdir ['canary']", "not valid YAML"),
        ("model: [", "not valid YAML"),
        ("\x00", "not valid YAML"),
        ("", "a run is a mapping"),
        ("model: &loop {name: DNN, again: *loop}", "more than 1,000,000 values"),
    ],
)
def test_hostile_files_are_refused_and_named(text, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        Config.load(tmp_path / "run.yaml")
    assert expected in str(caught.value)
    assert str(tmp_path / "run.yaml") in str(caught.value)
    assert [file.name for file in tmp_path.iterdir()] == ["run.yaml"]


def test_a_missing_file_is_a_storage_error(tmp_path):
    with pytest.raises(StorageError, match=r"missing\.yaml"):
        Config.load(tmp_path / "missing.yaml")


@pytest.mark.parametrize("data", ["frappe", "ml1m"])
def test_the_examples_hold_the_best_settings_of_the_released_logs(data):
    config = Config.load(EXAMPLES / f"{data}_tf4ctr.yaml")
    arguments = config.model.arguments
    assert (config.model.name, arguments["selection"], arguments["fusion"]) == ("TF4CTR", "separate", "weighted_sum")
    assert arguments["alpha"] == 0.25
    assert arguments["complex_encoder"]["hidden_units"] == [400, 400, 400]
    simple = arguments["simple_encoder"]
    found = (simple["hidden_units"], simple["dropout"], arguments["gamma"], arguments["c"], arguments["embedding_l2"])
    expected = {"frappe": ([400, 400], 0.2, 1, 0.7, 0.1), "ml1m": ([400], 0.1, 2, 0.8, 0.01)}
    assert found == expected[data]
    assert config.training == Training(batch_size=10_000, patience=2)


def test_reading_a_configuration_does_not_import_tensorflow():
    code = "import sys, tfctr.config; sys.exit('tensorflow' in sys.modules or 'keras' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
