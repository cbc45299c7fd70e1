from typing import Unpack

from tfctr.layers import ExponentialCrossNetwork, LinearCrossNetwork, MeanFusion, SharedEmbedding
from tfctr.losses import TriBCELoss
from tfctr.models._base import CTRModel, ModelOptions, ids_input
from tfctr.models._registry import register
from tfctr.models._twin import twin_outputs
from tfctr.schema import Schema


@register
class FCN(CTRModel):
    """Two cross networks, of linear and of exponential degree, each taught by itself as far as it is behind their mean.

    `logit = (simple + complex) / 2`, `simple = w_s . LCN(fields) + b_s`, `complex = w_c . ECN(fields) + b_c`;
    `loss = ctr + max(0, L_s - L) * L_s + max(0, L_c - L) * L_c + l2`, with `L` the batch's log loss of each logit

    The sentence of TF4CTR with other words: `shared`, `LinearCrossNetwork`, `ExponentialCrossNetwork`, `mean`, Tri-BCE.

    Args:
        schema: a fitted `Schema`.
        embedding_dim: width of the embedding table, of all heads together: the authors' times `num_heads`.
        num_linear_layers, linear_dropout: of `LinearCrossNetwork`.
        num_exponential_layers, exponential_dropout: of `ExponentialCrossNetwork`. The released settings for Criteo have the
            dropouts 0.2 and 0.1.
        num_heads, layer_norm, batch_norm: of both.
        embedding_l2, l2_scope: see `CTRModel`.

    Raises:
        ConfigError: an argument out of range, or an `embedding_dim` that is not a multiple of `2 * num_heads`.

    Reference: [Li et al., 2024](https://arxiv.org/abs/2407.13349), also known as DCNv3; where the bias stands, how it starts
    and how the gradient of Tri-BCE flows are as in its released code.
    """

    def __init__(
        self,
        schema: Schema,
        embedding_dim: int = 16,
        num_linear_layers: int = 4,
        num_exponential_layers: int = 3,
        linear_dropout: float = 0.0,
        exponential_dropout: float = 0.0,
        num_heads: int = 1,
        layer_norm: bool = True,
        batch_norm: bool = False,
        **options: Unpack[ModelOptions],
    ) -> None:
        ids = ids_input(schema)  # (batch, columns)
        selection = SharedEmbedding(schema, embedding_dim)
        linear = LinearCrossNetwork(num_linear_layers, num_heads, linear_dropout, layer_norm, batch_norm)
        exponential = ExponentialCrossNetwork(num_exponential_layers, num_heads, exponential_dropout, layer_norm, batch_norm)
        outputs = twin_outputs(ids, selection, linear, exponential, MeanFusion())  # logit, simple, complex: (batch, 1) each
        super().__init__(schema, ids, outputs, selection.embeddings, auxiliary={"tri_bce": TriBCELoss()}, **options)
