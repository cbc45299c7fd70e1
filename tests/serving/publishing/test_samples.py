"""Raw rows made from prepared ids are encoded to these ids again."""

import numpy as np
import pytest

from tfctr.data import Split
from tfctr.errors import ConfigError
from tfctr.features import MISSING, OUT_OF_VOCABULARY, Categorical, Numeric, Sequence
from tfctr.schema import Schema
from tfctr.serving.exporting.raw_features import RawFeatures
from tfctr.serving.publishing.samples import raw_rows, sample_rows


def test_ids_come_back(tiny_schema, tiny_ids):
    ids = tiny_ids(500)
    price = tiny_schema.fields[-1]  # whose intervals all have ids of their own: none is out of vocabulary
    ids[ids[:, price.column] == price.offset + OUT_OF_VOCABULARY, price.column] = price.offset + MISSING
    found = RawFeatures(tiny_schema)(raw_rows(tiny_schema, ids)).numpy()
    scaled = next(field.column for field in tiny_schema.fields if field.feature.name == "age")
    np.testing.assert_array_equal(np.delete(found, scaled, axis=1), np.delete(ids, scaled, axis=1))
    expected, decoded = (np.ascontiguousarray(matrix[:, scaled]).view(np.float32) for matrix in (ids, found))
    np.testing.assert_array_equal(np.isnan(decoded), np.isnan(expected))
    np.testing.assert_allclose(decoded, expected, rtol=1e-6)
    assert np.isnan(expected).any()


def test_by_hand(tiny_schema, tiny_ids):
    ids = tiny_ids(3)
    user, _, genres, age, price = tiny_schema.fields
    ids[:, user.column] = user.offset + np.int32([3, MISSING, OUT_OF_VOCABULARY])
    ids[:, genres.columns] = genres.offset + np.int32([[5, 3, 0], [1, 0, 0], [2, 7, 4]])
    ids[:, age.column] = np.float32([2.0, np.nan, -1.0]).view(np.int32)
    ids[:, price.column] = price.offset + np.int32([3, 6, MISSING])
    rows = raw_rows(tiny_schema, ids)
    assert rows["user"].tolist() == [b"60", b"", b"a token that no table has"]
    assert rows["genres"].tolist() == [b"Animation|Comedy", b"", b"a token that no table has|Sci-Fi|Drama"]
    np.testing.assert_array_equal(rows["age"], [65.0, np.nan, 27.5])  # mean 40, scale 12.5
    np.testing.assert_array_equal(rows["price"], [np.nextafter(1.0, 0.0), 100.0, np.nan])


def test_an_unseen_token_is_one_whatever_the_separator(tmp_path):
    words = Sequence("words", separator=" ", max_length=3, size=4)
    schema = Schema(features=[words], label="click", folder=str(tmp_path))
    (tmp_path / "vocabulary").mkdir()
    (tmp_path / "vocabulary" / "words.txt").write_text("a\n")
    ids = np.int32([[2, 3, 0], [3, 2, 2], [2, 0, 0]])
    np.testing.assert_array_equal(RawFeatures(schema)(raw_rows(schema, ids)).numpy(), ids)


def test_buckets_without_edges_and_rare_ones():
    alone = Numeric("alone", "quantile", buckets=2, edges=[], interval_ids=[3], size=4)
    rare = Numeric("rare", "log2_floor", edges=[1.0, 2.0], interval_ids=[2, 3, 2], size=4)
    schema = Schema(features=[alone, rare], label="click")
    ids = np.int32([[3, 4 + 3], [1, 4 + 2]])
    rows = raw_rows(schema, ids)
    np.testing.assert_array_equal(RawFeatures(schema)(rows).numpy(), ids)


def test_a_sample_is_drawn_from_the_whole_split(tiny_schema, tiny_ids, tiny_labels):
    ids = tiny_ids(400)
    split = Split.from_arrays(ids, tiny_labels(400), name="valid")
    rows = sample_rows(split, tiny_schema, rows=100)
    assert {len(column) for column in rows.values()} == {100}
    users = raw_rows(tiny_schema, ids)["user"]
    assert rows["user"].tolist() != users[:100].tolist()
    assert set(rows["user"]) == set(users)
    assert {len(column) for column in sample_rows(split, tiny_schema, rows=10_000).values()} == {400}
    again = sample_rows(split, tiny_schema, rows=100)
    assert all(np.array_equal(rows[name], again[name], equal_nan=rows[name].dtype != object) for name in rows)


def test_hashed_tokens_are_not_made_up():
    schema = Schema(features=[Categorical("user", hash_buckets=9, size=12)], label="click")
    split = Split.from_arrays([[3], [4]], [0, 1])
    with pytest.raises(ConfigError, match=r"hashed feature 'user' .*\n  fix: .*--rows FILE"):
        sample_rows(split, schema)
    with pytest.raises(ConfigError, match="`rows` is 0"):
        sample_rows(split, schema, rows=0)
