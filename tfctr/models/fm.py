from typing import Unpack

from tfctr.layers import FactorizationMachine, FeatureEmbedding, LinearTerms
from tfctr.models._base import CTRModel, ModelOptions, ids_input
from tfctr.models._registry import register
from tfctr.schema import Schema


@register
class FM(CTRModel):
    """Factorization machine: logistic regression and the inner products of all pairs of fields.

    `logit = b + sum_i w[id_i] + sum_{i<j} <v[id_i], v[id_j]>`

    Args:
        schema: a fitted `Schema`.
        embedding_dim: width of `v`.
        embedding_l2, l2_scope: see `CTRModel`.

    Reference: [Rendle, 2010](https://doi.org/10.1109/ICDM.2010.127), eq. 1.
    """

    def __init__(self, schema: Schema, embedding_dim: int = 16, **options: Unpack[ModelOptions]) -> None:
        ids = ids_input(schema)  # (batch, columns)
        weights = FeatureEmbedding(schema, 1)
        vectors = FeatureEmbedding(schema, embedding_dim)
        first = LinearTerms()(weights(ids))  # (batch, 1)
        pairs = FactorizationMachine()(vectors(ids))  # (batch, 1)
        super().__init__(schema, ids, {"logit": first + pairs}, [weights, vectors], **options)
