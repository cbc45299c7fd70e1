"""A staged split as shards of ids: blocks of rows, one feature at a time, so that memory never grows with the table."""

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import ibis
import numpy as np

from tfctr.data.columns import feature_column
from tfctr.data.engine import Engine, Table
from tfctr.data.fitting import cut_rows, tokens, vocabulary_table
from tfctr.data.hashing import hash_ids
from tfctr.data.profile import Profile
from tfctr.data.shares import add, count_ids
from tfctr.data.staging import Staged
from tfctr.features import MISSING, OUT_OF_VOCABULARY, PADDING, SMALLEST_NORMAL, Numeric, Sequence
from tfctr.schema import Field, Schema
from tfctr.storage import sha256

_SHARD_ROWS = 1_048_576
_SHARD_IDS = 2**26  # int32: 256 MiB, which is what a block of ids may take
_NAN = np.uint32(0x7FC00000).view(np.int32)


def write_split(
    engine: Engine, schema: Schema, split: Staged, folder: Path, groups: Table | None = None
) -> tuple[dict[str, Any], Profile]:
    """Write one split's shards into the new folder `folder`, and return its entry of the manifest and its `Profile`.

    Args:
        engine: the `Engine` that holds the split and the vocabularies.
        schema: the fitted schema.
        split: the `Staged` split.
        groups: the table (token, id) of all groups, if the schema has a group.
    """
    folder.mkdir()
    shard_rows = min(_SHARD_ROWS, max(1, _SHARD_IDS // schema.width))
    ids = np.empty((min(shard_rows, split.rows), schema.width), np.int32)
    shards = []
    counts: dict[str, Counter[str]] = {}
    profile = Profile()
    for number, start in enumerate(range(0, split.rows, shard_rows)):
        rows = min(shard_rows, split.rows - start)
        block = split.table.filter(split.table.row >= start, split.table.row < start + rows)
        block = block.mutate(row=block.row - start)
        arrays = {"ids": encode(engine, schema, block, ids[:rows], profile), "labels": _floats(engine, block, "label", rows)}
        add(counts, count_ids(schema, arrays["ids"]))
        if schema.group:
            arrays["groups"] = _groups(engine, block, groups, rows)
        if schema.weight:
            arrays["weights"] = _floats(engine, block, "weight", rows)
        shards.append({"rows": rows, "files": _save(folder, number, arrays)})
    for name, cut in _cut_rows(engine, schema, split.table).items():
        counts[name]["cut"] = cut
    return {"rows": split.rows, "shards": shards, "positives": split.positives, "counts": counts}, profile


def encode(engine: Engine, schema: Schema, block: Table, ids: np.ndarray, profile: Profile) -> np.ndarray:
    """Fill `ids` (rows, width) with the ids of the staged rows 0 .. rows - 1 of `block`, and count them; returns `ids`."""
    for index, field in enumerate(schema.fields):
        view = ids[:, field.columns]
        if isinstance(field.feature, Numeric):
            _encode_numbers(engine, block, index, field, view, profile)
        else:
            _encode_tokens(engine, block, index, field, view)
            profile.add_tokens(field.feature, view - field.offset)
    return ids


def _cut_rows(engine: Engine, schema: Schema, table: Table) -> dict[str, int]:
    """`{sequence feature: rows with more tokens than are kept}`."""
    sequences = {i: feature for i, feature in enumerate(schema.features) if isinstance(feature, Sequence)}
    found = [cut_rows(table, index, feature).name(feature_column(index)) for index, feature in sequences.items()]
    row = engine.fetch(table.agg(found))[0] if found else {}
    return {feature.name: int(row[feature_column(index)] or 0) for index, feature in sequences.items()}


def _encode_tokens(engine: Engine, block: Table, index: int, field: Field, ids: np.ndarray) -> None:
    assert not isinstance(field.feature, Numeric)
    ids[:] = field.offset + PADDING
    ids[:, 0] = field.offset + MISSING
    found = tokens(block, index, field.feature)
    hash_buckets = field.feature.hash_buckets
    if hash_buckets is None:
        found = _look_up(found, engine.table(vocabulary_table(index)))
    for batch in engine.stream(found):
        known = batch["id"].to_numpy() if hash_buckets is None else hash_ids(batch["token"], hash_buckets)
        ids[batch["row"].to_numpy(), batch["position"].to_numpy()] = field.offset + known


def _look_up(tokens: Table, vocabulary: Table) -> Table:
    joined = tokens.left_join(vocabulary, tokens.token == vocabulary.token)
    return joined.select(tokens.row, tokens.position, id=ibis.coalesce(vocabulary.id, OUT_OF_VOCABULARY).cast("int32"))


def _encode_numbers(engine: Engine, block: Table, index: int, field: Field, ids: np.ndarray, profile: Profile) -> None:
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
