"""A float32 or float16 is the number that its shortest decimal text means: as in a CSV file, so in any table and request."""

import json

import ibis
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest
import tensorflow as tf

import tfctr
from tfctr.data.short_floats import widened, widened_half
from tfctr.errors import DataError
from tfctr.features import Categorical, Numeric, Sequence
from tfctr.schema import Label, Schema
from tfctr.serving.client.row_files import read_examples, read_rows
from tfctr.serving.exporting.raw_features import RawFeatures
from tfctr.serving.wire.rows import to_arrays
from tfctr.serving.wire.token_rules import rules_of

RNG = np.random.default_rng(0)
ALL_HALVES = np.arange(2**16, dtype=np.uint16).view(np.float16)
SINGLES = np.concatenate(
    [
        RNG.integers(0, 2**32, 100_000).astype(np.uint32).view(np.float32),
        RNG.integers(1, 2**24, 50_000).astype(np.float32) / np.float32(2) ** RNG.integers(0, 24, 50_000),  # ties
        np.arange(2**26 - 4, 2**26 + 40_000, 4, dtype=np.float32),
        np.float32(2) ** np.arange(-149, 128),
        np.float32([0.3, -0.0, np.nan, np.inf, -np.inf, np.finfo("f4").max]),
    ],
    dtype=np.float32,
)


@pytest.mark.parametrize(("numbers", "rule"), [(SINGLES, widened), (ALL_HALVES, widened_half)])
def test_the_double_is_that_of_the_text_of_numpy(numbers, rule):
    table = ibis.memtable(pa.table({"x": numbers.astype(np.float32)}))
    expected = [float(str(number)) for number in numbers]
    np.testing.assert_array_equal(ibis.duckdb.connect().to_pyarrow(rule(table.x)).to_numpy(), expected)


# numbers

TEXTS = ["0.3", "0.7", "0.1", "24.304688", "1e-05", "0.5", "60", "", "150.5", "0.2"] * 2
CLICKS = [row % 2 for row in range(len(TEXTS))]


def column(kind):
    return np.array([float(text or "nan") for text in TEXTS], kind)


def frame(kind, folder=None):
    return pd.DataFrame({"x": column(kind), "click": CLICKS})


def csv(kind, folder):
    frame(kind).to_csv(folder / "x.csv", index=False)
    return folder / "x.csv"


def json_lines(kind, folder):
    rows = [{"x": None if x != x else float(str(x)), "click": click} for x, click in zip(column(kind), CLICKS, strict=True)]
    (folder / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "x.jsonl"


def parquet(kind, folder):
    pa.parquet.write_table(pa.table({"x": column(kind), "click": CLICKS}), folder / "x.parquet")
    return folder / "x.parquet"


FORMS = {
    "json": json_lines,
    "parquet": parquet,
    "frame": frame,
    "category": lambda kind, folder: frame(kind).astype({"x": "category"}),
    "arrow": lambda kind, folder: pa.table({"x": pa.array(column(kind)), "click": CLICKS}),
    "dictionary": lambda kind, folder: pa.table({"x": pa.array(column(kind)).cast("f4").dictionary_encode(), "click": CLICKS}),
    "objects": lambda kind, folder: {"x": [*column(kind)], "click": CLICKS},
    "mixed objects": lambda kind, folder: {"x": [*column(kind)[:-1], 0.2], "click": CLICKS},
    "nullable": lambda kind, folder: frame(kind).astype({"x": "Float32"}),
    "of Arrow": lambda kind, folder: frame(kind).astype({"x": "float[pyarrow]"}),
    "sparse": lambda kind, folder: frame(kind).astype({"x": pd.SparseDtype(kind, np.nan)}),
}
ONLY_SINGLE = {"category", "dictionary", "nullable", "of Arrow"}


def prepared(folder, source, feature=None, label="click"):
    out = folder / f"data{len(list(folder.iterdir()))}"
    return tfctr.prepare(Schema([feature or Categorical("x")], label=label), train=source, out=out)


def served(schema, rows):
    """The ids that a client's rows get."""
    raw, rules = RawFeatures(schema), rules_of(schema)
    inputs = {name: (np.dtype(object if spec.dtype == tf.string else "f8"), (None,)) for name, spec in raw.signature.items()}
    return raw(to_arrays(rows, inputs, rules.separators, rules.fractions, rules.sources)).numpy()


def rows_of(source):
    return source if not hasattr(source, "suffix") else next(iter(read_rows(source))).rows


FEATURES = [
    Numeric("x", "quantile", buckets=6),
    Numeric("x", "edges", edges=[0.1, 0.3, 0.7]),
    Numeric("x", "scaled"),
    Categorical("x"),
    Sequence("x", 2),
]


@pytest.mark.sampled(2)
@pytest.mark.parametrize("kind", ["f4", "f2"])
@pytest.mark.parametrize("feature", FEATURES, ids=lambda feature: getattr(feature, "transform", type(feature).__name__))
@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_one_table_has_the_same_ids_in_every_form(tmp_path, kind, feature):
    expected = prepared(tmp_path, csv(kind, tmp_path), feature)
    for form in FORMS.keys() - (ONLY_SINGLE if kind == "f2" else set()):
        source = FORMS[form](kind, tmp_path)
        found = prepared(tmp_path, source, feature)
        assert found.schema.to_dict() == expected.schema.to_dict(), form
        np.testing.assert_array_equal(found.train.ids, expected.train.ids, form)
        np.testing.assert_array_equal(served(expected.schema, rows_of(source)), expected.train.ids, form)
    examples = read_examples(parquet(kind, tmp_path))
    np.testing.assert_array_equal(served(expected.schema, examples), expected.train.ids)


@pytest.mark.parametrize("label", [Label("y", threshold=0.7), Label("y", positive=[0.7, 0.5])])
def test_labels(tmp_path, label):
    table = {"x": ["a", "b", "a"], "y": np.float32([0.7, 0.1, 0.5])}
    expected = [1, 0, float(label.threshold is None)]
    for source in (table, pd.DataFrame(table), pa.table(table)):
        assert prepared(tmp_path, source, label=label).train.labels.tolist() == expected


# tokens in lists

LISTS = [[0.1, 505881.125, None], [], [0.3, 2.0]]


@pytest.mark.sampled(1)
@pytest.mark.parametrize("width", [pa.float32(), pa.float16()])
@pytest.mark.parametrize("kind", [pa.list_, pa.large_list])
def test_lists_of_short_floats(tmp_path, kind, width):
    lists = LISTS if width == pa.float32() else [[0.1, 2.5, None], [], [0.3, 2.0]]
    shown = np.float32 if width == pa.float32() else np.float16
    texts = ["|".join(str(shown(v)).removesuffix(".0") for v in row if v is not None) for row in lists]
    table = pa.table(
        {"x": pa.array([[v if v is None else shown(v) for v in row] for row in lists], kind(width)), "click": [0, 1, 0]}
    )
    pa.parquet.write_table(table, tmp_path / "x.parquet")
    expected = prepared(tmp_path, {"x": texts, "click": [0, 1, 0]}, Sequence("x", 3))
    objects = pd.DataFrame({"x": [np.array([v for v in row if v is not None], shown) for row in lists], "click": [0, 1, 0]})
    for source in (table, tmp_path / "x.parquet", objects):
        found = prepared(tmp_path, source, Sequence("x", 3))
        assert found.schema.to_dict() == expected.schema.to_dict()
        np.testing.assert_array_equal(found.train.ids, expected.train.ids)
        np.testing.assert_array_equal(served(expected.schema, rows_of(source)), expected.train.ids)


@pytest.mark.parametrize("kind", ["frame", "parquet"])
def test_a_float32_that_may_stand_for_several_whole_numbers_is_no_token(tmp_path, kind):
    frame = pd.DataFrame({"x": np.float32([1, 2**24]), "click": [0, 1]})
    frame.to_parquet(tmp_path / "x.parquet")
    source = frame if kind == "frame" else tmp_path / "x.parquet"
    with pytest.raises(DataError, match=r"(?s)column 'x', row 2: found '16777216\.0'.*fix: write it as text"):
        prepared(tmp_path, source)
    schema = prepared(tmp_path, {"x": ["1", "2"], "click": [0, 1]}).schema
    with pytest.raises(DataError, match=r"column 'x', row 1: .*1.6777216e.* is neither text nor a whole number"):
        served(schema, rows_of(source))
