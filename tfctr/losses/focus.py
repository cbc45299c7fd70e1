"""Cross-entropy times a power of confidence: Twin Focus and Focal loss."""

from typing import Any

import keras
from keras import ops

from tfctr.errors import ConfigError, require_number
from tfctr.losses.cross_entropy import known_shape, signed_logits
from tfctr.losses.named import named_outputs
from tfctr.types import Tensor


def simple_focus(labels: Tensor, logits: Tensor, c: float, gamma: float) -> Tensor:
    """The simple encoder's half of Twin Focus: `-ln p_t * (c + p_t) ** gamma`, more weight to easy samples.

    Shapes: `(batch, 1) -> (batch, 1)`.
    """
    _require_focus(c, gamma)
    signed = signed_logits(labels, logits)
    return ops.softplus(-signed) * _power(c + ops.sigmoid(signed), gamma)


def complex_focus(labels: Tensor, logits: Tensor, c: float, gamma: float) -> Tensor:
    """The complex encoder's half of Twin Focus: `-ln p_t * (2 - c - p_t) ** gamma`, more weight to hard samples.

    Shapes: `(batch, 1) -> (batch, 1)`.
    """
    _require_focus(c, gamma)
    signed = signed_logits(labels, logits)
    # 1 - p_t is sigmoid(-signed), exact also where p_t rounds to 1.
    return ops.softplus(-signed) * _power((1.0 - c) + ops.sigmoid(-signed), gamma)


def twin_focus(
    labels: Tensor, simple_logits: Tensor, complex_logits: Tensor, alpha: float = 0.25, c: float = 0.7, gamma: float = 1.0
) -> Tensor:
    """Auxiliary loss that sends easy samples to one encoder and hard samples to the other.

    `alpha * -ln p_s (c + p_s)^gamma + (1 - alpha) * -ln p_c (2 - c - p_c)^gamma`, where `p_s` and `p_c` are the probabilities
    that the two heads give to the true class, for both labels. The gradient flows through the factors, as in the authors' code.
    Both factors are 1 at `p_t = 1 - c`.

    Args:
        labels, simple_logits, complex_logits: `(batch, 1)` each.
        alpha: share of the simple head, in [0, 1].
        c: in [0, 1] in the paper. The authors' runs also use 1.2, so up to 2 is allowed: above 1 the complex factor is negative
            where `p_t > 2 - c`, which needs a whole `gamma`; an odd one then lowers that head's confidence there.
        gamma: 0 or more; 0 is plain deep supervision of both heads.

    Returns:
        one value an example, `(batch, 1)`.

    Raises:
        ConfigError: an argument out of range, or a shape that is not `(batch, 1)`.

    >>> twin_focus([[1.0]], [[0.0]], [[0.0]], alpha=0.25, c=0.7, gamma=1.0).numpy().round(4)  # ln 2 * (1.2 / 4 + 0.8 * 3 / 4)
    array([[0.6238]], dtype=float32)

    Reference: [TF4CTR](https://arxiv.org/abs/2405.03167), eq. 7.
    """
    require_number("alpha", alpha, 0, 1)
    simple = simple_focus(labels, simple_logits, c, gamma)
    return alpha * simple + (1.0 - alpha) * complex_focus(labels, complex_logits, c, gamma)


def focal(labels: Tensor, logits: Tensor, gamma: float = 2.0) -> Tensor:
    """Cross-entropy that fades with confidence: `-ln p_t * (1 - p_t) ** gamma`, without a class weight.

    Shapes: `(batch, 1) -> (batch, 1)`.

    Reference: [Lin et al., 2017](https://arxiv.org/abs/1708.02002), eq. 4.
    """
    return complex_focus(labels, logits, c=1.0, gamma=gamma)


@keras.saving.register_keras_serializable("tfctr")
class TwinFocusLoss(keras.losses.Loss):
    """`twin_focus` as a Keras loss of the named logits `{"simple": ..., "complex": ...}`; other names are ignored.

    Keras' `compile(loss=...)` calls a loss once for each output, so a plain `keras.Model` gives it both logits as one output
    `(batch, 2)`, the simple one first: `keras.layers.Concatenate()([simple, complex])`.

    Raises:
        ConfigError: an argument out of range, or neither of these outputs.

    >>> loss = TwinFocusLoss(alpha=0.5, c=1.0, gamma=0.0)
    >>> round(float(loss([[1.0]], {"simple": [[0.0]], "complex": [[0.0]]})), 4)
    0.6931
    >>> round(float(loss([1.0], [[0.0, 0.0]])), 4)
    0.6931
    """

    def __init__(
        self, alpha: float = 0.25, c: float = 0.7, gamma: float = 1.0, name: str = "twin_focus", **kwargs: Any
    ) -> None:
        super().__init__(name=name, **kwargs)
        require_number("alpha", alpha, 0, 1)
        _require_focus(c, gamma)
        self.alpha = alpha
        self.c = c
        self.gamma = gamma

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        both = None if isinstance(y_pred, dict) else ops.convert_to_tensor(y_pred)
        if both is not None and (known_shape(both) or ())[1:] == (2,):
            simple = both[:, :1]  # (batch, 1)
            complex_ = both[:, 1:]  # (batch, 1)
        else:
            simple, complex_ = named_outputs(self, y_pred, "simple", "complex")
        return twin_focus(y_true, simple, complex_, self.alpha, self.c, self.gamma)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "alpha": self.alpha, "c": self.c, "gamma": self.gamma}


@keras.saving.register_keras_serializable("tfctr")
class FocalLoss(keras.losses.Loss):
    """`focal` as a Keras loss."""

    def __init__(self, gamma: float = 2.0, name: str = "focal", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        _require_focus(1.0, gamma)
        self.gamma = gamma

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        return focal(y_true, y_pred, self.gamma)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "gamma": self.gamma}


def _power(base: Tensor, gamma: float) -> Tensor:
    if gamma < 1:
        base = ops.maximum(base, 1e-30)  # the slope of the power is infinite at 0
    return ops.power(base, gamma)


def _require_focus(c: float, gamma: float) -> None:
    require_number("gamma", gamma, least=0)
    require_number("c", c, 0, 2)
    if c > 1 and gamma != int(gamma):
        raise ConfigError(
            f"`c` is {c} and `gamma` is {gamma}: 2 - c - p_t can be negative, and has no such power.",
            fix="use `c` of at most 1, or a whole `gamma`",
        )
