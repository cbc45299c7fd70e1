from collections.abc import Sequence
from typing import Unpack

from tfctr.layers import FeatureEmbedding, SpaceFusion
from tfctr.models._base import CTRModel, ModelOptions, ids_input
from tfctr.models._registry import register
from tfctr.models._spaces import SPACES, semantic_views, values_and_weights
from tfctr.schema import Schema


@register
class TriDNN(CTRModel):
    """Three MLPs that do not know of each other, over the fields and their products: what CETN is compared with.

    `logit = sum over spaces of w . MLP(view) + b`

    Args:
        schema: a fitted `Schema`.
        embedding_dim: width of the embedding table.
        spaces: of `"fields"`, `"elementwise"` and `"inner"` products; one alone is a row of the paper's table 8.
        hidden_units, activation, dropout, batch_norm: of the MLPs.
        embedding_l2, l2_scope: see `CTRModel`.

    Reference: [Li et al., 2023](https://arxiv.org/abs/2312.09715), section 4.6.3.
    """

    def __init__(
        self,
        schema: Schema,
        embedding_dim: int = 20,
        spaces: Sequence[str] = SPACES,
        hidden_units: Sequence[int] = (400, 400),
        activation: str | Sequence[str] = "relu",
        dropout: float = 0.0,
        batch_norm: bool = False,
        **options: Unpack[ModelOptions],
    ) -> None:
        ids = ids_input(schema)  # (batch, columns)
        embedding = FeatureEmbedding(schema, embedding_dim)
        views = semantic_views(embedding(ids), spaces)  # one a space
        values, _ = values_and_weights(views, hidden_units, None, activation, dropout, batch_norm=batch_norm)  # (batch, units)
        logit = SpaceFusion()(values)  # (batch, 1)
        super().__init__(schema, ids, {"logit": logit}, [embedding], **options)
