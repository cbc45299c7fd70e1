"""Model files that run code, or read or write other files, are refused; nothing of them happens."""

import keras
import numpy as np
import pytest
from kit.hostile_models import (
    ACTS,
    KINDS,
    LAYERS,
    OUTSIDE,
    REFUSED,
    export_acting,
    with_layer,
    with_member,
    with_weights_elsewhere,
)

import tfctr
from tfctr.config import Config
from tfctr.errors import ConfigError, StorageError
from tfctr.layers import MLP, FeatureEmbedding
from tfctr.models import TF4CTR, CTRModel, ids_input
from tfctr.serving.runtime.saved_model import SavedModel
from tfctr.training import train


@pytest.mark.parametrize("name", LAYERS)
def test_layers_that_run_code(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StorageError, match=LAYERS[name][1]) as raised:
        tfctr.load_model(with_layer(name, tmp_path))
    assert "safe_mode" not in raised.value.problem + raised.value.fix
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["honest.keras", "hostile.keras"]


@pytest.mark.parametrize("kind", KINDS)
def test_weights_in_other_files(kind, saved, tmp_path):
    with pytest.warns(UserWarning, match="Skipping"), pytest.raises(StorageError, match=f"{REFUSED}.*"):
        tfctr.load_model(with_weights_elsewhere(kind, saved, tmp_path))


@pytest.mark.parametrize("name", OUTSIDE)
def test_members_outside_of_the_archive(name, saved, tmp_path):
    with pytest.raises(StorageError, match=f"has the member '{name}', outside"):
        tfctr.load_model(with_member(name, saved, tmp_path))


def double():
    return keras.layers.Lambda(lambda x: 2.0 * x, name="double")


def graph_of(schema):
    ids = ids_input(schema)
    return ids, {"logit": keras.layers.Dense(1)(MLP([2])(double()(FeatureEmbedding(schema, 2)(ids))))}


class MakesOne(CTRModel):
    def __init__(self, schema, name=None):
        ids, outputs = graph_of(schema)
        super().__init__(schema, ids, {"logit": keras.layers.Dense(1)(outputs["logit"])}, name=name)


def encoded_by(layer):
    flat = [keras.layers.Flatten(), layer]
    return lambda schema: TF4CTR(schema, simple_encoder=MLP([2]), complex_encoder=keras.Sequential(flat))


LAMBDAS = {
    "in a graph": lambda: lambda schema: CTRModel(schema, *graph_of(schema)),
    "as an encoder": lambda: encoded_by(keras.layers.Lambda(lambda x: x[:, :2], name="double")),
    "as an activation": lambda: encoded_by(keras.layers.Dense(2, activation=lambda x: 2 * x, name="double")),
}


@pytest.mark.parametrize("case", LAMBDAS)
@pytest.mark.filterwarnings("ignore:The object being serialized includes a `lambda`")
def test_a_lambda_of_ones_own_is_refused_before_it_is_saved(case, tiny_schema, tmp_path):
    model = LAMBDAS[case]()(tiny_schema)
    with pytest.raises(ConfigError, match="the layer 'double' has a lambda, which no file keeps"):
        model.save(tmp_path / "model.keras")
    assert not [*tmp_path.iterdir()]


def test_a_lambda_that_the_code_of_a_model_makes_is_no_part_of_its_file(tiny_schema, tiny_ids, tmp_path):
    model = MakesOne(tiny_schema)
    model.save(tmp_path / "model.keras")
    again = tfctr.load_model(tmp_path / "model.keras", custom_objects={"MakesOne": MakesOne})
    np.testing.assert_array_equal(again(tiny_ids(5))["logit"], model(tiny_ids(5))["logit"])


@pytest.mark.filterwarnings("ignore:The object being serialized includes a `lambda`")
def test_a_lambda_is_refused_before_it_is_trained(tmp_path, monkeypatch):
    table = {"user": ["a", "b"] * 20, "click": [0, 1, 1, 0] * 10}
    data = tfctr.prepare(
        tfctr.Schema([tfctr.Categorical("user")], label="click"), train=table, valid=table, out=tmp_path / "data"
    )
    monkeypatch.setattr("tfctr.models.build", lambda name, schema: CTRModel(schema, *graph_of(schema)))
    with pytest.raises(ConfigError, match="the layer 'double' has a lambda"):
        train(Config.from_dict({"model": {"name": "LR"}}), data, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ACTS)
@pytest.mark.filterwarnings("ignore")  # TensorFlow's own, of saving this way
def test_served_graphs_that_touch_files(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    export_acting(name, tmp_path / "1")
    (tmp_path / "canary").unlink(missing_ok=True)
    with pytest.raises(StorageError, match=f"has the operation {name}, and a model that is served"):
        SavedModel(tmp_path / "1")
    assert not (tmp_path / "canary").exists()
