"""What the models over histories begin with."""

from collections.abc import Sequence

from tfctr.layers import FeatureEmbedding
from tfctr.layers.attended import beside_targets, pairs_of
from tfctr.models._graph import require_schema
from tfctr.schema import Schema
from tfctr.types import Tensor


def embed_with_histories(
    schema: Schema, embedding_dim: int, ids: Tensor, histories: Sequence[str] | None, targets: Sequence[str] | None
) -> tuple[FeatureEmbedding, Tensor, list[list[Tensor]]]:
    """The embedding; the fields of all features that are no histories, `(batch, fields, dim)`; and each history, whole, with
    its target: `[(batch, length, dim), (batch, dim)]`.
    """
    require_schema(schema)
    target_of = pairs_of(schema, histories, targets)
    embedding = FeatureEmbedding(schema, embedding_dim, unpooled=target_of)
    return embedding, *beside_targets(embedding, target_of, embedding(ids))
