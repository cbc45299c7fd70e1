"""Recall: how often the item that was clicked is among the first K of all."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tfctr.data.dataset import Dataset
from tfctr.data.split import SPLITS, Split
from tfctr.errors import DataError, choose, require, require_count
from tfctr.retrieval.items import Items
from tfctr.retrieval.retriever import Retriever, load_retriever
from tfctr.types import StrPath

_BATCH = 1024  # rows whose scores of all items are held at a time


class Clicks:
    """The clicks of a split on items that are known, and what the same users have clicked on in training.

    Args:
        items: an `Items`.
        split: the rows; those without a click are left out.
        training: whose clicks are no candidates any more for the same group, in a split of the same `prepare`; None for all
            items as candidates.

    Attributes:
        rows, places: int64 `(clicks,)`: the number of each row, and the place of its item.
        unknown: clicks on items that the training table does not have.
    """

    def __init__(self, items: Items, split: Split, training: Split | None = None) -> None:
        self.rows, self.places = items.clicks(split)
        self.unknown = int(np.count_nonzero(split.labels > 0)) - len(self.rows)
        self._groups: np.ndarray | None = None
        if training is not None and training.groups is not None and split.groups is not None:
            earlier, found = items.clicks(training)
            users = training.groups[earlier]
            order = np.argsort(users, kind="stable")
            self._groups, self._clicked = users[order], found[order]
            self._users = split.groups[self.rows]

    def recall(self, score: Callable[[np.ndarray], np.ndarray], ks: Sequence[int]) -> dict[str, float]:
        """The share of the clicks whose item is among the first K; one on an unknown item is not.

        Args:
            score: from the numbers of rows to their scores of all items, float `(rows, items)`; of equal ones the first wins.
            ks: whole numbers.
        """
        before = np.concatenate([self._before(score, start) for start in range(0, len(self.rows), _BATCH)])
        clicks = len(self.rows) + self.unknown
        return {f"recall_at_{k}": float((before < k).sum() / clicks) for k in ks}

    def _before(self, score, start):
        """How many items stand before the clicked one, for each row of a batch."""
        places = self.places[start : start + _BATCH, None]
        scores = np.array(score(self.rows[start : start + _BATCH]), np.float64)
        own = np.take_along_axis(scores, places, axis=1)
        ahead = (scores > own) | ((scores == own) & (np.arange(scores.shape[1]) < places))
        if self._groups is not None:
            users = self._users[start : start + _BATCH]
            begins, ends = (np.searchsorted(self._groups, users, side) for side in ("left", "right"))
            for row, (begin, end) in enumerate(zip(begins, ends, strict=True)):
                ahead[row, self._clicked[begin:end]] = False
        return ahead.sum(axis=1)


def popularity(items: Items, training: Split) -> np.ndarray:
    """The clicks on each item in training: float64 `(items,)`."""
    _, places = items.clicks(training)
    return np.bincount(places, minlength=len(items)).astype(np.float64)


def evaluate(
    retriever: Retriever | StrPath,
    split: str = "test",
    *,
    ks: Sequence[int] = (10, 50),
    all_items: bool = False,
    data: StrPath | None = None,
) -> dict[str, Any]:
    """The recall of a retriever on the clicks of a split, and that of the most clicked items for everybody.

    `recall_at_k` is the share of clicks whose item is among the first K for their row. What the row's group, the schema's, has
    clicked on in training is passed over, but for the item itself.

    Args:
        retriever: a `Retriever`, or its folder.
        split: `"test"`, `"valid"` or `"train"`.
        ks: the K.
        all_items: pass over nothing; so it is, too, where the schema has no group, and on training rows.
        data: the prepared dataset, if it has moved.

    Returns:
        `recall_at_...` and `popularity_recall_at_...` of each K, `clicks`, those on `unknown` items among them, the number of
        `items`, and whether clicked ones were `passed_over`.

    Raises:
        ConfigError: no such split, or a K out of range.
        DataError: the split has no click on a known item.
        StorageError: the dataset is missing, or not that of the retriever.
    """
    found = retriever if isinstance(retriever, Retriever) else load_retriever(retriever)
    choose(SPLITS, split, "split")
    for k in ks:
        require_count("ks", k, most=len(found.items))
    dataset = Dataset.load(data or found.data)
    found.schema.require_fit(dataset.schema.digest, str(dataset.folder), "give the dataset that it was trained on")
    rows, training = getattr(dataset, split), dataset.train
    passes = not all_items and split != "train" and dataset.schema.group is not None and not dataset.is_encoded
    clicks = Clicks(found.items, rows, training if passes else None)
    problem = f"the {split} split has no click on a known item."
    require(len(clicks.rows), problem, fix="evaluate on a split with clicks", error=DataError)
    vectors, counts = found.item_vectors().T, popularity(found.items, training)
    recall = clicks.recall(lambda numbers: found.user_vectors(rows.ids_of(numbers)) @ vectors, ks)
    frequent = clicks.recall(lambda numbers: np.broadcast_to(counts, (len(numbers), len(counts))), ks)
    return {
        **recall,
        **{f"popularity_{name}": value for name, value in frequent.items()},
        "clicks": len(clicks.rows) + clicks.unknown,
        "unknown": clicks.unknown,
        "items": len(found.items),
        "passed_over": passes,
    }
