from collections.abc import Sequence
from typing import Literal, Unpack

from tfctr.layers import FeatureEmbedding, SpaceFusion, ThroughConnection
from tfctr.models._base import CTRModel, ModelOptions, ids_input
from tfctr.models._registry import register
from tfctr.models._spaces import SPACES, diversity_and_homogeneity, semantic_views, values_and_weights
from tfctr.schema import Schema


@register
class CETN(CTRModel):
    """Several semantic spaces of the same fields, kept diverse by a contrast and alike by through connections.

    `logit = sum_i K_i * (w_i . V_i + b_i)`, where `V_0 = MLP_0(fields)` and `V_i = MLP_i(products) + V_0`;
    `loss = ctr + contrast_weight * do_info_nce(V_1, V_2) + sum_i cosine_weights[i] * cosine_distance(V_0, V_i) + l2`

    Args:
        schema: a fitted `Schema`.
        embedding_dim: width of the embedding table.
        spaces: of `"fields"`, `"elementwise"` and `"inner"` products; the first is the main one, the others are auxiliary.
        hidden_units, activation, dropout: of the value networks; one activation, or one a space.
        weight_hidden_units, weight_dropout: of the weight networks; None for no weights.
        batch_norm, use_bias: of all networks, as in `MLP`. With batch normalization, do without the bias: the products of small
            embeddings vary so little that validation collapses with some seeds otherwise.
        perturbation: scale of the noise on the fields before the products, in training only.
        through: whether the main value is added to the auxiliary ones.
        contrast: `"do_info_nce"` or `"info_nce"`, between the two auxiliary spaces; None for none.
        contrast_weight, temperature: of the contrast.
        cosine_weights: of each auxiliary space's distance from the main one; None for none.
        shared_projection: one `w` and `b` for all spaces.
        embedding_l2, l2_scope: see `CTRModel`.

    Reference: [Li et al., 2023](https://arxiv.org/abs/2312.09715), eq. 8-19; the defaults are its best run's on Frappe, without
    batch normalization and dropout.
    """

    def __init__(
        self,
        schema: Schema,
        embedding_dim: int = 20,
        spaces: Sequence[str] = SPACES,
        hidden_units: Sequence[int] = (400, 400),
        weight_hidden_units: Sequence[int] | None = (400,),
        activation: str | Sequence[str] = ("gelu", "relu", "mish"),
        dropout: float = 0.0,
        weight_dropout: float = 0.0,
        batch_norm: bool = False,
        use_bias: bool = True,
        perturbation: float = 0.0,
        through: bool = True,
        contrast: Literal["do_info_nce", "info_nce"] | None = "do_info_nce",
        contrast_weight: float = 0.1,
        temperature: float = 0.3,
        cosine_weights: float | Sequence[float] | None = (0.1, 0.7),
        shared_projection: bool = False,
        **options: Unpack[ModelOptions],
    ) -> None:
        ids = ids_input(schema)  # (batch, columns)
        embedding = FeatureEmbedding(schema, embedding_dim)
        views = semantic_views(embedding(ids), spaces, perturbation)  # one a space
        (main, *others), weights = values_and_weights(
            views, hidden_units, weight_hidden_units, activation, dropout, weight_dropout, batch_norm, use_bias
        )  # (batch, units) and (batch, 1) a space
        values = [main, *(ThroughConnection()(value, main) if through else value for value in others)]  # (batch, units) each
        outputs = {"logit": SpaceFusion(shared_projection)(values, weights)}  # (batch, 1)
        outputs |= {f"value_{i}": value for i, value in enumerate(values)}  # what the losses compare
        auxiliary = diversity_and_homogeneity(len(others), contrast, contrast_weight, temperature, cosine_weights)
        super().__init__(schema, ids, outputs, [embedding], auxiliary, **options)
