from collections.abc import Sequence
from typing import Unpack

from tfctr.layers import MLP, FeatureEmbedding, linear
from tfctr.models._base import CTRModel, ModelOptions, ids_input
from tfctr.models._registry import register
from tfctr.schema import Schema


@register
class DNN(CTRModel):
    """An MLP over the fields.

    `logit = w . MLP(fields) + b`

    Args:
        schema: a fitted `Schema`.
        embedding_dim: width of the embedding table.
        hidden_units, activation, dropout, batch_norm: of the `MLP`.
        embedding_l2, l2_scope: see `CTRModel`.

    Reference: [Covington et al., 2016](https://doi.org/10.1145/2959100.2959190), section 4.
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
        embedding = FeatureEmbedding(schema, embedding_dim)
        deep = MLP(hidden_units, activation, dropout, batch_norm)(embedding(ids))  # (batch, units)
        logit = linear(1, dtype="float32")(deep)  # (batch, 1)
        super().__init__(schema, ids, {"logit": logit}, [embedding], **options)
