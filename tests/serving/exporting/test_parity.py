"""One meaning, two faces: what `prepare` writes for a raw value is what the served graph computes for it, bit for bit."""

import itertools
import math

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from kit.parity_table import COLUMNS, NEAR, SCHEMA, TOKENS, TRAIN, TYPES, table

import tfctr
from tfctr import Categorical, Numeric, Schema, prepare
from tfctr.data.writing import number_ids
from tfctr.models import TF4CTR
from tfctr.serving.exporting.raw_features import RawFeatures
from tfctr.serving.runtime.saved_model import SavedModel
from tfctr.serving.wire.rows import to_arrays


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    dataset = prepare(SCHEMA, train=table(TRAIN), out=tmp_path_factory.mktemp("parity") / "data", threads=1)
    return dataset.schema, RawFeatures(dataset.schema)


def to_online(schema, columns):
    """Raw columns as a client sends them."""
    dtypes = {"string": np.dtype(object), "number": np.dtype(np.float64)}
    inputs = {feature.name: (dtypes[feature.raw_type], (None,)) for feature in schema.features}
    return to_arrays({name: columns[name] for name in inputs}, inputs, ",")


def check_both_faces(fitted, columns, folder):
    schema, raw = fitted
    test = table({**columns, "click": [row % 2 for row in range(len(columns["year"]))]})
    dataset = prepare(SCHEMA, train=table(TRAIN), test=test, out=folder / "data", threads=1)
    assert dataset.schema.to_dict() == schema.to_dict()
    online = raw(to_online(schema, columns))
    for field in schema.fields:
        np.testing.assert_array_equal(dataset.test.ids[:, field.columns], online[:, field.columns], field.feature.name)


def test_both_faces_agree_on_every_trap(fitted, tmp_path):
    ends = ["", "\r", "\n", "\r\n", " ", "\t", "|", "\0"]
    traps = {
        pyarrow.string(): [None, "", "|", " ", "–", "a" * 2**20, *(token + end for token in TOKENS for end in ends)],
        pyarrow.float64(): [None, math.nan, math.inf, -math.inf, -0.0, 1e-39, 3.4e38, 1e39, -1e308, *NEAR, *TRAIN["quantile"]],
        pyarrow.int64(): [None, 1899, 1900, 1914, 1915, -(2**63), 2**63 - 1],
        pyarrow.list_(pyarrow.string()): [None, [], [""], ["a", None, "60"], ["a,60"], ["a\r", "b", "60"]],
    }
    rows = max(map(len, traps.values()))
    columns = {name: list(itertools.islice(itertools.cycle(traps[TYPES[name]]), rows)) for name in COLUMNS}
    check_both_faces(fitted, columns, tmp_path)


LARGEST, SMALLEST = map(float, (np.finfo("float32").max, np.finfo("float32").smallest_normal))
# Of z: the ends of float32, where a number becomes infinite or zero, and one that a division rounds, but its inverse does not.
SPOTS = [0.0, SMALLEST, SMALLEST / 2, 2.0**-149, LARGEST, LARGEST + 2.0**103, 1 / 3, 1.0]


@pytest.mark.parametrize(
    ("mean", "scale"),
    [(0.0, 1.0), (0.1, 3.0), (-1 / 3, 49.0), (1e300, 1e290), (-1e308, 1e308), (2.0**-1022, 3e-162), (1e-310, 3e-162)],
)
def test_scaled_numbers_have_the_same_bits_around_every_trap(mean, scale):
    """3e-162 is about the least scale that `prepare` finds: below it the squares are zero, and the column is constant."""
    rng = np.random.default_rng(0)
    with np.errstate(over="ignore", invalid="ignore"):
        ends = np.array([mean + sign * spot * scale for spot in SPOTS for sign in (1, -1)])
        float32 = mean + scale * rng.integers(0, 2**32, 20_000, np.uint32).view(np.float32).astype(np.float64)
    beside = (ends.view(np.int64)[:, None] + np.arange(-3, 4)).view(np.float64).ravel()
    subnormal = rng.integers(0, 2**52, 2000).view(np.float64)
    anything = rng.integers(-(2**63), 2**63 - 1, 20_000).view(np.float64)
    limits = [np.nan, np.inf, -np.inf, -0.0, 5e-324, 2.0**-1022, np.finfo("float64").max, np.finfo("float64").min]
    values = np.concatenate([beside, float32, subnormal, -subnormal, anything, limits])
    schema = Schema([Numeric("x", "scaled", mean=mean, scale=scale, size=4)], label="click")
    raw = RawFeatures(schema)
    online = tf.function(lambda column: raw({"x": column}))(tf.constant(values))  # a graph: TensorFlow rewrites divisions there
    np.testing.assert_array_equal(number_ids(schema.fields[0], values), online[:, 0])


# Each example prepares a dataset: too slow to be shrunk.
@settings(max_examples=5, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
@given(rows=st.lists(st.fixed_dictionaries(COLUMNS), min_size=20, max_size=100))
def test_both_faces_agree_on_any_value(fitted, tmp_path_factory, rows):
    columns = {name: [row[name] for row in rows] for name in COLUMNS}
    check_both_faces(fitted, columns, tmp_path_factory.mktemp("parity"))


@pytest.mark.slow
def test_80_000_real_rows_are_served_as_they_were_prepared(real_data, tmp_path):
    """Every id of every row, and every probability that a model gives for the test rows, has the same bits on both faces."""
    splits = {name: real_data("criteo-80k") / f"{name}.parquet" for name in ("train", "valid", "test")}
    counts = [Numeric(f"I{number}", min_count=2) for number in range(1, 11)]
    numbers = [Numeric("I11", "scaled"), Numeric("I12", "quantile", 5), Numeric("I13", "quantile", 20)]
    tokens = [Categorical(f"C{number}", min_count=2) for number in range(1, 26)]
    schema = Schema(features=[*counts, *numbers, *tokens, Categorical("C26", hash_buckets=1000)], label="label")
    dataset = prepare(schema, **splits, out=tmp_path / "data")
    model = TF4CTR(dataset.schema, embedding_dim=8)
    model.compile()
    model.fit(dataset.valid.batches(500), verbose=0)
    served = SavedModel(tfctr.serving.export(model, tmp_path / "serving"))
    raw = RawFeatures(dataset.schema)
    for name, file in splits.items():
        columns = to_online(dataset.schema, pyarrow.parquet.read_table(file))
        np.testing.assert_array_equal(raw(columns), getattr(dataset, name).ids)
    expected = model.predict(dataset.test.ids, batch_size=len(dataset.test.ids), verbose=0)[:, 0]
    np.testing.assert_array_equal(served.run("serving_default", columns)["probability"], expected)
