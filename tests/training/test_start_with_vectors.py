"""Embeddings that begin with vectors from files, and `tfctr.evaluation.embeddings`, which writes such files."""

import json

import numpy as np
import pyarrow as pa
import pytest
from kit.commands import done
from kit.days import tokens
from pyarrow import parquet

import tfctr
from tfctr import Categorical, Schema, Sequence
from tfctr.config import Config
from tfctr.errors import ConfigError, DataError, StorageError
from tfctr.evaluation import embeddings
from tfctr.layers import MLP
from tfctr.models import DNN, LR, TF4CTR, DeepFM
from tfctr.serving import export
from tfctr.training import load_run, start_with_vectors, train
from tfctr.training.warm import next_config

ITEMS = [str(10 * number) for number in range(1, 9)]
FEATURES = [Categorical("user"), Sequence("history", 3, vocabulary_of="item"), Categorical("item")]
CONFIG = {
    "model": {"name": "DNN", "embedding_dim": 2, "hidden_units": [8], "frozen": ["item"]},
    "training": {"epochs": 1, "batch_size": 64},
}


def clicks(items, rows=300, seed=0):
    rng = np.random.default_rng(seed)
    shown = rng.choice(items, rows)
    return {
        "user": rng.choice(list("abc"), rows).tolist(),
        "history": ["|".join(rng.choice(items, length)) for length in rng.integers(0, 4, rows)],
        "item": shown.tolist(),
        "click": (rng.random(rows) < np.where(np.isin(shown, items[::2]), 0.8, 0.2)).astype(int).tolist(),
    }


@pytest.fixture(scope="module")
def days(tmp_path_factory):
    folder = tmp_path_factory.mktemp("days")
    schema = Schema(FEATURES, label="click")
    monday = tfctr.prepare(schema, train=clicks(ITEMS), valid=0.2, out=folder / "monday")
    tuesday = tfctr.prepare(extend=monday, train=clicks([*ITEMS, "90", "95"], seed=1), valid=0.2, out=folder / "tuesday")
    return {"monday": monday, "tuesday": tuesday}


def write(path, vectors):
    parquet.write_table(pa.table({"token": list(vectors), "vector": [list(map(float, v)) for v in vectors.values()]}), path)
    return path


@pytest.fixture
def two(tmp_path):
    """Vectors of two numbers, of five known items and of one that is not known."""
    return write(tmp_path / "two.parquet", {10: [1, 2], 20: [3, 4], 30: [5, 6], 40: [7, 8], 50: [9, 5], 77: [100, 100]})


def rows_of(layer, dataset, name="item"):
    return {token: np.array(layer.table)[row].tolist() for token, row in tokens(dataset, name).items()}


# begin with them


def test_rows_begin_with_their_vectors_and_others_with_the_mean(days, two, caplog):
    caplog.set_level("INFO")
    schema = days["monday"].schema
    encoders = {"simple_encoder": MLP([4]), "complex_encoder": MLP([4])}
    for model in (TF4CTR(schema, 4, selection="separate", **encoders), DeepFM(schema, 2)):
        before = [np.array(layer.table) for layer in model.embeddings]
        report = start_with_vectors(model, {"history": two})["history"]
        wide = [layer for layer in model.embeddings if layer.embedding_dim > 1]
        assert [layer.embedding_dim for layer in wide] == ([2, 4] if isinstance(model, TF4CTR) else [2])
        for layer, old in zip(model.embeddings, before, strict=True):
            found = {token: row[:2] for token, row in rows_of(layer, days["monday"]).items()}
            start, size = layer.rows_of("item")
            if layer not in wide:
                np.testing.assert_array_equal(layer.table, old)
                continue
            assert (found["10"], found["50"]) == ([1, 2], [9, 5])
            assert [found[token] for token in (1, 2, "60", "80")] == [[5, 5]] * 4
            assert found[0] == old[start, :2].tolist()
            np.testing.assert_array_equal(np.delete(layer.table, range(start, start + size), 0), old[:start])
    assert {**report, "sha256": len(report["sha256"])} == {
        "file": "two.parquet",
        "sha256": 64,
        "width": 2,
        "with_vector": 5,
        "without_vector": 3,
        "without_token": 1,
        "kept": {},
    }
    said = "history: 5 tokens begin with a vector of two.parquet, 3 without one at their mean; 1 vectors are of no known token"
    assert said in caplog.text


def test_wider_vectors_are_projected_to_keep_inner_products_best(days, tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.setattr("tfctr.data.vectors.BLOCK", 3)
    vectors = np.random.default_rng(0).normal(size=(7, 5)).astype("float32")
    path = write(tmp_path / "five.parquet", {**dict(zip(ITEMS, vectors, strict=False)), "no item": [1e6] * 5})
    model = DNN(days["monday"].schema, embedding_dim=2)
    report = start_with_vectors(model, {"item": path})["item"]
    found = rows_of(model.embeddings[0], days["monday"])
    got = np.array([found[token] for token in ITEMS[:7]])
    left, singular, _ = np.linalg.svd(vectors.astype("float64"))
    best = left[:, :2] * singular[:2]
    np.testing.assert_allclose(got @ got.T, best @ best.T, atol=1e-5)
    np.testing.assert_allclose(found["80"], got.mean(axis=0), atol=1e-6)
    share = (singular[:2] ** 2).sum() / (singular**2).sum()
    assert report["kept"] == {"2": pytest.approx(share, rel=1e-6)}
    assert f"vectors of 5 numbers, projected to 2, keep {100 * share:.1f} %" in caplog.text


def test_narrower_vectors_are_filled_with_zeros(days, two):
    model = DNN(days["monday"].schema, embedding_dim=4)
    report = start_with_vectors(model, {"item": two})["item"]
    found = rows_of(model.embeddings[0], days["monday"])
    assert (found["20"], found["70"], report["kept"]) == ([3, 4, 0, 0], [5, 5, 0, 0], {})


def test_what_cannot_begin_with_vectors_is_refused(days, two, tmp_path):
    schema = days["monday"].schema
    model = DNN(schema, embedding_dim=2)
    before = np.array(model.embeddings[0].table)
    other = write(tmp_path / "other.parquet", {"i1": [1.0], "i2": [2.0]})
    with pytest.raises(DataError, match=r"none .* of feature 'item': 'i1', 'i2' there, '\d0', '\d0', '\d0' here"):
        start_with_vectors(model, {"item": other})
    with pytest.raises(ConfigError, match="'item' and 'history' have one vocabulary"):
        start_with_vectors(model, {"item": two, "history": two})
    with pytest.raises(ConfigError, match="LR has no vectors of feature 'item'"):
        start_with_vectors(LR(schema), {"item": two})
    with pytest.raises(ConfigError, match="no feature 'itme'"):
        start_with_vectors(model, {"itme": two})
    np.testing.assert_array_equal(model.embeddings[0].table, before)


# runs


def test_a_run_begins_with_a_file_and_does_not_need_it_afterwards(days, two, tmp_path):
    config = Config.from_dict(CONFIG, [f"training.pretrained.item={two}"])
    train(config, days["monday"], tmp_path / "run")
    two.unlink()
    run = load_run(tmp_path / "run")
    found = rows_of(run.model.embeddings[0], days["monday"])
    assert [found[token] for token in ("10", "40", "80", 1)] == [[1, 2], [7, 8], [5, 5], [5, 5]]
    report = json.loads((tmp_path / "run" / "environment.json").read_text())["pretrained"]["item"]
    assert (report["with_vector"], report["without_vector"], report["without_token"]) == (5, 3, 1)
    assert str(tmp_path) not in json.dumps(run.origin), "a model card names no folder of this machine"
    export(run.model, tmp_path / "served")  # which demands the bits of `predict`

    said = json.loads(done("embeddings", tmp_path / "run", "--feature", "item", "--out", tmp_path / "out.parquet", "--json"))
    assert said == {"file": str(tmp_path / "out.parquet"), "rows": 10, "width": 2, "table": 1, "widths": [2]}
    day_two = write(tmp_path / "tuesday.parquet", {"10": [0, 1], "90": [2, 1]})
    config = Config.from_dict(next_config(run).to_dict(), [f"training.pretrained.item={day_two}"])
    assert next_config(run).training.pretrained == {}
    later = train(config, days["tuesday"], tmp_path / "later", warm_start=run)
    again = rows_of(later.model.embeddings[0], days["tuesday"])
    assert all(again[token] == found[token] for token in found if token != 0), "what the earlier run knew goes on"
    assert (again["90"], again["95"]) == ([2, 1], [1, 1])


# and out


def test_what_is_written_is_what_a_model_begins_with(days, tmp_path, monkeypatch):
    monkeypatch.setattr("tfctr.evaluation.token_vectors.BLOCK", 4)
    dataset = days["monday"]
    model = DeepFM(dataset.schema, embedding_dim=3, hidden_units=[4])
    vectors = next(layer for layer in model.embeddings if layer.embedding_dim == 3)
    said = embeddings(model, "history", out=tmp_path / "items.parquet")
    widths = [layer.embedding_dim for layer in model.embeddings]
    assert said == {"rows": 10, "width": 3, "table": widths.index(3) + 1, "widths": widths}
    file = parquet.ParquetFile(tmp_path / "items.parquet")
    assert file.num_row_groups == 3
    rows = file.read().to_pylist()
    expected = rows_of(vectors, dataset)
    assert [row["kind"] for row in rows] == ["missing", "out_of_vocabulary", *["token"] * 8]
    assert [row["id"] for row in rows] == list(range(1, 11))
    assert {row["token"] or row["id"]: row["vector"] for row in rows} == {k: v for k, v in expected.items() if k != 0}
    other = DNN(dataset.schema, embedding_dim=3)
    start_with_vectors(other, {"item": tmp_path / "items.parquet"})
    again = rows_of(other.embeddings[0], dataset)
    assert {k: v for k, v in again.items() if k != 0} == {k: v for k, v in expected.items() if k != 0}
    number = widths.index(1) + 1
    assert embeddings(model, "user", out=tmp_path / "w.parquet", table=number)["width"] == 1
    for feature, out, table, error in (
        ("item", "items.parquet", None, StorageError),
        ("item", "items.csv", None, ConfigError),
        ("item", "a.parquet", 3, ConfigError),
        ("itme", "a.parquet", None, ConfigError),
    ):
        with pytest.raises(error):
            embeddings(model, feature, out=tmp_path / out, table=table)
    assert not (tmp_path / "a.parquet").exists()
