"""Models whose answers differ, and rows for them: raw ones, and the golden ones of a version."""

import math

import keras
import numpy as np

from tfctr.models import MODELS
from tfctr.serving.exporting.golden import golden_rows, read_golden


def spread(model, scale=0.5, seed=0):
    """Give embeddings and biases a size at which they show in the answer; fresh ones are nearly zero."""
    rng = np.random.default_rng(seed)
    for variable in model.trainable_variables:
        if variable.name in ("table", "bias"):
            variable.assign(rng.normal(size=variable.shape, scale=scale))
    return model


def mixed(policy, schema):
    """TF4CTR under that dtype policy, spread."""
    outside = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        return spread(MODELS["TF4CTR"](schema))
    finally:
        keras.config.set_dtype_policy(outside)


def usual_rows(schema, rows, seed=0):
    """Raw columns without extreme numbers, so that no answer is exactly 0 or 1."""
    rng = np.random.default_rng(seed)
    golden = golden_rows(schema, 512)
    texts = {name: rng.choice(column, rows) for name, column in golden.items() if column.dtype == object}
    numbers = {name: rng.normal(40.0, 12.5, rows) for name, column in golden.items() if column.dtype == np.float64}
    return {**texts, **numbers}


def one_row(schema, **changes):
    """One row in which all is missing, except for `changes`."""
    missing = {"string": np.array([b""], object), "number": np.array([math.nan])}
    return {feature.name: changes.get(feature.name, missing[feature.raw_type]) for feature in schema.features}


def golden_of(version, *signatures):
    golden = read_golden(version / "assets.extra" / "golden.json")
    return [batch for batch in golden if not signatures or batch["signature"] in signatures]
