from tfctr.layers import MLP, VectorCrossNetwork
from tfctr.models._base import CTRModel, ids_input
from tfctr.models._deep_cross import deep_cross
from tfctr.models._registry import register


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
        schema,
        embedding_dim=16,
        num_layers=6,
        hidden_units=(400, 400, 400),
        activation="relu",
        dropout=0.0,
        batch_norm=False,
        embedding_l2=0.0,
        l2_scope="table",
        name=None,
    ):
        ids = ids_input(schema)  # (batch, columns)
        deep = MLP(hidden_units, activation, dropout, batch_norm)
        outputs, embeddings = deep_cross(schema, ids, embedding_dim, VectorCrossNetwork(num_layers), deep, "parallel")
        super().__init__(schema, ids, outputs, embeddings, embedding_l2=embedding_l2, l2_scope=l2_scope, name=name)
