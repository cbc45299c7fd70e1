from collections.abc import Sequence
from typing import Unpack

import keras

from tfctr.layers import MLP, TargetAttention, linear
from tfctr.models._base import CTRModel, ModelOptions, ids_input
from tfctr.models._histories import embed_with_histories
from tfctr.models._registry import register
from tfctr.schema import Schema


@register
class DIN(CTRModel):
    """A history counts by how much each of its items has to do with the target (deep interest network).

    `logit = w . MLP([fields, TargetAttention(history, target), ...]) + b`, where the fields are those of all other features

    Args:
        schema: a fitted `Schema`.
        embedding_dim: width of the embedding table.
        histories: names of sequences; None for all that share a vocabulary with a feature of one token a row.
        targets: for each history the feature that it is read beside; None for the first of its vocabulary.
        attention_units, attention_activation, softmax: of the `TargetAttention`.
        hidden_units, activation, dropout, batch_norm: of the `MLP`; the widths and Dice are the paper's.
        embedding_l2, l2_scope: see `CTRModel`.

    Raises:
        ConfigError: no history with a target, or a name that is none.

    Reference: [Zhou et al., 2018](https://arxiv.org/abs/1706.06978), section 4.3.
    """

    def __init__(
        self,
        schema: Schema,
        embedding_dim: int = 16,
        histories: Sequence[str] | None = None,
        targets: Sequence[str] | None = None,
        attention_units: Sequence[int] = (80, 40),
        attention_activation: str = "dice",
        softmax: bool = False,
        hidden_units: Sequence[int] = (200, 80),
        activation: str = "dice",
        dropout: float = 0.0,
        batch_norm: bool = False,
        **options: Unpack[ModelOptions],
    ) -> None:
        ids = ids_input(schema)  # (batch, columns)
        embedding, fields, pairs = embed_with_histories(schema, embedding_dim, ids, histories, targets)
        attended = [TargetAttention(attention_units, attention_activation, softmax)(pair) for pair in pairs]  # (batch, dim)
        view = keras.layers.Concatenate()([keras.layers.Flatten()(fields), *attended])  # (batch, units)
        deep = MLP(hidden_units, activation, dropout, batch_norm)(view)  # (batch, units)
        logit = linear(1, dtype="float32")(deep)  # (batch, 1)
        super().__init__(schema, ids, {"logit": logit}, [embedding], **options)
