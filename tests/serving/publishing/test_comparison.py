"""A new version beside the live one: metrics, signatures, scores, and what the bounds say."""

import math
import shutil

import numpy as np
import pytest
import tensorflow as tf
from kit.at_length import at_length
from kit.saved_models import export_scorer, texts

import tfctr
from tfctr.errors import ConfigError
from tfctr.models import MODELS
from tfctr.schema import Schema
from tfctr.serving.publishing.comparison import Bounds, compare, stability_index
from tfctr.serving.runtime.saved_model import SavedModel, read_signatures
from tfctr.serving.runtime.warmup import write_warmup
from tfctr.serving.store.manifest import MANIFEST, seal
from tfctr.storage import write_json

ROWS = {"user": texts(*["60", "2438", "", "nobody"] * 50), "price": np.linspace(-8.0, 8.0, 200)}
LOOSE = Bounds(psi=100, difference=1)
METRICS = {"valid_auc": 0.8, "valid_group_auc": 0.7, "valid_log_loss": 0.4, "valid_rows": 100}


def version(folder, weight=0.5, metrics=METRICS):
    """A version as `publish` leaves it, of the hand-written model."""
    export_scorer(folder, weight)
    (folder / "assets.extra").mkdir()
    write_json(folder / "assets.extra" / "model_card.json", {"metrics": metrics})
    outputs = SavedModel(folder).run("serving_default", ROWS)
    write_warmup(folder, [{"signature": "serving_default", "inputs": ROWS, "outputs": outputs}], "m")
    seal(folder)
    return folder


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    return version(tmp_path_factory.mktemp("live") / "1")


def with_metrics(live, folder, **changes):
    shutil.copytree(live, folder)
    (folder / "assets.extra").mkdir(exist_ok=True)
    write_json(folder / "assets.extra" / "model_card.json", {"metrics": {**METRICS, **changes}})
    (folder / MANIFEST).unlink()
    seal(folder)
    return folder


def test_a_version_is_no_worse_than_itself(live):
    assert compare(live, live, Bounds(0, 0, 0, 0)) == {
        "metrics": {name: {"live": METRICS[name], "new": METRICS[name]} for name in METRICS if name != "valid_rows"},
        "measured_on": None,
        "rows": 200,
        "psi": 0.0,
        "difference": 0.0,
        "failures": [],
    }


@pytest.mark.parametrize(
    ("changes", "failures"),
    [
        ({"valid_auc": 0.79}, ["valid_auc is 0.8 live and 0.79 now: worse by 0.01, more than 0.002"]),
        ({"valid_auc": 0.799}, []),
        ({"valid_auc": 0.9}, []),
        ({"valid_auc": None}, ["valid_auc is 0.8 live and not defined for the new version"]),
        ({"valid_group_auc": 0.69}, ["valid_group_auc is 0.7 live and 0.69 now: worse by 0.01, more than 0.002"]),
        ({"valid_log_loss": 0.41}, ["valid_log_loss is 0.4 live and 0.41 now: worse by 0.01, more than 0.002"]),
        ({"valid_log_loss": 0.401}, []),
        ({"valid_log_loss": 0.1}, []),
        ({"valid_rows": 1}, []),
        ({"valid_auc": 0.7, "valid_log_loss": 0.5}, ["valid_auc is ", "valid_log_loss is "]),
    ],
)
def test_metrics_may_not_be_worse_than_their_bounds(changes, failures, live, tmp_path):
    report = compare(with_metrics(live, tmp_path / "2", **changes), live, Bounds())
    assert len(report["failures"]) == len(failures)
    assert all(found.startswith(said) for found, said in zip(report["failures"], failures, strict=True))


def test_what_the_live_version_has_not_measured_is_not_compared(live, tmp_path):
    older = with_metrics(live, tmp_path / "1", valid_auc=None)
    assert compare(with_metrics(live, tmp_path / "2", valid_auc=0.1), older, Bounds())["failures"] == []


def test_scores_that_move(live, tmp_path):
    new = version(tmp_path / "2", weight=0.75)
    report = compare(new, live, LOOSE)
    expected, found = (SavedModel(folder).run("serving_default", ROWS)["probability"] for folder in (live, new))
    assert report["failures"] == []
    assert report["rows"] == 200
    assert report["difference"] == pytest.approx(np.abs(expected - found).mean(), rel=1e-5)
    assert report["psi"] == pytest.approx(stability_index(expected, found))
    assert 0.01 < report["difference"] < 0.2
    refused = compare(new, live, Bounds(psi=report["psi"] / 2, difference=report["difference"] / 2))["failures"]
    assert [failure.split(" is ")[0] for failure in refused] == [
        "the scores moved: their stability index",
        "the scores moved: their mean absolute difference",
    ]


def test_calls_that_would_break(tiny_schema, live, tmp_path):
    model = tfctr.models.LR(tiny_schema)
    new = tfctr.serving.export(model, tmp_path, check=False)
    report = compare(new, live, LOOSE)
    assert report["failures"][3:] == [
        "signature 'serving_default' demands the input 'age', without which it answers now",
        "signature 'serving_default' demands the input 'genres', without which it answers now",
        "signature 'serving_default' demands the input 'item', without which it answers now",
    ]
    assert (report["rows"], report["psi"]) == (0, None)
    assert "signature 'serving_default' no longer takes the input 'age'" in compare(live, new, LOOSE)["failures"]


@pytest.mark.slow
def test_another_kind_of_model_explains_itself_in_its_own_way(tiny_schema, tmp_path):
    live, new = (tfctr.serving.export(MODELS[name](tiny_schema), tmp_path / name, check=False) for name in ("TF4CTR", "LR"))
    outputs = [set(read_signatures(folder)["explain"].outputs) for folder in (live, new)]
    assert outputs[0] - outputs[1]
    assert compare(new, live, LOOSE)["failures"] == []


def test_a_broken_live_version_is_said(live, tmp_path):
    broken = shutil.copytree(live, tmp_path / "1")
    (broken / "saved_model.pb").write_bytes(b"no SavedModel")
    (failure,) = compare(live, broken, Bounds())["failures"]
    assert failure.startswith("the live version cannot be compared with: ")
    (broken / MANIFEST).unlink()
    seal(broken)  # published so
    assert "saved_model.pb is corrupt" in compare(live, broken, Bounds())["failures"][0]


def test_a_live_version_that_gives_no_numbers(live, tmp_path):
    nan = version(tmp_path / "1", weight=math.nan)
    assert compare(live, nan, LOOSE)["failures"] == [
        f"the live version cannot be compared with: {nan} answers 200 of 200 rows with no finite number"
    ]


def test_a_live_version_of_another_kind(live, tmp_path):
    module = tf.Module()
    module.score = tf.function(lambda value: {"score": value}, input_signature=[tf.TensorSpec([None], name="value")])
    tf.saved_model.save(module, tmp_path / "1", signatures={"other": module.score})
    seal(tmp_path / "1")
    (failure,) = compare(live, tmp_path / "1", LOOSE)["failures"]
    assert "model_card.json does not exist" in failure
    other = with_metrics(tmp_path / "1", tmp_path / "2")
    assert "signature 'other' is gone" in compare(live, other, LOOSE)["failures"]
    (failure,) = compare(other, other, LOOSE)["failures"]
    assert "has no signature 'serving_default'" in failure


def test_the_stability_index_by_hand():
    # Two bins, four rows each, half a row added: shares (4.5, 4.5) / 9 and (6.5, 2.5) / 9.
    expected, found = np.arange(8.0), np.array([0, 0, 0, 0, 0, 0, 7, 7])
    by_hand = 2 / 9 * math.log(6.5 / 4.5) + -2 / 9 * math.log(2.5 / 4.5)
    assert stability_index(expected, found, bins=2) == pytest.approx(by_hand)
    assert stability_index(expected, expected) == 0
    assert stability_index(np.full(9, 0.5), np.full(9, 0.5)) == 0
    assert stability_index(np.full(9, 0.5), np.full(9, 0.4)) > 1


@pytest.mark.parametrize("name", ["auc_drop", "log_loss_rise", "psi", "difference"])
@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf, "0.1", None])
def test_bounds_are_numbers(name, value):
    with pytest.raises(ConfigError, match=f"`{name}` is"):
        Bounds(**{name: value})


# optional features


@pytest.fixture(scope="module")
def releases(tiny_schema, tmp_path_factory):
    """Versions without the feature age, with it, and with it but not demanding it; each ranks."""

    def release(features, optional=()):
        schema = Schema(features=features, label="click", folder=tiny_schema.folder)
        options = {"candidates": ["item"], "optional": optional, "check": False}
        return tfctr.serving.export(tfctr.models.LR(schema), tmp_path_factory.mktemp("release") / "ctr", **options)

    every = list(tiny_schema.features)
    without = [feature for feature in every if feature.name != "age"]
    return {"without": release(without), "demanded": release(every), "optional": release(every, ["age"])}


@pytest.mark.parametrize(
    ("live", "new", "rows"),
    at_length(
        [("without", "optional", 68 + 3), ("demanded", "optional", 68), ("optional", "optional", 68 + 3)],
        ("without", "optional", 68 + 3),
    ),
)
def test_a_feature_that_may_be_left_out_breaks_no_call(live, new, rows, releases):
    report = compare(releases[new], releases[live], LOOSE)
    assert (report["failures"], report["rows"]) == ([], rows)


@pytest.mark.parametrize("live", ["without", "optional"])
def test_a_feature_that_must_be_given_from_now_on_breaks_calls(live, releases):
    failures = compare(releases["demanded"], releases[live], LOOSE)["failures"]
    assert "signature 'serving_default' demands the input 'age', without which it answers now" in failures


def test_a_version_without_golden_rows_is_not_compared(live, tmp_path):
    new = with_metrics(live, tmp_path / "2")
    write_warmup(new, [], "m")
    (failure,) = compare(new, live, LOOSE)["failures"]
    assert "has no golden rows that" in failure
