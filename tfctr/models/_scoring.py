"""Probabilities, losses and labels of many rows, for metrics that need all rows at once."""

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from tfctr.metrics import auc, log_loss
from tfctr.models._batches import column, unpack
from tfctr.models._graph import PREDICTION
from tfctr.types import Tensor

_METRIC_ROWS = 65_536  # rows that Keras' metrics see at a time


class Scorer(keras.Model):
    """A model whose `predict` keeps labels and weights beside the probabilities, batch by batch, on every device."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.run_eagerly = model.run_eagerly

    def make_predict_function(self, force: bool = False) -> None:
        """Traced before it is called: TensorFlow takes several models' first calls for one function's retracing, and warns."""
        if self.predict_function is None or force:
            super().make_predict_function(force)
            graph: Any = self.predict_function

            def traced(batches: Any) -> Any:
                graph.get_concrete_function(batches)
                return graph(batches)

            self.predict_function = graph if self.run_eagerly else traced

    def predict_step(self, data: Any) -> dict[str, Tensor]:
        ids, labels, weights = unpack(self.model, data[0] if isinstance(data[0], tuple) else data)
        rows = ops.shape(ids)[0]
        logits = self.model(ids, training=False)[PREDICTION]
        labels = column("labels", labels, rows, "float32")
        losses = column("the loss", self.model.ctr_loss.call(labels, logits), rows)
        scored = {"labels": labels, "losses": losses, "probabilities": ops.sigmoid(logits)}
        return scored if weights is None else {**scored, "weights": column("sample weights", weights, rows, "float32")}


class AsTest(keras.callbacks.Callback):
    """Tells the callbacks of an evaluation what the `predict` behind it does."""

    def __init__(self, callbacks: keras.callbacks.CallbackList) -> None:
        super().__init__()
        self.callbacks = callbacks

    def on_predict_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        self.callbacks.on_test_begin()

    def on_predict_batch_begin(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        self.callbacks.on_test_batch_begin(batch)

    def on_predict_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        self.callbacks.on_test_batch_end(batch, {})


def results_of(scored: Mapping[str, Any], metrics: Any = None) -> dict[str, Any]:
    """What `evaluate` says of scored rows: the loss, exact metrics, and those of Keras' `compile`.

    Args:
        scored: what `Scorer.predict` gives: `{name: (rows, 1)}`.
        metrics: the compiled metrics, or None.
    """
    scored = {name: values[:, 0] for name, values in scored.items()}
    labels = scored["labels"]
    probabilities = scored["probabilities"]
    weights = scored.get("weights")
    losses = scored["losses"] if weights is None else scored["losses"] * weights
    exact = {
        "loss": float(losses.mean(dtype="float64")),
        "log_loss": log_loss(labels, probabilities, weights),
        "auc": auc(labels, probabilities, weights),
    }
    if metrics is None:
        return exact
    metrics.reset_state()
    for start in range(0, len(labels), _METRIC_ROWS):
        part = slice(start, start + _METRIC_ROWS)
        metrics.update_state(labels[part, None], probabilities[part, None], None if weights is None else weights[part])
    return exact | {name: value for name, value in _as_numbers(metrics.result()).items() if name not in exact}


def _as_numbers(results: Mapping[str, Any]) -> dict[str, Any]:
    """Results as floats where they are one number, as Keras logs them: F1 is one a class, and a metric may give a dict."""
    numbers = {}
    for name, value in results.items():
        if isinstance(value, dict):
            numbers |= _as_numbers(value)
        else:
            numbers[name] = value if ops.shape(value) else float(value)
    return numbers
