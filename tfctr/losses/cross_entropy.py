"""Cross-entropy on logits, plain and robust."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from tfctr.errors import ConfigError, require_number
from tfctr.losses.named import named_outputs
from tfctr.types import Shape, Tensor


def signed_logits(labels: Tensor, logits: Tensor) -> Tensor:
    """The logit of the true class: `logits` where the label is 1, `-logits` where it is 0; `p_t` is its sigmoid.

    Every loss passes here, so here the shapes are checked: `(batch, 1)` or `(batch,)` each, else `ConfigError`; the result has
    that of the logits. A label that is neither 0 nor 1 gives NaN, which stops the training.
    """
    labels = ops.convert_to_tensor(labels)
    logits = ops.convert_to_tensor(logits)
    for name, tensor in (("labels", labels), ("logits", logits)):
        # Keras' `fit` forgets the rank of labels once it has seen (batch,) and (batch, 1).
        if (shape := known_shape(tensor)) is not None and not (len(shape) == 1 or (len(shape) == 2 and shape[1] in (1, None))):
            raise ConfigError(f"`{name}` has the shape {shape}.", fix="give one value a row: (batch, 1) or (batch,)")
    if labels.dtype == "bool":
        labels = ops.cast(labels, logits.dtype)
    labels = ops.reshape(labels, ops.shape(logits))  # beside each other, (batch,) and (batch, 1) would become (batch, batch)
    return ops.where(ops.equal(labels, 1), logits, ops.where(ops.equal(labels, 0), -logits, np.nan))


def known_shape(tensor: Tensor) -> Shape | None:
    """The static shape as a tuple, or None where not even the rank is known."""
    return None if getattr(tensor.shape, "rank", 0) is None else tuple(tensor.shape)


def log_loss(labels: Tensor, logits: Tensor) -> Tensor:
    """Binary cross-entropy: `-ln p_t`.

    Shapes: `(batch, 1) -> (batch, 1)`, or `(batch,) -> (batch,)`.

    >>> log_loss([[1.0]], [[0.0]]).numpy().round(4)  # ln 2
    array([[0.6931]], dtype=float32)
    """
    return ops.softplus(-signed_logits(labels, logits))


def robust_cross_entropy(labels: Tensor, logits: Tensor, exponent: float = 0.01) -> Tensor:
    """Cross-entropy that trusts improbable labels less: `-ln p_t * p_t ** exponent` (R-CE).

    No gradient flows through the weight. The source calls it reweighted cross-entropy; the exponent is the TF4CTR authors'.
    Shapes: `(batch, 1) -> (batch, 1)`.

    Reference: [Wang et al., Denoising Implicit Feedback for Recommendation, 2021](https://arxiv.org/abs/2006.04153).
    """
    require_number("exponent", exponent, least=0)
    value = log_loss(labels, logits)
    return value * ops.exp(-exponent * ops.stop_gradient(value))


@keras.saving.register_keras_serializable("tfctr")
class LogLoss(keras.losses.Loss):
    """`log_loss` as a Keras loss."""

    def __init__(self, name: str = "log_loss", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        return log_loss(y_true, y_pred)


@keras.saving.register_keras_serializable("tfctr")
class RobustCrossEntropy(keras.losses.Loss):
    """`robust_cross_entropy` as a Keras loss. Raises `ConfigError` for an `exponent` below 0."""

    def __init__(self, exponent: float = 0.01, name: str = "robust_cross_entropy", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        require_number("exponent", exponent, least=0)
        self.exponent = exponent

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        return robust_cross_entropy(y_true, y_pred, self.exponent)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "exponent": self.exponent}


@keras.saving.register_keras_serializable("tfctr")
class HeadLoss(keras.losses.Loss):
    """The sum of `log_loss` of some of a model's named logits: each of these heads learns by itself.

    >>> loss = HeadLoss(["simple", "complex"])
    >>> loss.call([[1.0]], {"simple": [[0.0]], "complex": [[0.0]]}).numpy().round(4)  # 2 ln 2
    array([[1.3863]], dtype=float32)
    """

    def __init__(self, heads: Sequence[str], name: str = "heads", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        self.heads = list(heads)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        return sum(log_loss(y_true, logits) for logits in named_outputs(self, y_pred, *self.heads))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "heads": self.heads}
