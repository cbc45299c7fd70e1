from typing import Unpack

from tfctr.layers import BridgedCross, FeatureEmbedding, linear
from tfctr.models._base import CTRModel, ModelOptions, ids_input
from tfctr.models._registry import register
from tfctr.schema import Schema


@register
class EDCN(CTRModel):
    """A cross network and an MLP that meet after every layer, through a bridge and two gates.

    `logit = w . [x_L, h_L, f_L] + b`, the last cross layer, dense layer and bridge of `BridgedCross`

    Args:
        schema: a fitted `Schema`.
        embedding_dim: width of the embedding table.
        num_layers, bridge, temperature, dropout, batch_norm, attention: of `BridgedCross`; three layers with the Hadamard
            bridge are the paper's. The cross layer is that of the authors, of DeepCTR and torch-rechub, `x_0 (w . x) + b + x`;
            FuxiCTR's lacks the last `x`.
        embedding_l2, l2_scope: see `CTRModel`.

    Reference: [Chen et al., 2021](https://doi.org/10.1145/3459637.3481915).
    """

    EARLIER = (("attention", "sides"),)

    def __init__(
        self,
        schema: Schema,
        embedding_dim: int = 16,
        num_layers: int = 3,
        bridge: str = "hadamard",
        temperature: float = 1.0,
        dropout: float = 0.0,
        batch_norm: bool = True,
        attention: str = "units",
        **options: Unpack[ModelOptions],
    ) -> None:
        ids = ids_input(schema)  # (batch, columns)
        embedding = FeatureEmbedding(schema, embedding_dim)
        encoder = BridgedCross(num_layers, bridge, temperature, dropout, batch_norm, attention)
        logit = linear(1, dtype="float32")(encoder(embedding(ids)))  # (batch, 1)
        super().__init__(schema, ids, {"logit": logit}, [embedding], **options)
