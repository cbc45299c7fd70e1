"""One servable retrieves and ranks: its recommendations have the bits of the two steps by hand."""

import asyncio
import dataclasses
import json

import numpy as np
import pytest
from kit.fake_serving import FakeServing, answer_price
from kit.randomized import randomize
from kit.served_rows import golden_of
from kit.untrained import untrained

import tfctr
from tfctr.errors import ConfigError, DataError
from tfctr.features import FIRST_KNOWN, MISSING
from tfctr.models import MODELS
from tfctr.serving.client.asynchronous import AsyncPredictionClient
from tfctr.serving.client.blocking import PredictionClient
from tfctr.serving.exporting.options import ExportOptions
from tfctr.serving.runtime.saved_model import SavedModel
from tfctr.serving.runtime.stand_in import LocalServer

RETRIEVED = 5
USERS = [
    {"user": "60", "genres": ["Comedy", "Drama"], "age": 30.0, "price": 0.5},
    {"user": "nobody", "genres": [], "age": None, "price": 1e9},
    {"user": "", "genres": ["Sci-Fi", "no genre", "Drama"], "price": -1.5},
]


def raw_items(retriever):
    """What each item is called, and its features as a client would send them."""
    items, columns = retriever.items, {"item": [token.decode() for token in retriever.items.tokens]}
    field = next(field for field in items.schema.fields if field.feature.name == "genres")
    if "genres" in items.features:
        known = retriever.schema.vocabulary_file(field.feature).read_text(encoding="utf-8").split("\n")
        texts = {id: known[id - FIRST_KNOWN] if id >= FIRST_KNOWN else "unknown" for id in range(1, field.size)} | {MISSING: ""}
        own = items.ids[:, field.columns] - field.offset
        columns["genres"] = ["|".join(texts[id] for id in row if id) for row in own.tolist()]
    return columns


@pytest.fixture(scope="module", params=[("item", "genres"), pytest.param(("item",), marks=pytest.mark.slow)], ids=str)
def served(request, tiny_schema, tiny_ids, tmp_path_factory):
    """A retriever, the version of a ranker with it, and an open client."""
    retriever = untrained(tiny_schema, tiny_ids(200), request.param)
    model = randomize(MODELS["DeepFM"](tiny_schema), scale=0.05)
    folder = tmp_path_factory.mktemp("served") / "shop"
    version = tfctr.serving.export(model, folder, retriever=retriever, retrieved=RETRIEVED, optional=["age"])
    with LocalServer(folder, port=0) as server, PredictionClient(server.target, model="shop") as client:
        yield retriever, version, client


@pytest.mark.parametrize("user", USERS, ids=["known", "unknown", "missing"])
def test_it_gives_the_bits_of_the_two_steps_by_hand(served, user):
    retriever, _, client = served
    context = {name: value for name, value in user.items() if name not in retriever.items.features}
    found = client.answer([context], "retrieve").outputs["item"][0].tolist()
    assert len(set(found)) == RETRIEVED
    places = [retriever.items.tokens.index(item) for item in found]
    candidates = {name: [column[place] for place in places] for name, column in raw_items(retriever).items()}
    probabilities = client.rank(context, candidates)
    order = np.argsort(-probabilities, kind="stable")
    recommended = client.recommend(context, k=RETRIEVED)
    assert recommended.items == [candidates["item"][place] for place in order]
    assert (recommended.probabilities.view(np.int32) == probabilities[order].view(np.int32)).all()
    assert len(set(probabilities.tolist())) == RETRIEVED
    assert recommended.version == 1


def test_fewer_are_the_first(served):
    user = {name: value for name, value in USERS[0].items() if name not in served[0].items.features}
    all_of_them, two = served[2].recommend(user, k=RETRIEVED), served[2].recommend([user], k=2)
    assert two.items == all_of_them.items[:2]
    assert two.probabilities.tolist() == all_of_them.probabilities[:2].tolist()


def test_requests_that_do_not_fit(served):
    user = {"user": "60", "genres": "", "price": 1.0}
    with pytest.raises(ConfigError, match="`k` is 6, and the model retrieves 5 items"):
        served[2].recommend(user, k=6)
    with pytest.raises(ConfigError, match="`k` is 0"):
        served[2].recommend(user, k=0)
    with pytest.raises(DataError, match="user: column 'price' is missing"):
        served[2].recommend({"user": "60", "genres": ""})
    with pytest.raises(DataError, match="user: 2 rows, not one"):
        served[2].recommend([user, user])


def test_every_signature_is_golden_and_the_card_names_them(served):
    _, version, _ = served
    names = ["classify", "embedding", "explain", "ids", "item_vector", "rank", "recommend", "regress", "retrieve", "schema"]
    names += ["serving_default", "user_vector"]
    assert sorted({batch["signature"] for batch in golden_of(version)}) == sorted(SavedModel(version).signatures) == names
    card = json.loads((version / "assets.extra" / "model_card.json").read_text())
    assert (card["signatures"], card["retrieved"]) == (names, RETRIEVED)
    assert sorted(card["candidates"]) == sorted(served[0].items.features)


def test_the_client_for_asyncio_does_the_same(served):
    user = {name: value for name, value in USERS[0].items() if name not in served[0].items.features}

    async def recommend():
        async with AsyncPredictionClient(served[2].target, model="shop") as client:
            return await client.recommend(user, k=3)

    assert asyncio.run(recommend()).items == served[2].recommend(user, k=3).items


def test_retrievers_that_do_not_fit_a_model(tiny_schema, tiny_ids, tmp_path):
    retriever = untrained(tiny_schema, tiny_ids(200))
    model = MODELS["LR"](tiny_schema)
    other = dataclasses.replace(tiny_schema, features=[*tiny_schema.features[:3], *tiny_schema.features[:2:-1]])
    for options, problem in (
        ({"retriever": retriever, "candidates": ["item"]}, r"`candidates` is \['item'\], and the retriever's items have"),
        ({"retriever": "runs/retriever"}, "`retriever` is 'runs/retriever'"),
        ({"retriever": retriever, "retrieved": 0}, "`retrieved` is 0"),
        ({"retriever": retriever, "optional": ["user", "age", "price"]}, "no feature of the user is required"),
        ({"retriever": untrained(other, tiny_ids(200))}, "the retriever is of another fit"),
    ):
        with pytest.raises(ConfigError, match=problem):
            tfctr.serving.export(model, tmp_path / "new", **options)
    assert ExportOptions(retriever=retriever).candidates == ("item", "genres")
    assert list(tmp_path.iterdir()) == []


def test_a_model_without_a_retriever_recommends_nothing():
    with FakeServing(answer_price).serving() as target, pytest.raises(ConfigError, match="Unknown signature 'recommend'"):
        PredictionClient(target, model="m").recommend({"user": "60"})
