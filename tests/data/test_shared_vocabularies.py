"""Features of one vocabulary: fitted together, with one range of ids, in every place that walks over features."""

import collections
import hashlib
import json

import keras
import numpy as np
import pytest
from kit.growing import Days, counts, vocabulary
from kit.prepare_oracle import tokens_of

import tfctr
from tfctr import Categorical, Numeric, Schema, Sequence
from tfctr.data import Split
from tfctr.data.earlier_ids import carried, earlier_ids
from tfctr.errors import ConfigError
from tfctr.features import FIRST_KNOWN, MISSING, OUT_OF_VOCABULARY
from tfctr.layers import FeatureEmbedding
from tfctr.models import DNN
from tfctr.serving.exporting.golden import golden_rows
from tfctr.serving.exporting.raw_features import RawFeatures, in_range
from tfctr.serving.publishing.samples import raw_rows
from tfctr.training import warm_start

HISTORY = Sequence("history", 3, keep="last", vocabulary_of="item")
FEATURES = [
    HISTORY,  # before the feature whose vocabulary it has
    Numeric("price", "scaled"),
    Categorical("item", min_count=2),
    Categorical("seller_item", vocabulary_of="item"),
    Categorical("user"),
    Sequence("hashes", 2, separator=" ", vocabulary_of="page"),
    Categorical("page", hash_buckets=5),
]
SCHEMA = Schema(FEATURES, label="click")
TOGETHER = ("history", "item", "seller_item")


def table(seed=0, rows=60, first=0):
    rng = np.random.default_rng(seed)
    letters = [f"i{number}" for number in range(first, first + 12)]

    def some(number):
        return rng.choice(letters, number, p=np.arange(12, 0, -1) / 78)

    return {
        "history": ["|".join(some(rng.integers(0, 6))) for _ in range(rows)],
        "price": rng.normal(size=rows).tolist(),
        "item": [None if rng.random() < 0.1 else str(some(1)[0]) for _ in range(rows)],
        "seller_item": [str(some(1)[0]) for _ in range(rows)],
        "user": [str(user) for user in rng.integers(0, 4, rows)],
        "hashes": ["p q", "r", ""] * (rows // 3),
        "page": ["p", "q", "r"] * (rows // 3),
        "click": [row % 2 for row in range(rows)],
    }


def tokens(rows, row, names=TOGETHER):
    named = {feature.name: feature for feature in FEATURES}
    return [token for name in names for token in tokens_of(named[name], rows[name][row])]


def known_of(train):
    """The vocabulary by a loop: counts over all columns that share it."""
    found = collections.Counter(token for row in range(len(train["click"])) for token in tokens(train, row))
    return sorted((token for token, count in found.items() if count >= 2), key=lambda token: (-found[token], token)), found


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return tfctr.prepare(
        SCHEMA, train=table(), test=table(1, first=4), out=tmp_path_factory.mktemp("shared") / "data", threads=1
    )


def check_ids(schema, split, rows, known):
    for field in schema.fields:
        if field.feature.name in TOGETHER:
            ids = {token: FIRST_KNOWN + rank for rank, token in enumerate(known)}
            for row, cells in enumerate((split.ids[:, field.columns] - field.offset).tolist()):
                found = [ids.get(token, OUT_OF_VOCABULARY) for token in tokens(rows, row, [field.feature.name])] or [MISSING]
                assert cells == found + [0] * (field.feature.width - len(found))


# the schema


@pytest.mark.parametrize("suffix", [".yaml", ".json"])
def test_files_say_it_once(tmp_path, dataset, suffix):
    for schema in (SCHEMA, dataset.schema):
        schema.save(tmp_path / f"schema{suffix}")
        assert Schema.load(tmp_path / f"schema{suffix}").to_dict() == schema.to_dict()
        assert Schema.from_config(schema.get_config()).features == schema.features
    written = {feature["name"]: feature for feature in dataset.schema.to_dict()["features"]}
    assert written["history"] == {
        "name": "history", "type": "sequence", "max_length": 3, "keep": "last", "vocabulary_of": "item"
    }  # fmt: skip
    assert written["item"]["vocabulary_sha256"] == dataset.schema.features[0].vocabulary_sha256
    assert dataset.schema.features[0].min_count == 2


def test_places_by_hand():
    fitted = Schema(
        [
            Sequence("history", 3, vocabulary_of="item"),
            Categorical("user", size=5),
            Categorical("item", size=7, token_type="text"),
            Categorical("like", vocabulary_of="item"),
        ],
        label="click",
    )
    assert [(field.column, field.offset, field.size) for field in fitted.fields] == [(0, 5, 7), (3, 0, 5), (4, 5, 7), (5, 5, 7)]
    assert (fitted.width, fitted.table_rows) == (6, 12)
    assert {feature.token_type for feature in fitted.features} == {None, "text"}


@pytest.mark.parametrize(
    ("feature", "message"),
    [
        (Categorical("like", vocabulary_of="itme"), "no such feature.\n  fix: Did you mean 'item'"),
        (Categorical("like", vocabulary_of="price"), "'price', which is numeric"),
        (Categorical("like", vocabulary_of="history"), "none of its own.\n  fix: name 'item'"),
        (Categorical("like", min_count=5, vocabulary_of="item"), "`min_count` is 5, and 2 in 'item'"),
        (Categorical("like", hash_buckets=5, vocabulary_of="item"), "`hash_buckets` is 5, and None in 'item'"),
        (Sequence("like", 2, token_type="whole", vocabulary_of="item"), "`token_type` is 'whole', and None in 'item'"),
    ],
)
def test_contradictions_are_refused(feature, message):
    with pytest.raises(ConfigError) as error:
        Schema([*FEATURES, feature], label="click")
    assert message in str(error.value)


@pytest.mark.parametrize("other", ["like", 5, ["item"]])
def test_a_vocabulary_is_that_of_another_feature(other):
    with pytest.raises(ConfigError, match="`vocabulary_of` is "):
        Categorical("like", vocabulary_of=other)


def test_a_fit_without_sharing_has_the_hash_and_the_bytes_it_had(tmp_path):
    schema = Schema(
        [
            Categorical("user", min_count=2),
            Sequence("tags", 2, hash_buckets=7),
            Numeric("price", "scaled"),
            Sequence("genres", 3, keep="last"),
        ],
        label="click",
    )
    train = {
        "user": ["a", "b", "a", "c"],
        "tags": ["x|y", "", "z", "x"],
        "price": [1.5, 2.0, None, 4.0],
        "genres": ["q|r|s|t", "q", "r", ""],
        "click": [0, 1, 0, 1],
    }
    fitted = tfctr.prepare(schema, train=train, out=tmp_path / "data", threads=1)
    # Both as before features could share a vocabulary.
    assert fitted.schema.digest == "04f34a060c57c55b25fb8917ae611f32bb1c36f7c2a7881852e57ee3bd45866e"
    digest = hashlib.sha256((tmp_path / "data" / "schema.json").read_bytes()).hexdigest()
    assert digest == "c9bd77bcc28d21c4dae8b6aef2350c46d930f9c28f0fffe47387b739adc00f1a"


# the data


def test_ids_against_a_loop(dataset):
    known, _ = known_of(table())
    assert vocabulary(dataset, 2) == known
    assert sorted(path.name for path in (dataset.folder / "vocabulary").iterdir()) == ["item.txt", "user.txt"]
    check_ids(dataset.schema, dataset.train, table(), known)
    check_ids(dataset.schema, dataset.test, table(1, first=4), known)
    hashes, page = (next(f for f in dataset.schema.fields if f.feature.name == name) for name in ("hashes", "page"))
    assert hashes.offset == page.offset
    ids = dataset.train.ids
    assert ids[:3, hashes.column].tolist() == [ids[0, page.column], ids[2, page.column], page.offset + MISSING]
    assert dataset.schema.table_rows == sum(f.size for f in dataset.schema.fields if f.feature.vocabulary_of is None)


def test_the_expected_share_of_unseen_tokens_against_a_loop(dataset):
    train = table()
    known, found = known_of(train)
    for name in TOGETHER:
        own = [(row, token) for row in range(len(train["click"])) for token in tokens(train, row, [name])]
        lost = sum(found[token] - tokens(train, row).count(token) < 2 for row, token in own)
        assert dataset.test.shares[name]["expected"] == pytest.approx(lost / len(own), rel=1e-12)
        test = [token for row in range(60) for token in tokens(table(1, first=4), row, [name])]
        assert dataset.test.shares[name]["unseen"] == sum(token not in known for token in test) / len(test)
        assert set(dataset.test.profile[name]["frequent"]) <= set(known)


def test_one_form_for_all_columns(tmp_path):
    schema = Schema([Sequence("history", 3, vocabulary_of="item"), Categorical("item")], label="click")
    whole = {"item": [1.0, 2.0, None], "history": [[1, 2], [], [2]], "click": [0, 1, 0]}
    fitted = tfctr.prepare(schema, train=whole, out=tmp_path / "whole")
    assert [feature.token_type for feature in fitted.schema.features] == ["whole", "whole"]
    assert vocabulary(fitted, 1) == ["2", "1"]
    text = tfctr.prepare(schema, train={**whole, "history": ["a|1", "", "2"]}, out=tmp_path / "text")
    assert [feature.token_type for feature in text.schema.features] == ["text", "text"]


def test_encode_and_fit_again(dataset, tmp_path):
    encoded = tfctr.encode(dataset, table(1, first=4), out=tmp_path / "encoded")
    np.testing.assert_array_equal(encoded.test.ids, dataset.test.ids)
    assert tfctr.Dataset.load(encoded.folder).schema.digest == dataset.schema.digest
    again = tfctr.prepare(dataset.schema, train=table(2), out=tmp_path / "again", threads=1)  # a fitted schema, anew
    check_ids(again.schema, again.train, table(2), known_of(table(2))[0])


def test_extension_and_warm_start(tmp_path):
    days = Days(tmp_path, SCHEMA, table(), threads=1)
    tuesday = days.extend(table(3, first=6), threads=1)
    monday, before = days.days[0], vocabulary(days.days[0], 2)
    new, found = known_of(table(3, first=6))
    new = [token for token in new if token not in before]
    assert vocabulary(tuesday, 2) == before + new
    assert len(new) > 2
    assert counts(tuesday, "item") == (len(before), sum(token in found for token in before), len(new), 0, 0)
    assert tuesday.extension["features"].keys() == {"item", "user"}
    check_ids(tuesday.schema, tuesday.train, table(3, first=6), before + new)
    ids = earlier_ids(tuesday.schema, monday.schema)
    moved = carried(monday.train.ids, tuesday.schema, monday.schema, ids)
    check_ids(tuesday.schema, Split.from_arrays(moved, monday.train.labels, name="moved"), table(), before + new)

    earlier, model = (DNN(day.schema, 2, [4]) for day in (monday, tuesday))
    for one in (earlier, model):
        one.compile()
    report = warm_start(model, earlier)
    assert report["features"].keys() == {"item", "user"}
    for rows in (table(), table(3, first=6)):
        then, now = (tfctr.encode(day, rows, out=tmp_path / f"{len(list(tmp_path.iterdir()))}") for day in (monday, tuesday))
        fields = [keras.ops.convert_to_numpy(one.embeddings[0](d.test.ids)) for one, d in ((earlier, then), (model, now))]
        np.testing.assert_array_equal(*fields)  # new tokens begin as unknown ones


# layers and serving


def test_an_embedding_has_one_block_of_rows(dataset):
    schema, ids = dataset.schema, dataset.train.ids
    whole = FeatureEmbedding(schema, 3)
    whole.build(ids.shape)
    rows = np.random.default_rng(0).normal(size=whole.table.shape)
    whole.set_weights([rows])
    assert whole.rows == schema.table_rows == len(rows)
    fields = {field.feature.name: field for field in schema.fields}
    np.testing.assert_allclose(whole(ids)[:, 3], rows[ids[:, fields["seller_item"].column]], rtol=1e-6)
    some = FeatureEmbedding(schema, 3, features=["user", "history"])  # as a tower of the user's has them
    some.build(ids.shape)
    item, user = fields["item"], fields["user"]
    some.set_weights([np.concatenate([rows[field.offset :][: field.size] for field in (item, user)])])
    np.testing.assert_array_equal(some(ids), whole(ids).numpy()[:, [0, 4]])


def test_the_served_graph_has_one_table(dataset):
    raw = RawFeatures(dataset.schema)
    assert raw.lookups.keys() == {"item", "user"}
    golden = golden_rows(dataset.schema)
    assert b"i1" in golden["seller_item"]
    ids = raw(golden).numpy()
    np.testing.assert_array_equal(in_range(dataset.schema, ids), ids)
    known = Schema([feature for feature in FEATURES if feature.name in (*TOGETHER, "user")], label="click")
    fitted = tfctr.prepare(known, train=table(), out=dataset.folder.parent / "known")
    np.testing.assert_array_equal(RawFeatures(fitted.schema)(raw_rows(fitted.schema, fitted.train.ids)), fitted.train.ids)


def test_the_manifest_has_each_file_once(dataset):
    manifest = json.loads((dataset.folder / "manifest.json").read_text())
    assert manifest["vocabulary"].keys() == {"item.txt", "user.txt"}
