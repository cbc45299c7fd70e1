"""`tfctr.data.vectors`: files of vectors, whose tokens are those of a vocabulary in whatever writing."""

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

import tfctr
from tfctr import Categorical, Numeric, Schema, Sequence
from tfctr.data.vectors import VectorFile, token_owner
from tfctr.errors import ConfigError, DataError, StorageError


@pytest.fixture(scope="module")
def schema(tmp_path_factory):
    features = [
        Categorical("item"),
        Sequence("tags", 3),
        Categorical("page", hash_buckets=5),
        Sequence("history", 5, vocabulary_of="item"),
        Numeric("price"),
        Categorical("flag"),
        Categorical("size"),
    ]
    rows = {
        "item": [60, 60, 7, 7, 8],
        "history": ["60", "", "7|8", "60", "60"],
        "tags": ["a|b", "nan", "a", "a", "b"],
        "page": ["p"] * 5,
        "price": [1.0] * 5,
        "flag": [True, False, True, True, True],
        "size": ["0.5", "1.5", "0.5", "0.5", "2"],
        "click": [0, 1, 0, 1, 0],
    }
    return tfctr.prepare(Schema(features, label="click"), train=rows, out=tmp_path_factory.mktemp("vectors") / "data").schema


def write(path, tokens, vectors=None, **columns):
    vectors = [[float(place), 1.0] for place in range(len(tokens))] if vectors is None else vectors
    parquet.write_table(pa.table({"token": tokens, "vector": vectors, **columns}), path)
    return path


def ids(schema, feature, path):
    return VectorFile.open(path, feature).ids(schema, token_owner(schema, feature)).tolist()


@pytest.mark.parametrize(
    ("feature", "given", "expected"),
    [
        ("item", [60, 7, 8, 9], [3, 4, 5, -1]),
        ("item", ["60.0", "007", " 8", "x"], [3, 4, 5, -1]),
        ("history", [7.0, None, 60.0], [4, 1, 3]),
        ("tags", ["b", "a", "nan", "a|b", "c"], [4, 3, 5, -1, -1]),
        ("flag", ["TRUE", "0"], [3, 4]),
        ("flag", [False, True], [4, 3]),
        ("size", [0.5, 2.0, 1.25], [3, 5, -1]),
    ],
)
def test_tokens_are_read_as_prepare_reads_them(schema, tmp_path, feature, given, expected):
    assert ids(schema, feature, write(tmp_path / "v.parquet", given)) == expected


def test_rows_without_a_token_are_of_missing_or_of_unknown_ones(schema, tmp_path):
    path = write(tmp_path / "v.parquet", [None, None, "7"], kind=["missing", "out_of_vocabulary", "out_of_vocabulary"])
    assert ids(schema, "item", path) == [1, 2, 4]
    assert ids(schema, "item", write(tmp_path / "w.parquet", [None, "7"], kind=["film", "film"])) == [1, 4]


def test_the_column_may_have_the_name_of_the_feature(schema, tmp_path):
    columns = {"size": pa.array([9]), "item": ["60"], "of the text": pa.array([[1.0, 2.0]], pa.list_(pa.float64(), 2))}
    parquet.write_table(pa.table(columns), tmp_path / "v.parquet")
    file = VectorFile.open(tmp_path / "v.parquet", "item")
    assert (file.width, file.ids(schema, token_owner(schema, "item")).tolist()) == (2, [3])
    (block,) = file.blocks()
    assert block.dtype == np.float32
    assert block.tolist() == [[1, 2]]


def test_npy_with_tokens_beside_it(schema, tmp_path, monkeypatch):
    monkeypatch.setattr("tfctr.data.vectors.BLOCK", 2)
    vectors = np.arange(6.0).reshape(3, 2)
    np.save(tmp_path / "v.npy", vectors)
    for text in ("7\n60\n9\n", "7\r\n60\r\n9"):
        (tmp_path / "v.txt").write_bytes(text.encode())
        assert ids(schema, "item", tmp_path / "v.npy") == [4, 3, -1]
    blocks = list(VectorFile.open(tmp_path / "v.npy", "item").blocks())
    assert [len(block) for block in blocks] == [2, 1]
    np.testing.assert_array_equal(np.concatenate(blocks), vectors)
    (tmp_path / "v.txt").write_text("7\n60\n")
    with pytest.raises(DataError, match=r"has 3 vectors, and .*v.txt 2 lines"):
        VectorFile.open(tmp_path / "v.npy", "item")
    (tmp_path / "v.txt").unlink()
    with pytest.raises(StorageError, match="cannot be read from"):
        VectorFile.open(tmp_path / "v.npy", "item")


@pytest.mark.parametrize("array", [np.zeros(3), np.zeros((3, 2), int), np.zeros((0, 2)), np.array([["a"]], object)])
def test_other_arrays_are_refused(tmp_path, array):
    np.save(tmp_path / "v.npy", array, allow_pickle=True)
    with pytest.raises((DataError, StorageError), match=r"holds an array|cannot be read"):
        VectorFile.open(tmp_path / "v.npy", "item")


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        ([[1.0, 2.0], [1.0, 2.0], [1.0]], "row 3: the vector of the token '8' has 1 numbers, and the first one has 2"),
        ([[1.0, 2.0], None, [1.0, 2.0]], "row 2: the vector of the token '7' is null"),
        ([[1.0, 2.0], [1.0, 2.0], [1.0, float("nan")]], "row 3: the vector of the token '8' holds .*nan.* not finite"),
        ([[1.0, 2.0], [1e300, 2.0], [1.0, 0.0]], "row 2: the vector of the token '7' holds .*inf"),
        ([[1.0, 2.0], [1.0, None], [1.0, 0.0]], "row 2: the vector of the token '7' holds .*nan"),
    ],
)
def test_vectors_that_cannot_be_used_are_named(tmp_path, monkeypatch, vectors, message):
    monkeypatch.setattr("tfctr.data.vectors.BLOCK", 2)
    file = VectorFile.open(write(tmp_path / "v.parquet", ["60", "7", "8"], vectors), "item")
    with pytest.raises(DataError, match=message):
        list(file.blocks())


def test_two_vectors_of_one_token_are_refused(schema, tmp_path):
    path = write(tmp_path / "v.parquet", ["x", "60", "8", "x", "60.0"])
    with pytest.raises(DataError, match=r"row 5: the vector of the token '60.0' is the second one of its token, after row 2"):
        ids(schema, "item", path)


def test_files_of_another_form_are_refused(tmp_path):
    table = {"token": ["7"], "a": [[1.0]], "b": [[1.0]]}
    for columns, message in (
        (table, "2 columns of lists of numbers: a, b"),
        ({"token": ["7"], "a": [1.0]}, "0 columns of lists of numbers"),
        ({"name": ["7"], "a": [[1.0]]}, "neither a column 'token' nor 'item'"),
        ({"token": ["7"], "a": pa.array([[]], pa.list_(pa.float32()))}, "the first vector of .* is empty"),
        ({"token": pa.array([], pa.string()), "a": pa.array([], pa.list_(pa.float32()))}, "the first vector of .* is missing"),
    ):
        parquet.write_table(pa.table(columns), tmp_path / "v.parquet")
        with pytest.raises(DataError, match=message):
            VectorFile.open(tmp_path / "v.parquet", "item")
    (tmp_path / "v.parquet").write_bytes(b"no")
    for name, error in (("v.parquet", StorageError), ("none.parquet", StorageError), ("v.csv", ConfigError)):
        with pytest.raises(error, match=name):
            VectorFile.open(tmp_path / name, "item")


def test_features_whose_rows_are_no_tokens(schema):
    assert token_owner(schema, "history").name == "item"
    for name, message in (("price", "numeric"), ("page", "hashed"), ("itme", "no feature")):
        with pytest.raises(ConfigError, match=message):
            token_owner(schema, name)
