"""One network that is an ensemble of two while it trains: the same weights under two draws of dropout."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from tfctr.layers.nested import DTypeLike
from tfctr.types import Shape, Tensor


@keras.saving.register_keras_serializable("tfctr")
class SelfEnsemble(keras.layers.Layer):
    """In training, the logit of the mean of two probabilities; else the first logit.

    `logit = ln((p_1 + p_2) / (2 - p_1 - p_2))`, `p_k` the sigmoid of logit k

    Without dropout, as outside of training, both logits are the same, and so is theirs. It is float32 under every policy.

    Shapes:
        `[(batch, 1), (batch, 1)] -> (batch, 1)`

    >>> logits = [ops.zeros((1, 1)), ops.full((1, 1), 2.1972246)]  # 1/2 and 9/10: 7/10, whose odds are 7/3
    >>> SelfEnsemble()(logits, training=True).numpy().round(4), SelfEnsemble()(logits).numpy()
    (array([[0.8473]], dtype=float32), array([[0.]], dtype=float32))

    Reference: [Li et al., 2025](https://arxiv.org/abs/2505.17999), self-ensemble loss.
    """

    def __init__(self, dtype: DTypeLike = "float32", **kwargs: Any) -> None:
        super().__init__(dtype=dtype, **kwargs)

    def call(self, logits: Sequence[Tensor], training: bool = False) -> Tensor:
        first, second = logits
        if not training:
            return first
        both = ops.concatenate([first, second], axis=-1)  # (batch, 2)
        click = ops.logsumexp(ops.log_sigmoid(both), axis=-1, keepdims=True)  # ln(p_1 + p_2), exact where a p rounds to 1
        return click - ops.logsumexp(ops.log_sigmoid(-both), axis=-1, keepdims=True)

    def compute_output_shape(self, input_shape: Sequence[Shape]) -> Shape:
        return input_shape[0]
