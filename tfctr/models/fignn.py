from typing import Unpack

from tfctr.layers import AttentiveScore, FeatureEmbedding, FieldGraph
from tfctr.models._base import CTRModel, ModelOptions, ids_input
from tfctr.models._registry import register
from tfctr.schema import Schema


@register
class FiGNN(CTRModel):
    """A graph neural network whose nodes are the fields.

    `logit = sum_i sigmoid(V h)_i * (u . h_i)`, `h_i` the state of field `i` after all steps of `FieldGraph`

    Args:
        schema: a fitted `Schema`.
        embedding_dim: width of the embedding table.
        num_steps, state_dim, num_heads, shared_steps, edges, reset_after: of `FieldGraph`. 3 steps are those of the authors'
            first code and FuxiCTR's default; their code of today makes 1, and 2 in its README, with 2 heads and 16 wide states.
            `edges="heard", shared_steps=False, reset_after=True, num_heads=0` is FuxiCTR's function.
        output_bias: whether the logit has a bias: without, as published, it cannot start at the click rate.
        embedding_l2, l2_scope: see `CTRModel`.

    Reference: [Li et al., 2019](https://arxiv.org/abs/1910.05552), section 3.
    """

    def __init__(
        self,
        schema: Schema,
        embedding_dim: int = 16,
        num_steps: int = 3,
        state_dim: int = 16,
        num_heads: int = 2,
        shared_steps: bool = True,
        edges: str = "sent",
        reset_after: bool = False,
        output_bias: bool = False,
        **options: Unpack[ModelOptions],
    ) -> None:
        ids = ids_input(schema)  # (batch, columns)
        embedding = FeatureEmbedding(schema, embedding_dim)
        graph = FieldGraph(num_steps, state_dim, num_heads, shared_steps, edges, reset_after)
        states = graph(embedding(ids))  # (batch, fields * state_dim)
        logit = AttentiveScore(len(schema.fields), use_bias=output_bias)(states)  # (batch, 1)
        super().__init__(schema, ids, {"logit": logit}, [embedding], **options)
