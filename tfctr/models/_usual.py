"""Of how many rows nearly all batches of a `fit` are, for layers that are compiled for one size."""

from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from tfctr.layers.hidden import can_compile

_LEAST_ROWS = 512  # a batch; smaller ones gain nothing
_LEAST_IN_ALL = 1_000_000  # rows over all epochs; XLA takes two to three seconds to compile what five hidden layers need


def usual_rows(model: keras.Model, given: Mapping[str, Any]) -> int | None:
    """The rows of a full batch by the arguments of `fit`; None where they are not known, or compiling for them does not pay.

    Known are those of arrays, of `Split.batches`, and of datasets whose batches are of one size by their types.
    """
    if model.run_eagerly or model.distribute_strategy.num_replicas_in_sync > 1:
        return None
    x: Any = given.get("x")
    if isinstance(x, tf.data.Dataset):
        shapes = [spec.shape for spec in tf.nest.flatten(x.element_spec) if isinstance(spec, tf.TensorSpec)]
        rows = getattr(x, "batch_size", None) or (shapes[0][0] if shapes and shapes[0].rank else None)
        steps = int(x.cardinality())
    elif given.get("y") is not None and hasattr(x, "shape") and isinstance(x.shape[0], int):
        rows = given.get("batch_size") or 32  # as in Keras
        steps = x.shape[0] // rows
    else:
        return None
    steps = given.get("steps_per_epoch") or steps
    pays = rows is not None and rows >= _LEAST_ROWS and rows * steps * given.get("epochs", 1) >= _LEAST_IN_ALL
    return rows if pays and can_compile() else None
