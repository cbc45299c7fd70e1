from collections.abc import Sequence
from typing import Unpack

from tfctr.layers import MLP, FeatureEmbedding, ProductLayer, linear
from tfctr.models._base import CTRModel, ModelOptions, ids_input
from tfctr.models._registry import register
from tfctr.schema import Schema


@register
class IPNN(CTRModel):
    """An MLP over the fields and the inner products of their pairs.

    `logit = w . MLP([fields, <e_i, e_j> for i < j]) + b`

    Args:
        schema: a fitted `Schema`.
        embedding_dim: width of the embedding table.
        hidden_units, activation, dropout, batch_norm: of the `MLP`; the paper has three layers and drops half of the units.
        embedding_l2, l2_scope: see `CTRModel`.

    Reference: [Qu et al., 2016](https://arxiv.org/abs/1611.00144), section III.
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
        products = ProductLayer()(embedding(ids))  # (batch, fields * dim + pairs)
        deep = MLP(hidden_units, activation, dropout, batch_norm)(products)  # (batch, units)
        logit = linear(1, dtype="float32")(deep)  # (batch, 1)
        super().__init__(schema, ids, {"logit": logit}, [embedding], **options)
