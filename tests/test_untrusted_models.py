"""Model files that run code, or read or write other files, are refused; nothing of them happens."""

import json
import shutil
import zipfile

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from saved_models import export_scorer

import tfctr
from tfctr.config import Config
from tfctr.errors import ConfigError, StorageError
from tfctr.layers import MLP, FeatureEmbedding
from tfctr.models import TF4CTR, CTRModel, ids_input
from tfctr.serving.loader import SavedModel
from tfctr.training import train

REFUSED = "could run code or read other files, and is refused"
# Of which Keras' loader makes a call, a file that it reads, or code that it runs, if it is let.
LAYERS = {
    "TorchModuleWrapper": ({"module": "gASVIAAAAAAAAACMBXBvc2l4lIwGc3lzdGVtlJOUjAV0b3VjaJSFlFKULg=="}, f"{REFUSED}|'torch'"),
    "TFSMLayer": ({"filepath": "canary"}, REFUSED),
    "Lambda": ({"function": {"class_name": "__lambda__", "config": {"code": "4wEA", "defaults": None}}}, REFUSED),
    "StringLookup": ({"vocabulary": "/etc/passwd"}, REFUSED),
    "os.system": ({"command": "touch canary"}, "the class 'system', which is not known"),
    "builtins.eval": ({}, "the class 'eval', which is not known"),
    "keras.utils.get_file": ({"origin": "file:///etc/passwd", "fname": "canary"}, REFUSED),
}
KINDS = ["link", "storage"]  # of weights in another file
OUTSIDE = ["../outside", "/tmp/outside", "a/../../outside"]  # members of an archive


def rewritten(saved, path, change):
    """A copy of a `.keras` file whose members are `change(name, content)`."""
    with zipfile.ZipFile(saved) as before, zipfile.ZipFile(path, "w") as after:
        for info in before.infolist():
            after.writestr(info.filename, change(info.filename, before.read(info)))
    return path


def with_layer(name, folder):
    """A file `hostile.keras`, and `honest.keras`, which has a `Dense` layer in the place of that one."""
    arguments, _ = LAYERS[name]
    inputs = keras.Input((3,))
    keras.Model(inputs, keras.layers.Dense(2)(inputs)).save(folder / "honest.keras")

    def change(member, content):
        if member != "config.json":
            return content
        config = json.loads(content)
        module, _, layer = name.rpartition(".")
        for found in config["config"]["layers"]:
            if found["class_name"] == "Dense":
                registered = {"module": module or "keras.layers", "class_name": layer, "registered_name": layer}
                found |= {**registered, "config": {"name": "layer", **arguments}}
        return json.dumps(config)

    return rewritten(folder / "honest.keras", folder / "hostile.keras", change)


@pytest.mark.parametrize("name", LAYERS)
def test_layers_that_run_code(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StorageError, match=LAYERS[name][1]) as raised:
        tfctr.load_model(with_layer(name, tmp_path))
    assert "safe_mode" not in raised.value.problem + raised.value.fix
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["honest.keras", "hostile.keras"]


def with_weights_elsewhere(kind, saved, folder):
    def change(member, content):
        if member != "model.weights.h5":
            return content
        path, place = folder / "weights.h5", "layers/feature_embedding/vars/0"
        path.write_bytes(content)
        with h5py.File(path, "a") as file:
            shape = file[place].shape
            del file[place]
            if kind == "link":
                file[place] = h5py.ExternalLink("/etc/passwd", "/x")
            else:
                file.create_dataset(place, shape, np.float32, external=[("/etc/passwd", 0, 4 * int(np.prod(shape)))])
        return path.read_bytes()

    return rewritten(saved, folder / "hostile.keras", change)


@pytest.mark.parametrize("kind", KINDS)
def test_weights_in_other_files(kind, saved, tmp_path):
    with pytest.warns(UserWarning, match="Skipping"), pytest.raises(StorageError, match=f"{REFUSED}.*"):
        tfctr.load_model(with_weights_elsewhere(kind, saved, tmp_path))


def with_member(name, saved, folder):
    hostile = shutil.copy(saved, folder / "hostile.keras")
    with zipfile.ZipFile(hostile, "a") as archive:
        archive.writestr(name, "x")
    return hostile


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


def opened(price, op):
    with tf.control_dependencies([op()]):
        return {"probability": tf.identity(price)}


ACTS = {
    "ReadFile": lambda: tf.io.read_file("/etc/passwd"),
    "WriteFile": lambda: tf.io.write_file("canary", "x"),
    "MatchingFiles": lambda: tf.io.matching_files("/etc/*"),
    "PrintV2": lambda: tf.print("x", output_stream="file://canary"),
    "TextLineDataset": lambda: tf.data.TextLineDataset("/etc/passwd").reduce(0, lambda count, _: count + 1),
}


def export_acting(name, folder):
    export_scorer(folder, serving_default=lambda user, price: opened(price, ACTS[name]))


@pytest.mark.parametrize("name", ACTS)
@pytest.mark.filterwarnings("ignore")  # TensorFlow's own, of saving this way
def test_served_graphs_that_touch_files(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    export_acting(name, tmp_path / "1")
    (tmp_path / "canary").unlink(missing_ok=True)
    with pytest.raises(StorageError, match=f"has the operation {name}, and a model that is served"):
        SavedModel(tmp_path / "1")
    assert not (tmp_path / "canary").exists()
