"""Rows as requests of limited size, and their answers put together again."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from tfctr.serving.wire import protocol
from tfctr.serving.wire.rows import slices
from tfctr.serving.wire.types import Column, TensorSpecs


def in_batches(columns: Mapping[str, Column], max_rows: int, max_bytes: int) -> Iterator[tuple[bytes, int]]:
    """The rows in parts within the limits, at least one row each: pairs of packed columns and how many rows they are."""
    rows = len(next(iter(columns.values())))
    if 0 < rows <= max_rows and len(packed := protocol.pack(columns)) <= max_bytes:
        yield packed, rows
        return
    for part in slices(columns, max_rows, max_bytes):
        yield protocol.pack({name: column[part] for name, column in columns.items()}), part.stop - part.start


def joined(answers: Sequence[Mapping[str, np.ndarray]], outputs: TensorSpecs) -> dict[str, np.ndarray]:
    """The `outputs` of several answers as those of one; without an answer, arrays without rows."""
    if not answers:
        return {name: np.zeros((0, *(size or 0 for size in shape[1:])), dtype) for name, (dtype, shape) in outputs.items()}
    return {name: np.concatenate([answer[name] for answer in answers]) for name in outputs}
