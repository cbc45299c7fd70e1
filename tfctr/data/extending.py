"""New ids beside the known ones: the vocabularies of an earlier dataset, grown by what a new training table holds.

Every known token keeps its id. A token that is not known, and of which the new table holds at least `min_count`, gets the next
one: the most frequent first, ties by the token. Edges, intervals, means, scales, forms of tokens and hash buckets stay.

No token is forgotten unless that is asked for. Then new tokens first take the rows of those that none of the last so many
training tables has held, the longest unseen first, ties by the lowest id. So a token is forgotten only where its row is needed,
and the ids have no holes.

DATA/last_seen.npz says in which training table each known token was last seen: 1 for the one that was fitted, 2 for the first
by which it was extended, and so on. A dataset without that file is one that was fitted: all are 1.
"""

import dataclasses
import logging
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import ibis
import numpy as np
import pyarrow as pa

from tfctr.data.dataset import Dataset
from tfctr.data.engine import Engine, Table
from tfctr.data.fitting import (
    count_tokens,
    frequent_tokens,
    read_vocabulary,
    refuse_too_many_ids,
    vocabulary_table,
    write_vocabulary,
)
from tfctr.data.manifest import LAST_SEEN
from tfctr.errors import StorageError, require, require_count
from tfctr.features import FIRST_KNOWN, Numeric, TokenFeature, has_vocabulary_file
from tfctr.schema import Schema
from tfctr.types import StrPath

_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Extension:
    """An earlier dataset, and how far a new training table may change its vocabularies.

    Args:
        schema: its fitted schema, with its vocabulary files.
        table: the number of the new training table, from 2 on.
        last_seen: `{feature: the table in which each known token was last seen, int32 (known tokens,)}`.
        max_tokens, evict_after: as in `tfctr.prepare`.
    """

    schema: Schema
    table: int
    last_seen: Mapping[str, np.ndarray]
    max_tokens: int | None = None
    evict_after: int | None = None

    @classmethod
    def of(cls, earlier: Dataset | StrPath, max_tokens: int | None = None, evict_after: int | None = None) -> Self:
        """The extension of a dataset, or of that in a folder.

        Raises:
            ConfigError: an argument cannot be used; the dataset is an encoded one.
            StorageError: the folder is no prepared dataset, or a file is missing or corrupt.
        """
        for name, value in (("max_tokens", max_tokens), ("evict_after", evict_after)):
            if value is not None:
                require_count(name, value)
        is_dataset = isinstance(earlier, Dataset | str | os.PathLike)
        require(
            is_dataset, f"`extend` is {type(earlier)}.", fix="give a dataset that `tfctr.prepare` has written, or its folder"
        )
        dataset = Dataset.load(earlier.folder if isinstance(earlier, Dataset) else earlier)
        problem = f"{dataset.folder} was encoded by the fit of another dataset, and does not know when tokens were last seen."
        require(not dataset.is_encoded, problem, fix="extend the dataset by which it was encoded, that of `tfctr prepare`")
        tables, last_seen = _load(dataset) if dataset.extension else (1, _all_at_first(dataset.schema))
        return cls(dataset.schema, tables + 1, last_seen, max_tokens, evict_after)

    def fit(self, engine: Engine, train: Table, folder: Path) -> tuple[Schema, dict[str, Any]]:
        """The extended schema, and what the manifest says of it. Writes each vocabulary as `tfctr.data.fitting.fit` does.

        Args:
            engine: the `Engine` that holds the staged tables.
            train: the staged new training table.
            folder: where the extended dataset will be.

        Returns:
            The fitted schema, and `{"digest": of the earlier fit, "tables": 2, "features": {feature: {"known", "seen_again",
            "new", "evicted", "left_out"}}}`: how many tokens were known, how many of these the new table holds, how many have
            come and gone, and how many would have come but for `max_tokens`.
        """
        schema = dataclasses.replace(self.schema, folder=str(folder))
        (folder / "vocabulary").mkdir()
        features = []
        counts = {}
        last_seen = {}
        for index, feature in enumerate(schema.features):
            if isinstance(feature, Numeric):
                engine.create(vocabulary_table(index), ibis.memtable(_NO_BUCKET))
            elif has_vocabulary_file(feature):
                counts[feature.name] = self._grow(engine, train, index, feature)
                table = engine.table(vocabulary_table(index))
                feature = write_vocabulary(engine, table, feature, schema.vocabulary_file(feature))
                last_seen[feature.name] = _column(engine, table.order_by("id").select("last_seen"))
            features.append(feature)
        schema = dataclasses.replace(schema, features=features)
        refuse_too_many_ids(schema, fix="give `max_tokens`, or fit anew with a larger `min_count` or `hash_buckets`")
        _save(folder, last_seen)
        return schema, {"digest": self.schema.digest, "tables": self.table, "features": counts}

    def _grow(self, engine: Engine, train: Table, index: int, feature: TokenFeature) -> dict[str, int]:
        """Make the vocabulary table of one feature, which has a column `last_seen`, too."""
        before = read_vocabulary(self.schema, feature)
        before = before.append_column("last_seen", pa.array(self.last_seen[feature.name], pa.int32()))
        before = engine.create(f"before{index}", ibis.memtable(before))
        counts = engine.create(f"counts{index}", count_tokens(self.schema, train, index))
        both = before.left_join(counts, before.token == counts.token)
        last_seen = counts["count"].notnull().ifelse(self.table, before.last_seen).cast("int32")
        known = engine.create(f"known{index}", both.select(before.token, before.id, last_seen=last_seen))
        unseen = known.filter(known.last_seen <= self.table - (self.evict_after or self.table))
        rows = unseen.select("id", rank=ibis.row_number().over(order_by=[unseen.last_seen, unseen.id]))
        new = engine.create(f"new{index}", frequent_tokens(counts.anti_join(known, "token"), feature))
        found = {
            "known": _count(engine, known),
            "seen_again": _count(engine, known.filter(known.last_seen == self.table)),
        }
        free, coming = _count(engine, rows), _count(engine, new)
        room = coming if self.max_tokens is None else free + max(0, self.max_tokens - found["known"])
        ids = ibis.coalesce(rows.id, new["rank"] + (FIRST_KNOWN + found["known"] - free)).cast("int32")
        placed = new.left_join(rows, new["rank"] == rows["rank"]).filter(new["rank"] < room)
        placed = placed.select(new.token, new["count"], id=ids, last_seen=ibis.literal(self.table, "int32"))
        placed = engine.create(f"placed{index}", placed)
        stay = known.anti_join(placed, "id").mutate(count=ibis.null("int64"))
        engine.create(vocabulary_table(index), ibis.union(stay.select(*placed.columns), placed))
        found |= {"new": min(coming, room), "evicted": min(coming, free), "left_out": max(0, coming - room)}
        if found["left_out"]:
            message = "column %r: %d new tokens are left out, since its vocabulary has %d, and `max_tokens` is %d"
            size = found["known"] + found["new"] - found["evicted"]
            _LOG.info(message, feature.source, found["left_out"], size, self.max_tokens)
        return found


# No bucket of numbers hangs on what the new table holds.
_NO_BUCKET = pa.table({"bucket": pa.array([], pa.string()), "count": pa.array([], pa.int64())})


def _count(engine: Engine, table: Table) -> int:
    return int(engine.fetch(table.agg(rows=table.count()))[0]["rows"])


def _column(engine: Engine, table: Table) -> np.ndarray:
    return engine.stream(table).read_all().column(0).to_numpy()


# when tokens were last seen


def _known_tokens(schema: Schema) -> dict[str, int]:
    """How many tokens each vocabulary of a fitted schema has."""
    return {field.feature.name: field.size - FIRST_KNOWN for field in schema.fields if has_vocabulary_file(field.feature)}


def _all_at_first(schema: Schema) -> dict[str, np.ndarray]:
    return {name: np.ones(size, np.int32) for name, size in _known_tokens(schema).items()}


def _save(folder: Path, last_seen: Mapping[str, np.ndarray]) -> None:
    arrays: dict[str, Any] = {f"last_seen{place}": values for place, values in enumerate(last_seen.values())}
    np.savez_compressed(folder / LAST_SEEN, names=np.array([*last_seen], str), **arrays)


def _load(dataset: Dataset) -> tuple[int, dict[str, np.ndarray]]:
    """How many tables an extended dataset has learnt from, and what `_save` wrote.

    Raises:
        StorageError: a file that cannot be read, or does not fit the vocabularies.
    """
    path = dataset.folder / LAST_SEEN
    try:
        tables = int((dataset.extension or {})["tables"])
        with np.load(path, allow_pickle=False) as arrays:
            last_seen = {name: arrays[f"last_seen{place}"] for place, name in enumerate(arrays["names"].tolist())}
    except (OSError, ValueError, LookupError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise StorageError(f"{path} cannot be read: {error}", fix=_RESTORE) from error
    for name, size in _known_tokens(dataset.schema).items():
        values = last_seen.get(name, np.empty(0))
        fits = values.shape == (size,) and values.dtype == np.int32 and ((values >= 1) & (values <= tables)).all()
        require(fits, f"{path} is not of this dataset: see {name!r}.", fix=_RESTORE, error=StorageError)
    return tables, last_seen


_RESTORE = "restore the folder, or fit anew: tfctr prepare SCHEMA"
