from collections.abc import Sequence
from typing import Unpack

from tfctr.layers import FeatureEmbedding, FieldGate, FinalBlock, linear
from tfctr.losses.distillation import SelfDistillation
from tfctr.models._base import CTRModel, ModelOptions, ids_input
from tfctr.models._registry import register
from tfctr.schema import Schema


@register
class FinalNet(CTRModel):
    """Two networks of layers that multiply, each taught by the mean of both.

    `logit = (y_1 + y_2) / 2`, `y_1 = w_1 . FinalBlock_1(FieldGate(fields)) + b_1`, `y_2 = w_2 . FinalBlock_2(fields) + b_2`;
    `loss = ctr + cross-entropy of y_1 and y_2 with the predicted probability`, through which no gradient flows

    Args:
        schema: a fitted `Schema`.
        embedding_dim: width of the embedding table.
        hidden_units, order, residual, activation, dropout, batch_norm: of both `FinalBlock`s; the released settings have
            `residual="concatenation"`.
        field_gate: whether the first network reads gated fields beside the plain ones.
        embedding_l2, l2_scope: see `CTRModel`.

    Reference: [Zhu et al., 2023](https://doi.org/10.1145/3539618.3591988), with two blocks.
    """

    def __init__(
        self,
        schema: Schema,
        embedding_dim: int = 16,
        hidden_units: Sequence[int] = (64, 64, 64),
        order: int = 2,
        residual: str = "sum",
        activation: str = "linear",
        dropout: float = 0.0,
        batch_norm: bool = True,
        field_gate: bool = True,
        **options: Unpack[ModelOptions],
    ) -> None:
        ids = ids_input(schema)  # (batch, columns)
        embedding = FeatureEmbedding(schema, embedding_dim)
        fields = embedding(ids)  # (batch, fields, dim)
        views = [FieldGate()(fields) if field_gate else fields, fields]
        outputs = {}
        for key, view in zip(("first", "second"), views, strict=True):
            block = FinalBlock(hidden_units, order, "linear", residual, activation, dropout, batch_norm)
            outputs[key] = linear(1, dtype="float32")(block(view))  # (batch, 1)
        outputs["logit"] = 0.5 * (outputs["first"] + outputs["second"])  # (batch, 1)
        super().__init__(
            schema,
            ids,
            outputs,
            [embedding],
            auxiliary={"distillation": SelfDistillation(["first", "second"])},
            **options,
        )
