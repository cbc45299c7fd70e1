from collections.abc import Sequence
from typing import Unpack

from keras import ops

from tfctr.layers import MLP, BilinearInteraction, FeatureEmbedding, LinearTerms, SqueezeExcitation, linear
from tfctr.models._base import CTRModel, ModelOptions, ids_input
from tfctr.models._registry import register
from tfctr.schema import Schema


@register
class FiBiNET(CTRModel):
    """An MLP over the products of all pairs of fields, once as they are and once weighed and turned.

    `logit = sum_i w[id_i] + w . MLP([products(fields), bilinear(SqueezeExcitation(fields))]) + b`

    Args:
        schema: a fitted `Schema`.
        embedding_dim: width of the embedding table.
        reduction: of the `SqueezeExcitation`; the paper has 3.
        products, bilinear: kinds of the two `BilinearInteraction`s. Matrices for the weighed fields only are the paper's choice
            for its deep model, one for each pair its best for Criteo.
        hidden_units, activation, dropout, batch_norm: of the `MLP`; the paper drops half of the units.
        embedding_l2, l2_scope: see `CTRModel`.

    Raises:
        ConfigError: an unknown kind, fewer than two fields, or an argument out of range.

    Reference: [Huang et al., 2019](https://arxiv.org/abs/1905.09433), eq. 1-9, table 3 ("01") and table 4.
    """

    def __init__(
        self,
        schema: Schema,
        embedding_dim: int = 16,
        reduction: int = 3,
        products: str = "hadamard",
        bilinear: str = "interaction",
        hidden_units: Sequence[int] = (400, 400, 400),
        activation: str = "relu",
        dropout: float = 0.0,
        batch_norm: bool = False,
        **options: Unpack[ModelOptions],
    ) -> None:
        ids = ids_input(schema)  # (batch, columns)
        weights = FeatureEmbedding(schema, 1)
        vectors = FeatureEmbedding(schema, embedding_dim)
        fields = vectors(ids)  # (batch, fields, dim)
        weighed = SqueezeExcitation(reduction)(fields)  # (batch, fields, dim)
        pairs = [BilinearInteraction(products)(fields), BilinearInteraction(bilinear)(weighed)]  # (batch, pairs * dim) each
        deep = MLP(hidden_units, activation, dropout, batch_norm)(ops.concatenate(pairs, axis=-1))  # (batch, units)
        super().__init__(
            schema,
            ids,
            {"logit": LinearTerms()(weights(ids)) + linear(1, dtype="float32")(deep)},
            [weights, vectors],
            **options,
        )
