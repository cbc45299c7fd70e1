"""Every row is seen once an epoch, in an order that (seed, epoch) decides."""

import itertools
import subprocess
import sys
import textwrap
import tracemalloc
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfctr.data import Split
from tfctr.data import split as module
from tfctr.data.batches import cut, part_of
from tfctr.errors import ConfigError, DataError

COLUMNS = 3


def numbered(rows, weights=False, name="train", shards=1):
    """A split whose row r holds the ids 3r, 3r + 1, 3r + 2, the label r % 2 and the weight r / 8."""
    ids = np.arange(COLUMNS * rows, dtype=np.int32).reshape(rows, COLUMNS)
    labels = (np.arange(rows) % 2).astype(np.float32)
    split = Split.from_arrays(ids, labels, weights=np.arange(rows) / 8 if weights else None, name=name)
    split._shards = np.array_split(ids, shards)
    split._begins = np.cumsum([0] + [len(shard) for shard in split._shards[:-1]]).tolist()
    return split


def rows_of(batches):
    """The row numbers of one iteration, batch by batch; checks that each row kept its own values."""
    result = []
    for ids, labels, *weights in batches.as_numpy_iterator():
        rows = ids[:, 0] // COLUMNS
        np.testing.assert_array_equal(ids, COLUMNS * rows[:, None] + np.arange(COLUMNS))
        np.testing.assert_array_equal(labels, (rows % 2)[:, None])
        for values in weights:
            np.testing.assert_array_equal(values, (rows / 8)[:, None].astype(np.float32))
        result.append(rows.tolist())
    return result


def flat(batches):
    return list(itertools.chain.from_iterable(batches))


@pytest.fixture(params=["in memory", "in blocks"])
def make_split(request, monkeypatch):
    """`numbered`, shuffled in memory or in windows of 3 blocks of 5 rows that cross the shards."""
    if request.param == "in memory":
        return numbered
    monkeypatch.setattr(module, "BLOCK_BYTES", 5 * 4 * COLUMNS)
    monkeypatch.setattr(module, "WINDOW_BLOCKS", 3)

    def make(rows, **arguments):
        split = numbered(rows, shards=4, **arguments)
        split.memory_limit = 0
        return split

    return make


# batches


@pytest.mark.parametrize("weights", [False, True])
def test_batches_have_static_shapes(weights):
    batches = numbered(10, weights=weights).batches(4)
    assert [(spec.shape.as_list(), spec.dtype.name) for spec in batches.element_spec] == [
        ([None, COLUMNS], "int32"),
        *[([None, 1], "float32")] * (1 + weights),
    ]
    assert len(batches) == 3
    dropped = numbered(10).batches(4, drop_remainder=True)
    assert [spec.shape.as_list() for spec in dropped.element_spec] == [[4, COLUMNS], [4, 1]]
    assert len(dropped) == 2


def test_without_shuffle_the_order_is_that_of_the_rows(make_split):
    split = make_split(11, weights=True, name="valid")
    assert rows_of(split.batches(4)) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10]]
    assert rows_of(split.batches(4, drop_remainder=True)) == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_an_epoch_holds_every_row_once(make_split):
    split = make_split(53, weights=True)
    batches = rows_of(split.batches(4))
    assert [len(batch) for batch in batches] == [4] * 13 + [1]
    assert Counter(flat(batches)) == Counter(range(53))
    dropped = rows_of(split.batches(4, drop_remainder=True))
    assert dropped == batches[:-1]


def test_only_train_is_shuffled_by_default():
    assert rows_of(numbered(50, name="train").batches(50)) != [list(range(50))]
    assert rows_of(numbered(50, name="test").batches(50)) == [list(range(50))]
    assert rows_of(numbered(50, name="train").batches(50, shuffle=False)) == [list(range(50))]


def test_order_is_a_function_of_seed_and_epoch(make_split):
    first, second = make_split(53).batches(4, seed=7), make_split(53).batches(4, seed=7)
    epochs = [rows_of(first) for _ in range(3)]
    assert [rows_of(second) for _ in range(3)] == epochs
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]
    assert rows_of(make_split(53).batches(4, seed=8)) not in epochs
    # a run that resumes at epoch 2, and the batch size does not change the order
    assert rows_of(make_split(53).batches(4, seed=7, first_epoch=2)) == epochs[2]
    assert flat(rows_of(make_split(53).batches(9, seed=7, first_epoch=2))) == flat(epochs[2])


@pytest.mark.parametrize("rows", [2, 9, 53])
def test_an_iteration_that_is_left_does_not_count(make_split, rows):
    expected = make_split(rows).batches(4)
    expected = [rows_of(expected) for _ in range(3)]
    batches = make_split(rows).batches(4)
    seen = []
    for _ in range(3):
        if rows > 4:  # else the first batch is the last
            for _ in batches.take(1):
                pass
        iter(batches)
        seen.append(rows_of(batches))
    assert seen == expected


def test_blocks_are_mixed_within_a_window_only(monkeypatch):
    monkeypatch.setattr(module, "BLOCK_BYTES", 10 * 4 * COLUMNS)
    monkeypatch.setattr(module, "WINDOW_BLOCKS", 4)
    split = numbered(400)
    split.memory_limit = 0
    order = np.concatenate(rows_of(split.batches(7)))
    windows = order.reshape(10, 40) // 10
    assert all(len(set(window)) == 4 for window in windows)  # whole blocks
    assert any(np.ptp(list(set(window))) > 8 for window in windows)  # from all over the split
    assert all(np.count_nonzero(np.diff(window)) > 15 for window in windows)  # mixed


def test_shuffle_in_memory_is_uniform():
    # chi-square of the place of row 0 over 400 epochs and 4 places: mean 3, 99.9th percentile 16.3
    split = numbered(4)
    orders = [next(split._epoch([(0, 4)], epoch, seed=0))[0][:, 0].tolist() for epoch in range(400)]
    places = Counter(order.index(0) for order in orders)
    assert sum((places[place] - 100) ** 2 / 100 for place in range(4)) < 16.3


@given(
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=8),
    size=st.integers(1, 9),
    start=st.integers(0, 20),
    length=st.integers(1, 20),
)
def test_cut_and_read_keep_every_row(lengths, size, start, length):
    edges = np.cumsum([0, *lengths])
    sources = ((b - a, lambda start, stop, a=a: [np.arange(a + start, a + stop)]) for a, b in itertools.pairwise(edges))
    ranges = [(first, min(first + size, edges[-1])) for first in range(0, edges[-1], size)]
    batches = [batch.tolist() for (batch,) in cut(sources, ranges)]
    assert flat(batches) == list(range(edges[-1]))
    assert all(len(batch) == size for batch in batches[:-1])
    split = numbered(int(edges[-1]), shards=len(lengths))
    expected = list(range(edges[-1]))[start : start + length]
    if expected:
        assert (split._read(start, start + length)[:, 0] // COLUMNS).tolist() == expected


def test_ids_of_several_files_are_held_once():
    shards = [np.full((50_000, 10), part, np.int32) for part in range(4)]
    split = Split("train", shards, np.zeros(200_000, np.float32))
    tracemalloc.start()
    next(iter(split.batches(1000)))
    held, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    ids = 4 * 200_000 * 10
    assert ids < held <= most < 1.5 * ids


def test_no_tuner_is_waited_for():
    """Its thread sleeps ever longer, and what ends an iteration waits for it: up to the length of the epoch once more."""
    assert numbered(10).batches(4).options().autotune.enabled is False


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "`batch_size` must be at least 1"),
        ({"batch_size": 4, "seed": -1}, "`seed` must be at least 0"),
        ({"batch_size": 4, "first_epoch": -1}, "`first_epoch` must be at least 0"),
        ({"batch_size": 20, "drop_remainder": True}, "10 rows, fewer than one batch of 20"),
    ],
)
def test_impossible_batches_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        numbered(10).batches(**arguments)


# under Keras


def test_keras_fit_sees_one_epoch_after_the_other():
    import keras

    seen = []

    class Recorder(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(1)

        def call(self, ids):
            return self.dense(keras.ops.cast(ids, "float32"))

        def train_step(self, data):
            seen[-1].append((data[0].numpy()[:, 0] // COLUMNS).tolist())
            return super().train_step(data)

    model = Recorder()  # not built: Keras takes a batch to build it
    model.compile(loss="mse", metrics=["mse"], run_eagerly=True)
    valid = numbered(5, name="valid").batches(4)
    start = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: seen.append([]))
    model.fit(numbered(9).batches(4, seed=3), epochs=3, validation_data=valid, callbacks=[start], shuffle=False, verbose=0)
    expected = numbered(9).batches(4, seed=3)
    assert seen == [rows_of(expected) for _ in range(3)]


@given(rows=st.integers(1, 40), size=st.integers(1, 12), parts=st.integers(1, 5), seed=st.sampled_from([None, 3]))
def test_parts_of_all_workers_are_the_batches(rows, size, parts, seed):
    """Together; and each worker reads its own rows only, however few are left for the last."""
    split = numbered(rows, shards=min(rows, 3))
    batches = [(start, min(start + size, rows)) for start in range(0, rows, size)]
    for memory_limit in (1 << 30, 0):
        split.memory_limit = memory_limit
        whole = [ids.tolist() for ids, _ in split._epoch(batches, 2, seed)]
        own = [split._epoch([part_of(*batch, index, parts) for batch in batches], 2, seed) for index in range(parts)]
        shared = [[ids.tolist() for ids, _ in batches] for batches in own]
        assert [flat(each) for each in zip(*shared, strict=True)] == whole


def test_a_worker_gets_its_part_of_each_batch(make_split):
    whole = rows_of(make_split(23).batches(7, seed=3))
    left, right = (rows_of(make_split(23).batches(7, seed=3).part(index, 2)) for index in range(2))
    assert [[*a, *b] for a, b in zip(left, right, strict=True)] == whole
    assert [len(part) for part in right] == [3, 3, 3, 1]


@pytest.mark.slow
def test_two_devices_share_each_batch():
    code = """
        import sys
        import numpy as np, tensorflow as tf
        from tfctr.data import Split
        tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0],
            [tf.config.LogicalDeviceConfiguration()] * 2)
        strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
        ids = np.arange(20, dtype=np.int32).reshape(20, 1)
        make = lambda: Split.from_arrays(ids, np.zeros(20)).batches(8, seed=3)
        plain, shared = make(), strategy.experimental_distribute_dataset(make())
        for epoch in range(2):
            expected = [batch[0].numpy()[:, 0].tolist() for batch in plain]
            parts = [strategy.experimental_local_results(batch[0]) for batch in shared]
            halves = [[part.numpy()[:, 0].tolist() for part in pair] for pair in parts]
            assert [left + right for left, right in halves] == expected, (epoch, halves, expected)
            assert [len(left) for left, _ in halves] == [4, 4, 2], halves
    """
    subprocess.run([sys.executable, "-W", "ignore", "-c", textwrap.dedent(code)], check=True, timeout=120)


# arrays


def test_from_arrays_converts_types():
    split = Split.from_arrays([[3, 4], [5, 6]], [True, False], groups=["b", "a"], weights=[1, 2])
    columns = (split.ids, split.labels, split.groups, split.weights)
    assert [column.dtype.name for column in columns] == ["int32", "float32", "int64", "float32"]
    assert (split.groups.tolist(), split.labels.tolist(), split.rows, split.width) == ([1, 0], [1.0, 0.0], 2, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ids": [[1.5]]}, "`ids` has the shape .* float64"),
        ({"ids": [1, 2]}, "`ids` has the shape"),
        ({"ids": np.zeros((0, 3), int), "labels": []}, "`ids` has the shape"),
        ({"ids": [[2**31]]}, "`ids` holds values that do not fit int32, first in row 0"),
        ({"labels": [0, 1]}, "`labels` has the shape"),
        ({"labels": [2]}, "`labels` holds values that are neither 0 nor 1, first in row 0"),
        ({"labels": [np.nan]}, "neither 0 nor 1"),
        ({"groups": [1, 2]}, "`groups` has the shape"),
        ({"weights": [-1]}, "`weights` holds values that are negative or not finite"),
        ({"weights": [np.inf]}, "negative or not finite"),
        ({"weights": [1e300]}, "negative or not finite"),  # in float32
        ({"weights": ["1"]}, "`weights` has the type <U1"),
        ({"weights": np.array([None], object)}, "`weights` has the type object"),
        ({"groups": [np.nan]}, "`groups` holds values that are missing, first in row 0"),
        ({"labels": None}, r"`labels` has the shape \(\)"),
        ({"ids": [[True]]}, "`ids` has the shape .* bool"),
        ({"ids": np.array([[2**63]], "uint64")}, "`ids` holds values that do not fit int32"),
        ({"ids": [[1], [2, 3]]}, "`ids` is no array"),
    ],
)
def test_impossible_arrays_are_refused(arguments, message):
    with pytest.raises(DataError, match=message):
        Split.from_arrays(**{"ids": [[3]], "labels": [1], **arguments})
