"""Intervals of near equal counts over values that may repeat, from sorted distinct values that need not fit into memory.

As many intervals as asked, or as there are distinct values. First the frequent values: the most frequent one that has no less
than an equal share of what is left gets an interval alone, and so on, each with one interval less to share. Between them lie
runs of other values, and each run gets one interval; the rest go one by one to the run with the most rows an interval. Where
that would be more than asked, the least frequent of the frequent values go back into the runs. In a run each edge is the one
that is nearest to an equal share of what is left of the run, the lower one of two.
"""

import dataclasses
import heapq
from collections.abc import Iterable, Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class Run:
    """Neighbouring values that share `buckets` intervals; `end` and `below_end`: how many distinct values and rows lie before
    its end, from the least value of all on."""

    end: int
    below_end: int
    buckets: int


def plan(values: np.ndarray, counts: np.ndarray, batches: Iterable[tuple[np.ndarray, np.ndarray]], buckets: int) -> list[Run]:
    """How many intervals each run of values gets: a list of `Run`, ascending.

    Args:
        values, counts: the most frequent values, the most frequent one first; as many as `buckets`, or all.
        batches: (values, counts) of all distinct values, ascending.
        buckets: intervals to make, at least 1.

    >>> everything = [(np.array([0.0, 1.0, 2.0, 3.0]), np.array([7, 1, 1, 1]))]
    >>> plan(np.array([0.0, 1.0, 2.0]), np.array([7, 1, 1]), everything, 3)
    [Run(end=1, below_end=7, buckets=1), Run(end=4, below_end=10, buckets=2)]
    """
    order = np.argsort(values)
    ascending = values[order]
    indices = np.empty(len(values), np.int64)
    belows = np.empty(len(values), np.int64)
    distinct = 0
    rows = 0
    for batch, count in batches:
        here = order[np.searchsorted(ascending, batch[0]) : np.searchsorted(ascending, batch[-1], side="right")]
        at = np.searchsorted(batch, values[here])
        indices[here] = distinct + at
        belows[here] = rows + (np.cumsum(count) - count)[at]
        distinct += len(batch)
        rows += int(count.sum())
    buckets = min(buckets, distinct)
    alone = _frequent(counts, rows, buckets)
    while len(runs := _runs(indices[:alone], belows[:alone], counts[:alone], distinct, rows)) > buckets:
        alone -= 1  # without any there is one run
    return _shared(runs, buckets)


def _frequent(counts: np.ndarray, rows: int, buckets: int) -> int:
    """How many of the most frequent values have no less than an equal share of what the ones before leave."""
    frequent = 0
    while frequent < min(len(counts), buckets) and counts[frequent] * (buckets - frequent) >= rows > 0:
        rows -= int(counts[frequent])
        frequent += 1
    return frequent


def _runs(
    indices: np.ndarray, belows: np.ndarray, counts: np.ndarray, distinct: int, rows: int
) -> list[tuple[int, int, int, int, bool]]:
    """(end, below its end, distinct values, rows, whether it is one frequent value) of each run, ascending."""
    runs = []
    start = 0
    below = 0
    for at in np.argsort(indices):
        index = int(indices[at])
        before = int(belows[at])
        count = int(counts[at])
        if index > start:
            runs.append((index, before, index - start, before - below, False))
        runs.append((index + 1, before + count, 1, count, True))
        start = index + 1
        below = before + count
    if distinct > start:
        runs.append((distinct, rows, distinct - start, rows - below, False))
    return runs


def _shared(runs: Sequence[tuple[int, int, int, int, bool]], buckets: int) -> list[Run]:
    shares = [1] * len(runs)
    heap: list[tuple[float, int]] = [(-rows, at) for at, (_, _, distinct, rows, _) in enumerate(runs) if distinct > 1]
    heapq.heapify(heap)
    for _ in range(buckets - len(runs)):
        at = heapq.heappop(heap)[1]
        shares[at] += 1
        _, _, distinct, rows, _ = runs[at]
        if shares[at] < distinct:
            heapq.heappush(heap, (-rows / shares[at], at))
    return [Run(end, below_end, share) for (end, below_end, *_), share in zip(runs, shares, strict=True)]


def cut(batches: Iterable[tuple[np.ndarray, np.ndarray]], runs: Sequence[Run]) -> list[float]:
    """The edges between the intervals of `runs`, ascending: an edge is the least value of the interval on its right.

    >>> everything = [(np.array([0.0, 1.0, 2.0, 3.0]), np.array([7, 1, 1, 1]))]
    >>> cut(everything, [Run(end=1, below_end=7, buckets=1), Run(end=4, below_end=10, buckets=2)])
    [1.0, 2.0]
    """
    cuts = _Cuts(runs)
    edges = []
    start = 0  # of the batch: the index of its first value,
    rows = 0  # and the rows below that
    last = None  # value and rows below of the value before it
    for values, counts in batches:
        belows = rows + np.cumsum(counts) - counts
        rows += int(counts.sum())
        if last is not None:
            values = np.append(last[0], values)
            belows = np.append(last[1], belows)
            start -= 1
        while (at := cuts.find(start, belows)) is not None:
            edges.append(float(values[at - start]))
        last = (values[-1], belows[-1])
        start += len(values)
    return edges


class _Cuts:
    """Where the next edge lies, one after the other."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self.runs = runs
        self.run = 0
        self.made = 0
        self.index = 0  # this and the next are of the edge before
        self.below = 0

    def find(self, start: int, belows: np.ndarray) -> int | None:
        """The index of the value at the next edge; None while it cannot be told yet, and after the last one.

        Args:
            start: the index of the first value at hand.
            belows: the rows below each value at hand.
        """
        if self.run == len(self.runs):
            return None
        run = self.runs[self.run]
        left = run.buckets - self.made  # intervals from the edge before to the end of the run
        if left == 1 and self.run == len(self.runs) - 1:
            return None
        most = run.end - (left - 1)  # each interval keeps a value
        target = self.below * (left - 1) + run.below_end  # times `left`
        stop = start + len(belows)
        at = start + int(np.searchsorted(belows * left, target))
        if at >= stop and most >= stop:
            return None  # in a later batch
        if start < at < stop and target - belows[at - 1 - start] * left <= belows[at - start] * left - target:
            at -= 1
        at = min(max(at, self.index + 1), most)
        if at >= stop:
            return None
        self.index = at
        self.below = int(belows[at - start])
        self.made += 1
        if left == 1:
            self.run += 1
            self.made = 0
        return at
