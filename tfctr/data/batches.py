"""Batches of rows that come one after the other, and the part of each that one worker reads."""

import collections
import concurrent.futures
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

if TYPE_CHECKING:
    import tensorflow as tf

# So many rows, one after the other, and what reads the columns of those from `start` to `stop`.
Source: TypeAlias = tuple[int, Callable[[int, int], list[np.ndarray]]]


@dataclasses.dataclass
class Place:
    """Where the next iteration over the batches of a split begins.

    Args:
        number: batches an epoch.
        order: what the order of an epoch follows from, besides its number.
        epoch: of the next iteration.
        passed: its first batches that were trained on before: zeros stand for them, which nobody trains on.
    """

    number: int
    order: dict[str, int | None]
    epoch: int = 0
    passed: int = 0


def part_of(start: int, stop: int, index: int, parts: int) -> tuple[int, int]:
    """The rows of one of so many parts, as `tf.distribute` divides a batch: equally many, of which the last have what is left.

    >>> [part_of(0, 5, index, 4) for index in range(4)]
    [(0, 2), (2, 4), (4, 5), (5, 5)]
    """
    rows = -(-(stop - start) // parts)
    return min(start + index * rows, stop), min(start + (index + 1) * rows, stop)


def cut(sources: Iterator[Source], ranges: Sequence[tuple[int, int]]) -> Iterator[tuple[np.ndarray, ...]]:
    """The rows of each range, which ascend, of those of all sources one after the other; other rows are not read."""
    begin = end = 0
    read: Callable[[int, int], list[np.ndarray]] | None = None
    for start, stop in ranges:
        pieces: list[list[np.ndarray]] = []
        while read is None or not pieces or start < stop:
            if read is None or (start >= end and start < stop):
                rows, read = next(sources)
                begin, end = end, end + rows
                continue
            upto = min(stop, end)
            pieces.append(read(min(start, end) - begin, upto - begin))
            start = upto
        yield tuple(pieces[0] if len(pieces) == 1 else map(np.concatenate, zip(*pieces, strict=True)))


def to_tensorflow(
    batches_of: Callable[[int], Iterable[tuple[np.ndarray, ...]]],
    shapes: Sequence[tuple[int | None, int]],
    place: Place,
) -> "tf.data.Dataset":
    """The batches of `batches_of(epoch)` as a `tf.data.Dataset` that is one epoch further at each whole iteration.

    A batch is asked for by its number, 0 of which begins an iteration: Keras begins some that it drops (one to build the model,
    one after each epoch), and those must not use up an epoch. So nothing may read ahead of the model but `_ahead`.
    """
    import tensorflow as tf  # only here: to prepare or to inspect data does not need it

    batches: Iterator[tuple[np.ndarray, ...]] = iter(())
    types = [np.int32] + [np.float32] * (len(shapes) - 1)
    zeros = tuple(np.zeros((rows or 1, width), type) for (rows, width), type in zip(shapes, types, strict=True))

    def batch(step: np.int64) -> tuple[np.ndarray, ...]:
        nonlocal batches
        if step == 0:
            batches = _ahead(batches_of(place.epoch))
        passed = step < place.passed
        if step == place.number - 1:
            place.epoch, place.passed = place.epoch + 1, 0
        return zeros if passed else next(batches)

    def shaped(step: tf.Tensor) -> tuple[tf.Tensor, ...]:
        columns = tf.numpy_function(batch, [step], types)
        return tuple(tf.ensure_shape(column, shape) for column, shape in zip(columns, shapes, strict=True))

    options = tf.data.Options()
    options.autotune.enabled = False  # nothing here is tuned, and the end of an epoch may wait for the sleeping tuner
    options.experimental_optimization.apply_default_optimizations = False
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return tf.data.Dataset.range(place.number).map(shaped).with_options(options)


_AHEAD = 2  # batches that are made while the model trains


def _ahead(batches: Iterable[tuple[np.ndarray, ...]]) -> Iterator[tuple[np.ndarray, ...]]:
    """The same batches, some of them made ahead by a thread, one at a time."""
    batches = iter(batches)
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        waiting = collections.deque(thread.submit(next, batches, None) for _ in range(_AHEAD))
        while (batch := waiting.popleft().result()) is not None:
            waiting.append(thread.submit(next, batches, None))
            yield batch
