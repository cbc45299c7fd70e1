from tfctr.layers import FeatureEmbedding, SpaceFusion
from tfctr.models._base import CTRModel, ids_input
from tfctr.models._registry import register
from tfctr.models._spaces import SPACES, semantic_views, values_and_weights


@register
class SimMHN(CTRModel):
    """The simple multi-head network: fields and their products, each read by a Key-Value Block, summed.

    `logit = sum over spaces of K(view) * (w . V(view) + b)`

    Args:
        schema: a fitted `Schema`.
        embedding_dim: width of the embedding table.
        spaces: of `"fields"`, `"elementwise"` and `"inner"` products.
        hidden_units, activation, dropout: of the value networks.
        weight_hidden_units, weight_dropout: of the weight networks.
        batch_norm: of all networks.
        embedding_l2, l2_scope: see `CTRModel`.

    Reference: [Li et al., 2023](https://arxiv.org/abs/2312.09715), eq. 8-11.
    """

    def __init__(
        self,
        schema,
        embedding_dim=20,
        spaces=SPACES,
        hidden_units=(400, 400),
        weight_hidden_units=(400, 400),
        activation="leaky_relu",
        dropout=0.0,
        weight_dropout=0.0,
        batch_norm=False,
        embedding_l2=0.0,
        l2_scope="table",
        name=None,
    ):
        ids = ids_input(schema)  # (batch, columns)
        embedding = FeatureEmbedding(schema, embedding_dim)
        views = semantic_views(embedding(ids), spaces)  # one a space
        values, weights = values_and_weights(
            views, hidden_units, weight_hidden_units, activation, dropout, weight_dropout, batch_norm
        )  # (batch, units) and (batch, 1) a space
        logit = SpaceFusion()(values, weights)  # (batch, 1)
        super().__init__(schema, ids, {"logit": logit}, [embedding], embedding_l2=embedding_l2, l2_scope=l2_scope, name=name)
