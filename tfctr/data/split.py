"""Rows of ids with their labels, cut into batches.

The order of the rows in an epoch is a function of (seed, epoch) alone, so a resumed run sees what the uninterrupted one would
have seen.
"""

import functools
import itertools
import mmap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike

from tfctr.data.batches import Place, Source, cut, part_of, to_tensorflow
from tfctr.data.findings import copies_of, findings
from tfctr.data.shares import shares_of
from tfctr.errors import ConfigError, DataError
from tfctr.metrics import click_rate, group_codes

if TYPE_CHECKING:
    import tensorflow as tf

SPLITS = {name: name for name in ("train", "valid", "test")}
DTYPES = {"ids": np.int32, "labels": np.float32, "groups": np.int64, "weights": np.float32}

# A split of up to so many bytes of ids is shuffled in memory as one matrix. A larger one is read in blocks, in a permuted
# order, and shuffled within windows of blocks: 128 MiB. To change these constants is to change the order.
MEMORY_LIMIT = 2 << 30
BLOCK_BYTES = 2 << 20
WINDOW_BLOCKS = 64


class Split:
    """Rows of ids with their labels, and optionally groups and weights.

    Made by `Dataset.load` or `Split.from_arrays`.

    Attributes:
        rows, width: the shape of `ids`.
        has_labels: whether there are some; rows that are there to be scored have none, no groups and no weights.
        labels: 0 or 1, float32, `(rows,)`; a `DataError` where there are none.
        groups: int64 codes for gAUC, `(rows,)`, or None.
        weights: float32, `(rows,)`, or None.
        shares: `{feature: {"unseen", "expected", "missing", "missing_in_training", "cut"}}`, as far as each has a meaning: the
            share of tokens that the fit does not know, and that it will not know of rows like training's; of rows without a
            value, and of training's; and of rows with more than `max_length` tokens. None where nobody has counted.
        profile: `{feature: {"quantiles"}}` of numbers, `{feature: {"frequent": {token: share}}}` of tokens; and beside training
            `"distance"`, from 0 to 1, `"by_chance"`, the most that chance makes of it, and the `"psi"` (see
            `tfctr.data.profile`); or None.
        copies: the `"share"` of rows that equal a training row in all columns, and that `"expected"` of new rows; or None.
        known_groups: the share of rows whose group, the schema's, has rows in training, too; None of training, without a group,
            and where nobody has counted.
        findings: a sentence each, of what in these is too much.
        digest: `Schema.digest` of the fit that the ids are of; None for a split of arrays, of which nobody knows.
        memory_limit: bytes of ids up to which all rows are shuffled together, in memory; above it, within windows.

    >>> split = Split.from_arrays(ids=[[3, 8], [4, 7], [2, 9]], labels=[1, 0, 0], name="valid")
    >>> split.rows, split.width
    (3, 2)
    >>> [tuple(labels.shape) for ids, labels in split.batches(2)]
    [(2, 1), (1, 1)]
    """

    def __init__(
        self,
        name: str,
        shards: Sequence[np.ndarray],
        labels: np.ndarray | None,
        groups: np.ndarray | None = None,
        weights: np.ndarray | None = None,
        digest: str | None = None,
    ) -> None:
        self.name = name
        self._labels = labels
        self.groups = groups
        self.weights = weights
        self.digest = digest
        self.shares: dict[str, dict[str, float | None]] | None = None
        self.profile: dict[str, dict[str, Any]] | None = None
        self.copies: dict[str, float] | None = None
        self.known_groups: float | None = None
        self.findings: tuple[str, ...] = ()
        self.memory_limit = MEMORY_LIMIT
        self._shards = shards
        self._begins = list(itertools.accumulate((len(shard) for shard in shards[:-1]), initial=0))

    @classmethod
    def from_arrays(
        cls,
        ids: ArrayLike,
        labels: ArrayLike,
        groups: ArrayLike | None = None,
        weights: ArrayLike | None = None,
        name: str = "train",
    ) -> Self:
        """A split of arrays in memory: integers `(rows, columns)`, and one value a row each for the others.

        Raises:
            DataError: shapes that do not agree, no rows, ids beyond int32, a label that is neither 0 nor 1, a group that is
                missing, a weight that is no number, negative, or not finite in float32.
        """
        ids = _array("ids", ids)
        if ids.ndim != 2 or 0 in ids.shape or not np.issubdtype(ids.dtype, np.integer):
            raise DataError(f"`ids` has the shape {ids.shape} and type {ids.dtype}.", fix="give integers, (rows, columns)")
        _require_all("ids", (ids >= -(2**31)) & (ids < 2**31), "do not fit int32")
        columns = {"labels": labels, "groups": groups, "weights": weights}
        columns = {name: _array(name, values) for name, values in columns.items() if values is not None or name == "labels"}
        for column, values in columns.items():
            if values.shape != (len(ids),):
                raise DataError(f"`{column}` has the shape {values.shape}.", fix=f"give one value a row, ({len(ids)},)")
        _require_all("labels", np.isin(columns["labels"], (0, 1)), "are neither 0 nor 1")
        if "weights" in columns:
            if columns["weights"].dtype.kind not in "biuf":
                raise DataError(f"`weights` has the type {columns['weights'].dtype}.", fix="give numbers")
            with np.errstate(over="ignore"):
                columns["weights"] = columns["weights"].astype(np.float32)
            finite = np.isfinite(columns["weights"]) & (columns["weights"] >= 0)
            _require_all("weights", finite, "are negative or not finite")
        if "groups" in columns:
            _require_all("groups", columns["groups"] == columns["groups"], "are missing")  # only NaN is not itself
            columns["groups"] = group_codes(columns["groups"])
        columns = {column: np.ascontiguousarray(values, DTYPES[column]) for column, values in columns.items()}
        shards = [np.ascontiguousarray(ids, np.int32)]
        return cls(name, shards, columns["labels"], columns.get("groups"), columns.get("weights"))

    def joined_by(self, ids: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None) -> Self:
        """A split of these rows, and further ones behind them; without groups."""
        if (weights is None) != (self.weights is None):
            raise ConfigError("one of two splits that are joined has weights.", fix="prepare both with a weight, or none")
        both = None if self.weights is None or weights is None else np.concatenate([self.weights, weights])
        shards = [*self._shards, np.ascontiguousarray(ids, np.int32)]
        joined = type(self)(self.name, shards, np.concatenate([self.labels, labels]), weights=both, digest=self.digest)
        joined.memory_limit = self.memory_limit
        return joined

    def describe(self, manifest: dict[str, Any]) -> None:
        """Set what `prepare` has counted of this split, as far as the manifest has it."""
        entry = manifest["splits"][self.name]
        training = manifest.get("training")
        if "counts" in entry and training is not None:
            self.shares = shares_of(entry["counts"], training)
        self.profile = entry.get("profile")
        if "copies" in entry:
            self.copies = copies_of(self.name, manifest)
        if "known_groups" in entry:
            self.known_groups = entry["known_groups"] / entry["rows"]
        self.findings = tuple(findings(self.name, manifest))

    @property
    def rows(self) -> int:
        return self._begins[-1] + len(self._shards[-1])

    @property
    def width(self) -> int:
        return self._shards[0].shape[1]

    @property
    def click_rate(self) -> float:
        """The share of clicks, of the weights where there are any."""
        return click_rate(self.labels, self.weights)

    @property
    def has_labels(self) -> bool:
        return self._labels is not None

    @property
    def labels(self) -> np.ndarray:
        if self._labels is None:
            fix = "encode a table with its labels; without them, rows can only be scored: model.predict(split.batches(10_000))"
            raise DataError(f"the {self.name} split has no labels.", fix=fix)
        return self._labels

    @functools.cached_property
    def ids(self) -> np.ndarray:
        """All ids, int32, `(rows, width)`: the file itself where there is only one, else read into memory."""
        ids = self._read(0, self.rows)
        self._release()
        return ids

    def ids_of(self, rows: np.ndarray) -> np.ndarray:
        """The ids of some rows, whose numbers ascend: int32, `(len(rows), width)`."""
        parts = np.split(rows, np.searchsorted(rows, self._begins[1:]))
        return np.concatenate([shard[some - at] for shard, at, some in zip(self._shards, self._begins, parts, strict=True)])

    def batches(
        self,
        batch_size: int,
        shuffle: bool | None = None,
        seed: int = 0,
        drop_remainder: bool = False,
        first_epoch: int = 0,
    ) -> "tf.data.Dataset":
        """A `tf.data.Dataset` of `(ids, labels)` or `(ids, labels, weights)`, for `fit`, `evaluate` and `predict`.

        Without labels, it is one of `(ids,)`, for `predict`.

        An iteration that reaches its last batch ends an epoch, and the next iteration has the order of the next epoch,
        which is a function of `(seed, epoch)` alone. One that is left before does not count. Iterate it once at a time.

        Args:
            batch_size: rows a batch, over all devices.
            shuffle: whether to permute the rows; by default only those of the train split.
            seed: of the order.
            drop_remainder: leave out the last batch where it is smaller than the others.
            first_epoch: the epoch of the first iteration, for a run that resumes.

        Shapes:
            ids int32 `(batch, width)`, labels and weights float32 `(batch, 1)`.
        """
        _require_least("batch_size", batch_size, 1)
        _require_least("seed", seed, 0)
        _require_least("first_epoch", first_epoch, 0)
        number = self.rows // batch_size if drop_remainder else -(-self.rows // batch_size)
        if number == 0:
            raise ConfigError(f"the split has {self.rows} rows, fewer than one batch of {batch_size}.", fix="use a smaller one")
        shuffle = self.name == "train" if shuffle is None else shuffle
        order = {"rows": self.rows, "batch_size": batch_size, "seed": seed if shuffle else None}
        place = Place(number, order, first_epoch)

        def part(index: int, parts: int) -> "tf.data.Dataset":
            """The batches of worker `index` of `parts`: of each global batch, the rows that it trains on, and no others."""
            starts = range(0, self.rows, batch_size)[:number]
            ranges = [part_of(start, min(start + batch_size, self.rows), index, parts) for start in starts]
            rows = batch_size if drop_remainder and parts == 1 else None
            return to_tensorflow(
                lambda epoch: self._epoch(ranges[place.passed :], epoch, order["seed"]),
                shapes=[(rows, column.shape[1]) for column in self._columns(0, 1)],
                place=place,
            )

        batches = part(0, 1)
        batches.part = part
        batches.place = place  # where a checkpoint sets the next iteration
        batches.batch_size = batch_size
        batches.split = self  # so that a model knows whose ids these are, and need not look at them
        return batches

    @property
    def _fits_memory(self) -> bool:
        return 4 * self.rows * self.width <= self.memory_limit

    def _epoch(self, ranges: Sequence[tuple[int, int]], epoch: int, seed: int | None) -> Iterator[tuple[np.ndarray, ...]]:
        """The rows of each range, in the order of an epoch; without a seed, in that of the table."""
        return cut(self._in_order() if seed is None else self._shuffled(seed, epoch), ranges)

    def _in_order(self) -> Iterator[Source]:
        window = max(1, WINDOW_BLOCKS * BLOCK_BYTES // (4 * self.width))
        rows = self.rows if self._fits_memory else window
        for first in range(0, self.rows, rows):
            yield min(rows, self.rows - first), lambda start, stop, first=first: self._columns(first + start, first + stop)
            if not self._fits_memory:
                self._release()

    def _shuffled(self, seed: int, epoch: int) -> Iterator[Source]:
        rng = np.random.default_rng([seed, epoch])
        for window in self._windows(rng):
            order = rng.permutation(len(window[0]))
            yield len(order), lambda start, stop, window=window, order=order: _taken(window, order[start:stop])

    def _windows(self, rng: np.random.Generator) -> Iterator[list[np.ndarray]]:
        if self._fits_memory:
            yield [self.ids, *self._targets(0, self.rows)]
            return
        block = max(1, BLOCK_BYTES // (4 * self.width))
        starts = rng.permutation(np.arange(0, self.rows, block))
        for first in range(0, len(starts), WINDOW_BLOCKS):
            blocks = [self._columns(start, start + block) for start in starts[first : first + WINDOW_BLOCKS]]
            window = [np.concatenate(parts) for parts in zip(*blocks, strict=True)]
            self._release()
            yield window

    def _release(self) -> None:
        """Unmap the pages of the files that were read, so that they are the system's cache, not this process's memory."""
        for shard in self._shards:
            mapped = getattr(shard.base, "_mmap", None)
            if mapped is not None and hasattr(mapped, "madvise"):  # not on Windows, nor for arrays in memory
                mapped.madvise(mmap.MADV_DONTNEED)

    def _columns(self, start: int, stop: int) -> list[np.ndarray]:
        return [self._read(start, stop), *self._targets(start, stop)]

    def _targets(self, start: int, stop: int) -> list[np.ndarray]:
        return [column[start:stop, None] for column in (self._labels, self.weights) if column is not None]

    def _read(self, start: int, stop: int) -> np.ndarray:
        parts = [
            shard[max(start - begin, 0) : stop - begin]
            for shard, begin in zip(self._shards, self._begins, strict=True)
            if begin < stop and start < begin + len(shard)
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts or [self._shards[0][:0]])


def _taken(columns: Sequence[np.ndarray], rows: np.ndarray) -> list[np.ndarray]:
    return [column.take(rows, axis=0) for column in columns]


def _array(name: str, values: ArrayLike | None) -> np.ndarray:
    try:
        return np.asarray(values)
    except ValueError as error:
        raise DataError(f"`{name}` is no array: {error}", fix="give rows of equal length") from error


def _require_all(name: str, good: np.ndarray, problem: str) -> None:
    if not good.all():
        row = int(np.argmin(good.reshape(len(good), -1).all(axis=1)))
        raise DataError(f"`{name}` holds values that {problem}, first in row {row}.", fix="correct or drop such rows")


def _require_least(argument: str, value: int, least: int) -> None:
    if value < least:
        raise ConfigError(f"`{argument}` must be at least {least}. Received: {value}.")
