"""What a feature learns from the training table: its vocabulary, its edges, or its mean and scale.

Nothing here depends on the order of rows or on the number of threads: counts are exact, ties are broken by the token, quantiles
are values of the column, and sums are exact before they are rounded (`math.fsum`).
"""

import collections
import dataclasses
import itertools
import logging
import math
import reprlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import ibis
import numpy as np
import pyarrow as pa

from tfctr.data import log2_floor, quantiles
from tfctr.data.canonical import canonical
from tfctr.data.columns import feature_column, weight_of
from tfctr.data.engine import Engine, Table, Value
from tfctr.errors import ConfigError, DataError
from tfctr.features import FIRST_KNOWN, Numeric, Sequence, TokenFeature, has_vocabulary_file
from tfctr.schema import Schema
from tfctr.storage import require_sha256, sha256
from tfctr.token_text import weighted_token
from tfctr.types import StrPath

_LOG = logging.getLogger(__name__)

_MOST_ROWS = 2**31 - 1  # ids are int32
_MOST_COMPARED = 10_000  # known tokens, with one that is not


def fit(engine: Engine, schema: Schema, train: Table, folder: Path) -> Schema:
    """The fitted schema. Writes each vocabulary twice: as a file below `folder`, and as a table of `engine`.

    Args:
        engine: the `Engine` that holds the staged tables.
        schema: the schema to fit.
        train: the staged training table.
        folder: where the prepared dataset will be.
    """
    schema = dataclasses.replace(schema, folder=str(folder))
    (folder / "vocabulary").mkdir()
    features = []
    for index, feature in enumerate(schema.features):
        if isinstance(feature, Numeric):
            features.append(_FIT_NUMERIC[feature.transform](engine, train, index, feature))
        elif feature.vocabulary_of is not None:
            features.append(feature)  # the schema gives it what is fitted there
        elif feature.hash_buckets is not None:
            features.append(dataclasses.replace(feature, size=FIRST_KNOWN + feature.hash_buckets, vocabulary_sha256=None))
        else:
            features.append(_fit_vocabulary(engine, schema, train, index, feature))
    schema = dataclasses.replace(schema, features=features)
    refuse_too_many_ids(schema, fix="raise `min_count` or use `hash_buckets`")
    return schema


def refuse_too_many_ids(schema: Schema, fix: str) -> None:
    """Raise `ConfigError` for a fitted schema with more ids than an int32 counts."""
    if schema.table_rows > _MOST_ROWS:
        raise ConfigError(f"the features have {schema.table_rows} ids together, more than an int32 counts.", fix=fix)


# tokens


def vocabulary_table(index: int) -> str:
    """The table (token, count, id) of the vocabulary of the feature at `index` of the schema; of numbers (bucket, count).

    The count is that of the training table; NULL for a token that is known whatever this table holds.
    """
    return f"vocabulary{index}"


def owner_index(schema: Schema, index: int) -> int:
    """Where in the schema the feature is whose vocabulary the one at `index` has: there, or at `index` itself."""
    return [feature.name for feature in schema.features].index(schema.features[index].owner)


def tokens(table: Table, index: int, feature: TokenFeature) -> Table:
    """One row a token of a categorical or sequence feature: (row, position, token in its form). Missing ones have none.

    Those of a weighted sequence have a `weight`, too, a double.
    """
    column = table[feature_column(index)]
    if not isinstance(feature, Sequence):
        found = table.select("row", position=ibis.literal(0, "int32"), token=canonical(feature, column))
        return found.filter(found.token.notnull())
    found = table.select("row", token=_tokens_of_list(column, feature)[feature.kept]).unnest("token", offset="position")
    if feature.weight_separator is not None:
        weight = weight_of(feature, found.token)
        alone = found.token.re_extract(weighted_token(feature.weight_separator), 1)
        found = found.mutate(token=weight.isnull().ifelse(found.token, alone), weight=ibis.coalesce(weight, 1.0))
    return found.mutate(token=canonical(feature, found.token))


def tokens_together(schema: Schema, table: Table, index: int) -> Table:
    """One row a token of all features that have the vocabulary of the one at `index`: (row, token, is_own), whether of that."""
    owner = schema.features[index].owner
    parts = [
        tokens(table, place, feature).select("row", "token", is_own=ibis.literal(place == index))
        for place, feature in enumerate(schema.features)
        if not isinstance(feature, Numeric) and feature.owner == owner
    ]
    return ibis.union(*parts) if len(parts) > 1 else parts[0]


def cut_rows(table: Table, index: int, feature: Sequence) -> Value:
    """How many rows of a sequence feature have more than the `max_length` tokens that are kept, as an expression."""
    return (_tokens_of_list(table[feature_column(index)], feature).length() > feature.max_length).sum()


def known_by_their_row(engine: Engine, schema: Schema, train: Table, index: int) -> int:
    """How many known tokens of a feature's column of training would be unknown if the row that each is in were not there."""
    feature = schema.features[index]
    vocabulary = engine.table(vocabulary_table(owner_index(schema, index)))
    one_a_row = not isinstance(feature, Sequence) and [other.owner for other in schema.features].count(feature.owner) == 1
    if one_a_row:
        rare = vocabulary.filter(vocabulary["count"] == feature.min_count)
        return int(engine.fetch(rare.agg(found=rare["count"].sum()))[0]["found"] or 0)
    rows = tokens_together(schema, train, index).group_by("row", "token")
    rows = rows.agg(here=lambda found: found.count(), own=lambda found: found.is_own.sum())
    found = rows.join(vocabulary, "token").filter(lambda both: both["count"] - both.here < feature.min_count)
    return int(engine.fetch(found.agg(found=found.own.sum()))[0]["found"] or 0)


def examples_of(engine: Engine, schema: Schema, table: Table) -> Callable[[str], str]:
    """For the name of a feature, a sentence with tokens of a staged table that show why the fit does not know them."""

    def examples(name: str) -> str:
        index = next(index for index, feature in enumerate(schema.features) if feature.name == name)
        feature = schema.features[index]
        if isinstance(feature, Numeric):
            return ""
        vocabulary = engine.table(vocabulary_table(owner_index(schema, index)))
        return _unseen_examples(engine, vocabulary, tokens(table, index, feature))

    return examples


def _unseen_examples(engine: Engine, vocabulary: Table, seen: Table, number: int = 3) -> str:
    """The most frequent tokens that the vocabulary lacks, and known ones that look alike, or else the most frequent ones."""
    lacking = seen.anti_join(vocabulary, "token").group_by("token").agg(count=lambda found: found.count())
    lacking = engine.fetch(lacking.order_by(ibis.desc("count"), "token").limit(number))
    known = engine.fetch(vocabulary.order_by("id").select("token").limit(_MOST_COMPARED))
    known = [row["token"] for row in known]
    alike = {_bare(token): token for token in reversed(known)}
    lacking = [row["token"] for row in lacking]
    shown = dict.fromkeys(alike[_bare(token)] for token in lacking if _bare(token) in alike) or known[:number]
    unknown, known = (", ".join(reprlib.repr(token) for token in some) for some in (lacking, shown))
    return f" Unknown are {unknown}; known are {known or 'none'}."


def _bare(token: str) -> float | str:
    """What is left of a token without how it is written: "9.0", "09" and " 9" are 9."""
    try:
        return float(token)
    except ValueError:
        return token.strip().casefold()


def _tokens_of_list(column: Value, feature: Sequence) -> Value:
    return column.split(feature.separator).filter(lambda token: token != "")


def _fit_vocabulary(engine: Engine, schema: Schema, train: Table, index: int, feature: TokenFeature) -> TokenFeature:
    known = frequent_tokens(count_tokens(schema, train, index), feature)
    columns = known.select("token", "count", id=(known["rank"] + FIRST_KNOWN).cast("int32"))
    return write_vocabulary(engine, engine.create(vocabulary_table(index), columns), feature, schema.vocabulary_file(feature))


def count_tokens(schema: Schema, table: Table, index: int) -> Table:
    """The table (token, count) of all features that have the vocabulary of the one at `index`."""
    seen = tokens_together(schema, table, index)
    return seen.group_by("token").agg(count=seen.count())


def frequent_tokens(counts: Table, feature: TokenFeature) -> Table:
    """Those of a table (token, count) that may be known, with their `rank` from 0: by count, then by token."""
    # A vocabulary file has one token a line, so a token with a line break cannot be in it.
    known = counts.filter(counts["count"] >= feature.min_count, ~counts.token.contains("\n"), ~counts.token.contains("\r"))
    return known.mutate(rank=ibis.row_number().over(order_by=[ibis.desc(known["count"]), known.token]))


def write_vocabulary(engine: Engine, table: Table, feature: TokenFeature, file: StrPath) -> TokenFeature:
    """Write the tokens of a table (token, id) into a file, one a line from id 3 on, and return the fitted feature."""
    size = FIRST_KNOWN
    with open(file, "wb") as lines:
        for batch in engine.stream(table.order_by("id").select("token")):
            lines.writelines(f"{token}\n".encode() for token in batch["token"].to_pylist())
            size += batch.num_rows
    return dataclasses.replace(feature, size=size, vocabulary_sha256=sha256(file))


def read_vocabularies(engine: Engine, schema: Schema) -> None:
    """The vocabularies of a fitted schema, from their files, as tables of `engine`. Raises `StorageError` for another file."""
    for index, feature in enumerate(schema.features):
        if has_vocabulary_file(feature):
            engine.create(vocabulary_table(index), ibis.memtable(read_vocabulary(schema, feature)))


def read_vocabulary(schema: Schema, feature: TokenFeature) -> pa.Table:
    """The vocabulary (token, id) of one feature of a fitted schema, from its file. Raises `StorageError` for another file."""
    path = schema.vocabulary_file(feature)
    require_sha256(path, feature.vocabulary_sha256)
    lines = _lines(path)
    return pa.table({"token": lines, "id": pa.array(np.arange(FIRST_KNOWN, FIRST_KNOWN + len(lines), dtype=np.int32))})


def _lines(path: Path) -> Any:
    """The lines of a text file as an Arrow array, without a Python object for each."""
    text = np.fromfile(path, np.uint8)
    is_end = text == ord("\n")
    ends = np.flatnonzero(is_end)
    starts = np.concatenate([[0], ends - np.arange(len(ends))])  # the ends themselves are left out
    return pa.LargeStringArray.from_buffers(len(ends), pa.py_buffer(starts), pa.py_buffer(text[~is_end]))


# numbers


def _values(engine: Engine, train: Table, index: int) -> Iterator[np.ndarray]:
    """The finite values of a numeric feature, in float64 batches."""
    column = train[feature_column(index)]
    chosen = train.select(value=column).filter(column.notnull(), ~column.isnan(), ~column.isinf())
    for batch in engine.stream(chosen):
        if batch.num_rows:
            yield batch["value"].to_numpy()


def _fit_scaled(engine: Engine, train: Table, index: int, feature: Numeric) -> Numeric:
    """Mean and population standard deviation; a constant column has scale 1."""
    count = sum(len(values) for values in _values(engine, train, index))
    if count == 0:
        return dataclasses.replace(feature, mean=0.0, scale=1.0, size=FIRST_KNOWN + 1)
    try:
        mean = _sum(_values(engine, train, index)) / count
        scale = math.sqrt(_sum(np.square(values - mean) for values in _values(engine, train, index)) / count)
    except (OverflowError, FloatingPointError):
        problem = f"column {feature.name!r} holds numbers that are too large to be scaled."
        raise DataError(problem, fix="correct them, or use the transform 'quantile'") from None
    return dataclasses.replace(feature, mean=mean, scale=scale or 1.0, size=FIRST_KNOWN + 1)


def _sum(batches: Iterable[np.ndarray]) -> float:
    """The exact sum, rounded once: the same in whatever order the batches come."""
    with np.errstate(over="raise"):
        return math.fsum(itertools.chain.from_iterable(batch.tolist() for batch in batches))


def _fit_quantile(engine: Engine, train: Table, index: int, feature: Numeric) -> Numeric:
    """As many intervals as asked, or as there are distinct values: see `tfctr.data.quantiles`."""
    assert feature.buckets is not None  # of a quantile
    column = train[feature_column(index)] + 0.0  # 0.0 for -0.0
    chosen = train.select(value=column).filter(column.notnull(), ~column.isnan(), ~column.isinf())
    counts = engine.create(f"counts{index}", chosen.group_by("value").agg(count=chosen.count()))
    top = engine.stream(counts.order_by([ibis.desc("count"), "value"]).limit(feature.buckets)).read_all()
    runs = quantiles.plan(top["value"].to_numpy(), top["count"].to_numpy(), _counted(engine, counts), feature.buckets)
    edges = quantiles.cut(_counted(engine, counts), runs)
    if len(edges) + 1 < feature.buckets:
        made = f"{len(edges) + 1} of the {feature.buckets} buckets asked for"
        _LOG.info("column %r: %s, since it has no more distinct values", feature.source, made)
    return _fit_edges(engine, train, index, dataclasses.replace(feature, edges=edges))


def _counted(engine: Engine, counts: Table) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The distinct values, ascending, and how many rows have each: batches of (values, counts)."""
    for batch in engine.stream(counts.order_by("value")):
        if batch.num_rows:
            yield batch["value"].to_numpy(), batch["count"].to_numpy()


def _fit_edges(engine: Engine, train: Table, index: int, feature: Numeric) -> Numeric:
    assert feature.edges is not None  # given, or just found
    known = FIRST_KNOWN + len(feature.edges) + 1
    return dataclasses.replace(feature, interval_ids=tuple(range(FIRST_KNOWN, known)), size=known)


def _fit_log2_floor(engine: Engine, train: Table, index: int, feature: Numeric) -> Numeric:
    counts: collections.Counter[int] = collections.Counter()
    for values in _values(engine, train, index):
        seen, count = np.unique(log2_floor.buckets(values), return_counts=True)
        counts.update(dict(zip(map(int, seen), map(int, count), strict=True)))
    known = [bucket for bucket, count in counts.items() if count >= feature.min_count]
    known.sort(key=lambda bucket: (-counts[bucket], bucket))
    texts = pa.array(map(str, known), pa.string())  # the bucket of -1e258 is a whole number beyond 64 bits
    seen = pa.table({"bucket": texts, "count": pa.array([counts[bucket] for bucket in known], pa.int64())})
    engine.create(vocabulary_table(index), ibis.memtable(seen))
    ids = {bucket: FIRST_KNOWN + position for position, bucket in enumerate(known)}
    edges, interval_ids = log2_floor.intervals(ids)
    return dataclasses.replace(feature, edges=edges, interval_ids=interval_ids, size=FIRST_KNOWN + len(ids))


_FIT_NUMERIC = {
    "scaled": _fit_scaled,
    "quantile": _fit_quantile,
    "edges": _fit_edges,
    "log2_floor": _fit_log2_floor,
}
