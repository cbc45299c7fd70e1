"""Exported models: the same bits as `model.predict`, whole on their own, refusing what they must refuse."""

import dataclasses
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from kit.at_length import at_length
from kit.places import ROOT
from kit.saved_models import check
from kit.served_rows import golden_of, mixed, one_row, spread, usual_rows

import tfctr
from tfctr.errors import ConfigError, DataError, ExportError, StorageError
from tfctr.features import Categorical, Numeric, Sequence
from tfctr.models import MODELS
from tfctr.schema import Schema
from tfctr.serving.exporting.check import check_saved_model
from tfctr.serving.exporting.golden import golden_rows
from tfctr.serving.exporting.raw_features import RawFeatures
from tfctr.serving.runtime.saved_model import SavedModel, StatusError, read_signatures
from tfctr.serving.runtime.stand_in import LocalServer


@pytest.fixture(scope="module")
def exported(tiny_schema, tmp_path_factory):
    """A model, and its only version in a moved folder, without the dataset that it came from."""
    folder = tmp_path_factory.mktemp("exported")
    shutil.copytree(tiny_schema.folder, folder / "data")
    model = spread(MODELS["TF4CTR"](dataclasses.replace(tiny_schema, folder=str(folder / "data"))))
    version = tfctr.serving.export(model, folder / "ctr", metrics={"auc": 0.75, "group_auc": math.nan, "rows": 512})
    shutil.rmtree(folder / "data")
    shutil.move(folder / "ctr", folder / "moved")
    return model, folder / "moved" / version.name


@pytest.mark.parametrize("size", [1, 7, 64, 4096])
def test_every_path_gives_the_bits_of_predict(exported, tiny_schema, size, tmp_path):
    model, version = exported
    raw = usual_rows(tiny_schema, size)
    ids = RawFeatures(tiny_schema)(raw).numpy()
    expected = model.predict(ids, batch_size=size, verbose=0)[:, 0]
    assert size == 1 or len(np.unique(expected)) > size / 2
    model.save(tmp_path / "model.keras")
    strict, loaded = SavedModel(version), tf.saved_model.load(version).signatures
    answers = {
        "strict, raw": strict.run("serving_default", raw)["probability"],
        "strict, ids": strict.run("ids", {"ids": ids})["probability"],
        "loaded, raw": loaded["serving_default"](**{name: tf.constant(column) for name, column in raw.items()})["probability"],
        "loaded, ids": loaded["ids"](ids=tf.constant(ids))["probability"],
        ".keras": keras.saving.load_model(tmp_path / "model.keras").predict(ids, batch_size=size, verbose=0)[:, 0],
    }
    for path, answer in answers.items():
        np.testing.assert_array_equal(np.asarray(answer).view(np.int32), expected.view(np.int32), path)


def test_predict_does_not_depend_on_what_was_predicted_before(tiny_schema, tiny_ids):
    """TensorFlow regroups the sums of a graph whose batch size it knows; the served graph has none."""
    fresh, used = (spread(MODELS["FM"](tiny_schema)) for _ in range(2))
    for rows in (3, 5):
        used.predict(tiny_ids(rows), verbose=0)
    np.testing.assert_array_equal(fresh.predict(tiny_ids(512), 512, verbose=0), used.predict(tiny_ids(512), 512, verbose=0))


@pytest.mark.sampled(1)
@pytest.mark.parametrize("name", ["CETN", "LR", "TF4CTR"])  # the others in test_served_parity
def test_a_model_passes_the_strict_check(name, tiny_schema, tmp_path):
    model = spread(MODELS[name](tiny_schema))
    version = tfctr.serving.export(model, tmp_path / "ctr", examples=usual_rows(tiny_schema, 50))
    assert version == tmp_path / "ctr" / "1"
    rows = {name: [len(b["outputs"]["probability"]) for b in golden_of(version, name)] for name in ("serving_default", "ids")}
    assert rows == {"serving_default": [1, 3, 64, 50], "ids": [1, 3, 64, 4, 50]}


@pytest.mark.parametrize("policy", at_length(["mixed_bfloat16", "mixed_float16"], "mixed_bfloat16"))
def test_mixed_precision_answers_in_float32(policy, tiny_schema, tmp_path):
    version = tfctr.serving.export(mixed(policy, tiny_schema), tmp_path / "ctr")
    numbers = [array for batch in golden_of(version) for array in batch["outputs"].values() if array.dtype != object]
    assert {array.dtype for array in numbers} == {np.dtype(np.float32)}


@pytest.mark.slow
def test_a_model_that_runs_eagerly_is_checked_in_a_graph(tiny_schema, tmp_path):
    model = spread(MODELS["DNN"](tiny_schema))
    model.compile(run_eagerly=True)
    tfctr.serving.export(model, tmp_path / "ctr")
    assert model.run_eagerly


def test_rows_are_answered_in_their_order(exported, tiny_schema):
    _, version = exported
    raw = usual_rows(tiny_schema, 50)
    order = np.random.default_rng(1).permutation(50)
    answers = SavedModel(version).run("serving_default", raw)["probability"]
    permuted = SavedModel(version).run("serving_default", {name: column[order] for name, column in raw.items()})["probability"]
    np.testing.assert_allclose(permuted, answers[order], rtol=1e-6)  # a row's place in a batch decides its last bit


def test_the_signatures(exported, tiny_schema):
    _, version = exported
    served = {
        signature: {
            name: (tf.dtypes.as_dtype(tensor.dtype).name, [dim.size for dim in tensor.tensor_shape.dim])
            for name, tensor in [*definition.inputs.items(), *definition.outputs.items()]
        }
        for signature, definition in read_signatures(version).items()
    }
    text, number, probability = ("string", [-1]), ("float64", [-1]), ("float32", [-1])
    columns = {"user": text, "item": text, "genres": text, "age": number, "price": number}
    logits = dict.fromkeys(["logit", "simple", "complex"], probability)
    assert served == {
        "serving_default": {**columns, "probability": probability},
        "ids": {"ids": ("int32", [-1, tiny_schema.width]), "probability": probability},
        "classify": {"inputs": text, "classes": ("string", [-1, 2]), "scores": ("float32", [-1, 2])},
        "regress": {"inputs": text, "outputs": probability},
        "explain": {
            **{**columns, "probability": probability, **logits, "fusion_weights": ("float32", [-1, 2])},
            **{"difficulty_if_click": text, "difficulty_if_no_click": text},
        },
        "embedding": {**columns, "embedding": ("float32", [-1, len(columns) * (8 + 16)])},
        "schema": {"rows": ("int32", [-1]), "schema": text},
    }


@pytest.mark.slow
def test_a_serving_team_can_replay_the_golden_answers(exported, tmp_path):
    version = shutil.copytree(exported[1], tmp_path / "1")
    golden = golden_of(version)
    others = ("classify", "regress", "explain", "embedding")
    rows = {"ids": 72, "serving_default": 68, "schema": 2, **dict.fromkeys(others, 68)}
    assert check_saved_model(version) == check(version, golden) == rows
    golden[0]["outputs"]["probability"] = np.nextafter(golden[0]["outputs"]["probability"], np.float32(1))
    with pytest.raises(ExportError, match=r"serving_default.*row 0"):
        check(version, golden)
    request = json.loads((version / "assets.extra" / "golden.json").read_text())[0]["request"]
    assert request["modelSpec"] == {"name": "ctr", "signatureName": "serving_default"}


def test_golden_rows_hold_every_kind_of_value(tiny_schema):
    rows = golden_rows(tiny_schema)
    assert {len(column) for column in rows.values()} == {64}
    assert [row.decode() for row in rows["user"][:3]] == ["60", "", "a token that no table has"]
    assert np.isnan(rows["age"][1])
    assert np.isnan(rows["price"][1])
    ids = RawFeatures(tiny_schema)(rows).numpy()
    seen = {field.feature.name: set((ids[:, field.columns] - field.offset).ravel().tolist()) for field in tiny_schema.fields}
    assert seen["user"] == set(range(1, 7))
    assert seen["genres"] == set(range(8))
    assert seen["price"] == {1, 3, 4, 5, 6}


def test_the_model_card(exported, tiny_schema):
    model, version = exported
    card = json.loads((version / "assets.extra" / "model_card.json").read_text())
    assert (card["model"], card["parameters"]) == ("TF4CTR", model.count_params())
    assert card["config"]["gamma"] == model.get_config()["gamma"]
    assert card["metrics"] == {"auc": 0.75, "group_auc": None, "rows": 512}
    assert card["created"].endswith("+00:00")
    assert card["versions"]["keras"] == keras.__version__
    assert Schema.load(version / "assets.extra" / "schema.json").to_dict() == tiny_schema.to_dict()


def test_vocabularies_are_files_of_the_saved_model(exported):
    _, version = exported
    assert (version / "assets" / "user.txt").read_text(encoding="utf-8") == "60\n7\nZoë\n東京\n"
    assert "東京".encode() not in (version / "saved_model.pb").read_bytes()


def test_no_path_of_this_machine_leaves_with_the_model(tiny_schema, tmp_path):
    selection = tfctr.layers.SharedEmbedding(tiny_schema, embedding_dim=4)
    version = tfctr.serving.export(MODELS["TF4CTR"](tiny_schema, 4, selection), tmp_path / "ctr", check=False)
    for file in filter(Path.is_file, version.rglob("*")):
        for path in (tiny_schema.folder, tmp_path, ROOT):
            assert str(path).encode() not in file.read_bytes(), file


# requests that must be refused, as TensorFlow Serving lets them through


@pytest.mark.sampled(4)
@pytest.mark.parametrize("name", ["user", "genres", "age", "price"])
@pytest.mark.parametrize("rows", [0, 1, 3])
def test_columns_of_different_lengths_are_never_broadcast(exported, tiny_schema, name, rows):
    request = {other: np.repeat(column, rows if other == name else 4) for other, column in one_row(tiny_schema).items()}
    with pytest.raises(StatusError, match=r"same number of rows: user, item, genres, age, price\.") as error:
        SavedModel(exported[1]).run("serving_default", request)
    assert error.value.code == 3  # invalid argument


@pytest.mark.sampled(1)
@pytest.mark.parametrize("name", ["user", "genres", "age", "price"])
def test_a_column_of_another_rank_is_refused_by_name(exported, tiny_schema, name):
    _, version = exported
    column = one_row(tiny_schema)[name]
    for wrong in (column[0:1].reshape(()), column[:, None]):
        with pytest.raises(StatusError, match=rf"serving_default_{name}.* is not compatible with expected shape"):
            SavedModel(version).run("serving_default", one_row(tiny_schema, **{name: wrong}))


@pytest.mark.parametrize("shape", [(2, 8), (2, 6), (7,), (2, 7, 1)])
def test_ids_of_another_shape_are_refused(exported, tiny_schema, shape):
    assert tiny_schema.width == 7
    with pytest.raises(StatusError, match="is not compatible with expected shape"):
        SavedModel(exported[1]).run("ids", {"ids": np.zeros(shape, np.int32)})


# requests that must be answered


def test_an_empty_request_has_an_empty_answer(exported, tiny_schema):
    request = {name: column[:0] for name, column in one_row(tiny_schema).items()}
    assert SavedModel(exported[1]).run("serving_default", request)["probability"].shape == (0,)


def test_an_id_out_of_range_is_out_of_vocabulary(exported, tiny_schema):
    model, version = exported
    unknown = np.array([[field.offset + 2 for field in tiny_schema.fields for _ in range(field.feature.width)]], np.int32)
    age = next(field.column for field in tiny_schema.fields if field.feature.name == "age")
    unknown[:, age] = 0  # z = 0.0
    expected = model.predict(unknown, verbose=0)[:, 0]
    for foreign in (-1, -(2**31), tiny_schema.table_rows, 2**31 - 1):
        ids = np.where(np.arange(tiny_schema.width) == age, 0, np.full_like(unknown, foreign))
        np.testing.assert_array_equal(SavedModel(version).run("ids", {"ids": ids.astype(np.int32)})["probability"], expected)


def test_every_answer_is_a_probability(tmp_path):
    features = [Numeric("x", "scaled", mean=0.0, scale=1.0, size=4), Numeric("y", "scaled", mean=0.0, scale=1.0, size=4)]
    schema = Schema(features=features, label="click")
    model = spread(MODELS["FM"](schema, embedding_dim=2), scale=10.0)
    ids = np.float32([[3e38, -3e38]]).view(np.int32)
    assert np.isnan(model.predict(ids, verbose=0)).all()
    served = SavedModel(tfctr.serving.export(model, tmp_path / "ctr"))
    missing = served.run("serving_default", {"x": np.array([math.nan]), "y": np.array([math.nan])})["probability"]
    assert 0 < missing[0] < 1
    np.testing.assert_array_equal(served.run("ids", {"ids": ids})["probability"], missing)
    x, y = np.meshgrid([math.nan, math.inf, -math.inf, 1e308, 3e38, -3e38, 1e30, 1e-310, 0.0], [1e300, 3e38, -3e38, 5e-324])
    answers = served.run("serving_default", {"x": x.ravel(), "y": y.ravel()})["probability"]
    assert ((answers >= 0) & (answers <= 1)).all()


# the scripts in export/


def run_script(name, *arguments):
    command = [sys.executable, ROOT / "export" / name, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.splitlines()


@pytest.mark.slow
def test_the_scripts_publish_replay_and_call(exported, tiny_schema, tmp_path):
    model, version = exported
    base = tmp_path / "polled"
    assert run_script("publish_version.py", version, base) == [str(base / "1")]
    for source, target in ((version.parent, base), (version, tmp_path / "007")):
        with pytest.raises(subprocess.CalledProcessError):
            run_script("publish_version.py", source, target)
    assert [path.name for path in tmp_path.iterdir()] == ["polled"]
    assert [path.name for path in base.iterdir()] == ["1"]
    rows = [
        {"user": "60", "item": None, "genres": "Drama|Noir", "age": 40.0, "price": 5},
        dict.fromkeys(golden_rows(tiny_schema)),
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with LocalServer(base, port=0, name="ctr") as server:
        replayed = run_script("replay_golden.py", server.target, "ctr", base / "1")
        called = run_script("call.py", server.target, "ctr", tmp_path / "rows.jsonl")
    assert len(replayed) == sum(len(batch["outputs"]) for batch in golden_of(version))
    assert {line.split(": ")[1] for line in replayed} == {"0.0", "0"}
    ids = np.int32(
        [[3, 7 + 1, 19 + 4, 19 + 2, 19, 0, 31 + 4], [1, 7 + 1, 19 + 1, 19, 19, np.float32("nan").view("int32"), 31 + 1]]
    )
    assert [np.float32(text) for text in called] == model.predict(ids, verbose=0)[:, 0].tolist()


# models that must not be exported


def test_vocabularies_may_have_moved(tiny_schema, tmp_path):
    shutil.copytree(tiny_schema.folder, tmp_path / "moved")
    model = MODELS["LR"](dataclasses.replace(tiny_schema, folder=str(tmp_path / "gone")))
    with pytest.raises(StorageError, match=r"gone.*\n  fix: .*`vocabularies=`"):
        tfctr.serving.export(model, tmp_path / "ctr")
    assert tfctr.serving.export(model, tmp_path / "ctr", vocabularies=tmp_path / "moved", check=False).name == "1"


def test_names_with_punctuation_are_served_as_they_are(tmp_path):
    names = ["1st", "a/b", "a", "a.c", "ids", "probability", "x-y"]
    schema = Schema(features=[Categorical(name, hash_buckets=2, size=5) for name in names], label="click")
    version = tfctr.serving.export(MODELS["LR"](schema), tmp_path / "ctr")
    assert set(read_signatures(version)["serving_default"].inputs) == set(names)


@pytest.mark.slow
def test_examples_are_records_of_a_batch_each_and_not_without_end(tiny_schema, tmp_path):
    model, rows = MODELS["LR"](tiny_schema), usual_rows(tiny_schema, 150)
    version = tfctr.serving.export(model, tmp_path / "ctr", examples=rows, check=False)
    found = {name: golden_of(version, name) for name in ("serving_default", "explain")}
    users = [batch["inputs"]["user"] for batch in found["serving_default"]][3:]
    assert np.concatenate(users).tolist() == rows["user"].tolist()
    assert [len(column) for column in users] == [64, 64, 22]
    assert [len(batch["inputs"]["user"]) for batch in found["explain"]] == [1, 3, 64, 64]
    with pytest.raises(DataError, match=r"there are 10,001 examples\.\n  fix: give at most 10,000"):
        tfctr.serving.export(model, tmp_path / "ctr", examples=usual_rows(tiny_schema, 10_001))
    assert sorted(entry.name for entry in (tmp_path / "ctr").iterdir()) == ["1"]


@pytest.mark.slow
def test_the_metrics_of_the_card_are_numbers(tiny_schema, tmp_path):
    model = MODELS["LR"](tiny_schema)
    metrics = {"auc": np.float32(0.75), "rows": 9, "gauc": None, "log_loss": math.inf, "pcoc": math.nan}
    version = tfctr.serving.export(model, tmp_path / "ctr", metrics=metrics, check=False)
    card = json.loads((version / "assets.extra" / "model_card.json").read_text())
    assert card["metrics"] == {"auc": 0.75, "rows": 9.0, "gauc": None, "log_loss": None, "pcoc": None}
    with pytest.raises(ConfigError, match=r"the metric 'auc' is '0\.8'"):
        tfctr.serving.export(model, tmp_path / "ctr", metrics={"auc": "0.8"})
    with pytest.raises(ConfigError, match=r"`metrics` is \[0\.8\]"):
        tfctr.serving.export(model, tmp_path / "ctr", metrics=[0.8])


def test_a_version_is_no_place_for_versions(tiny_schema, tmp_path):
    model = MODELS["LR"](tiny_schema)
    version = tfctr.serving.export(model, tmp_path / "ctr", check=False)
    with pytest.raises(ConfigError, match="'1' cannot be the name of a served model"):
        tfctr.serving.export(model, version)


def test_a_model_without_a_schema_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="Sequential is no `CTRModel`"):
        tfctr.serving.export(keras.Sequential(), tmp_path / "ctr")


def test_a_weight_that_is_not_finite_is_refused(tiny_schema, tmp_path):
    model = MODELS["LR"](tiny_schema)
    model.weights[0].assign(np.where(np.arange(model.weights[0].shape[0]) == 3, math.nan, 0.0)[:, None])
    with pytest.raises(ExportError, match=r"weight .*table.* is not finite"):
        tfctr.serving.export(model, tmp_path / "ctr")
    assert not (tmp_path / "ctr").exists()


def test_lists_of_examples_are_joined_by_the_separator_of_their_feature(tmp_path):
    tags, genres = (
        Sequence(name, separator=mark, max_length=2, hash_buckets=50, size=53)
        for name, mark in (("tags", ","), ("genres", ";"))
    )
    model = MODELS["LR"](Schema(features=[tags, genres], label="click"))
    version = tfctr.serving.export(
        model, tmp_path / "ctr", examples={"tags": [["a", "b"]] * 2, "genres": [["a", "b"]] * 2}, check=False
    )
    inputs = golden_of(version, "serving_default")[-1]["inputs"]
    assert {name: column.tolist() for name, column in inputs.items()} == {"tags": [b"a,b"] * 2, "genres": [b"a;b"] * 2}


def test_examples_that_do_not_fit_are_refused(tiny_schema, tmp_path):
    with pytest.raises(DataError, match="'user'"):
        tfctr.serving.export(MODELS["LR"](tiny_schema), tmp_path / "ctr", examples={"usr": ["60"]})
