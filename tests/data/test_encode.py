"""`tfctr.encode`: a further table by an earlier fit is what `prepare` would have written of it beside its training table."""

import json
import logging
import shutil

import numpy as np
import pandas as pd
import pytest
from kit.parity_table import SCHEMA, TRAIN, table
from typer.testing import CliRunner

import tfctr
from tfctr import Categorical, Label, Numeric, Schema, Sequence
from tfctr.cli import app
from tfctr.data.profile import Profile, stability
from tfctr.errors import ConfigError, DataError, StorageError
from tfctr.storage import read_json, write_json

CLICKS = Schema(
    [Categorical("user"), Sequence("genres", 2), Numeric("price", "scaled"), Numeric("age", "quantile", buckets=5)],
    label="click",
    group="user",
    weight="importance",
)


def clicks(rows, seed, users=50, shift=0.0):
    rng = np.random.default_rng(seed)
    return {
        "user": rng.integers(0, users, rows).astype(str),
        "genres": ["|".join(map(str, rng.integers(0, 9, length))) for length in rng.integers(0, 4, rows)],
        "price": rng.normal(10 + shift, 1, rows),
        "age": rng.integers(18, 90, rows),
        "importance": rng.integers(1, 3, rows),
        "click": rng.integers(0, 2, rows),
    }


@pytest.fixture(scope="module")
def monday(tmp_path_factory):
    """Prepared clicks, with the further table as their test split."""
    out = tmp_path_factory.mktemp("monday") / "data"
    return tfctr.prepare(CLICKS, train=clicks(2_000, 0), test=clicks(700, 1, users=80, shift=2.0), out=out)


@pytest.fixture
def copied(monday, tmp_path):
    """A copy of Monday's folder, which a test may damage."""
    return shutil.copytree(monday.folder, tmp_path / "copied")


def without(columns, *names):
    return {name: values for name, values in columns.items() if name not in names}


def test_a_table_of_every_kind_of_feature_has_the_ids_of_prepare(tmp_path):
    rows = len(TRAIN["year"])
    further = {name: list(reversed(values)) for name, values in TRAIN.items()}
    further = table({**further, "click": [row % 2 for row in range(rows)]})
    beside = tfctr.prepare(SCHEMA, train=table(TRAIN), test=further, out=tmp_path / "beside")
    encoded = tfctr.encode(beside, further, out=tmp_path / "encoded")
    np.testing.assert_array_equal(encoded.test.ids, beside.test.ids)
    assert encoded.schema.digest == beside.schema.digest
    assert encoded.test.shares == beside.test.shares
    assert encoded.test.profile == beside.test.profile


@pytest.mark.parametrize("fitted", ["dataset", "folder", "schema", "encoded"])
def test_all_that_holds_a_fit_encodes_alike(monday, fitted, tmp_path):
    ways = {"dataset": monday, "folder": monday.folder, "schema": monday.schema, "encoded": tmp_path / "first"}
    tuesday = clicks(700, 1, users=80, shift=2.0)
    if fitted == "encoded":
        tfctr.encode(monday, tuesday, out=tmp_path / "first", split="valid")
    found = tfctr.encode(ways[fitted], tuesday, out=tmp_path / "tuesday")
    for column in ("ids", "labels", "weights"):
        np.testing.assert_array_equal(getattr(found.test, column), getattr(monday.test, column))
    assert (found.test.shares, found.test.profile) == (monday.test.shares, monday.test.profile)
    assert found.test.copies is None  # the training rows are not there to be compared with
    assert len(np.unique(found.test.groups)) == len(np.unique(tuesday["user"]))
    assert tfctr.Dataset.load(tmp_path / "tuesday").test.rows == 700


def test_a_table_without_labels_can_be_scored_and_nothing_else(monday, tmp_path):
    bare = without(clicks(700, 1, users=80, shift=2.0), "click", "importance")
    found = tfctr.encode(monday, bare, out=tmp_path / "bare").test
    np.testing.assert_array_equal(found.ids, monday.test.ids)
    assert not found.has_labels
    assert (found.groups, found.weights) == (None, None)
    model = tfctr.models.LR(monday.schema)
    model.compile()
    np.testing.assert_array_equal(
        model.predict(found.batches(100), verbose=0), model.predict(monday.test.batches(100), verbose=0)
    )
    for ask in (
        lambda: found.labels,
        lambda: found.click_rate,
        lambda: tfctr.evaluation.evaluate(model, found),
        lambda: tfctr.training.suggest(tfctr.Dataset(monday.schema, {"train": found}, tmp_path)),
    ):
        with pytest.raises(DataError, match="the test split has no labels"):
            ask()


def test_labels_that_are_asked_for_or_left_out(monday, tmp_path):
    tuesday = clicks(50, 1)
    with pytest.raises(DataError, match=r"the test table has no column 'click' \(the label\)"):
        tfctr.encode(monday, without(tuesday, "click"), out=tmp_path / "out", labels=True)
    with pytest.raises(DataError, match=r"has no column 'importance' \(the weight\)"):
        tfctr.encode(monday, without(tuesday, "importance"), out=tmp_path / "out")
    with pytest.raises(DataError, match=r"column 'click', row 3: found '2'"):
        tfctr.encode(monday, {**tuesday, "click": [0, 1, 2, *[0] * 47]}, out=tmp_path / "out")
    found = tfctr.encode(monday, {**tuesday, "click": ["?"] * 50}, out=tmp_path / "out", labels=False)
    assert not found.test.has_labels
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]


def test_what_counts_as_a_click_need_not_occur_in_a_further_table(tmp_path):
    schema = Schema([Categorical("user")], label=Label("bought", positive="yes"))
    monday = tfctr.prepare(schema, train={"user": ["a", "b"], "bought": ["yes", "no"]}, out=tmp_path / "monday")
    found = tfctr.encode(monday, {"user": ["b", "c"], "bought": ["no", "no"]}, out=tmp_path / "tuesday")
    assert (found.test.ids.tolist(), found.test.labels.tolist()) == ([[4], [2]], [0, 0])  # one class: nobody trains on it


def test_files_in_parts_are_encoded_in_their_order(monday, tmp_path):

    tuesday = pd.DataFrame(clicks(700, 1, users=80, shift=2.0))
    for start in range(0, 700, 300):
        tuesday[start : start + 300].to_csv(tmp_path / f"{start}.csv", index=False, sep=";")
    found = tfctr.encode(monday, str(tmp_path / "*.csv"), out=tmp_path / "tuesday", separator=";", threads=1)
    np.testing.assert_array_equal(found.test.ids, monday.test.ids)
    with pytest.raises(StorageError, match="already exists"):
        tfctr.encode(monday, str(tmp_path / "*.csv"), out=tmp_path / "tuesday", separator=";")


def test_a_further_training_table_trains_a_model_of_the_same_fit(monday, tmp_path):
    tuesday = tfctr.encode(monday, clicks(900, 3), out=tmp_path / "tuesday", split="train")
    model = tfctr.models.DNN(monday.schema, embedding_dim=4, hidden_units=[8])
    model.compile()
    model.fit(tuesday.train.batches(100), validation_data=monday.test.batches(100), verbose=0)
    with pytest.raises(ConfigError, match="has no valid split; it has: train") as caught:
        _ = tuesday.valid
    assert "tfctr encode DATASET TABLE --split valid" in caught.value.fix


def test_it_is_said_what_has_moved_and_what_is_unknown(monday, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        found = tfctr.encode(monday, clicks(700, 1, users=80, shift=2.0), out=tmp_path / "tuesday", split="train")
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2
    assert "of the tokens of 'user' are unknown to the fit" in told[0]
    assert "'price' has another distribution than in training" in told[1]
    assert len(found.train.findings) == 2
    assert found.train.profile["price"]["psi"] > 1 > 0.1 > found.train.profile["age"]["psi"]


# what was written


@pytest.mark.parametrize("file", ["profile.npz", "vocabulary/user.txt", "schema.json"])
def test_a_damaged_fit_encodes_nothing(copied, file, tmp_path):
    content = (copied / file).read_bytes()
    (copied / file).write_bytes(content.replace(b"1", b"2", 1) if file != "profile.npz" else content[:-40])
    with pytest.raises(StorageError, match=r"is not the file that was written"):
        tfctr.encode(copied, clicks(50, 1), out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_schema_whose_vocabularies_have_changed_encodes_nothing(copied, tmp_path):
    schema = Schema.load(copied / "schema.json")
    file = copied / "vocabulary" / "user.txt"
    file.write_text("".join(reversed(file.read_text().splitlines(keepends=True))))
    with pytest.raises(StorageError, match=r"user.txt is not the file that was written"):
        tfctr.encode(schema, clicks(50, 1), out=tmp_path / "out")


def test_the_digest_of_the_fit_stands_in_the_manifest(copied, tmp_path):
    manifest = read_json(copied / "manifest.json")
    assert manifest["fit"]["digest"] == Schema.load(copied / "schema.json").digest
    write_json(copied / "manifest.json", {**manifest, "fit": {**manifest["fit"], "digest": "0" * 64}})
    with pytest.raises(StorageError, match="is of another fit than the manifest"):
        tfctr.Dataset.load(copied)


def test_a_folder_of_an_earlier_version_encodes_without_a_psi(copied, monday, tmp_path):
    manifest = read_json(copied / "manifest.json")
    del manifest["fit"]
    write_json(copied / "manifest.json", manifest)
    (copied / "profile.npz").unlink()
    found = tfctr.encode(copied, clicks(700, 1, users=80, shift=2.0), out=tmp_path / "out")
    np.testing.assert_array_equal(found.test.ids, monday.test.ids)
    assert "psi" not in found.test.profile["price"]


def test_arguments_that_cannot_be_used(monday, tmp_path):
    tuesday = clicks(10, 1)
    for arguments, problem in (
        ({"split": "Test"}, "Unknown split 'Test'"),
        ({"labels": "yes"}, "`labels` is 'yes'"),
        ({"memory_limit": "lots"}, "`memory_limit` is 'lots'"),
        ({"separator": ";"}, "separator"),
    ):
        with pytest.raises(ConfigError, match=problem):
            tfctr.encode(monday, tuesday, out=tmp_path / "out", **arguments)
    with pytest.raises(ConfigError, match="not fitted"):
        tfctr.encode(CLICKS, tuesday, out=tmp_path / "out")
    with pytest.raises(StorageError, match="is not a prepared dataset"):
        tfctr.encode(tmp_path, tuesday, out=tmp_path / "out")
    with pytest.raises(StorageError, match="does not exist"):
        tfctr.encode(monday, str(tmp_path / "none.csv"), out=tmp_path / "out")
    assert not list(tmp_path.iterdir())


# profiles and their PSI


def test_a_profile_is_read_as_it_was_saved(tmp_path):
    profile = Profile()
    rng = np.random.default_rng(0)
    profile.add_numbers(Numeric("a/b", "scaled"), np.append(rng.normal(size=1000), [np.nan, np.inf]))
    profile.add_tokens(Categorical("b.c"), rng.integers(0, 9, (1000, 1)))
    profile.save(tmp_path / "profile.npz")
    read = Profile.load(tmp_path / "profile.npz")
    assert (read.rows, read.without) == (profile.rows, profile.without)
    assert read.without["a/b"] == 2
    for name, histogram in profile.histograms.items():
        np.testing.assert_array_equal(read.histograms[name].codes, histogram.codes)
        np.testing.assert_array_equal(read.histograms[name].counts, histogram.counts)


def test_the_psi_of_tokens_by_hand(tmp_path):
    """Three tokens, a missing one, and one that the fit does not know, which is not among the bins."""
    schema = Schema([Categorical("x")], label="click")
    before = {"x": ["a"] * 50 + ["b"] * 30 + ["c"] * 15 + [None] * 5, "click": [0, 1] * 50}
    after = {"x": ["a"] * 20 + ["b"] * 30 + ["c"] * 10 + [None] * 20 + ["new"] * 40}
    monday = tfctr.prepare(schema, train=before, out=tmp_path / "monday")
    found = tfctr.encode(monday, after, out=tmp_path / "tuesday").test.profile["x"]["psi"]
    now, then = np.array([20, 30, 10, 0, 20]) + 0.5, np.array([50, 30, 15, 0, 5]) + 0.5
    now, then = (np.delete(counts, 3) / np.delete(counts, 3).sum() for counts in (now, then))  # no other token is known
    assert found == pytest.approx(np.sum((now - then) * np.log(now / then)), rel=1e-12)


def test_the_psi_of_numbers_by_hand(tmp_path):
    """Whole numbers, which the codes hold exactly: ten bins of 1 to 100, and one of missing rows."""
    schema = Schema([Numeric("x", "scaled")], label="click")
    monday = tfctr.prepare(schema, train={"x": range(1, 61), "click": [0, 1] * 30}, out=tmp_path / "monday")
    after = [1, 2, 3, 7, 7, 60, 99, None]
    found = tfctr.encode(monday, {"x": after}, out=tmp_path / "tuesday").test.profile["x"]["psi"]
    now, then = np.array([3, 2, 0, 0, 0, 0, 0, 0, 0, 2, 1]) + 0.5, np.array([6] * 10 + [0]) + 0.5
    now, then = now / now.sum(), then / then.sum()
    assert found == pytest.approx(np.sum((now - then) * np.log(now / then)), rel=1e-12)


def test_chance_exceeds_its_bound_once_in_a_thousand_splits():
    """Of 4,000 draws 4 are expected; 20 have a chance below 1e-8, and none one of 2 %: half the bound has many."""
    rng = np.random.default_rng(0)
    shares = np.array([0.3, 0.25, 0.2, 0.1, 0.1, 0.05])
    found = [stability(rng.multinomial(2_000, shares), rng.multinomial(5_000, shares)) for _ in range(4_000)]
    assert sum(one["psi"] > one["psi_by_chance"] for one in found) <= 20
    assert sum(one["psi"] > 0.5 * one["psi_by_chance"] for one in found) >= 40


def test_the_command_line(monday, tmp_path):

    pd.DataFrame(clicks(700, 1, users=80, shift=2.0)).to_csv(tmp_path / "tuesday.csv", index=False)
    run = CliRunner()
    done = run.invoke(app, ["encode", str(monday.folder), f"{tmp_path}/tuesday.csv", "--out", f"{tmp_path}/out", "--json"])
    assert done.exit_code == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["test_rows"], said["labels"]) == (700, True)
    assert said["profiles"]["test"]["features"]["price"]["psi"] > 1
    assert f"next: tfctr evaluate RUN --data {tmp_path}/out --split test" in done.stderr
    assert "distributed otherwise than in training: price" in done.stderr
    refused = run.invoke(
        app,
        ["encode", str(monday.folder), f"{tmp_path}/tuesday.csv", "--out", f"{tmp_path}/more", "--no-labels", "--split", "x"],
    )
    assert refused.exit_code == ConfigError.exit_code
    bare = ["encode", str(monday.folder), f"{tmp_path}/tuesday.csv", "--out", f"{tmp_path}/bare", "--no-labels"]
    done = run.invoke(app, [*bare, "--split", "valid"])
    assert done.exit_code == 0, done.stderr
    assert "valid: no labels" in done.stderr
