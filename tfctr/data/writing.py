"""A staged table as ids: blocks of rows, one feature at a time, so that memory never grows with the table."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import ibis
import numpy as np

from tfctr.data.columns import feature_column
from tfctr.data.engine import Engine, Table
from tfctr.data.fitting import cut_rows, owner_index, tokens, vocabulary_table
from tfctr.data.hashing import hash_ids
from tfctr.data.profile import Profile
from tfctr.data.shares import add, count_ids
from tfctr.data.staging import Staged
from tfctr.features import MISSING, OUT_OF_VOCABULARY, PADDING, SMALLEST_NORMAL, Numeric, Sequence
from tfctr.schema import Field, Schema
from tfctr.storage import sha256
from tfctr.token_text import SMALLEST_WEIGHT

_BLOCK_ROWS = 1_048_576
_BLOCK_IDS = 2**26  # int32: 256 MiB, which is what a block of ids may take
_ONE = np.float32(1).view(np.int32)
_NAN = np.uint32(0x7FC00000).view(np.int32)


class Blocks:
    """The blocks of rows of a staged table, in their order, as ids; and what is counted of them. Iterate it once.

    Each block is `{"ids": (rows, width) int32, "labels", "groups", "weights": (rows,)}`, the last three as far as the table has
    them. The next block overwrites the ids.

    Args:
        engine: the `Engine` that holds the table and the vocabularies.
        schema: the fitted schema.
        staged: the `Staged` table.
        groups: the table (token, id) of all groups, if the schema has a group.
        multiple_of: what the rows of all blocks but the last are a multiple of.
        at_most: rows of a block, unless `multiple_of` is more.

    Attributes:
        counts, profile: of the rows of the blocks that have been taken.
    """

    def __init__(
        self,
        engine: Engine,
        schema: Schema,
        staged: Staged,
        groups: Table | None = None,
        multiple_of: int = 1,
        at_most: int | None = None,
    ) -> None:
        self.engine = engine
        self.schema = schema
        self.staged = staged
        self.groups = groups
        self.rows = max(1, min(at_most or _BLOCK_ROWS, _BLOCK_IDS // schema.width) // multiple_of) * multiple_of  # of a block
        self.counts: dict[str, Counter[str]] = {}
        self.profile = Profile()

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        engine, schema, staged = self.engine, self.schema, self.staged
        ids = np.empty((min(self.rows, staged.rows), schema.width), np.int32)
        for start in range(0, staged.rows, self.rows):
            rows = min(self.rows, staged.rows - start)
            block = staged.block(start, rows)
            arrays = {"ids": _fill(engine, schema, block, ids[:rows], self.profile)}
            add(self.counts, count_ids(schema, arrays["ids"]))
            if staged.positives is not None:
                arrays["labels"] = _floats(engine, block, "label", rows)
                if self.groups is not None:
                    arrays["groups"] = _groups(engine, block, self.groups, rows)
                if schema.weight:
                    arrays["weights"] = _floats(engine, block, "weight", rows)
            yield arrays

    def entry(self) -> dict[str, Any]:
        """What a manifest says of the whole table, once its last block is taken."""
        for name, cut in _cut_rows(self.engine, self.schema, self.staged.table).items():
            self.counts[name]["cut"] = cut
        positives = {} if self.staged.positives is None else {"positives": self.staged.positives}
        return {"rows": self.staged.rows, **positives, "counts": self.counts}


def write_split(blocks: Blocks, folder: Path) -> dict[str, Any]:
    """Write one split's shards, a block each, into the new folder `folder`, and return its entry of the manifest."""
    folder.mkdir()
    shards = [{"rows": len(arrays["ids"]), "files": _save(folder, number, arrays)} for number, arrays in enumerate(blocks)]
    return {**blocks.entry(), "shards": shards}


def _fill(engine: Engine, schema: Schema, block: Table, ids: np.ndarray, profile: Profile) -> np.ndarray:
    """Fill `ids` (rows, width) with the ids of the staged rows 0 .. rows - 1 of `block`, and count them; returns `ids`."""
    for index, field in enumerate(schema.fields):
        view = ids[:, field.columns]
        if isinstance(field.feature, Numeric):
            _fill_numbers(engine, block, index, field, view, profile)
        else:
            _fill_tokens(engine, schema, block, index, ids[:, field.token_columns], ids[:, field.weight_columns])
            profile.add_tokens(field.feature, ids[:, field.token_columns] - field.offset)
    return ids


def _cut_rows(engine: Engine, schema: Schema, table: Table) -> dict[str, int]:
    """`{sequence feature: rows with more tokens than are kept}`."""
    sequences = {i: feature for i, feature in enumerate(schema.features) if isinstance(feature, Sequence)}
    found = [cut_rows(table, index, feature).name(feature_column(index)) for index, feature in sequences.items()]
    row = engine.fetch(table.agg(found))[0] if found else {}
    return {feature.name: int(row[feature_column(index)] or 0) for index, feature in sequences.items()}


def _fill_tokens(engine: Engine, schema: Schema, block: Table, index: int, ids: np.ndarray, weights: np.ndarray) -> None:
    field = schema.fields[index]
    assert not isinstance(field.feature, Numeric)
    ids[:] = field.offset + PADDING
    ids[:, 0] = field.offset + MISSING
    weights[:] = 0
    weights[:, :1] = _ONE
    found = tokens(block, index, field.feature)
    hash_buckets = field.feature.hash_buckets
    if hash_buckets is None:
        found = _look_up(found, engine.table(vocabulary_table(owner_index(schema, index))))
    for batch in engine.stream(found):
        known = batch["id"].to_numpy() if hash_buckets is None else hash_ids(batch["token"], hash_buckets)
        rows, positions = batch["row"].to_numpy(), batch["position"].to_numpy()
        ids[rows, positions] = field.offset + known
        if weights.shape[1]:
            weights[rows, positions] = _weight_bits(batch["weight"].to_numpy())


def _weight_bits(weights: np.ndarray) -> np.ndarray:
    """The bits of these weights as float32, those that are too small as 0."""
    return np.where(weights < SMALLEST_WEIGHT, 0.0, weights).astype(np.float32).view(np.int32)


def _look_up(tokens: Table, vocabulary: Table) -> Table:
    joined = tokens.left_join(vocabulary, tokens.token == vocabulary.token)
    weight = [tokens.weight] if "weight" in tokens.columns else []
    return joined.select(tokens.row, tokens.position, *weight, id=ibis.coalesce(vocabulary.id, OUT_OF_VOCABULARY).cast("int32"))


def _fill_numbers(engine: Engine, block: Table, index: int, field: Field, ids: np.ndarray, profile: Profile) -> None:
    for batch in engine.stream(block.select("row", value=block[feature_column(index)])):
        values = batch["value"].to_numpy(zero_copy_only=False)  # null becomes NaN
        ids[batch["row"].to_numpy(), 0] = number_ids(field, values)
        profile.add_numbers(field.feature, values)


def number_ids(field: Field, values: np.ndarray) -> np.ndarray:
    """What the prepared matrix holds for float64 values of a numeric field.

    An interval's id with the offset; or, for `"scaled"`, the bits of the float32 `(x - mean) / scale`: NaN if not finite,
    zero if it is subnormal, since TensorFlow computes with no subnormal numbers.
    """
    feature = field.feature
    assert isinstance(feature, Numeric)
    if feature.transform == "scaled":
        assert feature.mean is not None  # it is fitted
        assert feature.scale is not None
        with np.errstate(invalid="ignore", over="ignore"):
            scaled = (values - feature.mean) / feature.scale
            scaled = np.where(np.abs(scaled) < SMALLEST_NORMAL, 0.0, scaled).astype(np.float32)
        return np.where(np.isfinite(scaled), scaled.view(np.int32), _NAN)
    interval = np.searchsorted(np.asarray(feature.edges, np.float64), values, side="right")
    ids = np.asarray(feature.interval_ids, np.int32)[interval]
    return field.offset + np.where(np.isnan(values), MISSING, ids).astype(np.int32)


def group_codes(engine: Engine, splits: Iterable[Staged]) -> Table:
    """The table (token, id) of the groups of all splits: dense codes from 0, in the order of the groups' text."""
    groups = ibis.union(*[split.table.select(token="group") for split in splits], distinct=True)
    return engine.create("groups", groups.mutate(id=ibis.row_number().over(order_by=groups.token)))


def _groups(engine: Engine, block: Table, groups: Table, rows: int) -> np.ndarray:
    codes = np.empty(rows, np.int64)
    found = block.join(groups, block.group == groups.token).select(block.row, groups.id)
    for batch in engine.stream(found):
        codes[batch["row"].to_numpy()] = batch["id"].to_numpy()
    return codes


def _floats(engine: Engine, block: Table, column: str, rows: int) -> np.ndarray:
    values = np.empty(rows, np.float32)
    for batch in engine.stream(block.select("row", value=block[column])):
        values[batch["row"].to_numpy()] = batch["value"].to_numpy()
    return values


def _save(folder: Path, number: int, arrays: Mapping[str, np.ndarray]) -> dict[str, str]:
    files = {}
    for name, array in arrays.items():
        path = folder / f"{name}-{number:05d}.npy"
        np.save(path, array)
        files[path.name] = sha256(path)
    return files
