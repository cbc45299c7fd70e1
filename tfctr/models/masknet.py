from collections.abc import Sequence
from typing import Literal, Unpack

from tfctr.layers import MLP, FeatureEmbedding, MaskBlocks, linear
from tfctr.models._base import CTRModel, ModelOptions, ids_input
from tfctr.models._registry import register
from tfctr.schema import Schema


@register
class MaskNet(CTRModel):
    """Feed-forward blocks that multiply their input by a mask made from the instance.

    `logit = w . MaskBlocks(fields) + b`, or `w . MLP(MaskBlocks(fields)) + b` where the blocks are parallel

    Args:
        schema: a fitted `Schema`.
        embedding_dim: width of the embedding table.
        arrangement: `"serial"` (SerMaskNet) or `"parallel"` (ParaMaskNet).
        block_units: width of each mask block.
        reduction_ratio, dropout, field_norms: of `MaskBlocks`; a ratio of 2, and 400 units, are the paper's.
        hidden_units: of the `MLP` above parallel blocks.
        embedding_l2, l2_scope: see `CTRModel`.

    Reference: [Wang et al., 2021](https://arxiv.org/abs/2102.07619), eq. 5-17.
    """

    def __init__(
        self,
        schema: Schema,
        embedding_dim: int = 16,
        arrangement: Literal["serial", "parallel"] = "serial",
        block_units: Sequence[int] = (400, 400, 400),
        reduction_ratio: float = 2.0,
        hidden_units: Sequence[int] = (400, 400, 400),
        dropout: float = 0.0,
        field_norms: bool = False,
        **options: Unpack[ModelOptions],
    ) -> None:
        ids = ids_input(schema)  # (batch, columns)
        embedding = FeatureEmbedding(schema, embedding_dim)
        blocks = MaskBlocks(block_units, arrangement, reduction_ratio, dropout, field_norms)
        deep = blocks(embedding(ids))  # (batch, units)
        if arrangement == "parallel":
            deep = MLP(hidden_units, dropout=dropout)(deep)
        logit = linear(1, dtype="float32")(deep)  # (batch, 1)
        super().__init__(schema, ids, {"logit": logit}, [embedding], **options)
