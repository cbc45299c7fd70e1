from collections.abc import Sequence
from typing import Unpack

from tfctr.layers import FeatureEmbedding, SpaceFusion
from tfctr.models._base import CTRModel, ModelOptions, ids_input
from tfctr.models._registry import register
from tfctr.models._spaces import SPACES, semantic_views, values_and_weights
from tfctr.schema import Schema


@register
class SimMHN(CTRModel):
    """The simple multi-head network: fields and their products, each read by a Key-Value Block, summed.

    `logit = sum over spaces of K(view) * (w . V(view) + b)`

    Args:
        schema: a fitted `Schema`.
        embedding_dim: width of the embedding table.
        spaces: of `"fields"`, `"elementwise"` and `"inner"` products.
        hidden_units, activation, dropout: of the value networks.
        weight_hidden_units, weight_dropout: of the weight networks.
        batch_norm: of all networks.
        embedding_l2, l2_scope: see `CTRModel`.

    Reference: [Li et al., 2023](https://arxiv.org/abs/2312.09715), eq. 8-11.
    """

    def __init__(
        self,
        schema: Schema,
        embedding_dim: int = 20,
        spaces: Sequence[str] = SPACES,
        hidden_units: Sequence[int] = (400, 400),
        weight_hidden_units: Sequence[int] | None = (400, 400),
        activation: str | Sequence[str] = "leaky_relu",
        dropout: float = 0.0,
        weight_dropout: float = 0.0,
        batch_norm: bool = False,
        **options: Unpack[ModelOptions],
    ) -> None:
        ids = ids_input(schema)  # (batch, columns)
        embedding = FeatureEmbedding(schema, embedding_dim)
        views = semantic_views(embedding(ids), spaces)  # one a space
        values, weights = values_and_weights(
            views, hidden_units, weight_hidden_units, activation, dropout, weight_dropout, batch_norm
        )  # (batch, units) and (batch, 1) a space
        logit = SpaceFusion()(values, weights)  # (batch, 1)
        super().__init__(schema, ids, {"logit": logit}, [embedding], **options)
