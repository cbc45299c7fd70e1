from collections.abc import Sequence
from typing import Unpack

from tfctr.layers import MLP, FactorizationMachine, FeatureEmbedding, LinearTerms, linear
from tfctr.models._base import CTRModel, ModelOptions, ids_input
from tfctr.models._registry import register
from tfctr.schema import Schema


@register
class DeepFM(CTRModel):
    """A factorization machine and an MLP over the same fields.

    `logit = FM(fields) + w . MLP(fields) + b`, where FM has its first-order terms too

    Args:
        schema: a fitted `Schema`.
        embedding_dim: width of the shared embedding table.
        hidden_units, activation, dropout, batch_norm: of the `MLP`.
        embedding_l2, l2_scope: see `CTRModel`.

    Reference: [Guo et al., 2017](https://arxiv.org/abs/1703.04247), eq. 1-4.
    """

    def __init__(
        self,
        schema: Schema,
        embedding_dim: int = 16,
        hidden_units: Sequence[int] = (400, 400, 400),
        activation: str = "relu",
        dropout: float = 0.0,
        batch_norm: bool = False,
        **options: Unpack[ModelOptions],
    ) -> None:
        ids = ids_input(schema)  # (batch, columns)
        weights = FeatureEmbedding(schema, 1)
        vectors = FeatureEmbedding(schema, embedding_dim)
        fields = vectors(ids)  # (batch, fields, dim)
        first = LinearTerms()(weights(ids))  # (batch, 1)
        pairs = FactorizationMachine()(fields)  # (batch, 1)
        deep = linear(1, dtype="float32")(MLP(hidden_units, activation, dropout, batch_norm)(fields))  # (batch, 1)
        super().__init__(schema, ids, {"logit": first + pairs + deep}, [weights, vectors], **options)
