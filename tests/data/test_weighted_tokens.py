"""Sequences whose tokens have weights: what `prepare` writes, against a loop over rows, and what it refuses."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

import tfctr
from tfctr import Categorical, Numeric, Schema, Sequence
from tfctr.data.earlier_ids import carried, earlier_ids
from tfctr.errors import ConfigError, DataError
from tfctr.serving.exporting.raw_features import RawFeatures, in_range
from tfctr.serving.publishing.samples import raw_rows
from tfctr.serving.wire.token_rules import raw_columns

TAGS = Sequence("tags", max_length=3, weight_separator=":", keep="last")
SCHEMA = Schema([Categorical("item"), TAGS, Numeric("price", "scaled")], label="click")
CELLS = ["a:0.5|b:0.3", "a|c:1e-20||b:2", "", None, "x:y:3", "d:1|c:2|b:3.50|a:.25", "a:0", "9.0:1e15"]
CELLS += ["['a:2', 'b']", "z:00.1e1"]
ROWS = {
    "item": list("abcdeabcde"),
    "tags": CELLS,
    "price": [float(row) for row in range(10)],
    "click": [row % 2 for row in range(10)],
}
WEIGHTED = [  # by hand: the last three tokens of each row, each with its weight
    [("a", 0.5), ("b", 0.3)],
    [("a", 1), ("c", 0), ("b", 2)],
    [],
    [],
    [("x:y", 3)],
    [("c", 2), ("b", 3.5), ("a", 0.25)],
    [("a", 0)],
    [("9.0", 1e15)],
    [("a", 2), ("b", 1)],
    [("z", 1)],
]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return tfctr.prepare(SCHEMA, train=ROWS, out=tmp_path_factory.mktemp("weighted") / "data")


def expected(rows, ids):
    """The columns of tokens, and of weights as float32, by one loop over rows."""
    cells, weights = np.zeros((len(rows), 3), np.int64), np.zeros((len(rows), 3), np.float32)
    for row, pairs in enumerate(rows):
        cells[row, 0], weights[row, 0] = 1, 1  # missing
        for place, (token, weight) in enumerate(pairs):
            cells[row, place], weights[row, place] = ids.get(token, 2), weight
    return cells, weights


def test_tokens_and_then_their_weights(dataset):
    field = dataset.schema.fields[1]
    known = dataset.schema.vocabulary_file(field.feature).read_text(encoding="utf-8").splitlines()
    assert known == ["a", "b", "c", "9.0", "x:y", "z"]  # by count, then by text, without what weighs them
    cells, weights = expected(WEIGHTED, {token: 3 + rank for rank, token in enumerate(known)})
    assert dataset.train.width == 1 + 6 + 1
    np.testing.assert_array_equal(dataset.train.ids[:, field.token_columns] - field.offset, cells)
    np.testing.assert_array_equal(dataset.train.ids[:, field.weight_columns].view(np.float32), weights)


def test_they_are_counted_as_other_tokens(dataset):
    assert dataset.train.shares["tags"]["missing"] == 0.2
    assert dataset.train.shares["tags"]["cut"] == 0.1
    assert sum(dataset.train.profile["tags"]["frequent"].values()) <= 1
    assert dataset.train.shares["tags"]["unseen"] == 0


def test_the_served_graph_reads_the_same(dataset):
    raw = RawFeatures(dataset.schema)
    lists = [cell if cell is None or cell.startswith("[") else cell.split("|") for cell in CELLS]
    for tags in (CELLS, lists):  # what clients send
        online = raw(raw_columns(dataset.schema, {**ROWS, "tags": tags}))
        np.testing.assert_array_equal(online, dataset.train.ids)
        np.testing.assert_array_equal(in_range(dataset.schema, online), online)


def test_a_history_beside_candidates_and_some_columns_alone(dataset):
    raw = RawFeatures(dataset.schema)
    columns = raw_columns(dataset.schema, {**ROWS, "tags": [CELLS[5]] * 10})
    whole, one = raw(columns), {**columns, "tags": columns["tags"][:1]}
    np.testing.assert_array_equal(raw.rank(one, ["item", "price"]), whole)
    tags = dataset.schema.fields[1].columns
    np.testing.assert_array_equal(raw.part(columns, ["tags"])[:, tags], whole[:, tags])


@pytest.mark.parametrize("token", ["a:", "a:x", "a:-1", "a:nan", "a:1e16", "a:1e999", ":0.5", "a: 0.5", "a:0.5 ", "a:0x1"])
def test_what_is_no_weight(dataset, tmp_path, token):
    """`prepare` refuses it with row and value; served, it is one token, which is unknown, and counted so."""
    bad = {**ROWS, "tags": [*CELLS[:6], f"b:2|{token}", *CELLS[7:]]}
    with pytest.raises(DataError, match=r"column 'tags', row 7: found 'b:2\|.*a weight from 0 to 1e15 behind its last ':'"):
        tfctr.prepare(SCHEMA, train=bad, out=tmp_path / "data")
    assert not (tmp_path / "data").exists()
    field = dataset.schema.fields[1]
    online = RawFeatures(dataset.schema)(raw_columns(dataset.schema, bad)).numpy()[6, field.columns]
    assert (online[:3] - field.offset).tolist() == [4, 2, 0]  # b, unknown, padding
    assert online[3:].view(np.float32).tolist() == [2, 1, 0]


def test_lists_of_a_typed_table_are_read_alike(dataset, tmp_path):
    lists = [cell if cell is None or cell.startswith("[") else cell.split("|") for cell in CELLS]
    lists[8] = ["a:2", "b"]
    frame = pd.DataFrame({**ROWS, "tags": lists})
    encoded = tfctr.encode(dataset, frame, out=tmp_path / "data")
    np.testing.assert_array_equal(encoded.test.ids, dataset.train.ids)


def test_raw_rows_out_of_prepared_ones(dataset):
    columns = raw_rows(dataset.schema, dataset.train.ids)
    online = RawFeatures(dataset.schema)(raw_columns(dataset.schema, columns))
    tags = dataset.schema.fields[1]
    np.testing.assert_array_equal(online.numpy()[:, tags.columns], dataset.train.ids[:, tags.columns])


def test_an_extended_fit_carries_weights(dataset, tmp_path):
    more = {**ROWS, "tags": ["new:7|a:0.5"] * 10}
    grown = tfctr.prepare(train=more, extend=dataset, out=tmp_path / "data").schema
    assert grown.vocabulary_file(grown.features[1]).read_text(encoding="utf-8").splitlines()[-1] == "new"
    moved = carried(dataset.train.ids, grown, dataset.schema, earlier_ids(grown, dataset.schema))
    np.testing.assert_array_equal(moved, RawFeatures(grown)(raw_columns(grown, ROWS)))


def test_ids_that_are_no_weights(dataset):
    field = dataset.schema.fields[1]
    check = tfctr.models.LR(dataset.schema).ids_check
    np.testing.assert_array_equal(check.array(dataset.train.ids), dataset.train.ids)
    for weight in (-1.0, np.nan, np.inf, 1e16, 1e-40, -0.0):
        ids = dataset.train.ids.copy()
        ids[4, field.weight_columns.start + 1] = np.float32(weight).view(np.int32)
        with pytest.raises(DataError, match=r"row 4, column 5 \(feature 'tags'\)"):
            check.array(ids)
        assert in_range(dataset.schema, tf.constant(ids)).numpy()[4, 5] == 0


def test_it_is_a_schema_of_its_own(tmp_path):
    SCHEMA.save(tmp_path / "schema.yaml")
    assert "weight_separator: ':'" in (tmp_path / "schema.yaml").read_text()
    assert Schema.load(tmp_path / "schema.yaml").features == SCHEMA.features
    fitted = dataclasses.replace(TAGS, size=5)
    plain = dataclasses.replace(fitted, weight_separator=None)
    assert (fitted.width, plain.width) == (6, 3)
    assert "weight_separator" not in Schema([plain], label="click").to_dict()["features"][0]
    assert Schema([plain], label="click").digest != Schema([fitted], label="click").digest


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weight_separator": "|"}, "`weight_separator` is '|'"),
        ({"weight_separator": "::"}, "`weight_separator` is '::'"),
        ({"weight_separator": "."}, "`weight_separator` is '.'"),
        ({"weight_separator": ":", "separator": "-"}, "`separator` is '-'"),
    ],
)
def test_separators_that_could_not_be_told_apart(arguments, message):
    with pytest.raises(ConfigError, match=message.replace("|", r"\|").replace(".", r"\.")):
        Sequence("tags", 3, **arguments)
