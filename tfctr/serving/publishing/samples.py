"""Raw rows out of a prepared dataset, to ask two versions of a model the same: ids mean something to one schema only."""

import math
from collections.abc import Mapping

import numpy as np

from tfctr.data.split import Split
from tfctr.errors import ConfigError, require_count
from tfctr.features import FIRST_KNOWN, MISSING, OUT_OF_VOCABULARY, PADDING, Numeric, Sequence
from tfctr.schema import Schema
from tfctr.serving.publishing.clicks import Clicks

_UNSEEN = b"a token that no table has"


def sample_rows(split: Split, schema: Schema, rows: int = 1000, seed: int = 0) -> Mapping[str, np.ndarray]:
    """Raw columns of up to `rows` rows of a prepared split, drawn at random.

    Raises:
        ConfigError: a feature is hashed: its tokens are not kept anywhere; or the split is of another fit than the schema.
    """
    return sample_clicks(split, schema, rows, seed).columns


def sample_clicks(split: Split, schema: Schema, rows: int = 100_000, seed: int = 0, negatives_kept: float = 1.0) -> Clicks:
    """`Clicks` of up to `rows` rows of a prepared split, drawn at random; raises as `sample_rows`.

    Each non-click stands for `1 / negatives_kept` of them, as it does in the probabilities of a version that is exported with
    that share. A token that the schema does not know is one that no other schema knows.
    """
    require_count("rows", rows)
    schema.require_fit(split.digest, f"the {split.name} split")
    _refuse_hashed(schema)
    drawn = np.random.default_rng(seed).choice(split.rows, min(rows, split.rows), replace=False)
    drawn.sort()
    labels = np.asarray(split.labels[drawn])
    weights, groups = (None if column is None else np.asarray(column[drawn]) for column in (split.weights, split.groups))
    if negatives_kept != 1:
        weights = (1 if weights is None else weights) * np.where(labels > 0, 1.0, 1 / negatives_kept)
    name = f"{len(drawn):,} rows of the {split.name} split"
    return Clicks(raw_rows(schema, split.ids_of(drawn)), labels, weights, groups, name)


def raw_rows(schema: Schema, ids: np.ndarray) -> dict[str, np.ndarray]:
    """Raw columns that the schema turns into these ids: known tokens as they are, for a bucket a number that lies in it.

    Args:
        schema: a fitted `Schema` with its vocabulary files, without hashed features.
        ids: `(rows, schema.width)` int32, as in a prepared dataset.

    Returns:
        `{name: (rows,) array}`, text as `object` arrays of `bytes`, numbers as float64.

    >>> from tfctr.schema import Schema
    >>> price = Numeric("price", "edges", edges=[1.0, 10.0], interval_ids=[3, 4, 5], size=6)
    >>> raw_rows(Schema(features=[price], label="click"), np.int32([[1], [4], [5]]))
    {'price': array([nan,  1., 10.])}
    """
    _refuse_hashed(schema)
    return {field.feature.name: _column(schema, field, ids[:, field.columns]) for field in schema.fields}


def _column(schema, field, ids):
    feature = field.feature
    if isinstance(feature, Numeric):
        return _scaled(feature, ids) if feature.transform == "scaled" else _bucketed(feature, ids - field.offset)
    weights = np.ascontiguousarray(ids[:, feature.tokens :]).view(np.float32).tolist()
    return _texts(schema, feature, ids[:, : feature.tokens] - field.offset, weights)


def _scaled(feature, bits):
    return np.ascontiguousarray(bits[:, 0]).view(np.float32).astype(np.float64) * feature.scale + feature.mean


def _bucketed(feature, ids):
    edges = feature.edges or (0.0,)
    starts = (math.nextafter(edges[0], -math.inf), *(feature.edges or ()))
    values = {}
    for number, start in zip(feature.interval_ids, starts, strict=True):
        values.setdefault(number, start)
    return np.array([values.get(number, math.nan) for number in ids[:, 0].tolist()])


def _texts(schema, feature, ids, weights):
    separator = feature.separator.encode() if isinstance(feature, Sequence) else b""
    unseen = _UNSEEN.replace(separator, b"_") if separator else _UNSEEN  # one token
    tokens = {MISSING: b"", OUT_OF_VOCABULARY: unseen, **_known_tokens(schema.vocabulary_file(feature), set(ids.flat))}
    texts = np.empty(len(ids), object)
    if getattr(feature, "weight_separator", None) is not None:
        rows = zip(ids.tolist(), weights, strict=True)
        texts[:] = [separator.join(_weighted(feature, tokens, *row)) for row in rows]
        return texts
    texts[:] = [separator.join(tokens[number] for number in row if number != PADDING) for row in ids.tolist()]
    return texts


def _weighted(feature, tokens, ids, weights):
    """The tokens of one row, each with its weight; of a missing one its text alone."""
    given = [(number, weight) for number, weight in zip(ids, weights, strict=True) if number != PADDING]
    return [
        tokens[number] + (b"" if number == MISSING else f"{feature.weight_separator}{weight!r}".encode())
        for number, weight in given
    ]


def _known_tokens(path, wanted):
    """`{id: token}`, without holding a large vocabulary in memory."""
    with open(path, "rb") as file:
        return {number: line.rstrip(b"\n") for number, line in enumerate(file, FIRST_KNOWN) if number in wanted}


def _refuse_hashed(schema):
    for feature in schema.features:
        if getattr(feature, "hash_buckets", None) is not None:
            raise ConfigError(
                f"the tokens of the hashed feature {feature.name!r} cannot be told from a prepared dataset.",
                fix="give raw rows, such as a CSV file: --rows FILE; or compare scores on golden rows only: --sample 0",
            )
