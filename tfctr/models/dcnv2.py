from collections.abc import Sequence
from typing import Literal, Unpack

from tfctr.layers import MLP, CrossNetwork, LowRankCrossNetwork
from tfctr.models._base import CTRModel, ModelOptions, ids_input
from tfctr.models._deep_cross import deep_cross
from tfctr.models._registry import register
from tfctr.schema import Schema


@register
class DCNv2(CTRModel):
    """A cross network whose crosses are weighted by matrices, beside or before an MLP.

    `logit = w . [x_L, MLP(fields)] + b` (parallel) or `w . MLP(x_L) + b` (stacked), `x[l+1] = x[0] * (W[l] x[l] + b[l]) + x[l]`

    Args:
        schema: a fitted `Schema`.
        embedding_dim: width of the embedding table.
        num_layers: cross layers; two are the paper's best for Criteo.
        rank: None for full matrices, or the rank of each expert (DCN-Mix).
        num_experts: low-rank matrices that a softmax gate mixes in each layer.
        structure: `"parallel"` or `"stacked"`; the paper finds that it depends on the data.
        hidden_units, activation, dropout, batch_norm: of the `MLP`.
        embedding_l2, l2_scope: see `CTRModel`.

    Raises:
        ConfigError: an unknown structure, or an argument out of range.

    Reference: [Wang et al., 2021](https://arxiv.org/abs/2008.13535), eq. 1-4, section 3.4.
    """

    def __init__(
        self,
        schema: Schema,
        embedding_dim: int = 16,
        num_layers: int = 2,
        rank: int | None = None,
        num_experts: int = 4,
        structure: Literal["parallel", "stacked"] = "parallel",
        hidden_units: Sequence[int] = (400, 400, 400),
        activation: str = "relu",
        dropout: float = 0.0,
        batch_norm: bool = False,
        **options: Unpack[ModelOptions],
    ) -> None:
        ids = ids_input(schema)  # (batch, columns)
        cross = CrossNetwork(num_layers) if rank is None else LowRankCrossNetwork(num_layers, rank, num_experts)
        deep = MLP(hidden_units, activation, dropout, batch_norm)
        outputs, embeddings = deep_cross(schema, ids, embedding_dim, cross, deep, structure)
        super().__init__(schema, ids, outputs, embeddings, **options)
