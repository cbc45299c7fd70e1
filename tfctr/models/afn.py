from collections.abc import Sequence
from typing import Unpack

from tfctr.layers import MLP, FeatureEmbedding, LogarithmicNetwork, SeparateEmbedding, StackedFusion, SumFusion, linear
from tfctr.losses import HeadLoss
from tfctr.models._base import CTRModel, ModelOptions, ids_input
from tfctr.models._registry import register
from tfctr.models._twin import twin_outputs
from tfctr.schema import Schema


@register
class AFN(CTRModel):
    """Crosses of learned degree, beside an MLP with an embedding table of its own (AFN+).

    `logit = w_1 z_l + w_2 z_d + b`, `z_l = head(MLP(exp(sum_i w_ij ln |e_i|)))`, `z_d = head(MLP(fields))`; without the second
    MLP it is AFN. Each network learns by its own loss, `loss = ctr(logit) + log_loss(z_l) + log_loss(z_d)`: no gradient of the
    first reaches them.

    Args:
        schema: a fitted `Schema`.
        embedding_dim: width of each embedding table.
        neurons, logarithmic_hidden_units: of the `LogarithmicNetwork`; the paper has 600 neurons for Frappe, 1,500 for Criteo.
        hidden_units: of the `MLP` beside it; None leaves it out.
        activation, dropout, batch_norm: of both; the paper normalizes. The authors' code does so after the activation, this one
            before, as FuxiCTR.
        joint: whether both networks learn by the loss of `logit = z_l + z_d` alone, as in FuxiCTR (the two weights are in the
            heads then), and not each by its own, as in the paper and its authors' code.
        embedding_l2, l2_scope: see `CTRModel`.

    Reference: [Cheng et al., 2020](https://arxiv.org/abs/1909.03276), sections "Logarithmic Transformation Layer" and
    "Ensemble AFN with DNN".
    """

    EARLIER = (("joint", True),)

    def __init__(
        self,
        schema: Schema,
        embedding_dim: int = 16,
        neurons: int = 600,
        logarithmic_hidden_units: Sequence[int] = (400, 400, 400),
        hidden_units: Sequence[int] | None = (400, 400, 400),
        activation: str = "relu",
        dropout: float = 0.0,
        batch_norm: bool = True,
        joint: bool = False,
        **options: Unpack[ModelOptions],
    ) -> None:
        ids = ids_input(schema)  # (batch, columns)
        logarithmic = LogarithmicNetwork(neurons, logarithmic_hidden_units, activation, dropout, batch_norm)
        auxiliary = {}
        if hidden_units is None:
            embeddings = [FeatureEmbedding(schema, embedding_dim)]
            outputs = {"logit": linear(1, dtype="float32")(logarithmic(embeddings[0](ids)))}  # (batch, 1)
        else:
            selection = SeparateEmbedding(schema, embedding_dim, simple_dim=embedding_dim)
            deep = MLP(hidden_units, activation, dropout, batch_norm)
            fusion = SumFusion() if joint else StackedFusion()
            embeddings = selection.embeddings
            outputs = twin_outputs(ids, selection, logarithmic, deep, fusion)
            auxiliary = {} if joint else {"heads": HeadLoss(["simple", "complex"])}
        super().__init__(schema, ids, outputs, embeddings, auxiliary, **options)
