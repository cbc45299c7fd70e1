"""The raw-feature graph against the meaning of each id in plain Python, and the checks that the graph makes itself."""

import bisect
import dataclasses
import hashlib
import math
import struct

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from tfctr.errors import ConfigError, StorageError
from tfctr.features import Categorical, Numeric, Sequence
from tfctr.schema import Schema
from tfctr.serving.exporting.raw_features import RawFeatures, in_range

EDGES = (-1e300, -1.5, -5e-324, 0.0, 5e-324, 1e-300, 0.1, 2.0, 1e300)
INTERVAL_IDS = (3, 4, 5, 6, 2, 7, 8, 9, 3, 10)
VOCABULARY = ["60", "a", " a", "a ", "Zoë", "Zoe\u0308", "東京", "x\0y", "\0", "\x85", "\u2028", "\ufeff60", "0.1", "a|b"]
MEAN = 0.1


def write_vocabularies(schema, tokens):
    for feature in schema.features:
        if feature.raw_type == "string" and feature.hash_buckets is None:
            file = schema.vocabulary_file(feature)
            file.parent.mkdir(exist_ok=True)
            file.write_bytes("".join(f"{token}\n" for token in tokens[: feature.size - 3]).encode())


@pytest.fixture(scope="module")
def schema(tmp_path_factory):
    size = len(VOCABULARY) + 3
    schema = Schema(
        features=[
            Numeric("scaled", "scaled", mean=MEAN, scale=12.5, size=4),
            Categorical("token", size=size),
            Numeric("few", "edges", edges=(0.5,), interval_ids=(3, 4), size=5),
            Sequence("dashed", max_length=3, separator="–", size=size, keep="last"),
            Numeric("edges", "log2_floor", edges=EDGES, interval_ids=INTERVAL_IDS, size=11),
            Categorical("hashed", hash_buckets=7, size=10),
            Numeric("centred", "scaled", mean=0.0, scale=3.0, size=4),
            Categorical("a/b", size=4),
            Categorical("unknown", size=3),
            Sequence("hashes", max_length=2, separator="\0", hash_buckets=5, size=8),
            Sequence("newest", max_length=1, separator="–", size=size, keep="last"),
            Numeric("whole", "quantile", buckets=2, edges=(), interval_ids=(3,), size=4),
        ],
        label="click",
        folder=str(tmp_path_factory.mktemp("schema")),
    )
    write_vocabularies(schema, VOCABULARY)
    return schema


@pytest.fixture(scope="module")
def online(schema):
    """Raw columns to ids, as a graph that TensorFlow has optimised."""
    raw = RawFeatures(schema)
    graph = tf.function(raw.__call__, input_signature=[raw.signature], autograph=False)
    return lambda columns: graph({name: tf.constant(columns[name], spec.dtype) for name, spec in raw.signature.items()}).numpy()


def expected(feature, value):
    """The ids of one raw value, before the offset."""
    if isinstance(feature, Numeric) and feature.transform == "scaled":
        return [scaled_bits((value - feature.mean) / feature.scale)]
    if isinstance(feature, Numeric):
        return [1 if math.isnan(value) else feature.interval_ids[bisect.bisect_right(feature.edges, value)]]
    if isinstance(feature, Categorical):
        return [1 if value == b"" else token_id(feature, value)]
    tokens = [token for token in value.split(feature.separator.encode()) if token]
    tokens = tokens[: feature.max_length] if feature.keep == "first" else tokens[max(len(tokens) - feature.max_length, 0) :]
    ids = [token_id(feature, token) for token in tokens] or [1]
    return ids + [0] * (feature.max_length - len(ids))


def token_id(feature, token):
    if feature.hash_buckets is not None:
        return 3 + int(tf.strings.to_hash_bucket_fast(token, feature.hash_buckets))
    known = [known.encode() for known in VOCABULARY[: feature.size - 3]]
    return 3 + known.index(token) if token in known else 2


def scaled_bits(z):
    if abs(z) < 2.0**-126:
        return 0
    try:
        bits = struct.unpack("<i", struct.pack("<f", z))[0]
    except OverflowError:  # beyond float32
        return 0x7FC00000
    return bits if math.isfinite(z) else 0x7FC00000


def is_scaled(field):
    return getattr(field.feature, "transform", None) == "scaled"


def expected_ids(schema, columns):
    rows = len(next(iter(columns.values())))
    return [
        [
            id if is_scaled(field) else id + field.offset
            for field in schema.fields
            for id in expected(field.feature, columns[field.feature.name][row])
        ]
        for row in range(rows)
    ]


tokens = st.text(max_size=8) | st.sampled_from(VOCABULARY) | st.integers().map(str)
tokens |= st.builds(str.__add__, st.sampled_from(VOCABULARY), st.sampled_from(["\r", "\n", "\r\n", " ", "\0", "\t", "|"]))
bytes_values = tokens.map(str.encode) | st.binary(max_size=8)
near = [math.nextafter(edge, side) for edge in (*EDGES, 0.5, MEAN) for side in (-math.inf, edge, math.inf)]
lists = st.lists(bytes_values, max_size=5)
VALUES = {
    "string": bytes_values | lists.map("–".encode().join) | lists.map(b"\0".join),
    "number": st.floats() | st.sampled_from([*near, math.inf, -math.inf, -0.0, 2.0**-126, 2.0**-127, 3.4028235e38, 3.5e38]),
}


@given(data=st.data())
def test_every_value_gets_the_id_it_means(schema, online, data):
    rows = st.fixed_dictionaries({feature.name: VALUES[feature.raw_type] for feature in schema.features})
    rows = data.draw(st.lists(rows, min_size=1, max_size=10))
    columns = {feature.name: [row[feature.name] for row in rows] for feature in schema.features}
    np.testing.assert_array_equal(online(columns), expected_ids(schema, columns))


def without_values(schema, **changes):
    """One row in which all is missing, except for `changes`."""
    return {f.name: changes.get(f.name, [b"" if f.raw_type == "string" else math.nan]) for f in schema.features}


def field(schema, name):
    return next(field for field in schema.fields if field.feature.name == name)


@pytest.mark.parametrize("token", [b"a\r", b"a\n", b"\ra", b" 60", b"a\0", b"A", b"\xff", b"a" * 2**20])
def test_a_token_is_looked_up_as_it_is(schema, online, token):
    place = field(schema, "token")
    assert online(without_values(schema, token=[token]))[0, place.column] == place.offset + 2


def test_the_whole_row_by_hand(tmp_path):
    genres, user = Sequence("genres", max_length=3, size=5), Categorical("user", size=4)
    z = Numeric("z", "scaled", mean=1.0, scale=2.0, size=4)
    schema = Schema(features=[genres, user, z], label="click", folder=str(tmp_path))
    write_vocabularies(schema, ["Comedy", "Drama"])
    ids = RawFeatures(schema)(
        {
            "genres": tf.constant(["Drama||Noir|Comedy|Drama", "", "||"]),
            "user": tf.constant(["Comedy", "Drama", ""]),
            "z": tf.constant([2.0, math.nan, 1.0], tf.float64),
        }
    )
    half = np.float32(0.5).view(np.int32)
    assert ids.dtype == tf.int32
    assert ids.numpy().tolist() == [[4, 2, 3, 5 + 3, half], [1, 0, 0, 5 + 2, 0x7FC00000], [1, 0, 0, 5 + 1, 0]]


def test_scaling_divides(schema, online):
    """TensorFlow's optimiser would write a product with 1 / 3, which rounds half of these numbers to another float32."""
    values = np.nextafter(3.0 * np.arange(2**24 + 1, 2**24 + 1000, 2), np.inf)
    quotients = (values / 3.0).astype(np.float32)
    assert np.any(quotients != (values * (1 / 3.0)).astype(np.float32))
    columns = {name: np.repeat(column, len(values)) for name, column in without_values(schema).items()}
    served = online({**columns, "centred": values})[:, field(schema, "centred").column]
    np.testing.assert_array_equal(served.view(np.float32), quotients)


def test_the_signature_names_the_columns_in_order(schema):
    signature = RawFeatures(schema).signature
    assert list(signature) == [feature.name for feature in schema.features]
    assert signature["edges"] == tf.TensorSpec((None,), tf.float64, name="edges")
    assert signature["a/b"] == tf.TensorSpec((None,), tf.string, name="a/b")


def test_columns_of_different_lengths_are_refused_by_name(schema, online):
    columns = {name: [*column, *column] for name, column in without_values(schema).items()}
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"same number of rows: scaled, token, .*\[2 1 2") as error:
        online({**columns, "token": [b"one row"]})
    assert "edges" in str(error.value)


def test_no_row_is_no_row(schema, online):
    assert online({name: column[:0] for name, column in without_values(schema).items()}).shape == (0, schema.width)


def test_ids_out_of_range_are_out_of_vocabulary(schema):
    first, size, scaled = (
        np.concatenate([np.full(f.feature.width, value(f)) for f in schema.fields])
        for value in (lambda f: f.offset, lambda f: f.feature.size, is_scaled)
    )
    half, infinite, nan = (np.float32(x).view(np.int32) for x in (0.5, math.inf, math.nan))
    limits = np.iinfo("int32")
    good = [np.where(scaled, half, ids) for ids in (first, first + 1, first + size - 1)]
    bad = [np.where(scaled, infinite, ids) for ids in (first - 1, first + size, limits.min, limits.max)]
    bad.append(np.where(scaled, 35, first - 1))  # the bits of a subnormal number: a raw one
    ids = in_range(schema, tf.constant(np.stack(good + bad), tf.int32)).numpy()
    np.testing.assert_array_equal(ids[:3], good)
    np.testing.assert_array_equal(ids[3:], [np.where(scaled, nan, first + 2)] * 5)


def test_a_vocabulary_that_is_not_the_models_is_refused(tmp_path):
    schema = Schema(features=[Categorical("user", size=6)], label="click", folder=str(tmp_path))
    with pytest.raises(StorageError, match=r"'user'.*user\.txt.*\n  fix: .*`vocabularies=`"):
        RawFeatures(schema)
    write_vocabularies(schema, ["a", "b"])
    with pytest.raises(ConfigError, match=r"user\.txt has 2 tokens, the model knows 3"):
        RawFeatures(schema)
    other = hashlib.sha256(b"a\nb\nd\n").hexdigest()
    fitted = dataclasses.replace(schema, features=[Categorical("user", size=6, vocabulary_sha256=other)])
    write_vocabularies(schema, ["a", "b", "c"])
    RawFeatures(schema)
    with pytest.raises(ConfigError, match=r"user\.txt holds other tokens than the model knows.*\n  fix: .*`vocabularies=`"):
        RawFeatures(fitted)
    write_vocabularies(schema, ["a", "b", "d"])
    RawFeatures(fitted)


def test_a_new_vocabulary_at_an_old_path_is_read(tmp_path):
    """TensorFlow would know the table by its file's path, and keep the tokens that it has read first."""
    schema = Schema(features=[Categorical("user", size=5)], label="click", folder=str(tmp_path))
    for tokens, ids in ((["a", "b"], [[3], [4]]), (["b", "c"], [[2], [3]])):
        write_vocabularies(schema, tokens)
        assert RawFeatures(schema)({"user": tf.constant(["a", "b"])}).numpy().tolist() == ids


def test_an_unfitted_schema_is_refused():
    with pytest.raises(ConfigError, match="not fitted"):
        RawFeatures(Schema(features=[Categorical("user")], label="click"))


def test_a_schema_without_a_folder_is_refused():
    with pytest.raises(StorageError, match="vocabulary files"):
        RawFeatures(Schema(features=[Categorical("user", size=6)], label="click"))
