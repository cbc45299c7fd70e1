"""Edges of `"quantile"` over values that repeat: as many intervals as asked, frequent values alone, whatever the order."""

import collections

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from kit.prepare_oracle import _quantiles, prepare, quantile_runs

from tfctr.data import quantiles
from tfctr.features import DEFAULT_BUCKETS, Numeric
from tfctr.schema import Schema


def edges_of(counts, buckets, batch=10**6):
    """What `prepare` makes of `{value: rows}` that come in batches of so many distinct values."""
    top = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:buckets]
    ascending = sorted(counts.items())
    batches = [ascending[start : start + batch] for start in range(0, len(ascending), batch)]
    batches = [(np.array([v for v, _ in part], float), np.array([c for _, c in part])) for part in batches]
    values, rows = np.array([value for value, _ in top], float), np.array([count for _, count in top], np.int64)
    return quantiles.cut(batches, quantiles.plan(values, rows, batches, buckets))


COUNTS = st.dictionaries(st.integers(-20, 20), st.integers(1, 5) | st.integers(1, 500), max_size=30)


@given(COUNTS, st.integers(1, 35), st.integers(1, 40))
@example({0: 1, 1: 9, 2: 1}, 2, 1)  # three runs, two intervals
@example({0: 900, **dict.fromkeys(range(1, 31), 1)}, 10, 3)  # the least value is the frequent one
@example({30: 900, **dict.fromkeys(range(30), 1)}, 10, 3)  # the greatest
@settings(max_examples=300)
def test_edges_against_the_oracle(counts, buckets, batch):
    edges = edges_of(counts, buckets, batch)
    assert edges == _quantiles(sorted(collections.Counter(counts).elements()), buckets)
    assert len(edges) + 1 == max(1, min(buckets, len(counts)))
    assert all(edge in counts and edge > min(counts) for edge in edges)
    assert edges == sorted(set(edges))


@given(COUNTS, st.integers(1, 35))
def test_a_value_with_an_equal_share_of_all_rows_is_alone(counts, buckets):
    rows, edges = sum(counts.values()), edges_of(counts, buckets)
    frequent = {value for value, count in counts.items() if count * min(buckets, len(counts)) >= rows}
    runs = sum(value not in frequent and (before is None or before in frequent) for before, value in _pairs(sorted(counts)))
    if len(frequent) + runs <= buckets:
        intervals = collections.Counter(np.searchsorted(edges, value, side="right") for value in counts)
        assert all(intervals[np.searchsorted(edges, value, side="right")] == 1 for value in frequent)


def _pairs(values):
    return zip([None, *values], values, strict=False)


@given(st.integers(1, 300), st.integers(1, 40))
def test_values_without_repetition_share_equally(rows, buckets):
    edges = edges_of(dict.fromkeys(range(rows), 1), buckets)
    sizes = np.diff([0, *edges, rows])
    assert sizes.max() - sizes.min() <= 1


def test_half_of_the_rows_at_zero(tmp_path, caplog):
    # Ranks alone gave 6 of 10 intervals here: four edges fell on the zero.
    values = [0.0, -0.0] * 50 + [float(number) for number in range(1, 101)]
    table = {"x": values, "y": [1.5, 2.5] * 100, "click": [0, 0, 1, 1] * 50}
    schema = Schema([Numeric("x", "quantile", buckets=10), Numeric("y", "quantile")], label="click")
    with caplog.at_level("INFO", "tfctr"):
        dataset = prepare(tmp_path, schema, train=table)
    x, y = dataset.schema.features
    # 100 rows for nine: 11.1 -> 11, then 89 / 8 = 11.1 -> 11, ... and 12 for the last one
    assert x.edges == tuple(float(edge) for edge in (1, 12, 23, 34, 45, 56, 67, 78, 89))
    assert (y.buckets, y.edges) == (DEFAULT_BUCKETS, (2.5,))
    assert caplog.messages == [
        f"column 'y': 2 of the {DEFAULT_BUCKETS} buckets asked for, since it has no more distinct values"
    ]


@pytest.mark.parametrize("threads", [1, 3])
def test_neither_order_nor_threads_matter(tmp_path, threads):
    rng = np.random.default_rng(0)
    values = np.round(rng.exponential(2, 5000), 1)
    expected = tuple(_quantiles(sorted(values.tolist()), 30))
    for seed in range(2):
        order = np.random.default_rng(seed).permutation(5000)
        table = {"x": values[order], "click": np.arange(5000) % 2}
        schema = Schema([Numeric("x", "quantile", buckets=30)], label="click")
        assert prepare(tmp_path, schema, train=table, threads=threads).schema.features[0].edges == expected


def test_the_oracle_by_hand():
    # 6 of 10 rows are no less than a third: alone. Half of the other 4 is no value's share: two runs, with one interval each.
    assert quantile_runs({1: 1, 2: 6, 3: 1, 4: 1, 5: 1}, 3) == [[[1], 1, False], [[2], 1, True], [[3, 4, 5], 1, False]]
