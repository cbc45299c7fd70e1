"""Forms of ids that Keras would take and misread: tables, masks, sparse and ragged tensors, floats within a dict or a list."""

import keras
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import scipy.sparse
import tensorflow as tf

from tfctr.data import Split
from tfctr.errors import ConfigError, DataError
from tfctr.features import Categorical
from tfctr.models import LR
from tfctr.schema import Schema

ROWS = 20
SCHEMA = Schema([Categorical("user", column="User ID", size=5), Categorical("item", column="Item Cat", size=7)], label="click")
IDS = np.stack([np.arange(ROWS) % 5, 5 + np.arange(ROWS) % 7], axis=1).astype("int32")
LABELS = np.float32(IDS[:, 0] % 2)
BAD = np.where(IDS == 7, 99, IDS)  # first in row 2


@pytest.fixture(scope="module")
def model():
    model = LR(SCHEMA)
    model.compile()
    return model


def every_call(model):
    return [
        lambda x: model.predict(x, verbose=0),
        lambda x: model.fit(x, LABELS, verbose=0),
        lambda x: model.evaluate(x, LABELS),
        lambda x: model.train_on_batch(x, LABELS),
        model.predict_on_batch,
        model,
    ]


NAMED = {
    "names": ["user", "item"],
    "columns": ["User ID", "Item Cat"],
    "a column and another": ["User ID", "x"],
}
TABLES = {
    "pandas": lambda names: pd.DataFrame(IDS, columns=names),
    "pyarrow": lambda names: pa.table(dict(zip(names, IDS.T, strict=True))),
    "dict": lambda names: dict(zip(names, IDS.T, strict=True)),
}


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("names", NAMED)
def test_raw_columns_are_refused_by_either_name(model, table, names):
    for call in every_call(model)[:1] + every_call(model)[-1:]:
        with pytest.raises(DataError, match=f"raw columns \\['{NAMED[names][0]}'"):
            call(TABLES[table](NAMED[names]))


def test_a_table_without_names_of_features_holds_ids(model):
    expected = model.predict(IDS, verbose=0)
    np.testing.assert_array_equal(model.predict(TABLES["pyarrow"](["a", "b"]), verbose=0), expected)
    np.testing.assert_array_equal(model(pd.DataFrame(IDS))["logit"], model(IDS)["logit"])
    np.testing.assert_array_equal(model(IDS.tolist())["logit"], model(IDS)["logit"])


def test_a_masked_id_is_refused(model):
    for call in every_call(model):
        with pytest.raises(DataError, match="row 2, column 1 is masked"):
            call(np.ma.array(IDS, mask=IDS == 7))
    assert model.predict(np.ma.array(IDS), verbose=0).shape == (ROWS, 1)


@pytest.mark.parametrize("sparse", [tf.sparse.from_dense, scipy.sparse.csr_matrix])
def test_sparse_ids_are_checked(model, sparse):
    for call in every_call(model):
        with pytest.raises(DataError, match=r"row 2, column 1 \(feature 'item'\): 99 is none of its ids"):
            call(sparse(BAD))
    np.testing.assert_allclose(model.predict(sparse(IDS), verbose=0), model.predict(IDS, verbose=0), rtol=1e-6)


def test_ragged_ids_are_refused(model):
    for call in every_call(model):
        with pytest.raises(DataError, match=r"ragged(?s:.*)x\.to_tensor\(\)"):
            call(tf.ragged.constant(IDS.tolist(), dtype=tf.int32))


@pytest.mark.parametrize(
    "form",
    [pd.DataFrame, lambda x: {"ids": x}, lambda x: [x], np.ndarray.tolist, tf.constant, lambda x: {"ids": pd.DataFrame(x)}],
)
def test_a_call_cuts_no_fractions(model, form):
    with pytest.raises(DataError, match="ids are whole numbers"):
        model(form(IDS + 0.5))


def test_a_call_refuses_ids_of_no_feature(model):
    with pytest.raises(DataError, match="99 is none of its ids"):
        model(BAD)
    symbolic = keras.Input((2,), dtype="int32")
    assert model({"ids": symbolic})["logit"].shape == (None, 1)


def test_missing_values_are_not_told_to_become_whole(model):
    frame = pd.DataFrame({"a": pd.array([1, None], dtype="Int64"), "b": [5, 6]})
    with pytest.raises(DataError, match=r"row 1, column 0 .* holds <NA>") as error:
        model.predict(frame, verbose=0)
    assert "astype" not in str(error.value)
    with pytest.raises(DataError, match=r"x\.astype\('int32'\)"):
        model.predict(frame.iloc[:1], verbose=0)
    with pytest.raises(DataError, match="holds nan") as error:
        model.predict(frame.astype(float), verbose=0)
    assert "astype" not in str(error.value)


def test_a_split_is_told_from_its_batches(model):
    split = Split.from_arrays(IDS, LABELS)
    for call in (
        lambda: model.fit(split, verbose=0),
        lambda: model.fit(IDS, LABELS, validation_data=split, verbose=0),
        lambda: model.evaluate(split),
        lambda: model.predict(split, verbose=0),
    ):
        with pytest.raises(ConfigError, match=r"dataset\.train\.batches\(1024\)"):
            call()
