"""`tfctr analyze`: what callbacks see of a training, that they change nothing of it, and the files."""

import csv
import json
import shutil
import sys

import numpy as np
import pytest
import tensorflow as tf
import yaml
from kit.at_length import at_length
from kit.doc_blocks import blocks
from kit.experiments import prepared_synthetic
from kit.places import ROOT

import tfctr
from tfctr import Categorical, Schema, models
from tfctr.cli import app
from tfctr.errors import ConfigError, StorageError
from tfctr.experiments import Spec, analyze
from tfctr.experiments.analyze import focus_rows
from tfctr.experiments.watching import DifficultyByEpoch, SemanticSpaces, logit_gradients
from tfctr.losses import twin_focus
from tfctr.storage import locked, read_json
from tfctr.training import load_run, train

pytest.importorskip("matplotlib")
ENCODER = {"type": "MLP", "hidden_units": [4], "dropout": 0.2, "batch_norm": True}
TWIN = {"name": "TF4CTR", "embedding_dim": 2, "simple_encoder": ENCODER, "complex_encoder": ENCODER}
SPEC = Spec.from_dict({"models": {"twin": {"model": TWIN}}, "training": {"epochs": 2, "batch_size": 256}, "seeds": [3]})


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("analyzed")
    return prepared_synthetic(folder, 1_500).folder


@pytest.fixture(scope="module")
def done(data, tmp_path_factory):
    """Two finished analyses, `{name: what was returned}`, and their folder."""
    folder = tmp_path_factory.mktemp("analyses")
    return {name: analyze(name, SPEC, folder, data) for name in ("difficulty", "gradients")}, folder


@pytest.mark.parametrize("name", at_length(["difficulty", "gradients"], "gradients"))
def test_a_training_that_is_looked_at_is_the_same(name, done, data, tmp_path):
    (place,) = [file.parent for file in done[1].glob(f"runs/*/{name}.json")]
    looked_at = load_run(place / "run")
    plain = train(looked_at.config, data, tmp_path / "run")
    for ours, theirs in zip(looked_at.inference_model.weights, plain.inference_model.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert looked_at.config.training.seed == 3


def test_shares_of_the_classes_are_those_of_the_model(done):
    (place,) = [file.parent for file in done[1].glob("runs/*/difficulty.json")]
    run = load_run(place / "run")
    rows = [row for row in done[0]["difficulty"]["rows"] if row["epoch"] == run.metrics["best_epoch"]]
    assert len(rows) == 4
    for row in rows:
        split = run.dataset().splits[row["split"]]
        of = split.labels == row["label"]
        given = run.model.predict(split.batches(10_000, shuffle=False), verbose=0)[of, 0]
        given = given if row["label"] else 1 - given
        shares = [np.mean(given < 0.3), np.mean((given >= 0.3) & (given < 0.6)), np.mean(given >= 0.6)]
        assert [row["hard"], row["challenging"], row["easy"]] == pytest.approx(shares)
    assert {row["model"] for row in rows} == {"twin"}


def test_gradients_begin_before_the_first_step_and_their_parts_are_less_than_all(done):
    rows = done[0]["gradients"]["rows"]
    assert [row["step"] for row in rows] == [*range(len(rows))]
    for row in rows:
        for head in ("simple", "complex"):
            assert row[f"{head}_hard"] ** 2 + row[f"{head}_easy"] ** 2 <= row[head] ** 2 * (1 + 1e-6)
    assert rows[0]["simple"] > 0


SCHEMA = Schema(features=[Categorical("user", size=5), Categorical("item", size=7)], label="click")


@pytest.mark.parametrize("fusion", ["sum", "weighted_sum", "concatenation"])
@pytest.mark.parametrize("alpha", [None, 0.25])
def test_gradients_by_hand(fusion, alpha):
    """`w (p - y) + alpha (p_s - y)` over the rows' number, where `gamma` is 0; through a concatenation only the second part."""
    rng = np.random.default_rng(0)
    twin = models.DualMLP if alpha is None else models.TF4CTR
    options = {} if alpha is None else {"alpha": alpha, "gamma": 0.0, "embedding_l2": 1.0}
    model = twin(SCHEMA, embedding_dim=2, fusion=fusion, **options)
    model.compile()
    for weight in model.trainable_variables:
        weight.assign(rng.normal(size=weight.shape) * 0.05)
    ids = np.stack([rng.integers(1, 5, 20), 5 + rng.integers(1, 7, 20)], axis=1).astype("int32")
    labels = rng.integers(0, 2, (20, 1)).astype("float32")
    outputs, slopes = logit_gradients(model, ids, labels)
    errors = {name: 1 / (1 + np.exp(-outputs[name].numpy())) - labels for name in ("logit", "simple", "complex")}
    shares = {"sum": [1, 1], "concatenation": [0, 0]}.get(fusion)
    if shares is None:
        (shares,) = (layer.shares.numpy() for layer in model.layers if hasattr(layer, "shares"))
    weights = [0, 0] if alpha is None else [alpha, 1 - alpha]
    for name, share, weight in zip(("simple", "complex"), shares, weights, strict=True):
        expected = (share * errors["logit"] + weight * errors[name]) / 20
        np.testing.assert_allclose(slopes[name], expected, rtol=1e-4, atol=1e-7)


def test_spaces_by_hand(monkeypatch):
    """Of values that are known: two spaces at right angles, and rows that point the same way or not."""
    values = {
        "value_0": np.array([[2.0, 0, 0], [0, 3, 0]]),
        "value_1": np.array([[0.0, 0, 1], [0, 0, 5]]),
        "value_2": np.array([[1.0, 0, 0], [0, 0, 0]]),
    }
    watch = SemanticSpaces(tfctr.data.Split.from_arrays([[1], [2], [3]], [0, 1, 0]), rows=2)
    monkeypatch.setattr(SemanticSpaces, "_watched", Known(values))
    watch.on_train_begin()
    watch.on_train_end()
    found = {(row["space"], row["row"]): row for row in watch.rows}
    assert {row for _, row in found} == {0, 2}
    assert [found["value_1", row]["cosine_to_first"] for row in (0, 2)] == [0, 0]
    assert [found["value_2", row]["cosine_to_first"] for row in (0, 2)] == [1, 0]  # no value has no direction
    assert [found["value_0", row]["cosine_to_mean"] for row in (0, 2)] == pytest.approx([0.5**0.5] * 2)
    assert [found["value_1", row]["cosine_to_mean"] for row in (0, 2)] == pytest.approx([1, 1])
    places = np.array([[row["x"], row["y"]] for row in watch.rows])
    assert places.mean(axis=0) == pytest.approx([0, 0], abs=1e-12)
    assert np.linalg.norm(places[2] - places[3]) == pytest.approx(0, abs=1e-12)  # the same value


class Known:
    """A model of known values."""

    def __init__(self, values):
        self.output = values

    def settle(self):
        pass

    def __call__(self, ids, training):
        assert (len(ids), training) == (2, False)
        return {name: tf.constant(value) for name, value in self.output.items()}


@pytest.mark.slow
def test_spaces_of_a_training(data, tmp_path):
    spec = Spec.from_dict({"models": {"CETN": {"model": {"embedding_dim": 2, "hidden_units": [4]}}}, "training": {"epochs": 1}})
    found = analyze("spaces", spec, tmp_path, data)
    assert {row["space"] for row in found["rows"]} == {"value_0", "value_1", "value_2"}
    assert all(abs(row["cosine_to_first"]) <= 1 + 1e-9 for row in found["rows"])
    with pytest.raises(ConfigError, match="LR has no values of several semantic spaces"):
        analyze("spaces", Spec.from_dict({"models": {"LR": {}}}), tmp_path, data)


def test_focus_is_the_loss_that_models_are_trained_on():
    for row in focus_rows()[::37]:
        logit = [[np.log(row["probability"] / (1 - row["probability"]))]]
        for alpha, half in ((1.0, "simple"), (0.0, "complex")):
            expected = twin_focus([[1.0]], logit, logit, alpha, row["c"], row["gamma"])
            assert row[half] == pytest.approx(float(expected[0, 0]), rel=1e-5)
        assert row["cross_entropy"] == pytest.approx(-np.log(row["probability"]))


def test_focus_says_where_a_half_pushes_the_wrong_way(tmp_path, capsys):
    app(["analyze", "focus", "--out", str(tmp_path), "--json"], standalone_mode=False)
    found = json.loads(capsys.readouterr().out)
    assert [said for said in found["sentences"] if "c 0.9" in said or "gamma 1" in said] == []  # (c + p)^gamma grows too little
    assert any(said.startswith("gamma 3, c 0.7: `simple` rises from p = 0.15 to 0.40") for said in found["sentences"])
    assert (tmp_path / "focus.svg").read_text(encoding="utf-8").count("<svg") == 1
    with open(tmp_path / "focus.csv", encoding="utf-8") as file:
        assert [float(row["simple"]) for row in csv.DictReader(file)] == [row["simple"] for row in found["rows"]]


def test_what_is_there_is_not_trained_again(done, data, monkeypatch):
    monkeypatch.setattr(sys.modules["tfctr.experiments.analyze"], "train", None)
    assert analyze("difficulty", SPEC, done[1], data)["rows"] == done[0]["difficulty"]["rows"]


@pytest.mark.slow
def test_rows_that_were_not_kept_are_looked_at_again(done, data, tmp_path):
    folder = shutil.copytree(done[1], tmp_path / "out")
    (kept,) = folder.glob("runs/*/gradients.json")
    kept.unlink()
    assert analyze("gradients", SPEC, folder, data)["rows"] == done[0]["gradients"]["rows"]


def test_a_run_is_repeated(done, tmp_path):
    (place,) = [file.parent for file in done[1].glob("runs/*/difficulty.json")]
    rows = analyze("difficulty", place / "run", tmp_path)["rows"]
    assert [{**row, "model": "twin"} for row in rows] == done[0]["difficulty"]["rows"]


def test_a_checkpoint_keeps_what_was_seen():
    watch, other = DifficultyByEpoch({}), DifficultyByEpoch({})
    watch.rows.append({"epoch": 1})
    other.set_state(json.loads(json.dumps(watch.get_state())))
    assert other.rows == watch.rows


def test_what_is_refused(data, tmp_path):
    linear = Spec.from_dict({"models": {"LR": {}}, "training": {"epochs": 1}})
    for arguments, words in (
        (("dificulty", SPEC, tmp_path / "a", data), "Did you mean 'difficulty'"),
        (("difficulty", None, tmp_path / "a", data), "needs models"),
        (("difficulty", SPEC, tmp_path / "a"), "`data` is missing"),
        (("focus", SPEC, tmp_path / "a"), "trains nothing"),
        (("gradients", linear, tmp_path / "b", data), "LR has no logits of two encoders"),
        (("gradients", Spec.from_dict({"models": {"DMN": {}}}), tmp_path / "a", data), "Did you mean 'DNN'"),
    ):
        with pytest.raises(ConfigError, match=words):
            analyze(*arguments)
    assert not (tmp_path / "a").exists()
    with locked(tmp_path / "c" / ".lock"), pytest.raises(StorageError, match="another process works"):
        analyze("focus", None, tmp_path / "c")


def test_the_sweeps_of_the_page_are_comparisons(data):
    specs = [yaml.safe_load(text) for _, _, text in blocks(ROOT / "docs" / "analyses.md", "yaml")]
    assert len(specs) >= 5
    for spec in specs:
        assert len(Spec.from_dict(spec).contenders(tfctr.data.Dataset.load(data))) > 1


def test_rows_are_written_as_they_are_returned(done):
    for name, found in done[0].items():
        (kept,) = done[1].glob(f"runs/*/{name}.json")
        assert [{"model": "twin", **row} for row in read_json(kept)] == found["rows"]
        assert (done[1] / f"{name}.svg").is_file()
        assert found["counterpart"].startswith("TF4CTR, Fig. ")
