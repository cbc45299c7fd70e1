"""The online face of a schema: raw columns in, the ids of the prepared matrix out, all in TensorFlow operations."""

import numpy as np
import tensorflow as tf

from tfctr.errors import ConfigError, StorageError
from tfctr.schema import FIRST_KNOWN, MISSING, OUT_OF_VOCABULARY, PADDING, Numeric, Sequence
from tfctr.storage import sha256

# The position of a token that no vocabulary file holds, so that `position + FIRST_KNOWN` is its id, too.
_UNKNOWN = np.int64(OUT_OF_VOCABULARY - FIRST_KNOWN)
_NAN_BITS = np.float32("nan").view("int32")
_SMALLEST_NORMAL = float(np.finfo("float32").smallest_normal)


class RawFeatures(tf.Module):
    """Turns named raw columns into ids, as `tfctr.prepare` does, value by value.

    | feature | id |
    |---|---|
    | token | its line in the vocabulary file + 3, or its hash bucket + 3; empty: missing |
    | number between edges | the id of its interval, which begins at the last edge that is not above it; NaN: missing |
    | scaled number | the bits of `z = float32((x - mean) / scale)`, or of NaN where z is not finite; a subnormal z is 0 |

    Args:
        schema: a fitted `Schema` whose vocabulary files exist.

    Shapes:
        `{name: (batch,)}`, text or float64 `-> (batch, schema.width)` int32

    Raises:
        ConfigError: the schema is not fitted, or a vocabulary file is not the one that `prepare` wrote for it.
        StorageError: a vocabulary file is missing.
        tf.errors.InvalidArgumentError: in the graph, for columns of different lengths or not of rank 1.

    >>> from tfctr.schema import Categorical, Numeric, Schema
    >>> user = Categorical("user", hash_buckets=1, size=4)
    >>> price = Numeric("price", "edges", edges=[1.0], interval_ids=[3, 4], size=5)
    >>> schema = Schema(features=[user, price], label="click")
    >>> RawFeatures(schema)({"user": tf.constant(["ann", ""]), "price": tf.constant([1.0, 0.5], tf.float64)}).numpy().tolist()
    [[3, 8], [1, 7]]
    """

    def __init__(self, schema):
        super().__init__()
        self.schema = schema
        self.text = [field for field in schema.fields if not isinstance(field.feature, Numeric)]
        self.scaled = [field for field in schema.fields if _is_scaled(field)]
        self.bucketed = [field for field in schema.fields if isinstance(field.feature, Numeric) and not _is_scaled(field)]
        files = [(f.feature, _Vocabulary(schema, f.feature)) for f in self.text if f.feature.hash_buckets is None]
        # TensorFlow refuses an empty file.
        self.tables = {f.name: tf.lookup.StaticHashTable(file, _UNKNOWN) for f, file in files if f.size > FIRST_KNOWN}

    @property
    def signature(self):
        """`{name: TensorSpec}` of the raw columns, in the order of the schema."""
        dtypes = {"string": tf.string, "number": tf.float64}
        return {f.name: tf.TensorSpec((None,), dtypes[f.raw_type], name=f.name) for f in self.schema.features}

    def __call__(self, columns):
        names = list(self.signature)
        columns = {name: tf.ensure_shape(columns[name], (None,)) for name in names}
        lengths = tf.stack([tf.shape(columns[name])[0] for name in names])
        same = tf.debugging.assert_equal(
            lengths, lengths[:1], message=f"All inputs need the same number of rows: {', '.join(names)}.", summarize=len(names)
        )
        encoders = ((self._text_ids, self.text), (self._bucketed_ids, self.bucketed), (self._scaled_bits, self.scaled))
        with tf.control_dependencies([same]):
            ids = tf.concat([encode(columns) for encode, fields in encoders if fields], axis=1)
        place = [column for _, fields in encoders for f in fields for column in range(f.columns.start, f.columns.stop)]
        return ids if place == sorted(place) else tf.gather(ids, np.argsort(place), axis=1)

    def _text_ids(self, columns):
        tokens = [_tokens(field.feature, columns[field.feature.name]) for field in self.text]  # (batch, width) each
        positions = [self._positions(field.feature, t) for field, t in zip(self.text, tokens, strict=True)]
        # Tokens stand in front: an empty first one means that there is none at all.
        empty = np.concatenate([[MISSING] + [PADDING] * (field.feature.width - 1) for field in self.text])
        offsets = np.concatenate([[field.offset] * field.feature.width for field in self.text])
        ids = tf.where(tf.concat(tokens, axis=1) == "", empty, tf.concat(positions, axis=1) + FIRST_KNOWN)
        return tf.cast(ids + offsets, tf.int32)

    def _positions(self, feature, tokens):
        if feature.hash_buckets is not None:
            return tf.strings.to_hash_bucket_fast(tokens, feature.hash_buckets)
        if feature.name in self.tables:
            return self.tables[feature.name].lookup(tokens)
        return tf.fill(tf.shape(tokens), _UNKNOWN)

    def _bucketed_ids(self, columns):
        values = tf.stack([columns[field.feature.name] for field in self.bucketed])  # (features, batch)
        features = [field.feature for field in self.bucketed]
        # Rows of equal length: edges above every number, whose intervals have the id of the last one.
        most = max(len(feature.edges) for feature in features)
        edges = np.stack([np.pad(np.float64(f.edges), (0, most - len(f.edges)), constant_values=np.inf) for f in features])
        ids = np.stack([np.pad(np.int32(f.interval_ids), (0, most - len(f.edges)), "edge") for f in features])
        intervals = tf.searchsorted(_ordered(edges), _ordered(values), side="right")
        ids = tf.where(tf.math.is_nan(values), MISSING, tf.gather(ids, intervals, batch_dims=1))
        ids += np.int32([[field.offset] for field in self.bucketed])
        return tf.stack(tf.unstack(ids), axis=1)  # a transpose, for which oneDNN would log an error on some processors

    def _scaled_bits(self, columns):
        values = tf.stack([columns[field.feature.name] for field in self.scaled], axis=1)  # (batch, features)
        mean = np.float64([field.feature.mean for field in self.scaled])
        scale = np.float64([field.feature.scale for field in self.scaled])
        # TensorFlow turns a division by a constant into a product with its inverse, which rounds differently; not this one.
        z = tf.math.divide_no_nan(values - mean, scale)
        # TensorFlow flushes subnormal numbers to zero, other engines do not: zero on both faces.
        z = tf.cast(tf.where(tf.abs(z) < _SMALLEST_NORMAL, tf.zeros_like(z), z), tf.float32)
        return tf.where(tf.math.is_finite(z), tf.bitcast(z, tf.int32), _NAN_BITS)


def in_range(schema, ids):
    """The ids, where one is not of its feature "out of vocabulary" instead, and where a scaled number is not finite "missing".

    Shapes:
        `(batch, schema.width)` int32 `-> (batch, schema.width)` int32

    >>> from tfctr.schema import Categorical, Schema
    >>> schema = Schema(features=[Categorical("user", size=5), Categorical("item", size=7)], label="click")
    >>> in_range(schema, tf.constant([[4, 5], [-1, 4], [5, 12]])).numpy().tolist()
    [[4, 5], [2, 7], [2, 7]]
    """
    widths = [field.feature.width for field in schema.fields]
    first = np.repeat([field.offset for field in schema.fields], widths).astype("int32")
    size = np.repeat([field.feature.size for field in schema.fields], widths).astype("int32")
    known = tf.where((ids >= first) & (ids < first + size), ids, first + OUT_OF_VOCABULARY)
    scaled = np.repeat([_is_scaled(field) for field in schema.fields], widths)
    if not scaled.any():
        return known
    numbers = tf.where(tf.math.is_finite(tf.bitcast(ids, tf.float32)), ids, _NAN_BITS)
    return tf.where(scaled, numbers, known)


def _is_scaled(field):
    return isinstance(field.feature, Numeric) and field.feature.transform == "scaled"


def _tokens(feature, column):
    """The tokens of each row, "" behind them: `(batch,) -> (batch, feature.width)`."""
    if not isinstance(feature, Sequence):
        return column[:, None]
    tokens = tf.strings.split(column, feature.separator)
    return tf.ragged.boolean_mask(tokens, tokens != "").to_tensor("", shape=(None, feature.max_length))


def _ordered(numbers):
    """float64 as int64 with the same order: -5e-324 < 0.0 also where TensorFlow flushes subnormal numbers to zero; -0.0 is 0.0.

    >>> _ordered(np.float64([-5e-324, -0.0, 0.0, 5e-324])).numpy().tolist()
    [-1, 0, 0, 1]
    """
    bits = tf.bitcast(numbers, tf.int64)
    return tf.where(bits < 0, tf.int64.min - bits, bits)


class _Vocabulary(tf.lookup.TextFileInitializer):
    """Token -> position, read from a file that becomes an asset of the SavedModel; from memory it would be a constant."""

    def __init__(self, schema, feature):
        path = schema.vocabulary_file(feature)
        self.digest = _digest(path, feature)
        line = tf.lookup.TextFileIndex
        super().__init__(str(path), tf.string, line.WHOLE_LINE, tf.int64, line.LINE_NUMBER)

    @property
    def _shared_name(self):
        # TensorFlow's own is the path: it would leave this machine with the model, and a second file there would go unread.
        return self.digest


def _digest(path, feature):
    """The SHA-256 of the feature's vocabulary file. Raises when it is missing, or not the model's."""
    fix = "give `vocabularies=`, the folder of the prepared dataset that the model was trained on"
    expected = feature.size - FIRST_KNOWN
    try:
        digest = sha256(path)
        known = expected if feature.vocabulary_sha256 else _count_lines(path)
    except OSError as error:
        raise StorageError(f"feature {feature.name!r}: cannot read {path}: {error.strerror}.", fix=fix) from error
    if feature.vocabulary_sha256 not in (None, digest):
        raise ConfigError(f"feature {feature.name!r}: {path} holds other tokens than the model knows.", fix=fix)
    if known != expected:
        raise ConfigError(f"feature {feature.name!r}: {path} has {known} tokens, the model knows {expected}.", fix=fix)
    return digest


def _count_lines(path):
    with open(path, "rb") as file:
        return sum(1 for _ in file)
