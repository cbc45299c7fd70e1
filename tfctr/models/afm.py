from typing import Unpack

from tfctr.errors import require_number
from tfctr.layers import Dropout, FeatureEmbedding, LinearTerms, PairAttention, linear
from tfctr.models._base import CTRModel, ModelOptions, ids_input
from tfctr.models._registry import register
from tfctr.schema import Schema


@register
class AFM(CTRModel):
    """Attentional factorization machine: the products of all pairs of fields, weighted by attention.

    `logit = b + sum_i w[id_i] + p . sum_{i<j} a_ij e_i * e_j`

    Args:
        schema: a fitted `Schema`.
        embedding_dim: width of the embedding table.
        attention_dim: width of the attention network; the paper has the width of the embeddings.
        dropout: share of the pooled products dropped in training.
        embedding_l2, l2_scope: see `CTRModel`.

    Reference: [Xiao et al., 2017](https://arxiv.org/abs/1708.04617), eq. 4-6.
    """

    def __init__(
        self,
        schema: Schema,
        embedding_dim: int = 16,
        attention_dim: int = 16,
        dropout: float = 0.0,
        **options: Unpack[ModelOptions],
    ) -> None:
        require_number("dropout", dropout, 0, 0.99)
        ids = ids_input(schema)  # (batch, columns)
        weights = FeatureEmbedding(schema, 1)
        vectors = FeatureEmbedding(schema, embedding_dim)
        first = LinearTerms()(weights(ids))  # (batch, 1)
        pooled = PairAttention(attention_dim)(vectors(ids))  # (batch, dim)
        pairs = linear(1, use_bias=False, dtype="float32")(Dropout(dropout)(pooled))  # (batch, 1)
        super().__init__(schema, ids, {"logit": first + pairs}, [weights, vectors], **options)
