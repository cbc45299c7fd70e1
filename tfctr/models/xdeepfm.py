from collections.abc import Sequence
from typing import Unpack

from tfctr.layers import CIN, MLP, FeatureEmbedding, LinearTerms, SharedEmbedding, SumFusion
from tfctr.models._base import CTRModel, ModelOptions, ids_input
from tfctr.models._registry import register
from tfctr.models._twin import twin_outputs
from tfctr.schema import Schema


@register
class XDeepFM(CTRModel):
    """Linear terms, a compressed interaction network and an MLP, added.

    `logit = sum_i w[id_i] + w_c . CIN(fields) + w_d . MLP(fields) + b`

    Args:
        schema: a fitted `Schema`.
        embedding_dim: width of the embedding table.
        cin_units: feature maps of each layer of the `CIN`; the paper has 100 (200 for Criteo).
        hidden_units, activation, dropout, batch_norm: of the `MLP`.
        embedding_l2, l2_scope: see `CTRModel`.

    Reference: [Lian et al., 2018](https://arxiv.org/abs/1803.05170), eq. 6-8 and 15.
    """

    def __init__(
        self,
        schema: Schema,
        embedding_dim: int = 16,
        cin_units: Sequence[int] = (100, 100, 100),
        hidden_units: Sequence[int] = (400, 400, 400),
        activation: str = "relu",
        dropout: float = 0.0,
        batch_norm: bool = False,
        **options: Unpack[ModelOptions],
    ) -> None:
        ids = ids_input(schema)  # (batch, columns)
        weights = FeatureEmbedding(schema, 1)
        selection = SharedEmbedding(schema, embedding_dim)
        deep = MLP(hidden_units, activation, dropout, batch_norm)
        outputs = twin_outputs(ids, selection, CIN(cin_units), deep, SumFusion())
        outputs["logit"] = outputs["logit"] + LinearTerms()(weights(ids))  # (batch, 1)
        super().__init__(schema, ids, outputs, [weights, *selection.embeddings], **options)
