"""A label that is neither 0 nor 1, in whatever form it comes: what is said, and that nothing has been learnt from its batch."""

import numpy as np
import pytest
import tensorflow as tf

from tfctr.errors import DataError
from tfctr.models import CETN, DNN, TF4CTR

ROWS = 64


def dataset(ids, labels):
    return tf.data.Dataset.from_tensor_slices((ids, labels)).batch(ROWS)


WAYS = {
    "arrays": lambda model, *rows: model.fit(*rows, batch_size=ROWS, verbose=0),
    "a dataset": lambda model, *rows: model.fit(dataset(*rows), verbose=0),
    "train_on_batch": lambda model, *rows: model.train_on_batch(*rows),
}


def state(model):
    return [variable.numpy() for variable in (*model.weights, *model.optimizer.variables)]


def refuse(model, way, ids, labels, label, row=7):
    """See a wrong label in that row refused by row and value, and all weights and what the optimizer keeps as they were."""
    before, labels = state(model), np.where(np.arange(ROWS) == row, label, labels).astype("float32")
    with pytest.raises(DataError, match=rf"labels must be 0 or 1; row {row} .*holds {label}(\.0)?\.\n  fix: correct the rows"):
        WAYS[way](model, ids, labels)
    np.testing.assert_equal(state(model), before)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("label", [2, -1, np.nan])
def test_a_wrong_first_batch_changes_nothing(label, tiny_schema, tiny_ids, tiny_labels):
    model = TF4CTR(tiny_schema, embedding_dim=4, embedding_l2=1e-3)
    model.compile()
    for way in WAYS:
        refuse(model, way, tiny_ids(ROWS), tiny_labels(ROWS), label)
    assert int(model.optimizer.iterations) == 0


@pytest.mark.sampled(1)
@pytest.mark.parametrize("optimizer", ["sgd", "lazy_adam", "exact_lazy_adam"])
def test_a_wrong_batch_behind_a_good_one_changes_nothing(optimizer, tiny_schema, tiny_ids, tiny_labels):
    model = CETN(tiny_schema, embedding_dim=4)
    model.compile(optimizer=optimizer)
    model.fit(dataset(tiny_ids(ROWS), tiny_labels(ROWS)), verbose=0)
    refuse(model, "a dataset", tiny_ids(ROWS, 1), tiny_labels(ROWS, 1), 2)


def test_a_wrong_batch_does_not_move_the_statistics_of_batch_normalization(tiny_schema, tiny_ids, tiny_labels):
    model = DNN(tiny_schema, embedding_dim=4, hidden_units=[8], batch_norm=True)
    model.compile()
    refuse(model, "a dataset", tiny_ids(ROWS), tiny_labels(ROWS), 2)
