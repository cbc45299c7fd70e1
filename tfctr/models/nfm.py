from collections.abc import Sequence
from typing import Unpack

from tfctr.layers import MLP, BiInteraction, Dropout, FeatureEmbedding, LinearTerms, linear
from tfctr.layers.normalization import batch_normalization
from tfctr.models._base import CTRModel, ModelOptions, ids_input
from tfctr.models._registry import register
from tfctr.schema import Schema


@register
class NFM(CTRModel):
    """Neural factorization machine: an MLP over the pooled products of all pairs of fields.

    `logit = b + sum_i w[id_i] + h . MLP(sum_{i<j} e_i * e_j)`

    Args:
        schema: a fitted `Schema`.
        embedding_dim: width of the embedding table.
        hidden_units, activation, dropout, batch_norm: of the `MLP`; the pooled products are normalized and dropped like a
            hidden layer. The paper normalizes, and finds one hidden layer best.
        embedding_l2, l2_scope: see `CTRModel`.

    Reference: [He and Chua, 2017](https://arxiv.org/abs/1708.05027), eq. 2-7.
    """

    def __init__(
        self,
        schema: Schema,
        embedding_dim: int = 16,
        hidden_units: Sequence[int] = (400,),
        activation: str = "relu",
        dropout: float = 0.0,
        batch_norm: bool = True,
        **options: Unpack[ModelOptions],
    ) -> None:
        ids = ids_input(schema)  # (batch, columns)
        weights = FeatureEmbedding(schema, 1)
        vectors = FeatureEmbedding(schema, embedding_dim)
        first = LinearTerms()(weights(ids))  # (batch, 1)
        deep = MLP(hidden_units, activation, dropout, batch_norm)
        pooled = BiInteraction()(vectors(ids))  # (batch, dim)
        if batch_norm:
            pooled = batch_normalization()(pooled)
        pooled = Dropout(dropout)(pooled)
        higher = linear(1, use_bias=False, dtype="float32")(deep(pooled))  # (batch, 1)
        super().__init__(schema, ids, {"logit": first + higher}, [weights, vectors], **options)
