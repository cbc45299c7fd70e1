"""The online face of a schema: raw columns in, the ids of the prepared matrix out, all in TensorFlow operations."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from tfctr.errors import ConfigError, StorageError, require_one_of
from tfctr.features import (
    FIRST_KNOWN,
    MISSING,
    OUT_OF_VOCABULARY,
    PADDING,
    SMALLEST_NORMAL,
    Numeric,
    Sequence,
    TokenFeature,
    has_vocabulary_file,
)
from tfctr.schema import Schema
from tfctr.serving.exporting.token_graph import canonical, has_form, is_canonical, read_written_lists
from tfctr.storage import sha256
from tfctr.token_text import GREATEST_WEIGHT, SMALLEST_WEIGHT, weighted_token
from tfctr.types import Tensor

# The position of a token that no vocabulary file holds, so that `position + FIRST_KNOWN` is its id, too.
_UNKNOWN = np.int64(OUT_OF_VOCABULARY - FIRST_KNOWN)
MISSING_VALUES = {tf.string: "", tf.float64: np.nan}
_NAN_BITS = np.float32("nan").view("int32")
_WEIGHT_BITS = tuple(int(np.float32(value).view("int32")) for value in (SMALLEST_WEIGHT, GREATEST_WEIGHT))
_SMALLEST_NORMAL_BITS, _INFINITE_BITS = (int(np.float32(value).view("int32")) for value in (SMALLEST_NORMAL, np.inf))


class RawFeatures(tf.Module):
    """Turns named raw columns into ids, as `tfctr.prepare` does, value by value.

    | feature | id |
    |---|---|
    | token, in its feature's form | its line in the vocabulary file + 3, or its hash bucket + 3; empty: missing |
    | number between edges | the id of its interval, which begins at the last edge that is not above it; NaN: missing |
    | weight of a token | the bits of its float32, of 0 below 1e-15, and behind the tokens; of a missing one 1 |
    | scaled number | the bits of `z = float32((x - mean) / scale)`, or of NaN where z is not finite; a subnormal z is 0 |

    Args:
        schema: a fitted `Schema` whose vocabulary files exist.
        optional: names of features whose columns may be empty: such a column is missing in every row.

    Shapes:
        `{name: (batch,)}`, text or float64 `-> (batch, schema.width)` int32

    Raises:
        ConfigError: the schema is not fitted, a vocabulary file is not the one that `prepare` wrote for it, or `optional` names
            no feature of it, or all.
        StorageError: a vocabulary file is missing.
        tf.errors.InvalidArgumentError: in the graph, for columns of different lengths or not of rank 1.

    >>> from tfctr import Categorical, Numeric, Schema
    >>> user = Categorical("user", hash_buckets=1, size=4)
    >>> price = Numeric("price", "edges", edges=[1.0], interval_ids=[3, 4], size=5)
    >>> schema = Schema(features=[user, price], label="click")
    >>> RawFeatures(schema)({"user": tf.constant(["ann", ""]), "price": tf.constant([1.0, 0.5], tf.float64)}).numpy().tolist()
    [[3, 8], [1, 7]]
    """

    def __init__(self, schema: Schema, optional: Iterable[str] = ()) -> None:
        super().__init__()
        self.schema = schema
        self.optional = some_features(schema, "optional", optional)
        self.lookups = {}
        for field in schema.fields:
            feature = field.feature
            if has_vocabulary_file(feature):
                file = _Vocabulary(schema, feature, field.size)
                if field.size > FIRST_KNOWN:  # TensorFlow refuses an empty file
                    self.lookups[feature.name] = tf.lookup.StaticHashTable(file, _UNKNOWN)

    @property
    def signature(self) -> dict[str, Any]:
        """`{name: TensorSpec}` of the raw columns, in the order of the schema."""
        dtypes = {"string": tf.string, "number": tf.float64}
        return {f.name: tf.TensorSpec((None,), dtypes[f.raw_type], name=f.name) for f in self.schema.features}

    def __call__(self, columns: Mapping[str, Tensor]) -> Tensor:
        columns = self._of_equal_length({name: columns[name] for name in self.signature})
        return _in_order(*self._ids(columns, self.schema.fields))

    def rank(self, columns: Mapping[str, Tensor], candidates: Collection[str]) -> Tensor:
        """The ids of each candidate beside one context, whose tokens are looked up once.

        Args:
            columns: the features named in `candidates` have shape `(rows,)`, the others, the context, `(1,)`.
            candidates: names of features.

        Shapes:
            `{name: (1,) or (rows,)} -> (rows, schema.width)` int32
        """
        sides = {True: {}, False: {}}
        for name in self.signature:
            sides[name in candidates][name] = columns[name]
        items = self._of_equal_length(sides[True])
        context = {name: tf.ensure_shape(column, (1,)) for name, column in self._of_equal_length(sides[False], rows=1).items()}
        (one, left), (many, right) = (
            self._ids(side, [field for field in self.schema.fields if field.feature.name in side]) for side in (context, items)
        )
        return _in_order(tf.concat([tf.tile(one, [tf.shape(many)[0], 1]), many], axis=1), left + right)

    def part(self, columns: Mapping[str, Tensor], features: Collection[str]) -> Tensor:
        """The ids of some features, at least one of them required, and 0 in the columns of all others.

        Shapes:
            `{name: (batch,)}` of these features `-> (batch, schema.width)` int32
        """
        columns = self._of_equal_length({name: columns[name] for name in self.signature if name in features})
        ids, place = self._ids(columns, [field for field in self.schema.fields if field.feature.name in features])
        others = [column for column in range(self.schema.width) if column not in place]
        return _in_order(tf.pad(ids, [[0, 0], [0, len(others)]]), place + others)

    def _of_equal_length(self, columns, rows=None):
        """The columns, once all are known to have one length; those that may be empty, and are, as missing in every row."""
        needed = "the same number of rows" if rows is None else "one row"
        columns = {name: tf.ensure_shape(column, (None,)) for name, column in columns.items()}
        required = [name for name in columns if name not in self.optional]
        rows = tf.shape(columns[required[0]])[0] if rows is None else rows
        columns |= {name: _filled(columns[name], rows) for name in columns if name in self.optional}
        lengths = tf.stack([tf.shape(column)[0] for column in columns.values()])
        same = tf.debugging.assert_equal(
            lengths,
            rows,
            message=f"All inputs need {needed}: {', '.join(columns)}.",
            summarize=len(columns),
        )
        with tf.control_dependencies([same]):
            return {name: tf.identity(column) for name, column in columns.items()}

    def _ids(self, columns, fields):
        """The ids of some fields, and the columns of the prepared matrix that they belong to."""
        text = [field for field in fields if _is_text(field)]
        scaled = [field for field in fields if _is_scaled(field)]
        bucketed = [field for field in fields if not _is_text(field) and not _is_scaled(field)]
        weighted = [field for field in text if _is_weighted(field.feature)]
        encoders = [(self._text_ids, text), (_bucketed_ids, bucketed), (_scaled_bits, scaled), (_weight_bits, weighted)]
        ids = tf.concat([encode(columns, some) for encode, some in encoders if some], axis=1)
        tokens = [field.token_columns for some in (text, bucketed, scaled) for field in some]
        places = [*tokens, *(field.weight_columns for field in weighted)]
        return ids, [column for place in places for column in range(place.start, place.stop)]

    def _text_ids(self, columns, fields):
        features = [field.feature for field in fields]
        tokens = [_tokens(feature, columns[feature.name]) for feature in features]  # (batch, width) each
        positions = [self._positions(feature, t) for feature, t in zip(features, tokens, strict=True)]
        tokens, positions = self._in_form(features, tokens, positions)
        # Tokens stand in front: an empty first one means that there is none at all.
        empty = np.concatenate([[MISSING] + [PADDING] * (feature.tokens - 1) for feature in features])
        offsets = np.concatenate([[field.offset] * field.feature.tokens for field in fields])
        ids = tf.where(tokens == "", empty, positions + FIRST_KNOWN)
        return tf.cast(ids + offsets, tf.int32)

    def _in_form(self, features, tokens, positions):
        """Tokens and positions side by side, `(batch, widths)`, once those that may be written otherwise are rewritten."""
        as_given = tf.concat(tokens, axis=1), tf.concat(positions, axis=1)
        if not any(map(has_form, features)):
            return as_given
        suspects = _suspects(features, tokens, *as_given)

        def rewrite():
            split = tf.split(suspects, [feature.tokens for feature in features], axis=1)
            pairs = [
                self._rewrite(*each) if has_form(each[0]) else each[1:3]
                for each in zip(features, tokens, positions, split, strict=True)
            ]
            return tuple(tf.concat(parts, axis=1) for parts in zip(*pairs, strict=True))

        return tf.cond(tf.reduce_any(suspects), rewrite, lambda: as_given)

    def _rewrite(self, feature, tokens, positions, suspects):
        tokens = canonical(feature, tokens, suspects)
        found = self._positions(feature, tf.boolean_mask(tokens, suspects))
        return tokens, tf.tensor_scatter_nd_update(positions, tf.where(suspects), found)

    def _positions(self, feature, tokens):
        if feature.hash_buckets is not None:
            return tf.strings.to_hash_bucket_fast(tokens, feature.hash_buckets)
        if feature.owner in self.lookups:
            return self.lookups[feature.owner].lookup(tokens)
        return tf.fill(tf.shape(tokens), _UNKNOWN)


def _suspects(features, tokens, all_tokens, all_positions):
    """Which tokens may be other writings of known ones, and, if hashed, which are not canonical: `(batch, widths)` bool."""
    looked_up = np.concatenate([[has_form(f) and f.hash_buckets is None] * f.tokens for f in features])
    suspects = looked_up & (all_positions == _UNKNOWN)
    if any(has_form(feature) and feature.hash_buckets is not None for feature in features):
        others = [
            ~is_canonical(f, t) if has_form(f) and f.hash_buckets is not None else tf.zeros_like(t, tf.bool)
            for f, t in zip(features, tokens, strict=True)
        ]
        suspects |= tf.concat(others, axis=1)
    return suspects & (all_tokens != "")


def _bucketed_ids(columns, fields):
    values = tf.stack([columns[field.feature.name] for field in fields])  # (features, batch)
    features = [field.feature for field in fields]
    # Rows of equal length: edges above every number, whose intervals have the id of the last one.
    most = max(len(feature.edges) for feature in features)
    edges = np.stack([np.pad(np.float64(f.edges), (0, most - len(f.edges)), constant_values=np.inf) for f in features])
    ids = np.stack([np.pad(np.int32(f.interval_ids), (0, most - len(f.edges)), "edge") for f in features])
    intervals = tf.searchsorted(_ordered(edges), _ordered(values), side="right")
    ids = tf.where(tf.math.is_nan(values), MISSING, tf.gather(ids, intervals, batch_dims=1))
    ids += np.array([[field.offset] for field in fields], np.int32)
    return tf.stack(tf.unstack(ids), axis=1)  # a transpose, for which oneDNN would log an error on some processors


def _scaled_bits(columns, fields):
    values = tf.stack([columns[field.feature.name] for field in fields], axis=1)  # (batch, features)
    mean = np.array([field.feature.mean for field in fields], np.float64)
    scale = np.array([field.feature.scale for field in fields], np.float64)
    # TensorFlow turns a division by a constant into a product with its inverse, which rounds differently; not this one.
    z = tf.math.divide_no_nan(values - mean, scale)
    z = tf.cast(tf.where(tf.abs(z) < SMALLEST_NORMAL, tf.zeros_like(z), z), tf.float32)
    return tf.where(tf.math.is_finite(z), tf.bitcast(z, tf.int32), _NAN_BITS)


def _in_order(ids, place):
    return ids if place == sorted(place) else tf.gather(ids, np.argsort(place), axis=1)


def _filled(column, rows):
    """A column of missing values in the place of one without rows."""
    missing = tf.constant(MISSING_VALUES[column.dtype], column.dtype)
    return tf.concat([column, tf.fill([tf.where(tf.size(column) == 0, rows, 0)], missing)], axis=0)


def some_features(schema: Schema, argument: str, names: Iterable[str]) -> tuple[str, ...]:
    """The names as a tuple. Raises `ConfigError` unless they are features of the schema, each named once, and not all of them.

    >>> from tfctr import Categorical, Schema
    >>> some_features(Schema(features=[Categorical("user"), Categorical("item")], label="click"), "candidates", ["item"])
    ('item',)
    """
    fix = "give a list with the names of some features"
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise ConfigError(f"`{argument}` is {names!r}.", fix=fix)
    names, features = tuple(names), [feature.name for feature in schema.features]
    for name in names:
        require_one_of(features, name, f"feature in `{argument}`")
    if len(set(names)) < len(names) or len(names) == len(features):
        raise ConfigError(f"`{argument}` is {list(names)}.", fix=f"{fix}, each once, and not of all {len(features)}")
    return names


def in_range(schema: Schema, ids: Tensor) -> Tensor:
    """The ids, where one is not of its feature "out of vocabulary" instead, what is no weight 0, and a scaled number that
    `prepare` never writes, since it is not finite or is subnormal, as the bits of 35 are, "missing".

    Shapes:
        `(batch, schema.width)` int32 `-> (batch, schema.width)` int32

    >>> from tfctr import Categorical, Schema
    >>> schema = Schema(features=[Categorical("user", size=5), Categorical("item", size=7)], label="click")
    >>> in_range(schema, tf.constant([[4, 5], [-1, 4], [5, 12]])).numpy().tolist()
    [[4, 5], [2, 7], [2, 7]]
    """
    widths = [field.feature.width for field in schema.fields]
    first = np.repeat([field.offset for field in schema.fields], widths).astype("int32")
    size = np.repeat([field.size for field in schema.fields], widths).astype("int32")
    known = tf.where((ids >= first) & (ids < first + size), ids, first + OUT_OF_VOCABULARY)
    scaled = np.repeat([_is_scaled(field) for field in schema.fields], widths)
    weights = np.full(schema.width, False)
    for field in schema.fields:
        weights[field.weight_columns] = True
    if weights.any():
        known = tf.where(weights, tf.where((ids >= _WEIGHT_BITS[0]) & (ids <= _WEIGHT_BITS[1]), ids, 0), known)
    if not scaled.any():
        return known
    magnitude = tf.bitwise.bitwise_and(ids, 0x7FFFFFFF)  # TensorFlow may take subnormal numbers for zero, but not their bits
    is_number = (magnitude == 0) | ((magnitude >= _SMALLEST_NORMAL_BITS) & (magnitude < _INFINITE_BITS))
    return tf.where(scaled, tf.where(is_number, ids, _NAN_BITS), known)


def _is_text(field):
    return not isinstance(field.feature, Numeric)


def _is_scaled(field):
    return isinstance(field.feature, Numeric) and field.feature.transform == "scaled"


def _tokens(feature, column):
    """The tokens of each row, "" behind them: `(batch,) -> (batch, feature.tokens)`."""
    if not isinstance(feature, Sequence):
        return column[:, None]
    tokens = _listed(feature, column)
    return _weighed(feature, tokens)[0] if _is_weighted(feature) else tokens


def _listed(feature, column):
    """The same, each token with the weight that may be behind it."""
    if feature.token_type is not None:
        column = read_written_lists(feature.separator, column)
    tokens = tf.strings.split(column, feature.separator)
    return tf.ragged.boolean_mask(tokens, tokens != "")[:, feature.kept].to_tensor("", shape=(None, feature.max_length))


def _weighed(feature, tokens):
    """The tokens without their weights, and those as float32, 1 where there is none: `(batch, feature.tokens)` each."""
    pattern = weighted_token(feature.weight_separator)
    texts = tf.where(tf.strings.regex_full_match(tokens, pattern), tf.strings.regex_replace(tokens, pattern, r"\2"), "nan")
    weights = tf.strings.to_number(texts, tf.float64)
    are_weights = weights <= GREATEST_WEIGHT
    alone = tf.where(are_weights, tf.strings.regex_replace(tokens, pattern, r"\1"), tokens)
    weights = tf.where(weights < SMALLEST_WEIGHT, tf.zeros_like(weights), weights)
    return alone, tf.where(are_weights, tf.cast(weights, tf.float32), 1.0)


def _weight_bits(columns, fields):
    return tf.concat([_weight_bits_of(field.feature, columns[field.feature.name]) for field in fields], axis=1)


def _weight_bits_of(feature, column):
    tokens = _listed(feature, column)
    is_padding = (tokens == "") & (np.arange(feature.tokens) > 0)
    return tf.where(is_padding, 0, tf.bitcast(_weighed(feature, tokens)[1], tf.int32))


def _is_weighted(feature):
    return isinstance(feature, Sequence) and feature.weight_separator is not None


def _ordered(numbers):
    """float64 as int64 with the same order: -5e-324 < 0.0 also where TensorFlow flushes subnormal numbers to zero; -0.0 is 0.0.

    >>> _ordered(np.float64([-5e-324, -0.0, 0.0, 5e-324])).numpy().tolist()
    [-1, 0, 0, 1]
    """
    bits = tf.bitcast(numbers, tf.int64)
    return tf.where(bits < 0, tf.int64.min - bits, bits)


class _Vocabulary(tf.lookup.TextFileInitializer):
    """Token -> position, read from a file that becomes an asset of the SavedModel; from memory it would be a constant."""

    def __init__(self, schema: Schema, feature: TokenFeature, size: int) -> None:
        path = schema.vocabulary_file(feature)
        self.digest = _digest(path, feature, size)
        line = tf.lookup.TextFileIndex
        super().__init__(str(path), tf.string, line.WHOLE_LINE, tf.int64, line.LINE_NUMBER)

    @property
    def _shared_name(self):
        # TensorFlow's own is the path: it would leave this machine with the model, and a second file there would go unread.
        return self.digest


def _digest(path, feature, size):
    """The SHA-256 of the feature's vocabulary file. Raises when it is missing, or not the model's."""
    fix = "give `vocabularies=`, the folder of the prepared dataset that the model was trained on"
    expected = size - FIRST_KNOWN
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
