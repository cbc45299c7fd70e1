"""`View`: some rows of a split, or other values in some of its columns, beside the same in NumPy."""

import numpy as np
import pytest

from tfctr.data.split import Split
from tfctr.data.view import View

ROWS, WIDTH = 40, 5
IDS = np.arange(ROWS * WIDTH, dtype=np.int32).reshape(ROWS, WIDTH)
LABELS = (np.arange(ROWS) % 3 == 0).astype(np.float32)
WEIGHTS = np.linspace(0, 1, ROWS, dtype=np.float32)
GROUPS = np.arange(ROWS) // 7
CHOSEN = np.array([0, 3, 12, 13, 14, 29, 39])


def split_of(shards):
    return Split("valid", np.array_split(IDS, shards), LABELS, GROUPS, WEIGHTS, digest="a")


def batches(split, size=4):
    return [np.concatenate(parts) for parts in zip(*split.batches(size, shuffle=False).as_numpy_iterator(), strict=True)]


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("rows", [None, CHOSEN], ids=["all", "some"])
def test_a_view_is_what_numpy_makes_of_the_arrays(shards, rows):
    chosen = np.arange(ROWS) if rows is None else rows
    view = View(split_of(shards), rows)
    assert (view.rows, view.width, view.digest, view.name) == (len(chosen), WIDTH, "a", "valid")
    for found, whole in zip(batches(view), (IDS, LABELS[:, None], WEIGHTS[:, None]), strict=True):
        np.testing.assert_array_equal(found, whole[chosen])
    np.testing.assert_array_equal(view.groups, GROUPS[chosen])
    np.testing.assert_array_equal(view.column(slice(1, 3)), IDS[chosen, 1:3])
    values = view.column(slice(1, 3))[::-1]
    expected = IDS[chosen].copy()
    expected[:, 1:3] = values
    other = view.with_column(slice(1, 3), values)
    np.testing.assert_array_equal(batches(other)[0], expected)
    np.testing.assert_array_equal(other.ids_of(np.array([1, 2, 5])), expected[[1, 2, 5]])
    np.testing.assert_array_equal(view.ids, IDS[chosen])  # which is as it was
    np.testing.assert_array_equal(split_of(shards).ids, IDS)


def test_a_view_of_a_view_and_of_rows_without_labels():
    inner = View(View(split_of(2), CHOSEN), np.array([0, 2, 6]), digest="b")
    np.testing.assert_array_equal(inner.ids, IDS[[0, 12, 39]])
    np.testing.assert_array_equal(inner.labels, LABELS[[0, 12, 39]])
    assert inner.digest == "b"
    assert not View(Split("test", [IDS], None), CHOSEN).has_labels
