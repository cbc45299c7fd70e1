"""Recall, by hand and by loops."""

import numpy as np
import pytest

from tfctr import Categorical, Schema
from tfctr.data.split import Split
from tfctr.retrieval.evaluating import Clicks, popularity
from tfctr.retrieval.items import Items

SCHEMA = Schema(features=[Categorical("user", size=6), Categorical("item", size=9)], label="click", group="user")
ITEMS = Items(SCHEMA, ("item",), np.array([[0, 9 + place] for place in range(5)], np.int32))


def split(users, places, labels, name):
    return Split.from_arrays([[3, 9 + place] for place in places], labels, groups=users, name=name)


TRAIN = split([0, 0, 1, 1, 1], [0, 1, 2, 0, 0], [1, 1, 1, 0, 1], "train")
TEST = split([0, 1, 1, 0], [2, 3, 4, 5], [1, 1, 0, 1], "test")  # place 5 is no item
SCORES = np.array([[5.0, 4, 3, 2, 1], [1.0, 2, 3, 3, 3], [0.0] * 5, [0.0] * 5])


def test_recall_by_hand():
    clicks = Clicks(ITEMS, TEST)
    assert (clicks.rows.tolist(), clicks.places.tolist(), clicks.unknown) == ([0, 1], [2, 3], 1)
    # Row 0: 2 items before its own. Row 1: one that is equal, and stands first. The third click is on no item.
    found = clicks.recall(SCORES.__getitem__, (1, 2, 3))
    assert found == {"recall_at_1": 0.0, "recall_at_2": 1 / 3, "recall_at_3": 2 / 3}


def test_what_was_clicked_in_training_is_passed_over():
    # Row 0's user has clicked on 0 and 1. Row 1's on 2 and 0, and item 2 was the one before its own.
    assert Clicks(ITEMS, TEST, TRAIN).recall(SCORES.__getitem__, (1,)) == {"recall_at_1": 2 / 3}


def test_popularity_counts_clicks():
    assert popularity(ITEMS, TRAIN).tolist() == [2, 1, 1, 0, 0]


@pytest.mark.parametrize("passes", [True, False])
def test_against_loops(passes):
    rng = np.random.default_rng(0)
    train, test = (
        split(rng.integers(4, size=rows), rng.integers(6, size=rows), rng.integers(2, size=rows), name)
        for rows, name in ((30, "train"), (3000, "test"))
    )
    scores = rng.integers(4, size=(3000, 5)).astype(float)
    ranks = []
    for row in np.flatnonzero(test.labels):
        own = test.ids[row, 1] - 9
        gone = {
            train.ids[one, 1] - 9 for one in range(30) if passes and train.labels[one] and train.groups[one] == test.groups[row]
        }
        order = [place for place in np.argsort(-scores[row], kind="stable") if place == own or place not in gone]
        ranks.append(order.index(own) if own < 5 else 99)
    expected = {f"recall_at_{k}": np.mean([rank < k for rank in ranks]) for k in (1, 2, 4)}
    assert Clicks(ITEMS, test, train if passes else None).recall(scores.__getitem__, (1, 2, 4)) == pytest.approx(expected)
