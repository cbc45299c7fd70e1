"""The intervals of the Criteo rule against its formula, taken literally."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from kit import prepare_oracle
from kit.prepare_oracle import prepare

from tfctr.data import log2_floor
from tfctr.features import OUT_OF_VOCABULARY, Numeric
from tfctr.schema import Schema


def buckets_through_intervals(values, buckets):
    """What the stored edges say: each value's bucket, or None where it is in none of `buckets`."""
    ids = {bucket: position + 3 for position, bucket in enumerate(buckets)}
    edges, interval_ids = log2_floor.intervals(ids)
    assert edges == sorted(set(edges))
    assert len(interval_ids) == len(edges) + 1
    found = np.asarray(interval_ids)[np.searchsorted(edges, values, side="right")]
    names = {id: bucket for bucket, id in ids.items()} | {OUT_OF_VOCABULARY: None}
    return [names[id] for id in found.tolist()]


def neighbours(x):
    return [math.nextafter(x, -math.inf), x, math.nextafter(x, math.inf)]


def test_by_hand():
    # ln(3)^2 = 1.2, ln(7)^2 = 3.8, ln(1000)^2 = 47.7
    values = [-2.5, -1.0, -0.5, 0.0, 1.5, 2.0, 2.5, 3.0, 7.0, 1000.0]
    assert [log2_floor.bucket(x) for x in values] == [-2, -1, 0, 0, 1, 2, 0, 1, 3, 47]
    assert log2_floor.buckets(np.array(values)).tolist() == [-2, -1, 0, 0, 1, 2, 0, 1, 3, 47]


def test_intervals_equal_the_formula_for_integers_and_floats():
    rng = np.random.default_rng(0)
    integers = list(range(-3000, 20_000)) + [10**power for power in range(5, 300, 7)]
    floats = [*rng.uniform(-50, 50, 20_000), *rng.exponential(1e4, 20_000), *np.exp(rng.uniform(0, 700, 2000))]
    values = np.array([*integers, *floats], np.float64)
    expected = [prepare_oracle.log2_floor(x) for x in values.tolist()]
    assert log2_floor.buckets(values).tolist() == expected
    assert buckets_through_intervals(values, set(expected)) == expected


def test_intervals_equal_the_formula_at_every_end():
    ends = [math.exp(math.sqrt(bucket)) for bucket in range(3000)]
    ends += (
        [float(number) for number in range(-300, 5)]
        + [-(2.0**53) + shift for shift in range(-6, 4)]
        + [1.7e308, -1.7e308, 5e-324]
    )
    values = [x for end in ends for x in neighbours(end) if math.isfinite(x)]
    expected = [prepare_oracle.log2_floor(x) for x in values]
    assert log2_floor.buckets(np.array(values)).tolist() == expected
    assert buckets_through_intervals(values, set(expected)) == expected


def test_what_no_bucket_has_is_out_of_vocabulary():
    values = [-1.0, 0.5, 1.0, 2.0, 2.5, 3.0, 4.2, 6.0, math.inf, -math.inf]
    assert buckets_through_intervals(values, [1, 2]) == [None, None, 1, 2, None, 1, 2, None, None, None]


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=30), st.data())
def test_any_values(values, data):
    expected = [prepare_oracle.log2_floor(x) for x in values]
    known = data.draw(st.sets(st.sampled_from(expected)))
    assert buckets_through_intervals(values, known) == [bucket if bucket in known else None for bucket in expected]


def test_ids_are_ordered_by_count_then_bucket(tmp_path):
    train = {"x": [5, 5, 100, 100, 100, 0, 0, -3, 1], "click": [0, 1] * 4 + [0]}
    schema = Schema([Numeric("x", min_count=2)], label="click")
    dataset = prepare(tmp_path, schema, train=train)
    # ln(5)^2 = 2.6, ln(100)^2 = 21.2: the bucket 21 three times, then 0 and 2 twice each; -3 and 1 are rare
    assert dataset.train.ids[:, 0].tolist() == [5, 5, 3, 3, 3, 4, 4, 2, 2]
    assert dataset.schema.features[0].size == 6
