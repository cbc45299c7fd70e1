from collections.abc import Sequence
from typing import Unpack

from tfctr.layers import MLP, LinearTerms, SeparateEmbedding, SumFusion
from tfctr.models._base import CTRModel, ModelOptions, ids_input
from tfctr.models._registry import register
from tfctr.models._twin import twin_outputs
from tfctr.schema import Schema


@register
class WideDeep(CTRModel):
    """A linear model that memorises beside an MLP that generalises.

    `logit = sum over fields of w[id] + w . MLP(fields) + b`

    The sentence of TF4CTR with other words: separate tables, the simple one a single number wide; linear terms and an MLP; sum.

    Args:
        schema: a fitted `Schema`.
        embedding_dim: width of the MLP's embedding table.
        hidden_units, activation, dropout, batch_norm: of the `MLP`.
        embedding_l2, l2_scope: see `CTRModel`.

    Reference: [Cheng et al., 2016](https://arxiv.org/abs/1606.07792), eq. 3, without hand-made crosses.
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
        selection = SeparateEmbedding(schema, embedding_dim, simple_dim=1)
        deep = MLP(hidden_units, activation, dropout, batch_norm)
        outputs = twin_outputs(ids, selection, LinearTerms(), deep, SumFusion())
        super().__init__(schema, ids, outputs, selection.embeddings, **options)
