"""CL4CTR's signals as Keras losses on a model's named outputs."""

from typing import Any

import keras
from keras import ops

from tfctr.errors import require_one_of
from tfctr.losses.alignment import feature_alignment, field_uniformity, released_uniformity, squared_distance
from tfctr.losses.named import named_outputs
from tfctr.types import Tensor

SIGNALS = {
    "alignment": feature_alignment,
    "uniformity": field_uniformity,
    "released_uniformity": released_uniformity,
}


@keras.saving.register_keras_serializable("tfctr")
class ViewDistance(keras.losses.Loss):
    """`weight * squared_distance` of two of a model's named outputs, `(batch, units)` each."""

    def __init__(self, left: str, right: str, weight: float = 1.0, name: str = "view_distance", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        self.left = left
        self.right = right
        self.weight = weight

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        return self.weight * squared_distance(*named_outputs(self, y_pred, self.left, self.right))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "left": self.left, "right": self.right, "weight": self.weight}


@keras.saving.register_keras_serializable("tfctr")
class FieldSignal(keras.losses.Loss):
    """`weight` times the alignment or the uniformity of fields that a model names among its outputs.

    Args:
        fields: name of an output `(batch, num_fields * dim)`.
        num_fields: how many fields lie side by side in it.
        signal: a name in `SIGNALS`.
        weight: a number.

    Raises:
        ConfigError: an unknown signal.

    >>> loss = FieldSignal("fields", num_fields=2, signal="uniformity", weight=0.5)
    >>> float(loss([[1.0]], {"fields": ops.convert_to_tensor([[1.0, 0.0, 2.0, 0.0]])}))  # parallel
    0.5
    """

    def __init__(
        self, fields: str, num_fields: int, signal: str, weight: float = 1.0, name: str = "field_signal", **kwargs: Any
    ) -> None:
        super().__init__(name=name, **kwargs)
        require_one_of(SIGNALS, signal, "signal")
        self.fields = fields
        self.num_fields = num_fields
        self.signal = signal
        self.weight = weight

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        (fields,) = named_outputs(self, y_pred, self.fields)
        fields = ops.reshape(fields, (-1, self.num_fields, fields.shape[1] // self.num_fields))
        return self.weight * SIGNALS[self.signal](fields)

    def get_config(self) -> dict[str, Any]:
        options = {"num_fields": self.num_fields, "signal": self.signal, "weight": self.weight}
        return {**super().get_config(), "fields": self.fields, **options}
