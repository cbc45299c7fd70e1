from collections.abc import Sequence
from typing import Unpack

import keras

from tfctr.layers import MLP, HistoryTransformer, linear
from tfctr.models._base import CTRModel, ModelOptions, ids_input
from tfctr.models._histories import embed_with_histories
from tfctr.models._registry import register
from tfctr.schema import Schema


@register
class BST(CTRModel):
    """A transformer over a history and its target, in their order (behavior sequence transformer).

    `logit = w . MLP([fields, HistoryTransformer(history, target), ...]) + b`, where the fields are those of all other features

    Args:
        schema: a fitted `Schema`.
        embedding_dim: width of the embedding table.
        histories: names of sequences; None for all that share a vocabulary with a feature of one token a row.
        targets: for each history the feature that it is read beside; None for the first of its vocabulary.
        num_layers, num_heads, hidden_dim, attention_dropout: of the `HistoryTransformer`; one layer is the paper's best.
        hidden_units, activation, dropout, batch_norm: of the `MLP`; LeakyReLU is the paper's.
        embedding_l2, l2_scope: see `CTRModel`.

    Raises:
        ConfigError: no history with a target, a name that is none, or heads that do not divide `embedding_dim`.

    Reference: [Chen et al., 2019](https://arxiv.org/abs/1905.06874), section 2.
    """

    def __init__(
        self,
        schema: Schema,
        embedding_dim: int = 16,
        histories: Sequence[str] | None = None,
        targets: Sequence[str] | None = None,
        num_layers: int = 1,
        num_heads: int = 1,
        hidden_dim: int = 64,
        attention_dropout: float = 0.0,
        hidden_units: Sequence[int] = (400, 400, 400),
        activation: str = "leaky_relu",
        dropout: float = 0.0,
        batch_norm: bool = False,
        **options: Unpack[ModelOptions],
    ) -> None:
        ids = ids_input(schema)  # (batch, columns)
        embedding, fields, pairs = embed_with_histories(schema, embedding_dim, ids, histories, targets)
        read = [HistoryTransformer(num_layers, num_heads, hidden_dim, attention_dropout)(pair) for pair in pairs]
        view = keras.layers.Concatenate()([keras.layers.Flatten()(fields), *read])  # (batch, units)
        deep = MLP(hidden_units, activation, dropout, batch_norm)(view)  # (batch, units)
        logit = linear(1, dtype="float32")(deep)  # (batch, 1)
        super().__init__(schema, ids, {"logit": logit}, [embedding], **options)
