"""A cross network and an MLP: the backbone of DCN, DCNv2 and GDCN."""

import keras

from tfctr.errors import choose
from tfctr.layers import FeatureEmbedding, SharedEmbedding, SumFusion, linear
from tfctr.models._twin import twin_outputs
from tfctr.schema import Schema
from tfctr.types import Tensor


def parallel(ids: Tensor, selection: SharedEmbedding, cross: keras.layers.Layer, deep: keras.layers.Layer) -> dict[str, Tensor]:
    """Both read the fields; their logits are added: `{"logit", "simple", "complex"}`."""
    return twin_outputs(ids, selection, cross, deep, SumFusion())


def stacked(ids: Tensor, selection: SharedEmbedding, cross: keras.layers.Layer, deep: keras.layers.Layer) -> dict[str, Tensor]:
    """The MLP reads the crosses: `{"logit"}`."""
    fields, _ = selection(ids)  # (batch, fields, dim)
    return {"logit": linear(1, dtype="float32")(deep(cross(fields)))}  # (batch, 1)


STRUCTURES = {"parallel": parallel, "stacked": stacked}


def deep_cross(
    schema: Schema, ids: Tensor, embedding_dim: int, cross: keras.layers.Layer, deep: keras.layers.Layer, structure: str
) -> tuple[dict[str, Tensor], list[FeatureEmbedding]]:
    """The named logits of a cross network and an MLP, and the embeddings they read."""
    connect = choose(STRUCTURES, structure, "structure")
    selection = SharedEmbedding(schema, embedding_dim)
    return connect(ids, selection, cross, deep), selection.embeddings
