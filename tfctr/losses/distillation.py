"""A model that teaches its parts by its own prediction."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from tfctr.types import Tensor


def distillation(teacher_logits: Tensor, logits: Tensor) -> Tensor:
    """Cross-entropy with the teacher's probability: `-(q ln p + (1 - q) ln(1 - p))`.

    No gradient flows to the teacher. Shapes: `(batch, 1) -> (batch, 1)`.

    >>> distillation(ops.zeros((1, 1)), ops.zeros((1, 1))).numpy().round(4)  # ln 2
    array([[0.6931]], dtype=float32)
    """
    probabilities = ops.stop_gradient(ops.sigmoid(teacher_logits))
    return ops.softplus(logits) - probabilities * logits


@keras.saving.register_keras_serializable("tfctr")
class SelfDistillation(keras.losses.Loss):
    """The sum of `distillation` of the named logits, with `"logit"` for the teacher. Reads a model's outputs, not the labels.

    Reference: [Zhu et al., 2023](https://doi.org/10.1145/3539618.3591988), self-knowledge distillation.
    """

    def __init__(self, students: Sequence[str], name: str = "self_distillation", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        self.students = list(students)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        return sum(distillation(y_pred["logit"], y_pred[student]) for student in self.students)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "students": self.students}
