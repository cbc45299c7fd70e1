"""FuxiCTR's files, found, merged, translated and written; and `tfctr import-fuxictr`, down to a trained model."""

import contextlib
import json
from pathlib import Path

import pytest
import yaml
from kit.commands import done, tfctr_
from kit.fuxictr_files import DATASET, EXPERIMENT, imported, table, texts, write

from tfctr import Categorical, Numeric, Schema, Sequence
from tfctr.config import Config
from tfctr.errors import ConfigError, StorageError
from tfctr.fuxictr import MODELS, read
from tfctr.fuxictr.models import matches_of

EXPECTED = Schema(
    [
        Categorical("shop", min_count=2),
        Categorical("device", min_count=2),
        Numeric("price", "scaled"),
        Sequence("seen", 3, separator=",", keep="last", min_count=2),
    ],
    label="bought",
    group="buyer",
)


def test_an_experiment_becomes_a_schema_and_a_run(tmp_path):
    found = imported(tmp_path)
    assert found.schema == EXPECTED
    assert found.run["model"] == {
        "name": "DeepFM",
        "embedding_dim": 4,
        "hidden_units": [8, 4],
        "activation": "relu",
        "dropout": 0,
        "batch_norm": False,
    }
    assert (found.config.training.batch_size, found.config.training.epochs, found.config.training.seed) == (64, 1, 3)
    assert (found.experiment_id, found.dataset_id, found.tables) == ("try", "shop", {})
    assert not [note for note in found.notes if note.kind == "lost"]


def test_the_files_that_are_written_say_the_same(tmp_path):
    found = imported(tmp_path, experiment={"model_root": "./there", "hidden_units": [5]})
    found.save(tmp_path / "mine")
    assert Schema.load(tmp_path / "mine" / "schema.yaml").to_dict() == found.schema.to_dict()
    assert Config.load(tmp_path / "mine" / "run.yaml") == found.config
    text = (tmp_path / "mine" / "run.yaml").read_text(encoding="utf-8")
    assert "# left out: model_root './there': `train --out` says where a run is\n" in text
    assert "  hidden_units: [5]\n" in text
    schema = (tmp_path / "mine" / "schema.yaml").read_text(encoding="utf-8")
    assert "- {name: shop, type: categorical, min_count: 2}\n" in schema
    assert max(map(len, (text + schema).splitlines())) <= 128
    with pytest.raises(StorageError, match="already exists"):
        found.save(tmp_path / "mine")


def test_the_base_goes_first_and_the_dataset_last(tmp_path):
    folder = tmp_path / "model_config"
    folder.mkdir()
    base = {"epochs": 9, "early_stop_patience": 5, "group_id": None}
    (folder / "b.yaml").write_text(yaml.safe_dump({"Base": base}))
    (folder / "a.yaml").write_text(yaml.safe_dump({"one": EXPERIMENT | {"group_id": "shop"}, "two": EXPERIMENT}))
    (tmp_path / "dataset_config.yaml").write_text(yaml.safe_dump({"shop": DATASET, "other": DATASET | {"group_id": None}}))
    found = read(tmp_path, tmp_path, experiment_id="one")
    assert (found.config.training.patience, found.config.training.epochs) == (5, 1)
    assert found.schema.group == "buyer"  # of the dataset
    assert read(tmp_path, tmp_path, experiment_id="one", dataset_id="other").schema.group is None
    with pytest.raises(ConfigError, match=r"holds 2 experiments.*\n.*--experiment-id: one, two"):
        read(tmp_path, tmp_path)
    with pytest.raises(ConfigError, match=r"no experiment 'on'.*\n.*Did you mean 'one'"):
        read(tmp_path, tmp_path, experiment_id="on")
    with pytest.raises(ConfigError, match=r"no dataset 'shops'.*\n.*Did you mean 'shop'.*--dataset-id"):
        read(tmp_path, tmp_path, experiment_id="one", dataset_id="shops")
    (folder / "c.yaml").write_text(yaml.safe_dump({"two": EXPERIMENT}))
    with pytest.raises(ConfigError, match=r"c.yaml has 'two' again"):
        read(tmp_path, tmp_path, experiment_id="one")


def test_files_that_are_none(tmp_path):
    dataset, model = write(tmp_path)
    with pytest.raises(StorageError, match=r"none\.yaml"):
        read(dataset, tmp_path / "none.yaml")
    (tmp_path / "empty").mkdir()
    with pytest.raises(StorageError, match="holds no YAML file"):
        read(dataset, tmp_path / "empty")
    for text in ("- 1", "try: 3", "", "try: {1: 2}", "3: {a: 1}"):
        model.write_text(text)
        with pytest.raises(ConfigError, match="model_config"):
            read(dataset, model)
    model.write_text("try: {model: !!python/object/apply:os.system ['touch hacked']}")
    with pytest.raises(ConfigError, match="not valid YAML"):
        read(dataset, model)
    assert not Path("hacked").exists()


def test_what_would_be_lost_is_refused_all_at_once(tmp_path):
    dataset = {"feature_cols": [{"name": "at", "type": "categorical", "dtype": "str", "preprocess": "my_hour"}]}
    experiment = {"net_regularizer": 1e-6, "task": "regression"}
    with pytest.raises(ConfigError, match=r"preprocess 'my_hour' of at: it is a function of yours") as refused:
        imported(tmp_path, dataset)
    assert "--force" in refused.value.fix
    with pytest.raises(ConfigError, match=r"net_regularizer 1e-06: .*\n  task 'regression'"):
        imported(tmp_path, {}, experiment)
    found = imported(tmp_path, dataset, experiment, force=True)
    assert found.schema.features == (Categorical("at", min_count=2),)
    assert [note.key for note in found.notes if note.kind == "lost"] == ["preprocess", "net_regularizer", "task"]
    assert texts(found)[0].startswith("lost: preprocess")


def test_a_key_that_nobody_reads_is_told(tmp_path):
    found = imported(tmp_path, experiment={"hiden_units": [3], "cin_hidden_units": [4]})
    assert (
        "left out: hiden_units [3]: FuxiCTR's DeepFM does not read it, as it is configured; did you mean hidden_units?"
        in texts(found)
    )
    assert "left out: cin_hidden_units [4]: FuxiCTR's DeepFM does not read it, as it is configured" in texts(found)


def test_wrong_values_are_errors(tmp_path):
    with pytest.raises(ConfigError, match=r"model of FuxiCTR's 'DeepFN'.*\n.*Did you mean 'DeepFM'"):
        imported(tmp_path, experiment={"model": "DeepFN"})
    with pytest.raises(ConfigError, match="model of FuxiCTR's None"):
        imported(tmp_path, experiment={"model": None})
    with pytest.raises(ConfigError, match=r"training\.batch_size"):
        imported(tmp_path, experiment={"batch_size": "many"})
    with pytest.raises(ConfigError, match="attention_dim"):
        imported(tmp_path, experiment={"model": "AutoInt", "attention_dim": "wide"})


ODD = [[], {}, "x", -1, [[1]], {"a": [1]}, True, float("inf"), 10**30]
COLUMN_KEYS = ("name", "active", "type", "dtype", "max_len", "splitter", "padding", "preprocess", "fill_na", "feature_encoder")
COLUMN_KEYS += ("min_categr_count", "category_processor", "normalizer", "embedding_dim")
DATASET_KEYS = ("feature_cols", "label_col", "group_id", "min_categr_count", "num_buckets", "valid_size", "split_type", "sep")
KEYS = (*EXPERIMENT, "monitor", "monitor_mode", "use_features", "feature_specs", "embedding_regularizer", "early_stop_patience")
KEYS += ("net_dropout", "batch_norm", "hidden_activations", "shuffle", "max_gradient_norm", "task", "eval_steps")


@pytest.mark.sampled(3)
@pytest.mark.parametrize("odd", ODD, ids=str)
def test_no_value_is_a_crash(tmp_path, odd):
    """Each is read, or refused as what it is."""
    changes = [({key: odd}, {}) for key in DATASET_KEYS] + [({}, {key: odd}) for key in KEYS]
    for kind in ("categorical", "sequence", "numeric", "meta"):
        column = {"name": "a", "type": kind, "dtype": "str", "max_len": 3}
        changes += [({"feature_cols": [column | {key: odd}]}, {}) for key in COLUMN_KEYS]
    for name, found in MODELS.items():
        keys = {key for match in matches_of(found) for key in match.arguments}
        changes += [({}, {"model": name, "hidden_units": None, key: odd}) for key in keys]
    for dataset, experiment in changes:
        with contextlib.suppress(ConfigError):
            assert texts(imported(tmp_path, dataset, experiment, force=True))


def test_the_command_line_down_to_a_trained_model(tmp_path):
    dataset, model = write(tmp_path, DATASET | {"train_data": "a b.csv", "sep": ";"})
    for name, rows in (("train", 600), ("valid", 200)):
        table(rows, len(name)).to_csv(tmp_path / f"{name}.csv", index=False)
    result = tfctr_("import-fuxictr", dataset, model, "--out", tmp_path / "mine")
    assert result.exit_code == 0, result.stderr
    assert "experiment_id  try" in result.stdout
    assert "differs: missing values: they have an embedding of their own" in result.stderr
    assert (
        f"tfctr prepare {tmp_path}/mine/schema.yaml --train 'a b.csv' --valid 0.1 --separator ';' --out DATA" in result.stderr
    )
    said = json.loads(done("import-fuxictr", tmp_path, tmp_path, "--out", tmp_path / "again", "--json"))
    assert said["model"] == "DeepFM"
    assert said["tables"] == {"train": "a b.csv", "separator": ";"}
    assert {"kind", "key", "value", "meaning", "features"} == set(said["notes"][0])
    splits = ["--train", tmp_path / "train.csv", "--valid", tmp_path / "valid.csv"]
    done("prepare", tmp_path / "mine" / "schema.yaml", *splits, "--out", tmp_path / "data")
    trained = json.loads(
        done("train", tmp_path / "mine" / "run.yaml", "--data", tmp_path / "data", "--out", tmp_path / "run", "--json")
    )
    assert 0 < trained["valid"]["auc"] <= 1
    refused = tfctr_("import-fuxictr", dataset, model, "--out", tmp_path / "new", "--experiment-id", "tryy", "--json")
    assert refused.exit_code == ConfigError.exit_code
    assert "Did you mean 'try'" in json.loads(refused.stdout)["error"]["fix"]
    assert not (tmp_path / "new").exists()
