"""A retriever is trained in a process of its own, whole or not at all, and finds what users click on."""

import importlib.util
import json
import shutil
import subprocess

import numpy as np
import pytest
from kit.commands import done, tfctr_

import tfctr
from tfctr.data.synthetic import synthetic_schema, write_synthetic
from tfctr.errors import ConfigError, DataError, StorageError, TrainingError
from tfctr.retrieval import TowerOptions, evaluate, load_retriever, train
from tfctr.retrieval.towers import tower
from tfctr.storage import sha256

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow_recommenders") is None, reason="the extra `retrieval` is absent"
)
ITEM = ["item"]
FEW = ["--epochs", 2, "--batch-size", 256, "--uniform-items", 20, "--learning-rate", 0.01]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    return tfctr.prepare(synthetic_schema(), **write_synthetic(folder, rows=4_000), out=folder / "data").folder


@pytest.fixture(scope="module")
def folder(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("trained") / "retriever"
    done("retrieve", "train", "--data", data, "--out", out, "--item", "item", *FEW)
    return out


@pytest.fixture(scope="module")
def retriever(folder):
    return load_retriever(folder)


def test_the_loss_falls_and_all_weights_of_both_towers_move(retriever):
    assert [set(epoch) for epoch in retriever.history] == [{"loss", "recall_at_10", "recall_at_50"}] * 2
    assert retriever.history[1]["loss"] < retriever.history[0]["loss"]
    for name, trained in (("user", retriever.user_tower), ("item", retriever.item_tower)):
        kernels = [weight for weight in trained.trainable_variables if "bias" not in weight.path]
        assert len(kernels) == 3
        table = np.abs(kernels[0].numpy()).max(axis=1)
        assert (table > 0.01).mean() > 0.5, name  # they began at some 1e-4
        assert all(np.abs(weight.numpy()).max() > 0 for weight in trained.trainable_variables)


def test_the_recall_is_that_of_tensorflow_recommenders(retriever):
    best = max(retriever.history, key=lambda epoch: epoch["recall_at_50"])
    found = evaluate(retriever, "valid", all_items=True)
    assert found["unknown"] == 0
    assert [found["recall_at_10"], found["recall_at_50"]] == pytest.approx([best["recall_at_10"], best["recall_at_50"]])


def test_it_retrieves_better_than_chance(retriever, folder):
    values = json.loads(done("retrieve", "evaluate", folder, "--k", 10, "--k", 50, "--json"))
    assert values == evaluate(retriever)
    assert values["passed_over"]
    assert values["recall_at_50"] > 1.3 * 50 / values["items"]
    assert 0 < values["popularity_recall_at_10"] < values["popularity_recall_at_50"] < 1


def test_the_first_items_are_those_of_the_highest_scores(retriever, data):
    ids = tfctr.Dataset.load(data).test.ids[:7]
    scores = retriever.user_vectors(ids) @ retriever.item_vectors().T
    found = retriever.retrieve(ids, k=5)
    assert (np.sort(scores, axis=1)[:, :-6:-1] == np.take_along_axis(scores, found, axis=1)).all()
    np.testing.assert_allclose(np.linalg.norm(retriever.item_vectors(), axis=1), 1, rtol=1e-5)


def test_the_towers_read_their_own_columns_alone(retriever, data):
    ids = tfctr.Dataset.load(data).test.ids[:50]
    others = ids.copy()
    others[:, 1] = retriever.items.ids[0, 1]  # the item's
    assert (retriever.user_vectors(ids) == retriever.user_vectors(others)).all()
    moved = retriever.items.ids + (retriever.items.ids == 0) * ids[0]
    assert (retriever.item_tower(moved).numpy() == retriever.item_vectors()).all()


def test_a_changed_file_is_refused(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    with open(copy / "user.weights.h5", "ab") as file:
        file.write(b" ")
    with pytest.raises(StorageError, match="is not the file that was written"):
        load_retriever(copy)
    assert tfctr_("retrieve", "evaluate", tmp_path).exit_code == 6


def test_what_cannot_be_trained_is_refused_before(data, folder, tmp_path):
    with pytest.raises(StorageError, match="already exists"):
        train(data, folder, item=ITEM)
    with pytest.raises(ConfigError, match="Unknown feature in `item` 'itm'"):
        train(data, tmp_path / "new", item=["itm"])
    with pytest.raises(ConfigError, match=r"Unknown option of a retriever 'epoch'\.\n.*Did you mean 'epochs'"):
        train(data, tmp_path / "new", item=ITEM, epoch=3)
    dataset = tfctr.Dataset.load(data)
    dataset.train.labels[:] = 0
    with pytest.raises(DataError, match="the train split has 0 clicks on items that it knows"):
        train(dataset, tmp_path / "new", item=ITEM)
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_ends_early_leaves_nothing(data, tmp_path, monkeypatch):
    monkeypatch.setattr("subprocess.run", lambda command, **_: subprocess.CompletedProcess(command, -9))
    with pytest.raises(TrainingError, match="ended with the exit code -9"):
        train(data, tmp_path / "new", item=ITEM)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["embedding_dim", "vector_dim", "epochs", "patience", "batch_size"])
def test_options_out_of_range(name):
    with pytest.raises(ConfigError, match=f"`{name}` is 0"):
        TowerOptions(**{name: 0})
    for wrong in ({"hidden_units": 8}, {"hidden_units": [0]}, {"temperature": 0.0}, {"learning_rate": -1.0}, {"seed": 2**31}):
        with pytest.raises(ConfigError, match=f"`{next(iter(wrong))}` is"):
            TowerOptions(**wrong)


def test_a_tower_may_be_linear(tiny_schema, tiny_ids):
    linear = tower(tiny_schema, ["user", "genres", "age"], TowerOptions(hidden_units=[], vector_dim=3))
    assert linear(tiny_ids(5)).shape == (5, 3)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bits(data, folder, retriever, tmp_path):
    done("retrieve", "train", "--data", data, "--out", tmp_path / "again", "--item", "item", *FEW)
    again = load_retriever(tmp_path / "again")
    assert again.history == retriever.history
    assert sha256(tmp_path / "again" / "items.npy") == sha256(folder / "items.npy")
    for one, other in ((again.user_tower, retriever.user_tower), (again.item_tower, retriever.item_tower)):
        assert all((a == b).all() for a, b in zip(one.get_weights(), other.get_weights(), strict=True))
    done("retrieve", "train", "--data", data, "--out", tmp_path / "other", "--item", "item", *FEW, "--seed", 2)
    assert load_retriever(tmp_path / "other").history != retriever.history


@pytest.mark.slow
def test_what_the_process_refuses_is_the_error_here(data, tmp_path):
    wrong = tfctr_("retrieve", "train", "--data", data, "--out", tmp_path / "new", "--item", "item", "--learning-rate", "1e38")
    assert wrong.exit_code == 4
    assert "the loss of epoch" in wrong.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_dataset_without_a_valid_split_and_with_weights(tmp_path):
    schema = tfctr.Schema(features=[tfctr.Categorical("user"), tfctr.Categorical("item")], label="click", weight="weight")
    rng = np.random.default_rng(0)
    user = rng.integers(8, size=400)
    table = {"user": user, "item": (user + rng.integers(2, size=400)) % 8, "click": 1 - (user == 7), "weight": rng.random(400)}
    tfctr.prepare(schema, train={name: column.tolist() for name, column in table.items()}, out=tmp_path / "data")
    found = train(tmp_path / "data", tmp_path / "new", item=ITEM, epochs=8, batch_size=32, uniform_items=0, learning_rate=0.02)
    assert [set(epoch) for epoch in found.history] == [{"loss"}] * 8
    assert evaluate(found, "train", ks=[2])["recall_at_2"] > 0.9
