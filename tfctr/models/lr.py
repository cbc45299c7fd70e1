from typing import Unpack

from tfctr.layers import FeatureEmbedding, LinearTerms
from tfctr.models._base import CTRModel, ModelOptions, ids_input
from tfctr.models._registry import register
from tfctr.schema import Schema


@register
class LR(CTRModel):
    """Logistic regression: one weight a token, and a bias.

    `logit = b + sum over fields of w[id]`

    Args:
        schema: a fitted `Schema`.
        embedding_l2, l2_scope: see `CTRModel`.

    Reference: [Richardson et al., 2007](https://doi.org/10.1145/1242572.1242643).
    """

    def __init__(self, schema: Schema, **options: Unpack[ModelOptions]) -> None:
        ids = ids_input(schema)  # (batch, columns)
        weights = FeatureEmbedding(schema, 1)
        logit = LinearTerms()(weights(ids))  # (batch, 1)
        super().__init__(schema, ids, {"logit": logit}, [weights], **options)
