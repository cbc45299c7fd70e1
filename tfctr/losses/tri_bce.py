"""Heads learn by themselves as far as they are behind the prediction (FCN)."""

from typing import Any

import keras
from keras import ops

from tfctr.losses.cross_entropy import log_loss
from tfctr.losses.named import named_outputs
from tfctr.replicas import rows_of_all_replicas
from tfctr.types import Tensor


def tri_bce(labels: Tensor, logits: Tensor, simple_logits: Tensor, complex_logits: Tensor) -> Tensor:
    """What Tri-BCE adds to the log loss of the prediction: that of each head, weighted by how much it is above.

    `sum over heads of max(0, mean(L_head) - mean(L)) * L_head`, with `L` the log loss of each row and the means over the batch,
    under a distribution strategy over the batches of all replicas. A head that is better than the prediction has the weight 0.
    The gradient flows through the weights, as in the authors' code: it widens the prediction's lead, too. Sample weights
    are not in the two means.

    Shapes: four times `(batch, 1) -> (batch, 1)`.

    >>> tri_bce([[1.0]], [[1.0]], [[0.0]], [[2.0]]).numpy().round(4)  # (0.6931 - 0.3133) * 0.6931; the second head is ahead
    array([[0.2633]], dtype=float32)

    Reference: [Li et al., 2024](https://arxiv.org/abs/2407.13349), Tri-BCE.
    """
    whole = _mean(log_loss(labels, logits))
    values = [log_loss(labels, head) for head in (simple_logits, complex_logits)]  # (batch, 1) each
    return sum(ops.relu(_mean(value) - whole) * value for value in values)


@keras.saving.register_keras_serializable("tfctr")
class TriBCELoss(keras.losses.Loss):
    """`tri_bce` as a Keras loss of the named logits `{"logit": ..., "simple": ..., "complex": ...}`.

    >>> loss = TriBCELoss()
    >>> outputs = {"logit": [[1.0]], "simple": [[0.0]], "complex": [[2.0]]}
    >>> round(float(loss([[1.0]], {name: ops.convert_to_tensor(logit) for name, logit in outputs.items()})), 4)
    0.2633
    """

    def __init__(self, name: str = "tri_bce", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        return tri_bce(y_true, *named_outputs(self, y_pred, "logit", "simple", "complex"))


def _mean(values: Tensor) -> Tensor:
    return ops.mean(rows_of_all_replicas(values))
