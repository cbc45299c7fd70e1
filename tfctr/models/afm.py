import keras

from tfctr.errors import require_number
from tfctr.layers import FeatureEmbedding, LinearTerms, PairAttention, linear
from tfctr.models._base import CTRModel, ids_input
from tfctr.models._registry import register


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
        schema,
        embedding_dim=16,
        attention_dim=16,
        dropout=0.0,
        embedding_l2=0.0,
        l2_scope="table",
        name=None,
    ):
        require_number("dropout", dropout, 0, 0.99)
        ids = ids_input(schema)  # (batch, columns)
        weights, vectors = FeatureEmbedding(schema, 1), FeatureEmbedding(schema, embedding_dim)
        first = LinearTerms()(weights(ids))  # (batch, 1)
        pooled = PairAttention(attention_dim)(vectors(ids))  # (batch, dim)
        pairs = linear(1, use_bias=False, dtype="float32")(keras.layers.Dropout(dropout)(pooled))  # (batch, 1)
        super().__init__(
            schema,
            ids,
            {"logit": first + pairs},
            [weights, vectors],
            embedding_l2=embedding_l2,
            l2_scope=l2_scope,
            name=name,
        )
