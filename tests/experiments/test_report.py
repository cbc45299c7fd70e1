"""`tfctr report`: one page of runs; what its pictures draw, and what is refused."""

import dataclasses
import json
import types

import numpy as np
import pytest
from kit.experiments import prepared_synthetic

from tfctr.cli import app
from tfctr.config import Config
from tfctr.errors import ConfigError, DataError, StorageError
from tfctr.evaluation import evaluate
from tfctr.experiments import pictures, report
from tfctr.experiments.pictures import Scored
from tfctr.serving.exporting.explanation import DIFFICULTY_CLASSES, difficulty
from tfctr.training import load_run, train

pytest.importorskip("sklearn")
ENCODER = {"type": "MLP", "hidden_units": [4]}
TWIN = {"name": "TF4CTR", "embedding_dim": 2, "selection": "gated", "fusion": "voting"}
MODELS = {"twin": {**TWIN, "simple_encoder": ENCODER, "complex_encoder": ENCODER}, "<b>$": {"name": "LR"}}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs on one dataset, by name."""
    folder = tmp_path_factory.mktemp("reported")
    prepared_synthetic(folder, 1_500)
    training = {"epochs": 2, "batch_size": 256}
    configs = {name: Config.from_dict({"model": model, "training": training}) for name, model in MODELS.items()}
    return {name: train(config, folder / "data", folder / name) for name, config in configs.items()}


def test_the_page_stands_alone_and_has_the_figures_of_evaluate(runs, tmp_path):
    found = report([*runs.values()], tmp_path / "report.html")
    assert found["split"] == "test"
    for run in runs.values():
        expected = evaluate(run, "test")
        assert {name: found["runs"][str(run.folder)][name] for name in ("auc", "group_auc", "log_loss", "pcoc", "ece")} == {
            name: expected[name] for name in ("auc", "group_auc", "log_loss", "pcoc", "ece")
        }
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.count("<svg") == 6  # four of all runs, two of the twin's heads and weights
    assert f"{expected['auc']:.5f}" in page
    assert runs["twin"].environment["data"]["manifest_sha256"] in page
    assert runs["twin"].metrics["model_sha256"] in page
    assert "<b>" not in page
    assert "<script" not in page
    assert "src=" not in page
    assert "A run has one seed" in page
    assert f"predicted / observed {expected['pcoc']:.3f}" in "".join(read_labels(runs))


def read_labels(runs):
    """The legend of the calibration's picture: as SVG it is drawn in glyphs."""
    scored = [of(name, run.inference_model, run.dataset().test, run) for name, run in runs.items()]
    found = [evaluate(run, "test") for run in runs.values()]
    return [text.get_text() for text in pictures.calibration(scored, found, "test").axes[0].get_legend().get_texts()]


def of(name, model, split, run):
    probabilities = model.predict(split.batches(10_000, shuffle=False), verbose=0)[:, 0]
    return Scored(name, run, split.labels, split.weights, probabilities, {}, split.labels)


def test_the_command_and_the_other_splits(runs, tmp_path, capsys):
    arguments = ["report", str(runs["twin"].folder), "--out", str(tmp_path / "r.html"), "--split", "valid", "--json"]
    app(arguments, standalone_mode=False)
    found = json.loads(capsys.readouterr().out)
    assert found["split"] == "valid"
    (values,) = found["runs"].values()
    assert values["auc"] == evaluate(runs["twin"], "valid")["auc"]
    assert "A run has one seed" not in (tmp_path / "r.html").read_text(encoding="utf-8")


def made(labels, probabilities, weights=None, **explained):
    run = types.SimpleNamespace(history=[])
    columns = {name: np.asarray(values, np.float32) for name, values in explained.items()}
    weights = None if weights is None else np.asarray(weights, np.float32)
    return Scored("made", run, np.asarray(labels), weights, np.asarray(probabilities), columns, np.asarray(labels))


@pytest.mark.parametrize("weights", [None, [2, 1, 1, 1]])
def test_roc_and_lift_by_hand(weights):
    """Of four rows the best-scored is a click, and one of the others."""
    roc, lift = pictures.ranking([made([1, 0, 1, 0], [0.9, 0.8, 0.7, 0.1], weights)], "test").axes
    first = 0.5 if weights is None else 2 / 3  # of the clicks' weight
    assert roc.lines[0].get_xdata().tolist() == pytest.approx([0, 0, 0.5, 0.5, 1])
    assert roc.lines[0].get_ydata().tolist() == pytest.approx([0, first, first, 1, 1])
    shares, lifts = lift.lines[0].get_data()
    share = 0.25 if weights is None else 0.4  # of the rows' weight that the first row has
    assert np.interp(share * 0.99, shares, lifts) == pytest.approx(first / share, rel=1e-3)
    assert lifts[-1] == pytest.approx(1)


def test_calibration_by_hand():
    scored = made([0, 1, 0, 1], [0.25, 0.25, 0.75, 0.75])
    rates, scores = pictures.calibration([scored], [{"pcoc": 1.0, "ece": 0.25}], "test").axes
    assert rates.lines[0].get_xdata().tolist() == [0.25, 0.75]
    assert rates.lines[0].get_ydata().tolist() == [0.5, 0.5]
    assert len(scores.patches) == 2


def test_heads_are_drawn_by_the_class_of_the_prediction():
    logits = {"logit": [-3.0, 0.0, 3.0, -3.0], "simple": [0.0] * 4, "complex": [0.0] * 4}
    figure = pictures.heads_by_difficulty(made([1, 1, 1, 0], [0.05, 0.5, 0.95, 0.05], **logits))
    assert [panel.get_title() for panel in figure.axes] == [
        "hard: 25.0% of the rows, 33.3% of clicks",
        "challenging: 25.0% of the rows, 33.3% of clicks",
        "easy: 50.0% of the rows, 33.3% of clicks",
    ]
    assert pictures.heads_by_difficulty(made([1, 0], [0.5, 0.5], logit=[0.0, 0.0])) is None


def test_classes_are_those_of_served_models():
    given = np.linspace(0, 1, 101).astype("float32")
    names = [DIFFICULTY_CLASSES[number] for number in pictures.difficulty_of(given)]
    assert names == [text.decode() for text in difficulty(given).numpy()]


@pytest.mark.parametrize(
    ("explained", "labels"),
    [
        ({"fusion_weights": np.ones((4, 2)), "simple": np.ones(4)}, ["weight of simple", "weight of complex"]),
        ({"fusion_weights": np.ones((4, 3))}, ["fusion weight 1", "fusion weight 2", "fusion weight 3"]),
        ({"gate": np.ones((4, 1))}, ["gate of the simple view"]),
        ({"gate": np.ones((4, 2, 2))}, [f"{view} view, expert {n}" for view in ("simple", "complex") for n in (1, 2)]),
        ({"logit": np.ones(4)}, None),
    ],
)
def test_weights_have_their_names(explained, labels):
    figure = pictures.weights(made([0, 1, 0, 1], [0.5] * 4, **explained))
    shown = None if figure is None else [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert shown == labels


def test_what_a_page_must_say_of_its_runs(runs, tmp_path):
    twin = runs["twin"]
    other = dataclasses.replace(
        twin,
        folder=tmp_path / "other",
        metrics={**twin.metrics, "finished": False, "warning": "too good to be true"},
        environment={**twin.environment, "data": {**twin.environment["data"], "manifest_sha256": "0" * 64}},
    )
    vars(other)["inference_model"] = twin.inference_model
    object.__setattr__(other, "dataset", lambda _: twin.dataset())
    report([twin, other], tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "The runs are of 2 datasets" in page
    assert "other is not finished" in page
    assert "too good to be true" in page


def test_what_is_refused(runs, tmp_path, monkeypatch):
    twin = runs["twin"]
    with pytest.raises(ConfigError, match="no run"):
        report([], tmp_path / "r.html")
    with pytest.raises(ConfigError, match="given twice"):
        report([twin, twin.folder], tmp_path / "r.html")
    with pytest.raises(ConfigError, match="Did you mean 'test'"):
        report([twin], tmp_path / "r.html", split="tset")
    with pytest.raises(ConfigError, match="is the folder"):
        report([twin], tmp_path)
    with pytest.raises(StorageError, match="is not a run"):
        report([tmp_path], tmp_path / "r.html")
    with pytest.raises(StorageError, match="no prepared dataset"):
        report([twin], tmp_path / "r.html", data=tmp_path)
    dataset = twin.dataset()
    dataset.test._labels = np.zeros_like(dataset.test.labels)
    monkeypatch.setattr(type(twin), "dataset", lambda *_: dataset)
    with pytest.raises(DataError, match="click rate of 0"):
        report([load_run(twin.folder)], tmp_path / "r.html")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"tfctr\[report\]"):
        report([twin], tmp_path / "r.html")
    assert [*tmp_path.iterdir()] == []
