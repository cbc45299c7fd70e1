from typing import Literal, Unpack

import keras

from tfctr.errors import choose
from tfctr.layers import Dropout, FactorizationMachine, FeatureEmbedding, FieldTransformer, LinearTerms, linear
from tfctr.losses.self_supervision import FieldSignal, ViewDistance
from tfctr.models._base import CTRModel, ModelOptions, ids_input
from tfctr.models._registry import register
from tfctr.schema import Schema

MASKS = {"random": None, "feature": (None, None, 1), "dimension": (None, 1, None)}  # what falls together
UNIFORMITIES = {"pairs": "uniformity", "released": "released_uniformity"}


@register
class CL4CTR(CTRModel):
    """Any encoder, over embeddings that self-supervision keeps apart by field and alike within.

    `logit = sum over fields of w[id] + head(encoder(fields)) + b`;
    `loss = ctr + contrast_weight * |h_1 - h_2|^2 + regularization_weight * (alignment + uniformity) + l2`, where `h_k` is a
    projection of `FieldTransformer(mask_k(fields))`

    Args:
        schema: a fitted `Schema`.
        embedding_dim: width of the embedding table.
        encoder: a layer from fields to a representation; by default `FactorizationMachine()`, the paper's base model.
        contrast_weight, regularization_weight: the paper's alpha and beta.
        mask: what a mask drops together: `"random"` components, a whole `"feature"`, or a `"dimension"` of all features.
        mask_share: share that each of the two masks drops.
        num_layers, num_heads, hidden_dim, dropout: of the `FieldTransformer`, which is for training only.
        uniformity: `"pairs"`, `tfctr.losses.field_uniformity`, the mean cosine of the pairs of two fields; or `"released"`,
            `tfctr.losses.released_uniformity`, that of the authors' code.
        embedding_l2, l2_scope: see `CTRModel`.

    Alignment and uniformity are of a batch's rows, as in the authors' faster form. Their code flattens `(fields, batch, dim)`
    as if it were `(batch, fields, dim)`, so that a row's view holds other rows' fields; here it holds its own.

    Raises:
        ConfigError: an unknown mask or uniformity.

    Reference: [Wang et al., 2023](https://arxiv.org/abs/2212.00522); its contrast as in
    [Li et al., 2023](https://arxiv.org/abs/2312.09715), eq. 21.
    """

    def __init__(
        self,
        schema: Schema,
        embedding_dim: int = 16,
        encoder: keras.layers.Layer | None = None,
        contrast_weight: float = 1.0,
        regularization_weight: float = 0.01,
        mask: Literal["random", "feature", "dimension"] = "random",
        mask_share: float = 0.5,
        num_layers: int = 3,
        num_heads: int = 1,
        hidden_dim: int = 128,
        dropout: float = 0.2,
        uniformity: Literal["pairs", "released"] = "pairs",
        **options: Unpack[ModelOptions],
    ) -> None:
        ids = ids_input(schema)  # (batch, columns)
        weights = FeatureEmbedding(schema, 1)
        vectors = FeatureEmbedding(schema, embedding_dim)
        fields = vectors(ids)  # (batch, fields, dim)
        encoded = (encoder or FactorizationMachine())(fields)  # (batch, units)
        interactions = encoded if encoded.shape[1] == 1 else linear(1, dtype="float32")(encoded)  # (batch, 1)
        outputs = {"logit": LinearTerms()(weights(ids)) + interactions}  # (batch, 1)
        outputs["fields"] = keras.layers.Flatten(dtype="float32")(fields)  # (batch, fields * dim)
        transformer = FieldTransformer(num_layers, num_heads, hidden_dim, dropout)
        for view in ("first_view", "second_view"):
            masked = Dropout(mask_share, choose(MASKS, mask, "mask"))(fields)  # (batch, fields, dim)
            outputs[view] = linear(embedding_dim, dtype="float32")(transformer(masked))  # (batch, dim)
        count = len(schema.fields)
        auxiliary = {
            "contrast": ViewDistance("first_view", "second_view", contrast_weight),
            "alignment": FieldSignal("fields", count, "alignment", regularization_weight),
            "uniformity": FieldSignal("fields", count, choose(UNIFORMITIES, uniformity, "uniformity"), regularization_weight),
        }
        super().__init__(schema, ids, outputs, [weights, vectors], auxiliary, **options)
