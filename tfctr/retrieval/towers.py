"""The two towers: ids of a row in, a vector of length 1 out, in Keras 3."""

from collections.abc import Collection

import keras

from tfctr.layers import MLP, FeatureEmbedding
from tfctr.layers.mlp import linear
from tfctr.retrieval.options import TowerOptions
from tfctr.schema import Schema


def tower(schema: Schema, features: Collection[str], options: TowerOptions) -> keras.Model:
    """The tower of one side: the embeddings of its features, hidden layers, a vector of length 1.

    Shapes:
        `(batch, schema.width)` int32, of which it reads the columns of its features `-> (batch, options.vector_dim)`

    >>> from tfctr import Categorical, Schema
    >>> schema = Schema(features=[Categorical("user", size=5), Categorical("item", size=7)], label="click")
    >>> tower(schema, ["item"], TowerOptions(vector_dim=8)).output_shape
    (None, 8)
    """
    ids = keras.Input((schema.width,), dtype="int32", name="ids")
    x = FeatureEmbedding(schema, options.embedding_dim, features=tuple(features))(ids)  # (batch, fields, dim)
    x = MLP(options.hidden_units)(x) if options.hidden_units else keras.layers.Flatten()(x)  # (batch, units)
    x = linear(options.vector_dim)(x)  # (batch, vector_dim)
    return keras.Model(ids, keras.layers.UnitNormalization()(x))
