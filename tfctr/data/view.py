"""A split seen otherwise: some of its rows, or the values of some columns in another order. Nothing is copied but batches."""

from typing import Self

import numpy as np

from tfctr.data.split import Split


class View(Split):
    """Some rows of a split, in their order.

    Args:
        split: the split, or a view of one.
        rows: the numbers of the rows, ascending; all if None.
        digest: `Schema.digest` of the fit that the ids are known to be of; that of the split if None.

    >>> split = Split.from_arrays(ids=[[3, 8], [4, 7], [2, 9]], labels=[1, 0, 0], name="valid")
    >>> view = View(split, rows=np.array([0, 2]))
    >>> view.ids.tolist(), view.labels.tolist()
    ([[3, 8], [2, 9]], [1.0, 0.0])
    >>> view.with_column(slice(1, 2), np.array([[9], [8]])).ids.tolist()
    [[3, 9], [2, 8]]
    """

    def __init__(self, split: Split, rows: np.ndarray | None = None, digest: str | None = None) -> None:
        columns = (split.labels if split.has_labels else None, split.groups, split.weights)
        chosen = [column if column is None or rows is None else column[rows] for column in columns]
        super().__init__(split.name, split._shards, *chosen, digest=digest or split.digest)
        self.of = split
        self._chosen = rows
        self._replaced: tuple[slice, np.ndarray] | None = None

    @property
    def rows(self) -> int:
        return self.of.rows if self._chosen is None else len(self._chosen)

    def column(self, columns: slice) -> np.ndarray:
        """The ids of a few columns, those of one feature: int32, `(rows, columns)`."""
        values = np.concatenate([shard[:, columns] for shard in self._shards])
        self._release()
        return values if self._chosen is None else values[self._chosen]

    def with_column(self, columns: slice, values: np.ndarray) -> Self:
        """The same rows with other ids, `(rows, columns)`, in a few columns. Of a view that has its split's ids."""
        view = type(self)(self.of, self._chosen, self.digest)
        view._replaced = columns, values
        return view

    def ids_of(self, rows: np.ndarray) -> np.ndarray:
        ids = self.of.ids_of(rows if self._chosen is None else self._chosen[rows])
        if self._replaced is not None:
            columns, values = self._replaced
            ids[:, columns] = values[rows]
        return ids

    def _read(self, start: int, stop: int) -> np.ndarray:
        return self.ids_of(np.arange(start, min(stop, self.rows)))
