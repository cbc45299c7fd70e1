from collections.abc import Sequence
from typing import Literal, Unpack

from tfctr.layers import MLP, GatedCrossNetwork
from tfctr.models._base import CTRModel, ModelOptions, ids_input
from tfctr.models._deep_cross import deep_cross
from tfctr.models._registry import register
from tfctr.schema import Schema


@register
class GDCN(CTRModel):
    """A cross network whose crosses pass a gate, beside or before an MLP.

    `logit = w . [x_L, MLP(fields)] + b` (parallel) or `w . MLP(x_L) + b` (stacked),
    `x[l+1] = x[0] * (W[l] x[l] + b[l]) * sigmoid(G[l] x[l]) + x[l]`

    Args:
        schema: a fitted `Schema`.
        embedding_dim: width of the embedding table.
        num_layers: gated cross layers; the gate is there to make more than two or three of them useful.
        structure: `"parallel"` (GDCN-P) or `"stacked"` (GDCN-S).
        hidden_units, activation, dropout, batch_norm: of the `MLP`.
        embedding_l2, l2_scope: see `CTRModel`.

    Raises:
        ConfigError: an unknown structure, or an argument out of range.

    Reference: [Wang et al., 2023](https://arxiv.org/abs/2311.04635), eq. 1, figure 1.
    """

    def __init__(
        self,
        schema: Schema,
        embedding_dim: int = 16,
        num_layers: int = 3,
        structure: Literal["parallel", "stacked"] = "parallel",
        hidden_units: Sequence[int] = (400, 400, 400),
        activation: str = "relu",
        dropout: float = 0.0,
        batch_norm: bool = False,
        **options: Unpack[ModelOptions],
    ) -> None:
        ids = ids_input(schema)  # (batch, columns)
        deep = MLP(hidden_units, activation, dropout, batch_norm)
        outputs, embeddings = deep_cross(schema, ids, embedding_dim, GatedCrossNetwork(num_layers), deep, structure)
        super().__init__(schema, ids, outputs, embeddings, **options)
