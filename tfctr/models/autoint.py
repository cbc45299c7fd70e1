from collections.abc import Sequence
from typing import Unpack

from tfctr.layers import MLP, SelfAttention, SharedEmbedding, SumFusion, linear
from tfctr.models._base import CTRModel, ModelOptions, ids_input
from tfctr.models._registry import register
from tfctr.models._twin import twin_outputs
from tfctr.schema import Schema


@register
class AutoInt(CTRModel):
    """Self-attention between the fields, beside an MLP (AutoInt+).

    `logit = w_a . SelfAttention(fields) + w_d . MLP(fields) + b`; without the MLP it is AutoInt

    Args:
        schema: a fitted `Schema`.
        embedding_dim: width of the embedding table.
        num_layers, num_heads, head_dim: of the `SelfAttention`; three layers of two heads 32 wide are the paper's.
        hidden_units, activation, dropout, batch_norm: of the `MLP`; `hidden_units=None` leaves it out.
        embedding_l2, l2_scope: see `CTRModel`.

    Reference: [Song et al., 2019](https://arxiv.org/abs/1810.11921), eq. 5-9.
    """

    def __init__(
        self,
        schema: Schema,
        embedding_dim: int = 16,
        num_layers: int = 3,
        num_heads: int = 2,
        head_dim: int = 32,
        hidden_units: Sequence[int] | None = (400, 400, 400),
        activation: str = "relu",
        dropout: float = 0.0,
        batch_norm: bool = False,
        **options: Unpack[ModelOptions],
    ) -> None:
        ids = ids_input(schema)  # (batch, columns)
        selection = SharedEmbedding(schema, embedding_dim)
        attention = SelfAttention(num_layers, num_heads, head_dim)
        if hidden_units is None:
            fields, _ = selection(ids)  # (batch, fields, dim)
            outputs = {"logit": linear(1, dtype="float32")(attention(fields))}  # (batch, 1)
        else:
            deep = MLP(hidden_units, activation, dropout, batch_norm)
            outputs = twin_outputs(ids, selection, attention, deep, SumFusion())
        super().__init__(schema, ids, outputs, selection.embeddings, **options)
