"""Keras' metrics that are not one number, and its short names: in `fit`, `evaluate` and batches as in plain Keras."""

import keras
import numpy as np
import pytest

from tfctr.models import DNN

ROWS = 32


@keras.saving.register_keras_serializable("test_compiled_metrics")
class Counts(keras.metrics.Metric):
    """Clicks and rows, under names of their own."""

    def __init__(self, name="counts", **kwargs):
        super().__init__(name=name, **kwargs)
        self.clicks, self.rows = (self.add_weight(name=part, initializer="zeros") for part in ("clicks", "rows"))

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.clicks.assign_add(keras.ops.sum(keras.ops.cast(y_true, "float32")))
        self.rows.assign_add(keras.ops.cast(keras.ops.size(y_true), "float32"))

    def result(self):
        return {"clicks": self.clicks.value, "rows": self.rows.value}


def compiled(schema, *metrics):
    model = DNN(schema, embedding_dim=2, hidden_units=[2])
    model.compile(metrics=list(metrics))
    return model


@pytest.mark.sampled(1)
@pytest.mark.parametrize("metric", ["f1_score", lambda: keras.metrics.F1Score(threshold=0.3, name="f1_score")])
def test_a_metric_of_one_number_a_class(metric, tiny_schema, tiny_ids, tiny_labels):
    ids, labels = tiny_ids(ROWS), tiny_labels(ROWS)
    metric = metric if isinstance(metric, str) else metric()
    model = compiled(tiny_schema, metric, "mse")
    history = model.fit(ids, labels, validation_data=(ids, labels), verbose=0).history
    results = model.evaluate(ids, labels, return_dict=True)
    plain = keras.metrics.get(metric)
    plain.reset_state()
    plain.update_state(labels[:, None], model.predict(ids, verbose=0))
    for found in (history["val_f1_score"][0], results["f1_score"], model.evaluate(ids, labels)[3]):
        np.testing.assert_allclose(found, plain.result(), rtol=1e-5)
    assert np.shape(history["f1_score"][0]) == (1,)
    assert np.shape(model.test_on_batch(ids, labels, return_dict=True)["f1_score"]) == (1,)
    assert isinstance(results["mse"], float)


def test_a_metric_that_gives_a_dict(tiny_schema, tiny_ids, tiny_labels):
    ids, labels = tiny_ids(ROWS), tiny_labels(ROWS)
    model = compiled(tiny_schema, Counts())
    history = model.fit(ids, labels, validation_data=(ids, labels), verbose=0).history
    for found in (model.evaluate(ids, labels, return_dict=True), {key[4:]: values[0] for key, values in history.items()}):
        assert (found["clicks"], found["rows"]) == (labels.sum(), ROWS)


def test_acc_is_accuracy_under_its_short_name(tiny_schema, tiny_ids, tiny_labels):
    ids, labels = tiny_ids(ROWS), tiny_labels(ROWS)
    model = compiled(tiny_schema, "acc", "accuracy")
    assert {"acc", "val_acc"} <= set(model.fit(ids, labels, validation_data=(ids, labels), verbose=0).history)
    results = model.evaluate(ids, labels, return_dict=True)
    assert results["acc"] == results["accuracy"] == np.mean((model.predict(ids, verbose=0)[:, 0] > 0.5) == labels)
