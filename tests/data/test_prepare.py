"""The ids that `tfctr.prepare` writes, by hand and against a brute-force oracle, for every kind of feature."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kit.prepare_oracle import SCHEMA, expected_ids, prepare, table, vocabulary

from tfctr.features import Categorical, Numeric, Sequence
from tfctr.schema import Schema


def ids_of(folder, feature, values, train=None):
    """What one feature becomes, for values in a table with labels 0, 1, 0, 1, ..."""

    def with_labels(column):
        return {feature.name: column, "click": [row % 2 for row in range(len(column))]}

    dataset = prepare(folder, Schema([feature], label="click"), train=with_labels(train or values), valid=with_labels(values))
    return dataset.valid.ids.tolist(), dataset.schema.features[0]


def test_tokens_by_hand(tmp_path):
    train = ["b", "a", "b", "c", "ab", "", None, "a"]  # counts: a 2, b 2, ab 1, c 1; ties go by the token
    ids, feature = ids_of(tmp_path, Categorical("user"), ["a", "b", "ab", "c", "new", "", None, "a"], train)
    assert ids == [[3], [4], [5], [6], [2], [1], [1], [3]]
    assert feature.size == 7


def test_rare_tokens_are_out_of_vocabulary(tmp_path):
    ids, feature = ids_of(tmp_path, Categorical("user", min_count=2), ["a", "b", "a", "c"])
    assert (ids, feature.size) == ([[3], [2], [3], [2]], 4)


def test_tokens_are_ordered_by_their_utf8_bytes(tmp_path):
    # UTF-16 and most locales order these otherwise: U+FFFD is 3 bytes from EF, U+1F600 is 4 bytes from F0.
    ids, _ = ids_of(tmp_path, Categorical("user"), ["\U0001f600", "\ufffd", "é", "z", "Z"])
    assert ids == [[7], [6], [5], [4], [3]]


def test_tokens_with_line_breaks_are_out_of_vocabulary_and_nul_is_a_character(tmp_path):
    ids, _ = ids_of(tmp_path, Categorical("user"), ["a\nb", "a\rb", "a\0b", "a", " ", "a\0b"])
    assert ids == [[2], [2], [3], [5], [4], [3]]


@pytest.mark.parametrize("values", [["60", "7", "60"], [60, 7, 60], [60.0, 7.0, 60.0], np.array([60, 7, 60], np.uint8)])
def test_whole_numbers_are_their_decimal_text(tmp_path, values):
    dataset = prepare(tmp_path, Schema([Categorical("user")], label="click"), train={"user": values, "click": [0, 1, 0]})
    assert dataset.train.ids.tolist() == [[3], [4], [3]]
    assert dataset.schema.vocabulary_file(dataset.schema.features[0]).read_text() == "60\n7\n"


def test_booleans_are_text_and_nan_is_missing(tmp_path):
    train = pd.DataFrame({"flag": [True, False, True], "user": [1.0, np.nan, -0.0], "click": [0, 1, 0]})
    dataset = prepare(tmp_path, Schema([Categorical("flag"), Categorical("user")], label="click"), train=train)
    flag, user = (dataset.schema.vocabulary_file(feature).read_text() for feature in dataset.schema.features)
    assert (flag, user) == ("true\nfalse\n", "0\n1\n")
    assert dataset.train.ids[:, 1].tolist() == [5 + 4, 5 + 1, 5 + 3]  # flag has 5 ids


def test_sequences_by_hand(tmp_path):
    values = ["a|b|c", "||b|", "", None, "|", "b|b|a", "c|c|b|a"]
    # Kept are the first two: a b / b / - / - / - / b b / c c. Counts: b 4, c 2, a 1.
    ids, _ = ids_of(tmp_path, Sequence("tags", max_length=2), values)
    assert ids == [[5, 3], [3, 0], [1, 0], [1, 0], [1, 0], [3, 3], [4, 4]]


def test_a_history_may_keep_its_newest(tmp_path):
    values = ["a|b|c", "||b|", "", "b|b|a", "c|c||b|a|"]
    # Kept are the last two: b c / b / - / b a / b a. Counts: b 4, a 2, c 1.
    ids, feature = ids_of(tmp_path, Sequence("tags", max_length=2, keep="last"), values)
    assert ids == [[3, 5], [3, 0], [1, 0], [3, 4], [3, 4]]
    assert feature.keep == "last"


@pytest.mark.parametrize("values", [[["a", "b"], [], None, ["b", None, ""]], [[1, 2], [], None, [2, None]]])
def test_lists_are_sequences(tmp_path, values):
    ids, _ = ids_of(tmp_path, Sequence("tags", max_length=3), values)
    assert ids == [[4, 3, 0], [1, 0, 0], [1, 0, 0], [3, 0, 0]]


def test_hash_ids_are_those_of_the_op(tmp_path):
    tf = pytest.importorskip("tensorflow")
    tokens = ["a", "", None, "東京", "a b", "a"] + [str(number) for number in range(300)]
    ids, feature = ids_of(tmp_path, Categorical("user", hash_buckets=1000), tokens)
    hashed = 3 + tf.strings.to_hash_bucket_fast([token or "" for token in tokens], 1000).numpy()
    assert ids == [[int(id) if token else 1] for id, token in zip(hashed, tokens, strict=True)]
    assert feature.size == 1003


def test_given_edges_by_hand(tmp_path):
    feature = Numeric("age", "edges", edges=[0, 10])
    ids, _ = ids_of(tmp_path, feature, [-1e300, -0.0, 9.999, 10, float("inf"), float("-inf"), float("nan"), None])
    assert ids == [[3], [4], [4], [5], [5], [3], [1], [1]]


def test_quantiles_by_hand(tmp_path):
    # 1 has half of the rows: alone. 2, 3, 5 and 8 share three: nearest to 4 / 3 is one row, and to 3 / 2 too, the lower.
    ids, feature = ids_of(tmp_path, Numeric("x", "quantile", buckets=4), [1, 1, 1, 1, 2, 3, 5, 8])
    assert feature.edges == (2.0, 3.0, 5.0)
    assert ids == [[3], [3], [3], [3], [4], [5], [6], [6]]


def test_scaled_by_hand(tmp_path):
    # mean 3, population variance (4 + 0 + 4) / 3; infinity is neither counted nor scaled
    ids, feature = ids_of(tmp_path, Numeric("x", "scaled"), [1, 3, 5, None, float("inf")])
    assert (feature.mean, feature.scale) == (3.0, (8 / 3) ** 0.5)
    scaled = np.array(ids, np.int32).view(np.float32)[:, 0]
    np.testing.assert_allclose(scaled, [-((3 / 2) ** 0.5), 0, (3 / 2) ** 0.5, np.nan, np.nan], rtol=1e-7)
    assert ids[3] == ids[4] == [0x7FC00000]


def test_scaled_numbers_outside_of_float32(tmp_path):
    # mean 0, scale 1: what float32 cannot hold is missing, what TensorFlow would flush to zero is zero
    ids, _ = ids_of(tmp_path, Numeric("x", "scaled"), [1e39, -1e300, 1e-40, -1e-45, -0.0], train=[-1, 1])
    assert ids == [[0x7FC00000], [0x7FC00000], [0], [0], [0]]


@pytest.mark.parametrize("transform", ["scaled", "log2_floor", "quantile"])
@pytest.mark.parametrize("values", [[None, None], [7.0, 7.0]])
def test_a_number_without_information(tmp_path, transform, values):
    feature = Numeric("x", transform, buckets=4 if transform == "quantile" else None)
    given = pa.table({"x": pa.array(values, "float64"), "click": [0, 1]})
    dataset = prepare(tmp_path, Schema([feature], label="click"), train=given)
    missing = 0x7FC00000 if transform == "scaled" else 1
    known = 0 if transform == "scaled" else 3
    assert dataset.train.ids.tolist() == [[missing if values[0] is None else known]] * 2


def test_every_kind_against_the_oracle(tmp_path):
    train, valid = table(), table(200, seed=1)
    dataset = prepare(tmp_path, train=train, valid=valid)
    np.testing.assert_array_equal(dataset.train.ids, expected_ids(SCHEMA, train, train))
    np.testing.assert_array_equal(dataset.valid.ids, expected_ids(SCHEMA, train, valid))
    np.testing.assert_array_equal(dataset.valid.labels, np.float32(valid["click"]))
    np.testing.assert_array_equal(dataset.valid.weights, np.float32(valid["weight"]))
    for feature in dataset.schema.features:
        if not isinstance(feature, Numeric) and feature.hash_buckets is None:
            lines = "".join(f"{token}\n" for token in vocabulary(feature, train[feature.name]))
            assert dataset.schema.vocabulary_file(feature).read_bytes() == lines.encode()


@settings(max_examples=15)
@given(
    st.lists(st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=4), min_size=2, max_size=20),
    st.lists(st.none() | st.floats(), min_size=2, max_size=20),
)
def test_any_value_against_the_oracle(tmp_path_factory, texts, numbers):
    rows = min(len(texts), len(numbers))
    columns = {"text": texts[:rows], "tags": texts[:rows], "count": numbers[:rows], "price": numbers[:rows]}
    features = [Categorical("text"), Sequence("tags", max_length=2, separator="a"), Numeric("count")]
    schema = Schema([*features, Numeric("price", "quantile", buckets=3)], label="click")
    types = {"text": pa.string(), "tags": pa.string(), "count": pa.float64(), "price": pa.float64()}
    given = pa.table(
        {name: pa.array(columns[name], type) for name, type in types.items()}
        | {"click": [0, 1] * (rows // 2) + [0] * (rows % 2)}
    )
    dataset = prepare(tmp_path_factory.mktemp("any"), schema, train=given)
    np.testing.assert_array_equal(dataset.train.ids, expected_ids(schema, columns, columns))


def test_nothing_is_learnt_from_valid_and_test(tmp_path):
    train = table()
    alone = prepare(tmp_path, train=train)
    beside = prepare(tmp_path, train=train, valid=table(seed=1), test=table(seed=2))
    assert alone.schema.to_dict() == beside.schema.to_dict()
    np.testing.assert_array_equal(alone.train.ids, beside.train.ids)


def test_groups_are_the_same_codes_in_all_splits(tmp_path):
    tables = {"train": table(), "valid": table(seed=1)}
    dataset = prepare(tmp_path, **tables)
    pairs = {
        (user, int(code))
        for name in tables
        for user, code in zip(tables[name]["user"], getattr(dataset, name).groups, strict=True)
    }
    assert len(pairs) == len({user for user, _ in pairs}) == len({code for _, code in pairs})


def test_a_fitted_schema_is_fitted_again(tmp_path):
    fitted = prepare(tmp_path, train=table(seed=3)).schema
    assert prepare(tmp_path, fitted, train=table()).schema.to_dict() == prepare(tmp_path, train=table()).schema.to_dict()


def test_columns_under_their_own_names(tmp_path):
    table = {
        "Marital status": ["a", "b", "a"],
        "a;b": ["x|y", "", "y"],
        "%": [1.0, 2.0, None],
        "no": [1, 2, 1],
        "is it?": [0, 1, 0],
    }
    features = [
        Categorical("marital_status", column="Marital status"),
        Sequence("a_b", max_length=2, column="a;b"),
        Numeric("percent", "quantile", column="%"),
        Categorical("percent_token", column="%"),
    ]
    dataset = prepare(tmp_path, Schema(features, label="is it?", group="no"), train=table)
    plain = {"a": table["Marital status"], "b": table["a;b"], "c": table["%"], "d": table["%"], "click": table["is it?"]}
    named = [Categorical("a"), Sequence("b", max_length=2), Numeric("c", "quantile"), Categorical("d")]
    np.testing.assert_array_equal(dataset.train.ids, prepare(tmp_path, Schema(named, label="click"), train=plain).train.ids)
    assert (tmp_path / "data0" / "vocabulary" / "marital_status.txt").exists()
