"""Variables as they are as a whole, whose rows may lie in parts on several parameter servers."""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfctr.models import CTRModel
from tfctr.models._graph import embeddings_of
from tfctr.optimizers import unwrap_loss_scaling
from tfctr.replicas import resource
from tfctr.training.warm import slots_of

_BLOCK = 2**16  # rows that are in memory at a time


@dataclasses.dataclass(frozen=True)
class Whole:
    """A table, which is read and written by blocks of rows, or any other variable, which is one block.

    Args:
        parts: a table's consecutive rows.
        is_table: whether it is one, or has the shape of one.
    """

    parts: Sequence[keras.Variable]
    is_table: bool

    @property
    def rows(self) -> int:
        """Of all parts."""
        return sum(part.shape[0] for part in self.parts)

    @property
    def blocks(self) -> int:
        """How many `read` gives; they do not depend on the number of parts."""
        return -(-self.rows // _BLOCK) if self.is_table else 1

    def read(self) -> Iterator[np.ndarray]:
        """Its blocks, one after the other."""
        if not self.is_table:
            yield np.asarray(self.parts[0].value.numpy())
            return
        for start in range(0, self.rows, _BLOCK):
            found = [part.sparse_read(rows).numpy() for part, rows in self._within(start, start + _BLOCK)]
            yield found[0] if len(found) == 1 else np.concatenate(found)

    def write(self, blocks: Iterable[np.ndarray]) -> None:
        """Set it to what `read` gave, of any division into parts."""
        if not self.is_table:
            self.parts[0].assign(next(iter(blocks)))
            return
        start = 0
        for block in blocks:
            for part, rows in self._within(start, start + len(block)):
                part.scatter_update(tf.IndexedSlices(block[: len(rows)], rows))
                block = block[len(rows) :]
                start += len(rows)

    def _within(self, start: int, stop: int) -> Iterator[tuple[Any, np.ndarray]]:
        """Each part that has some of these rows, and which of its own those are."""
        for part in self.parts:
            size = part.shape[0]
            if start < size and stop > 0:
                yield resource(part), np.arange(max(start, 0), min(stop, size))
            start, stop = start - size, stop - size


def weights_of(model: CTRModel) -> list[Whole]:
    """The weights, and the states of random generators, in an order that does not depend on how tables are divided."""
    tables = {id(layer.tables[0]): layer.tables for layer in embeddings_of(model)}
    others = {id(part) for parts in tables.values() for part in parts[1:]}
    variables = [variable for variable in model.variables if id(variable) not in others]
    return [Whole(tables.get(id(variable), [variable]), id(variable) in tables) for variable in variables]


def moments_of(model: CTRModel) -> list[Whole]:
    """What the optimizer of a model keeps of each of these weights."""
    optimizer = unwrap_loss_scaling(model.optimizer)
    slots = {id(weight): kept for weight, kept in zip(optimizer._trainable_variables, slots_of(optimizer), strict=True)}
    return [
        Whole([slots[id(part)][name] for part in whole.parts], whole.is_table)
        for whole in weights_of(model)
        for name in sorted(slots.get(id(whole.parts[0]), ()))
    ]
