"""Contrast between two views of each row of a batch: InfoNCE, Do-InfoNCE and the cosine distance."""

from typing import Any, Literal

import keras
import tensorflow as tf
from keras import ops

from tfctr.errors import ConfigError, require_one_of, require_positive
from tfctr.losses.named import named_outputs
from tfctr.replicas import rows_of_all_replicas
from tfctr.types import Tensor

BLOCK = 512  # rows of the similarity matrix that exist at a time
_LOW = 1 / 40  # a temperature from which on no exponential overflows: exp(40) times 2**60 rows is a float32
_TINY = 1e-24  # a vector whose squared length is below this has no direction


def widen(vectors: Tensor) -> Tensor:
    """The tensor in float32, or in its own type if that is wider: these losses are not for half precision."""
    vectors = ops.convert_to_tensor(vectors)
    return ops.cast(vectors, keras.backend.result_type(vectors.dtype, "float32"))


def unit_vectors(vectors: Tensor) -> Tensor:
    """`vectors / |vectors|` along the last axis, in float32 or wider; a zero vector stays zero and gets no gradient."""
    vectors = widen(vectors)
    return vectors * _inverse_length(vectors)


def cosine_distance(left: Tensor, right: Tensor) -> Tensor:
    """One minus the cosine of the angle between the two vectors of each row: `1 - <l, r> / (|l| |r|)`.

    Shapes: `(batch, units), (batch, units) -> (batch, 1)`.

    Raises:
        ConfigError: shapes that do not fit.

    >>> cosine_distance([[3.0, 4.0]], [[4.0, 3.0]]).numpy().round(4)  # 1 - 24 / 25
    array([[0.04]], dtype=float32)

    Reference: [CETN](https://arxiv.org/abs/2312.09715), eq. 16, before the sum.
    """
    left, right = map(widen, _pair(left, right))
    product = ops.sum(left * right, axis=-1, keepdims=True)
    return 1.0 - product * _inverse_length(left) * _inverse_length(right)


def info_nce(left: Tensor, right: Tensor, temperature: float) -> Tensor:
    """Each row's left vector shall point to its own right vector rather than to the other rows' right vectors.

    `-ln(exp(s_ii / t) / sum_j exp(s_ij / t))`, with `s_ij` the cosine of left vector i and right vector j and j over the batch,
    i included; under a distribution strategy over the batches of all replicas. The similarity matrix never exists as a whole:
    `O(BLOCK * batch)` memory.

    Args:
        left, right: `(batch, units)` each.
        temperature: above 0.

    Returns:
        one value an example, `(batch, 1)`, float32 or wider.

    Raises:
        ConfigError: a temperature that is not above 0, or shapes that do not fit.

    >>> info_nce([[1.0, 0.0], [0.0, 1.0]], [[2.0, 0.0], [0.0, 3.0]], temperature=1.0).numpy().round(4)  # ln(e + 1) - 1
    array([[0.3133],
           [0.3133]], dtype=float32)

    Reference: [van den Oord et al., 2018](https://arxiv.org/abs/1807.03748), eq. 4;
    [CETN](https://arxiv.org/abs/2312.09715), eq. 7.
    """
    left, right = map(unit_vectors, _pair(left, right))
    agreement = ops.sum(left * right, axis=-1, keepdims=True)
    return _log_partition(left, right, temperature) - agreement / temperature


def do_info_nce(left: Tensor, right: Tensor, temperature: float) -> Tensor:
    """InfoNCE with its denominator only: each row's left vector shall point away from the right vectors of all rows.

    `-ln(exp(1 / t) / sum_j exp(s_ij / t))`: as `info_nce`, but row i's own right vector is one of those to avoid. Arguments,
    result and errors as there; it can be negative.

    >>> do_info_nce([[1.0, 0.0], [0.0, 1.0]], [[2.0, 0.0], [0.0, 3.0]], temperature=1.0).numpy().round(4)  # ln(e + 1) - 1
    array([[0.3133],
           [0.3133]], dtype=float32)

    Reference: [CETN](https://arxiv.org/abs/2312.09715), eq. 14, before the sum.
    """
    # The authors' code adds 1e-5 inside the log; we use log-sum-exp, which needs no such guard.
    left, right = map(unit_vectors, _pair(left, right))
    return _log_partition(left, right, temperature) - 1.0 / temperature


CONTRASTS = {"do_info_nce": do_info_nce, "info_nce": info_nce}


@keras.saving.register_keras_serializable("tfctr")
class ContrastLoss(keras.losses.Loss):
    """`weight * info_nce` or `weight * do_info_nce` of two of a model's named outputs.

    Args:
        left, right: names of the outputs, `(batch, units)` each.
        contrast: `"do_info_nce"` or `"info_nce"`.
        temperature, weight: numbers; the temperature is above 0.

    >>> loss = ContrastLoss("a", "b", temperature=1.0, weight=2.0)
    >>> round(float(loss([[1.0]], {"a": [[1.0, 0.0]], "b": [[0.0, 1.0]]})), 4)  # 2 * (ln e^0 - 1)
    -2.0
    """

    def __init__(
        self,
        left: str,
        right: str,
        contrast: Literal["do_info_nce", "info_nce"] = "do_info_nce",
        temperature: float = 0.2,
        weight: float = 1.0,
        name: str = "contrast",
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, **kwargs)
        require_one_of(CONTRASTS, contrast, "contrast")
        require_positive("temperature", temperature)
        self.left = left
        self.right = right
        self.contrast = contrast
        self.temperature = temperature
        self.weight = weight

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        left, right = named_outputs(self, y_pred, self.left, self.right)
        return self.weight * CONTRASTS[self.contrast](left, right, self.temperature)

    def get_config(self) -> dict[str, Any]:
        options = {"contrast": self.contrast, "temperature": self.temperature, "weight": self.weight}
        return {**super().get_config(), "left": self.left, "right": self.right, **options}


@keras.saving.register_keras_serializable("tfctr")
class CosineLoss(keras.losses.Loss):
    """`weight * cosine_distance` of two of a model's named outputs, `(batch, units)` each."""

    def __init__(self, left: str, right: str, weight: float = 1.0, name: str = "cosine", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        self.left = left
        self.right = right
        self.weight = weight

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        return self.weight * cosine_distance(*named_outputs(self, y_pred, self.left, self.right))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "left": self.left, "right": self.right, "weight": self.weight}


def _log_partition(left: Tensor, right: Tensor, temperature: float) -> Tensor:
    """`ln sum_j exp(<left_i, right_j> / temperature)`, j over all replicas: `(rows, units), (rows, units) -> (rows, 1)`."""
    require_positive("temperature", temperature)

    # A block of rows owns its denominators, so its part of the gradients is known as soon as its values are: one pass for
    # both. That of `right` is a sum over the rows, weighted by their upstream gradients: all equal if the loss is a plain mean.
    # If they are not (sample weights), a second pass weighs them.
    @ops.custom_gradient
    def log_partition(left, right):
        values, left_slopes, right_slopes = _row_blocks(left, right, temperature, ops.ones_like(left[:, :1]))

        def gradient(upstream):
            first = ops.sum(upstream[:1])
            right_gradient = ops.cond(
                ops.all(ops.equal(upstream, first)),
                lambda: first * right_slopes,
                lambda: _row_blocks(left, right, temperature, upstream)[2],
            )
            return upstream * left_slopes, right_gradient

        return values, gradient

    return log_partition(left, rows_of_all_replicas(right))


def _row_blocks(left: Tensor, right: Tensor, temperature: float, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Values, each value's gradient by its row of `left`, and the gradient of the weighted sum of the values by `right`."""
    count = ops.shape(left)[0]
    rows = ops.arange(count)

    def one_block(start, values, left_slopes, right_slopes):
        block = slice(start, start + BLOCK)
        scaled = left[block] / temperature
        logits = ops.matmul(scaled, ops.transpose(right))  # (block, all rows), within +- 1 / temperature
        largest = 0.0
        if temperature < _LOW:
            largest = ops.max(logits, axis=-1, keepdims=True)
            logits = logits - largest
        exponentials = ops.exp(logits)
        partition = ops.sum(exponentials, axis=-1, keepdims=True)
        place = rows[block, None]
        return (
            start + BLOCK,
            ops.scatter_update(values, place, ops.log(partition) + largest),
            ops.scatter_update(left_slopes, place, ops.matmul(exponentials, right) / (temperature * partition)),
            right_slopes + ops.matmul(ops.transpose(exponentials), scaled * weights[block] / partition),
        )

    zeros = ops.zeros_like(left[:, :1]), ops.zeros_like(left), ops.zeros_like(right)
    # The loop of `keras.ops` works at ten blocks at a time, and so holds ten times the memory.
    return tf.while_loop(lambda start, *_: start < count, one_block, (0, *zeros), parallel_iterations=1)[1:]


def _inverse_length(vectors: Tensor) -> Tensor:
    """`1 / |vectors|` along the last axis, which is kept; 0 for a zero vector, without a gradient."""
    squares = ops.sum(ops.square(vectors), axis=-1, keepdims=True)
    has_direction = squares > _TINY
    return ops.where(has_direction, ops.rsqrt(ops.where(has_direction, squares, 1.0)), 0.0)


def _pair(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """The two as tensors. Raises `ConfigError` unless both are `(batch, units)` of one width."""
    left = ops.convert_to_tensor(left)
    right = ops.convert_to_tensor(right)
    if len(left.shape) != 2 or len(right.shape) != 2 or left.shape[1] != right.shape[1]:
        raise ConfigError(
            f"`left` and `right` must have the shape (batch, units). Received: {tuple(left.shape)} and {tuple(right.shape)}.",
            fix="give two representations of equal width",
        )
    return left, right
