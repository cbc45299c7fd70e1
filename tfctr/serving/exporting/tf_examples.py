"""Raw columns as serialized tf.Example messages, which TensorFlow Serving's Classify and Regress take."""

import math
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from tfctr.features import Numeric, Sequence
from tfctr.schema import Schema
from tfctr.types import Tensor


def parse_tf_examples(schema: Schema, serialized: Tensor) -> dict[str, Tensor]:
    """The raw columns of `serving_default`, from tf.Example messages.

    Text is a `bytes_list` of one value, for a `Sequence` of one joined text or of any number of tokens. A number is a
    `float_list` of one value, and so a float32. What a message lacks is missing.

    Shapes:
        `(batch,)` text `-> {name: (batch,)}`, text or float64

    Raises:
        tf.errors.InvalidArgumentError: in the graph, for a text that is no tf.Example, or a value of another type.
    """
    parsed = tf.io.parse_example(tf.ensure_shape(serialized, (None,)), {f.name: _form(f) for f in schema.features})
    return {feature.name: _column(feature, parsed[feature.name]) for feature in schema.features}


def make_tf_examples(schema: Schema, columns: Mapping[str, Any]) -> list[bytes]:
    """Raw columns as a list of serialized tf.Example messages; missing values are left out.

    >>> from tfctr import Categorical, Schema
    >>> schema = Schema(features=[Categorical("user")], label="click")
    >>> parse_tf_examples(schema, make_tf_examples(schema, {"user": [b"ann", b""]}))["user"].numpy().tolist()
    [b'ann', b'']
    """
    rows = zip(*(columns[feature.name] for feature in schema.features), strict=True)
    return [_serialized(schema, row) for row in rows]


def _form(feature):
    if isinstance(feature, Numeric):
        return tf.io.FixedLenFeature((), tf.float32, math.nan)
    return tf.io.RaggedFeature(tf.string) if isinstance(feature, Sequence) else tf.io.FixedLenFeature((), tf.string, "")


def _column(feature, parsed):
    if isinstance(feature, Numeric):
        return tf.cast(parsed, tf.float64)
    return tf.strings.reduce_join(parsed, axis=1, separator=feature.separator) if isinstance(feature, Sequence) else parsed


def _serialized(schema, row):
    example = tf.train.Example()
    for feature, value in zip(schema.features, row, strict=True):
        values = example.features.feature[feature.name]
        if isinstance(feature, Numeric):
            if not math.isnan(value):
                values.float_list.value.append(value)
        elif value:
            values.bytes_list.value.append(value)
    return example.SerializeToString()
