from typing import Unpack

from tfctr.layers import EulerInteraction, FeatureEmbedding, linear
from tfctr.models._base import CTRModel, ModelOptions, ids_input
from tfctr.models._registry import register
from tfctr.schema import Schema


@register
class EulerNet(CTRModel):
    """Products of powers of the fields, with learned exponents, in the complex plane.

    `logit = w . Re(z) + w . Im(z) + b`, `z` the last layer of `EulerInteraction`

    Args:
        schema: a fitted `Schema`.
        embedding_dim: width of the embedding table.
        num_layers, num_orders, dropout, layer_norm, explicit_dropout, implicit_dropout: of `EulerInteraction`; two normalized
            layers with as many products as fields, and the dropouts 0.1 and 0.2, are the released settings for Criteo.
        embedding_l2, l2_scope: see `CTRModel`.

    Reference: [Tian et al., 2023](https://arxiv.org/abs/2304.10711).
    """

    def __init__(
        self,
        schema: Schema,
        embedding_dim: int = 16,
        num_layers: int = 2,
        num_orders: int | None = None,
        dropout: float = 0.0,
        layer_norm: bool = True,
        explicit_dropout: float | None = None,
        implicit_dropout: float | None = None,
        **options: Unpack[ModelOptions],
    ) -> None:
        ids = ids_input(schema)  # (batch, columns)
        embedding = FeatureEmbedding(schema, embedding_dim)
        encoder = EulerInteraction(num_layers, num_orders, dropout, layer_norm, explicit_dropout, implicit_dropout)
        logit = linear(1, dtype="float32")(encoder(embedding(ids)))  # (batch, 1)
        super().__init__(schema, ids, {"logit": logit}, [embedding], **options)
