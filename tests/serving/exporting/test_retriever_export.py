"""A retriever alone as a served version."""

import json

import numpy as np
import pytest
from kit.commands import tfctr_
from kit.served_rows import golden_of
from kit.untrained import untrained

import tfctr
from tfctr.errors import ConfigError, StorageError
from tfctr.serving.client.blocking import PredictionClient
from tfctr.serving.exporting.raw_features import RawFeatures
from tfctr.serving.runtime.saved_model import SavedModel, StatusError
from tfctr.serving.runtime.stand_in import LocalServer

ROWS = {"user": ["60", "nobody", ""], "age": [30.0, np.nan, -1.5], "price": [0.5, 1e9, np.nan]}


@pytest.fixture(scope="module")
def retriever(tiny_schema, tiny_ids):
    return untrained(tiny_schema, tiny_ids(200))


@pytest.fixture(scope="module")
def version(retriever, tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone") / "candidates"
    return tfctr.serving.export_retriever(retriever, folder, retrieved=4, optional=["age"])


def ids_of(schema, rows):
    """Prepared rows with an item that the user's tower must not see."""
    columns = {"item": ["item 3"] * 3, "genres": ["Drama"] * 3, **rows}
    return RawFeatures(schema)({name: np.array(columns[name]) for name in RawFeatures(schema).signature}).numpy()


def test_a_client_gets_the_best_items_of_each_user(retriever, version, tiny_schema):
    ids = ids_of(tiny_schema, ROWS)
    places = retriever.retrieve(ids, k=4)
    scores = retriever.user_vectors(ids) @ retriever.item_vectors().T
    with LocalServer(version.parent, port=0) as server, PredictionClient(server.target, model="candidates") as client:
        for signature in ("retrieve", None):
            found = client.answer(ROWS, signature).outputs
            assert found["item"].tolist() == [[retriever.items.tokens[place] for place in row] for row in places]
            np.testing.assert_allclose(found["score"], np.take_along_axis(scores, places, axis=1), rtol=1e-5, atol=1e-6)
        vectors = client.answer(ROWS, "user_vector").outputs["vector"]
        np.testing.assert_allclose(vectors, retriever.user_vectors(ids), rtol=1e-5, atol=1e-6)
        items = client.answer({"place": [2, 0]}, "item_vector").outputs
        assert items["item"].tolist() == [retriever.items.tokens[2], retriever.items.tokens[0]]
        assert (items["vector"] == retriever.item_vectors()[[2, 0]]).all()
        assert client.answer({"user": ["60"], "price": [0.5]}).outputs["item"].shape == (1, 4)


def test_every_signature_is_golden_and_the_card_names_them(version):
    names = ["item_vector", "retrieve", "schema", "serving_default", "user_vector"]
    assert sorted({batch["signature"] for batch in golden_of(version)}) == sorted(SavedModel(version).signatures) == names
    card = json.loads((version / "assets.extra" / "model_card.json").read_text())
    assert (card["signatures"], card["retrieved"], card["config"]["item"]) == (names, 4, ["item", "genres"])


def test_a_place_that_is_none_is_refused(version):
    with pytest.raises(StatusError, match="is not in"):
        SavedModel(version).run("item_vector", {"place": np.int32([99])})


def test_as_many_as_there_are(retriever, tmp_path):
    version = tfctr.serving.export_retriever(retriever, tmp_path / "all", retrieved=1000, check=False)
    (batch, *_) = [batch for batch in golden_of(version) if batch["signature"] == "retrieve"]
    assert batch["outputs"]["item"].shape == (1, len(retriever.items))


def test_what_cannot_be_exported(retriever, tmp_path):
    with pytest.raises(ConfigError, match="`retrieved` is 0"):
        tfctr.serving.export_retriever(retriever, tmp_path / "new", retrieved=0)
    with pytest.raises(ConfigError, match="no feature of the user is required"):
        tfctr.serving.export_retriever(retriever, tmp_path / "new", optional=["user", "age", "price"])
    with pytest.raises(StorageError, match="is no retriever"):
        tfctr.retrieval.load_retriever(tmp_path)
    assert tfctr_("retrieve", "export", tmp_path, tmp_path / "new").exit_code == 6
    assert list(tmp_path.iterdir()) == []
