from tfctr.layers import CIN, MLP, FeatureEmbedding, LinearTerms, SharedEmbedding, SumFusion
from tfctr.models._base import CTRModel, ids_input
from tfctr.models._registry import register
from tfctr.models._twin import twin_outputs


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
        schema,
        embedding_dim=16,
        cin_units=(100, 100, 100),
        hidden_units=(400, 400, 400),
        activation="relu",
        dropout=0.0,
        batch_norm=False,
        embedding_l2=0.0,
        l2_scope="table",
        name=None,
    ):
        ids = ids_input(schema)  # (batch, columns)
        weights, selection = FeatureEmbedding(schema, 1), SharedEmbedding(schema, embedding_dim)
        deep = MLP(hidden_units, activation, dropout, batch_norm)
        outputs = twin_outputs(ids, selection, CIN(cin_units), deep, SumFusion())
        outputs["logit"] = outputs["logit"] + LinearTerms()(weights(ids))  # (batch, 1)
        super().__init__(
            schema,
            ids,
            outputs,
            [weights, *selection.embeddings],
            embedding_l2=embedding_l2,
            l2_scope=l2_scope,
            name=name,
        )
