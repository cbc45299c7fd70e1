from typing import Unpack

from tfctr.layers import FeatureEmbedding, QuadraticNetwork, linear
from tfctr.layers.self_ensemble import SelfEnsemble
from tfctr.losses.distillation import SelfDistillation
from tfctr.models._base import CTRModel, ModelOptions, ids_input
from tfctr.models._registry import register
from tfctr.schema import Schema


@register
class QNNAlpha(CTRModel):
    """A network of quadratic neurons, which is taught by the mean of itself under two draws of dropout.

    `logit = w . QuadraticNetwork(fields) + b`; in training it is that of `(p_1 + p_2) / 2`, with `p_k` the probability under
    draw k, and `loss = ctr + cross-entropy of p_1 and p_2 with their mean`, through which no gradient flows

    Args:
        schema: a fitted `Schema`.
        embedding_dim: width of the embedding table.
        num_layers, num_products, num_heads, dropout, batch_norm: of `QuadraticNetwork`; the defaults are the released settings
            for Criteo. For KKBox they are 3, 3, 2, 0.1 and True, with an `embedding_dim` of 128.
        self_ensemble: whether there are two draws; a step then costs nearly twice as much, a prediction no more. Without
            dropout both are the same, and teach nothing.
        embedding_l2, l2_scope: see `CTRModel`.

    Raises:
        ConfigError: an argument out of range, or an `embedding_dim` that `num_heads` does not divide.

    Reference: [Li et al., 2025](https://arxiv.org/abs/2505.17999), QNN-alpha and self-ensemble loss, as in its released code.
    """

    def __init__(
        self,
        schema: Schema,
        embedding_dim: int = 16,
        num_layers: int = 4,
        num_products: int = 5,
        num_heads: int = 1,
        dropout: float = 0.1,
        batch_norm: bool = False,
        self_ensemble: bool = True,
        **options: Unpack[ModelOptions],
    ) -> None:
        ids = ids_input(schema)  # (batch, columns)
        embedding = FeatureEmbedding(schema, embedding_dim)
        fields = embedding(ids)  # (batch, fields, dim)
        network = QuadraticNetwork(num_layers, num_products, num_heads, dropout, batch_norm)
        head = linear(1, dtype="float32")
        outputs, auxiliary = {"logit": head(network(fields))}, {}  # (batch, 1)
        if self_ensemble:
            outputs = {"first": outputs["logit"], "second": head(network(fields))}  # (batch, 1) each
            outputs["logit"] = SelfEnsemble()([outputs["first"], outputs["second"]])  # (batch, 1)
            auxiliary = {"self_ensemble": SelfDistillation(["first", "second"])}
        super().__init__(schema, ids, outputs, [embedding], auxiliary, **options)
