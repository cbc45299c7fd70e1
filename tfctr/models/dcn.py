from collections.abc import Sequence
from typing import Unpack

from tfctr.layers import MLP, VectorCrossNetwork
from tfctr.models._base import CTRModel, ModelOptions, ids_input
from tfctr.models._deep_cross import deep_cross
from tfctr.models._registry import register
from tfctr.schema import Schema


@register
class DCN(CTRModel):
    """A cross network whose crosses are weighted by vectors, beside an MLP.

    `logit = w . [x_L, MLP(fields)] + b`, `x[l+1] = x[0] * <w[l], x[l]> + b[l] + x[l]`

    Args:
        schema: a fitted `Schema`.
        embedding_dim: width of the embedding table.
        num_layers: cross layers; six are the paper's best for Criteo.
        hidden_units, activation, dropout, batch_norm: of the `MLP`.
        embedding_l2, l2_scope: see `CTRModel`.

    Reference: [Wang et al., 2017](https://arxiv.org/abs/1708.05123), eq. 3-5.
    """

    def __init__(
        self,
        schema: Schema,
        embedding_dim: int = 16,
        num_layers: int = 6,
        hidden_units: Sequence[int] = (400, 400, 400),
        activation: str = "relu",
        dropout: float = 0.0,
        batch_norm: bool = False,
        **options: Unpack[ModelOptions],
    ) -> None:
        ids = ids_input(schema)  # (batch, columns)
        deep = MLP(hidden_units, activation, dropout, batch_norm)
        outputs, embeddings = deep_cross(schema, ids, embedding_dim, VectorCrossNetwork(num_layers), deep, "parallel")
        super().__init__(schema, ids, outputs, embeddings, **options)
