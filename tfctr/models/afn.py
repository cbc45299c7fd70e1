from tfctr.layers import MLP, FeatureEmbedding, LogarithmicNetwork, SeparateEmbedding, SumFusion, linear
from tfctr.models.base import CTRModel, ids_input
from tfctr.models.registry import register
from tfctr.models.twin import twin_outputs


@register
class AFN(CTRModel):
    """Crosses of learned degree, beside an MLP with an embedding table of its own (AFN+).

    `logit = w_l . MLP(exp(sum_i w_ij ln |e_i|)) + w_d . MLP(fields) + b`; without the second MLP it is AFN

    Args:
        schema: a fitted `Schema`.
        embedding_dim: width of each embedding table.
        neurons, logarithmic_hidden_units: of the `LogarithmicNetwork`; the paper has 600 neurons for Frappe, 1,500 for Criteo.
        hidden_units: of the `MLP` beside it; None leaves it out.
        activation, dropout, batch_norm: of both; the paper normalizes.
        embedding_l2, l2_scope: see `CTRModel`.

    Reference: [Cheng et al., 2020](https://arxiv.org/abs/1909.03276), sections "Logarithmic Transformation Layer" and
    "Ensemble AFN with DNN", whose two weights of the logits are in the linear heads here.
    """

    def __init__(
        self,
        schema,
        embedding_dim=16,
        neurons=600,
        logarithmic_hidden_units=(400, 400, 400),
        hidden_units=(400, 400, 400),
        activation="relu",
        dropout=0.0,
        batch_norm=True,
        embedding_l2=0.0,
        l2_scope="table",
        name=None,
    ):
        ids = ids_input(schema)  # (batch, columns)
        logarithmic = LogarithmicNetwork(neurons, logarithmic_hidden_units, activation, dropout, batch_norm)
        if hidden_units is None:
            embeddings = [FeatureEmbedding(schema, embedding_dim)]
            outputs = {"logit": linear(1, dtype="float32")(logarithmic(embeddings[0](ids)))}  # (batch, 1)
        else:
            selection = SeparateEmbedding(schema, embedding_dim, simple_dim=embedding_dim)
            deep = MLP(hidden_units, activation, dropout, batch_norm)
            embeddings, outputs = selection.embeddings, twin_outputs(ids, selection, logarithmic, deep, SumFusion())
        super().__init__(schema, ids, outputs, embeddings, embedding_l2=embedding_l2, l2_scope=l2_scope, name=name)
