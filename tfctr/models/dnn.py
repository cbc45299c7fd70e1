from tfctr.layers import MLP, FeatureEmbedding, linear
from tfctr.models._base import CTRModel, ids_input
from tfctr.models._registry import register


@register
class DNN(CTRModel):
    """An MLP over the fields.

    `logit = w . MLP(fields) + b`

    Args:
        schema: a fitted `Schema`.
        embedding_dim: width of the embedding table.
        hidden_units, activation, dropout, batch_norm: of the `MLP`.
        embedding_l2, l2_scope: see `CTRModel`.

    Reference: [Covington et al., 2016](https://doi.org/10.1145/2959100.2959190), section 4.
    """

    def __init__(
        self,
        schema,
        embedding_dim=16,
        hidden_units=(400, 400, 400),
        activation="relu",
        dropout=0.0,
        batch_norm=False,
        embedding_l2=0.0,
        l2_scope="table",
        name=None,
    ):
        ids = ids_input(schema)  # (batch, columns)
        embedding = FeatureEmbedding(schema, embedding_dim)
        deep = MLP(hidden_units, activation, dropout, batch_norm)(embedding(ids))  # (batch, units)
        logit = linear(1, dtype="float32")(deep)  # (batch, 1)
        super().__init__(schema, ids, {"logit": logit}, [embedding], embedding_l2=embedding_l2, l2_scope=l2_scope, name=name)
