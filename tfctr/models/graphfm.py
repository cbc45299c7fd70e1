from collections.abc import Sequence
from typing import Unpack

from tfctr.layers import FactorizationGraph, FeatureEmbedding, linear
from tfctr.models._base import CTRModel, ModelOptions, ids_input
from tfctr.models._registry import register
from tfctr.schema import Schema


@register
class GraphFM(CTRModel):
    """Factorization machines stacked on a graph that keeps each field's best neighbours.

    `logit = w . mean over fields of [e^1, e^2, ...] + b`, `e^k` the fields after layer `k` of `FactorizationGraph`

    Args:
        schema: a fitted `Schema`.
        embedding_dim: width of the embedding table.
        hidden_units, kept, num_heads, form: of `FactorizationGraph`; three layers of 64, 2 heads, and the 39, 20 and 5
            neighbours of Criteo's 39 fields are the paper's. `form="released"` is the authors' code: it has matrices of its own
            for each field, about as many times the parameters as there are fields.
        embedding_l2, l2_scope: see `CTRModel`.

    Reference: [Li et al., 2021](https://arxiv.org/abs/2105.11866).
    """

    def __init__(
        self,
        schema: Schema,
        embedding_dim: int = 16,
        hidden_units: Sequence[int] = (64, 64, 64),
        kept: Sequence[float] = (1.0, 0.5, 0.125),
        num_heads: int = 2,
        form: str = "paper",
        **options: Unpack[ModelOptions],
    ) -> None:
        ids = ids_input(schema)  # (batch, columns)
        embedding = FeatureEmbedding(schema, embedding_dim)
        graph = FactorizationGraph(hidden_units, kept, num_heads, form=form)
        pooled = graph(embedding(ids))  # (batch, sum(hidden_units))
        logit = linear(1, dtype="float32")(pooled)  # (batch, 1)
        super().__init__(schema, ids, {"logit": logit}, [embedding], **options)
