"""DIN, BST and TF4CTR with attention: which histories they read, beside which targets, and what they make of them."""

import keras
import numpy as np
import pytest
from kit.at_length import at_length
from kit.randomized import dense, randomize
from kit.served_rows import spread

import tfctr
from tfctr import Categorical, Numeric, Schema, Sequence
from tfctr.errors import ConfigError
from tfctr.layers import MLP, AttendedEmbedding, HistoryTransformer, TargetAttention
from tfctr.layers.attended import pairs_of
from tfctr.models import BST, DIN, TF4CTR, build
from tfctr.serving.exporting.raw_features import RawFeatures
from tfctr.serving.runtime.saved_model import SavedModel

SMALL = {"embedding_dim": 4, "hidden_units": [8]}
MODELS = {
    "DIN": lambda schema, **options: DIN(schema, **SMALL, attention_units=[6], **options),
    "BST": lambda schema, **options: BST(schema, **SMALL, hidden_dim=6, num_heads=2, **options),
    "TF4CTR": lambda schema, **options: TF4CTR(
        schema,
        4,
        AttendedEmbedding(schema, 4, attention_units=[6], **options),
        simple_encoder=MLP([6]),
        complex_encoder=MLP([8]),
    ),
}
EACH = pytest.mark.parametrize("name", MODELS)
FEATURES = [
    Categorical("user"),
    Sequence("shops", 3, keep="last", vocabulary_of="shop"),
    Sequence("history", 4, keep="last", vocabulary_of="item"),
    Categorical("item"),
    Categorical("shop"),
    Numeric("price", "scaled"),
]


def clicks(rows=200, seed=0):
    rng = np.random.default_rng(seed)

    def several(number, most):
        return ["|".join(map(str, rng.integers(0, number, rng.integers(0, most)))) for _ in range(rows)]

    items = rng.integers(0, 6, rows)
    histories = several(6, 7)
    liked = np.array([str(item) in text.split("|") for item, text in zip(items, histories, strict=True)])
    return {
        "user": rng.integers(0, 9, rows).astype(str).tolist(),
        "shops": several(4, 5),
        "history": histories,
        "item": items.astype(str).tolist(),
        "shop": rng.integers(0, 4, rows).astype(str).tolist(),
        "price": rng.normal(size=rows).tolist(),
        "click": (rng.random(rows) < np.where(liked, 0.9, 0.1)).astype(int).tolist(),
    }


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    out = tmp_path_factory.mktemp("histories") / "data"
    return tfctr.prepare(Schema(FEATURES, label="click"), train=clicks(), valid=clicks(seed=1), out=out)


def pairs(*features, **given):
    return pairs_of(Schema([Categorical("user"), Numeric("price"), *features], label="click"), **given)


def test_pairs_by_hand():
    history, item = Sequence("history", 3, vocabulary_of="item"), Categorical("item")
    like = Categorical("like", vocabulary_of="item")
    assert pairs(like, history, item) == {"history": "like"}  # the first of the vocabulary
    assert pairs(like, history, item, targets=["item"], histories=["history"]) == {"history": "item"}
    assert pairs(Sequence("history", 3), Categorical("item", vocabulary_of="history")) == {"history": "item"}
    assert pairs(history, item, Sequence("tags", 2)) == {"history": "item"}
    both = pairs(history, item, Sequence("tags", 2), histories=["tags", "history"], targets=["user", "item"])
    assert list(both.items()) == [("tags", "user"), ("history", "item")]
    assert list(pairs(*FEATURES[1:-1])) == ["shops", "history"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, r"no sequence of the schema shares its vocabulary(?s:.*)vocabulary_of='item'"),
        ({"targets": ["user"]}, "`targets` are given, and no `histories`"),
        ({"histories": "tags"}, "`histories` is 'tags'"),
        ({"histories": ["tag"]}, "feature in `histories` 'tag'(?s:.*)Did you mean 'tags'"),
        ({"histories": ["user"], "targets": ["user"]}, "feature in `histories` 'user'"),
        ({"histories": ["tags"], "targets": ["tags"]}, "feature in `targets` 'tags'"),
        ({"histories": ["tags"]}, "no feature of one token a row has the vocabulary of the history 'tags'"),
        ({"histories": ["tags"], "targets": []}, "for each its target"),
        ({"histories": ["tags", "tags"], "targets": ["user", "user"]}, "name each history once"),
        ({"histories": []}, "name each history once"),
    ],
)
@EACH
def test_what_is_no_pair_is_refused(name, given, message):
    schema = Schema([Categorical("user", size=5), Sequence("tags", 2, size=6)], label="click")
    with pytest.raises(ConfigError, match=message):
        build(name, schema, embedding_dim=4, **({"selection": {"type": "attended", **given}} if name == "TF4CTR" else given))


def test_din_by_its_layers(dataset):
    """Fields of all other features, then what each history says of its target, in an MLP; by layers tested on their own."""
    model = randomize(MODELS["DIN"](dataset.schema))
    ids = dataset.valid.ids[:20]
    fields, shops, history = model.embeddings[0](ids)  # user, item, shop, price
    assert fields.shape == (20, 4, 4)
    attention = [layer for layer in model.layers if isinstance(layer, TargetAttention)]
    attended = [attention[0]([shops, fields[:, 2]]), attention[1]([history, fields[:, 1]])]
    view = np.concatenate([np.reshape(fields, (20, 16)), *attended], axis=1)
    mlp = next(layer for layer in model.layers if isinstance(layer, MLP))
    expected = dense(model.layers[-1], mlp(view).numpy().astype("float64"))
    np.testing.assert_allclose(model(ids)["logit"], expected, rtol=1e-5, atol=1e-5)


def test_bst_by_its_layers(dataset):
    model = randomize(MODELS["BST"](dataset.schema))
    ids = dataset.valid.ids[:20]
    fields, shops, history = model.embeddings[0](ids)
    read = [layer for layer in model.layers if isinstance(layer, HistoryTransformer)]
    view = np.concatenate(
        [np.reshape(fields, (20, 16)), read[0]([shops, fields[:, 2]]), read[1]([history, fields[:, 1]])], axis=1
    )
    mlp = next(layer for layer in model.layers if isinstance(layer, MLP))
    expected = dense(model.layers[-1], mlp(view).numpy().astype("float64"))
    np.testing.assert_allclose(model(ids)["logit"], expected, rtol=1e-4, atol=1e-4)


def test_the_views_of_tf4ctr_by_their_layers(dataset):
    """The easy view is a pooled table of its own; the hard view ends with what each history says of its target."""
    selection = AttendedEmbedding(dataset.schema, 4, attention_units=[6], softmax=True)
    ids = dataset.valid.ids[:20]
    selection(ids)
    randomize(selection)
    easy, hard = selection(ids)
    np.testing.assert_array_equal(easy, selection.embeddings[0](ids))
    assert easy.shape == (20, 6, 2)
    fields, shops, history = selection.embeddings[1](ids)
    attended = [selection.attentions[0]([shops, fields[:, 2]]), selection.attentions[1]([history, fields[:, 1]])]
    expected = np.concatenate([fields, np.stack(attended, axis=1)], axis=1)
    np.testing.assert_allclose(hard, expected, rtol=1e-6, atol=1e-6)


def test_tf4ctr_by_name_is_kept_in_its_file(dataset, tmp_path):
    chosen = {"type": "attended", "histories": ["history"], "attention_units": [6], "attention_activation": "relu"}
    encoders = {"simple_encoder": {"type": "MLP", "hidden_units": [6]}, "complex_encoder": {"type": "MLP", "hidden_units": [8]}}
    model = randomize(build("TF4CTR", dataset.schema, embedding_dim=4, selection=chosen, **encoders))
    model.save(tmp_path / "model.keras")
    again = tfctr.load_model(tmp_path / "model.keras")
    assert (again.embeddings[1].unpooled, again.embeddings[1].embedding_dim) == (("history",), 4)
    ids = dataset.valid.ids[:50]
    np.testing.assert_array_equal(again.predict(ids, verbose=0), model.predict(ids, verbose=0))
    by_name = build("TF4CTR", dataset.schema, embedding_dim=4, selection="attended", **encoders)
    assert by_name.embeddings[1].unpooled == ("shops", "history")


@EACH
def test_the_row_of_padding_says_nothing(name, dataset):
    model = randomize(MODELS[name](dataset.schema))
    ids = dataset.valid.ids[:50]
    expected = model.predict(ids, verbose=0)
    for embedding in model.embeddings:
        table = embedding.table.numpy()
        table[[field.offset for field in dataset.schema.fields]] = 1e3
        embedding.table.assign(table)
    np.testing.assert_array_equal(model.predict(ids, verbose=0), expected)


@pytest.mark.parametrize("name", at_length(sorted(MODELS), "DIN"))
def test_the_planted_taste_is_learnt(name, dataset):
    keras.utils.set_random_seed(1)
    model = MODELS[name](dataset.schema, histories=["history"])
    model.compile(keras.optimizers.Adam(0.02))
    model.fit(dataset.train.batches(50), epochs=25, verbose=0)
    assert model.evaluate(dataset.train.batches(50, shuffle=False), verbose=0, return_dict=True)["auc"] > 0.85


@pytest.mark.parametrize("name", at_length(sorted(MODELS), "DIN"))
def test_ranked_as_each_candidate_is_scored(name, dataset, tmp_path):
    """The history of the request is read once; every candidate has the bits that it has alone."""
    model = spread(MODELS[name](dataset.schema), scale=0.3)
    version = tfctr.serving.export(model, tmp_path / "ctr", candidates=["item", "shop", "price"], check=False)
    raw = RawFeatures(dataset.schema)
    context = {"user": ["3"], "history": ["1|2|5|0|2"], "shops": ["0"]}
    items = {"item": ["1", "2", "new", ""], "shop": ["0", "1", "1", ""], "price": [0.5, 1.0, 2.0, float("nan")]}
    as_text = {
        key: np.array([text.encode() for text in column], object) for key, column in (context | items).items() if key != "price"
    }
    columns = {**as_text, "price": np.array(items["price"])}
    tiled = {key: np.repeat(column, 4) if key in context else column for key, column in columns.items()}
    expected = model.predict(raw(tiled).numpy(), batch_size=4, verbose=0)[:, 0]
    np.testing.assert_array_equal(SavedModel(version).run("rank", columns)["probability"], expected)
    embedded = SavedModel(version).run("embedding", tiled)["embedding"]
    if name == "TF4CTR":
        assert embedded.shape == (4, 2 * 6 + 4 * (4 + 3 + 4))
        return
    np.testing.assert_allclose(embedded[:, :16], np.reshape(model.embeddings[0](raw(tiled))[0], (4, 16)), rtol=1e-6)
    assert embedded.shape == (4, 4 * (4 + 3 + 4))
