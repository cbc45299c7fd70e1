"""Two versions are measured on the same labelled rows, which go nowhere: the gate in front of `publish`."""

import json
import math

import numpy as np
import pandas as pd
import pytest

import tfctr
from tfctr import metrics
from tfctr.data import Split
from tfctr.errors import ConfigError, DataError, ExportError, StorageError
from tfctr.features import Categorical, Numeric
from tfctr.schema import Label, Schema
from tfctr.serving import Bounds, publish_model, read_clicks, sample_clicks
from tfctr.serving.publishing.clicks import Clicks, probabilities_of
from tfctr.serving.publishing.comparison import floor_failures
from tfctr.serving.publishing.samples import raw_rows
from tfctr.serving.runtime.saved_model import SavedModel, read_signatures
from tfctr.serving.runtime.warmup import read_warmup

ROWS = 6000
EASY = {"valid_auc": 0.95, "valid_log_loss": 0.1}  # what a run reports of an easier split
LOOSE = Bounds(psi=100, difference=1)


def model(schema, noise=0.0, bias=0.0):
    """A model that tells rows apart; `noise` makes it another one, and `bias` moves all of its scores."""
    model = tfctr.models.LR(schema)
    rng = np.random.default_rng(0)
    for variable in model.trainable_variables:
        values, other = rng.normal(size=(2, *variable.shape), scale=0.5)
        variable.assign(values + noise * other + (bias if variable.name == "bias" else 0))
    return model


@pytest.fixture(scope="module")
def base(tiny_schema, tmp_path_factory):
    base = tmp_path_factory.mktemp("gate") / "ctr"
    publish_model(model(tiny_schema), base, metrics=EASY)
    return base


@pytest.fixture(scope="module")
def clicks(tiny_schema, tiny_ids):
    """Rows whose clicks are drawn from the first model, so that any other is worse."""
    ids = tiny_ids(ROWS)
    probabilities = model(tiny_schema).predict(ids, verbose=0)[:, 0]
    labels = (np.random.default_rng(1).random(ROWS) < probabilities).astype(np.float32)
    return Clicks(raw_rows(tiny_schema, ids), labels, name="made rows")


def publish(schema, base, clicks, noise=0.0, bias=0.0, **options):
    return publish_model(model(schema, noise, bias), base, clicks=clicks, dry_run=True, **options)


def test_a_worse_model_does_not_pass_on_an_easier_split(base, clicks, tiny_schema):
    better_reported = {name: value + (0.01 if "auc" in name else -0.01) for name, value in EASY.items()}
    with pytest.raises(ExportError, match=r"ctr/1 is live: auc is 0\.\d+ live and 0\.\d+ now: .*log_loss is"):
        publish(tiny_schema, base, clicks, noise=0.3, metrics=better_reported, bounds=LOOSE)
    assert publish(tiny_schema, base, None, noise=0.3, metrics=better_reported, bounds=LOOSE)["comparison"]["failures"] == []


@pytest.mark.slow
def test_a_good_model_passes_on_a_harder_split(base, clicks, tiny_schema):
    record = publish(tiny_schema, base, clicks, metrics={"valid_auc": 0.6, "valid_log_loss": 0.6})
    assert record["comparison"]["failures"] == []
    assert record["comparison"]["measured_on"] == record["measured"]["on"] == "made rows"
    assert record["comparison"]["rows"] == ROWS
    live, new = record["comparison"]["metrics"]["auc"].values()
    assert live == new == record["measured"]["auc"]


def test_the_figures_are_those_of_the_served_probabilities(base, clicks):
    found = probabilities_of(SavedModel(base / "1"), base / "1", clicks.columns)
    figures = clicks.figures(found)
    assert figures["auc"] == metrics.auc(clicks.labels, found)
    assert figures["log_loss"] == metrics.log_loss(clicks.labels, found)
    assert figures["pcoc"] == pytest.approx(found.mean() / clicks.labels.mean())
    assert "group_auc" not in figures
    groups = np.arange(ROWS) % 7
    weighted = Clicks(clicks.columns, clicks.labels, np.full(ROWS, 2.0), groups).figures(found)
    assert weighted["group_auc"] == metrics.group_auc(clicks.labels, found, groups)
    assert Clicks(clicks.columns, np.ones(ROWS)).figures(found)["auc"] is None


@pytest.mark.sampled(1)
@pytest.mark.parametrize(("bias", "refused"), [(0.0, False), (3.0, True), (-3.0, True)])
def test_the_first_version_has_a_floor(bias, refused, clicks, tiny_schema, tmp_path):
    def first():
        return publish(tiny_schema, tmp_path / "first", clicks, bias=bias)

    if refused:
        with pytest.raises(ExportError, match=r"is not published: the log loss is .*predicted over observed clicks is"):
            first()
        assert publish(tiny_schema, tmp_path / "first", clicks, bias=bias, force="a test")["failures"]
    else:
        assert first()["failures"] == []


@pytest.mark.parametrize(
    ("pcoc", "clicks", "ends"),
    [
        (1.25, 10**6, 1),
        (1.19, 10**6, 0),
        (0.84, 10**6, 0),
        (0.8, 10**6, 1),
        (1.4, 100, 0),  # .2 and three deviations of the number of clicks, 3 / sqrt(100)
        (1.6, 100, 1),
        (None, 0, 0),
    ],
)
def test_predicted_over_observed_clicks_may_be_off_by_chance(pcoc, clicks, ends):
    figures = {"log_loss": 0.1, "log_loss_of_constant": 0.2, "pcoc": pcoc, "clicks": clicks}
    assert len(list(floor_failures(figures, [0, 1], Bounds()))) == ends


@pytest.mark.slow
def test_a_slice_has_bounds_of_its_own(base, clicks, tiny_schema):
    worse = model(tiny_schema)
    field = next(field for field in tiny_schema.fields if field.feature.name == "item")
    table = next(weight for weight in worse.weights if weight.shape[0] == tiny_schema.table_rows)
    values = np.array(table)
    values[field.offset + 3] -= 1.0  # the first known token
    table.assign(values)
    options = {"clicks": clicks, "dry_run": True, "bounds": Bounds(0.05, 0.05, 100, 1, 9, 0.05, 0.05)}
    assert publish_model(worse, base, **options)["comparison"]["failures"] == []
    with pytest.raises(ExportError, match=r"log_loss of item=item 0 is") as raised:
        publish_model(worse, base, slices=["item"], **options)
    assert "item=item 1" not in str(raised.value)
    with pytest.raises(ConfigError, match="Unknown feature 'itm'"):
        publish_model(worse, base, slices=["itm"], **options)


def test_slices_with_few_clicks_tell_nothing(clicks):
    assert {len(some.labels) for _, (_, some) in clicks.slices(["user"])} != set()
    few = Clicks({"user": np.array([b"a"] * 150 + [b"b"] * 300, object)}, np.r_[np.ones(150), np.arange(300) % 2])
    assert [name for name, _ in few.slices(["user"])] == ["user=b"]


def test_rows_that_a_version_cannot_answer(base, clicks, tiny_schema):
    columns = {name: column for name, column in clicks.columns.items() if name != "price"}
    with pytest.raises(StorageError, match="1 demands the column 'price', which the rows do not have"):
        probabilities_of(SavedModel(base / "1"), base / "1", columns)


@pytest.mark.parametrize("kind", ["csv", "parquet", "jsonl"])
def test_rows_of_a_file(kind, tmp_path):
    features = [Categorical("user", hash_buckets=9, size=12), Numeric("price", "scaled", mean=1.0, scale=2.0, size=4)]
    schema = Schema(features, label=Label("stars", threshold=4), group="user", weight="w")
    table = pd.DataFrame({"w": [1.0, 0.5], "user": ["a", "b"], "price": [0.5, None], "stars": [5, 3], "more": ["x", "y"]})
    file = tmp_path / f"rows.{kind}"
    match kind:
        case "csv":
            table.to_csv(file, index=False)
        case "parquet":
            table.to_parquet(file)
        case "jsonl":
            table.to_json(file, orient="records", lines=True)
    clicks = read_clicks(schema, file)
    assert clicks.labels.tolist() == [1, 0]
    assert clicks.weights.tolist() == [1.0, 0.5]
    assert clicks.groups.tolist() == [0, 1]
    assert clicks.columns["user"].tolist() == [b"a", b"b"]
    np.testing.assert_array_equal(clicks.columns["price"], [0.5, math.nan])
    assert clicks.name == f"2 rows of {file}"
    with pytest.raises(DataError, match="has no column 'click'"):
        read_clicks(Schema(features, label="click"), file)


def test_rows_of_a_split(tiny_schema, tiny_ids, tiny_labels):
    split = Split.from_arrays(tiny_ids(400), tiny_labels(400), groups=np.arange(400), name="valid")
    clicks = sample_clicks(split, tiny_schema, rows=100)
    assert (len(clicks.labels), clicks.weights, clicks.name) == (100, None, "100 rows of the valid split")
    np.testing.assert_array_equal(clicks.labels, split.labels[clicks.groups])
    for name, column in raw_rows(tiny_schema, split.ids[clicks.groups]).items():
        np.testing.assert_array_equal(clicks.columns[name], column)
    kept = sample_clicks(split, tiny_schema, rows=100, negatives_kept=0.25)
    np.testing.assert_array_equal(kept.weights, np.where(kept.labels > 0, 1, 4))


# what a version holds


@pytest.mark.slow
def test_rows_are_measured_and_not_kept(base, clicks, tiny_schema, tmp_path, caplog):
    kept = {}
    for name, options in {"none": {}, "measured": {"clicks": clicks}, "given": {"examples": clicks.columns}}.items():
        record = publish_model(model(tiny_schema), tmp_path / name / "ctr", **options)
        kept[name] = [record.rows for record in read_warmup(record["folder"])]
    assert kept["measured"] == kept["none"]
    assert sum(kept["given"]) > sum(kept["none"]) + ROWS
    assert [text for text in caplog.messages if "of yours" in text] == [
        f"{ROWS:,} rows of yours go into the version, for all who may read it"
    ]


@pytest.mark.sampled(1)
@pytest.mark.parametrize("without", [["explain"], ["explain", "embedding"]])
def test_a_version_without_what_tells_more_than_probabilities(without, tiny_schema, tmp_path):
    version = tfctr.serving.export(model(tiny_schema), tmp_path / "ctr", without=without)
    assert not set(without) & set(read_signatures(version))
    card = json.loads((version / "assets.extra" / "model_card.json").read_text(encoding="utf-8"))
    assert not set(without) & set(card["signatures"])
    assert not set(without) & {record.signature for record in read_warmup(version)}
    with pytest.raises(ConfigError, match="Unknown signature to leave out 'ids'"):
        tfctr.serving.export(model(tiny_schema), tmp_path / "ctr", without=["ids"])
