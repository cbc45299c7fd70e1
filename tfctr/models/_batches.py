"""What a batch brings to a model, in every form in which Keras takes it: tensors, a dict by name, a list of one."""

import numbers
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from tfctr.errors import ConfigError, DataError
from tfctr.losses.cross_entropy import LogLoss, RobustCrossEntropy, known_shape
from tfctr.metrics import is_positive
from tfctr.models._graph import PREDICTION
from tfctr.optimizers import label_check
from tfctr.types import Tensor

_ONE_A_ROW = "give one value a row: (batch,) or (batch, 1)"


def unpack(model: keras.Model, data: Any) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """A batch as Keras hands it over: `ids, labels, weights`; what is absent is None."""
    ids, labels, weights = keras.utils.unpack_x_y_sample_weight(data)
    return the_ids(model, ids), the_labels(labels), the_labels(weights, "sample weights")


def the_ids(model: keras.Model, ids: Any) -> Any:
    """The ids themselves, also of `{"ids": ids}`."""
    entry: Any = model.input
    return _only("ids", ids, entry.name)


def the_labels(labels: Any, name: str = "labels") -> Any:
    """The labels themselves, also of `{"logit": labels}`. Raises `ConfigError` for labels of several heads."""
    labels = _only(name, labels, PREDICTION)
    if np.ma.is_masked(labels):
        row = np.argwhere(np.ma.getmaskarray(labels))[0, 0]
        raise DataError(f"{name} are masked: row {row} has none.", fix="leave such rows out")
    if hasattr(labels, "shape") and (known_shape(labels) or ())[1:] == (2,):
        one_hot = "not one-hot; of scikit-learn's wrappers, keras.wrappers.SKLearnRegressor predicts probabilities"
        fix = f"{_ONE_A_ROW}, {one_hot}" if name == "labels" else _ONE_A_ROW
        raise ConfigError(f"{name} has the shape {known_shape(labels)}.", fix=fix)
    return labels


def known_labels(labels: Any) -> Any:
    """`the_labels` of arrays. Raises `DataError` for a label that is neither 0 nor 1, with its row."""
    labels = the_labels(labels)
    if labels is not None:
        is_positive(labels)
    return labels


def refused_labels(loss: keras.losses.Loss, labels: Tensor | None, step: Tensor) -> list[Tensor]:
    """What fails for a label that is neither 0 nor 1, where the loss knows no other; for before the forward pass."""
    return [label_check(labels, step)] if labels is not None and isinstance(loss, LogLoss | RobustCrossEntropy) else []


def column(name: str, values: Tensor, rows: Tensor, dtype: str | None = None) -> Tensor:
    """`(batch,)` or `(batch, 1) -> (batch, 1)`: beside the logits, rank 1 would become (batch, batch)."""
    values = ops.convert_to_tensor(values, dtype)
    shape = known_shape(values)  # None after batches of both ranks: Keras relaxes its graph to what they have in common
    if shape is not None and (len(shape) not in (1, 2) or shape[1:] not in ((), (1,), (None,))):
        raise ConfigError(f"{name} has the shape {shape}.", fix=_ONE_A_ROW)
    return ops.reshape(values, (rows, 1))


def weighted_mean(values: Tensor, weights: Tensor | None, rows: Tensor) -> Tensor:
    """`sum(weight * value) / rows`; 0 for a replica without rows."""
    values = column("the loss", values, rows)
    if weights is not None:
        values = values * column("sample weights", weights, rows, values.dtype)
    return ops.sum(values) / ops.cast(ops.maximum(rows, 1), values.dtype)


def _only(what: str, values: Any, name: str) -> Any:
    if isinstance(values, Mapping):
        if set(values) != {name}:
            fix = f'give {{"{name}": values}}, or the values alone: there is one input, and all heads learn from one label'
            raise ConfigError(f"{what} are a dict of {sorted(values)}.", fix=fix)
        return values[name]
    if isinstance(values, list | tuple) and len(values) == 1 and not isinstance(values[0], numbers.Number):
        return values[0]
    return values
