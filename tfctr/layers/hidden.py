"""A hidden layer: what follows its product is compiled for training, so that it takes few passes over the units."""

import contextlib
import contextvars
import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf

from tfctr.layers.dropout import Dropout, dropped, random_bytes
from tfctr.types import Tensor

_usual_rows: contextvars.ContextVar[int | None] = contextvars.ContextVar("usual_rows", default=None)


@contextlib.contextmanager
def usual_batches(rows: int | None) -> Iterator[None]:
    """Within, `hidden` is compiled for batches of so many rows; None: not at all."""
    before = _usual_rows.set(rows)
    try:
        yield
    finally:
        _usual_rows.reset(before)


def hidden(x: Tensor, dense: keras.layers.Dense, steps: Sequence[keras.layers.Layer], training: bool = False) -> Tensor:
    """`(batch, inputs) -> (batch, units)`: a dense layer, then its `steps`: batch normalization, activation and dropout.

    Layer by layer, TensorFlow writes and reads (batch, units) for each operation, which took .6 of the time of the products.
    For batches of the size of `usual_batches`, in training, XLA compiles what follows the product, forward and backward: all
    that is done to one number is done at once, and the backward pass computes the activation anew. Other batches, such as the
    last one of an epoch, are computed by the same formulas op by op.

    Batch normalization takes the bias of the dense layer out again, so that its gradient is zero; here, it is zero. Layer by
    layer it is what rounding leaves, which Adam makes as large as any other step.

    Layers that were changed, of other kinds or of another precision are called one by one, as Keras does.
    """
    rows = _usual_rows.get()
    if training and rows is not None:
        rest = _Rest.of(dense, steps)
        if rest is not None:
            return rest.apply(x, dense, steps, rows)
    for step in (dense, *steps):
        x = step(x)
    return x


@dataclasses.dataclass(frozen=True)
class _Rest:
    """`y = drop(activation(gamma * x + beta))` and its gradient; `x = (z - mean) / sqrt(variance + epsilon)`, over the batch.

    Without batch normalization, `y = drop(activation(z + beta))`.

    Shapes:
        z, y, dy: `(batch, units)`; gamma, beta, mean, variance: `(units,)`; bits, threshold: see `random_bytes`
    """

    activation: Callable[[Tensor], Tensor]
    epsilon: float | None  # None: no batch normalization
    rate: float  # 0: no dropout

    @classmethod
    def of(cls, dense: Any, steps: Sequence[Any]) -> "_Rest | None":
        """What these layers compute; None where one is of another kind, was changed, or nothing is gained."""
        *norms, activate, drop = steps
        activation = _function_of(activate)
        plain = _is_plain_dense(dense) and all(map(is_plain_norm, norms)) and type(drop) is Dropout
        if activation is None or not plain or drop.is_fast != bool(drop.rate):
            return None
        if any(step.activity_regularizer is not None or step.compute_dtype != "float32" for step in (dense, *steps)):
            return None
        if not norms and not drop.rate and activation is not keras.activations.gelu:
            return None  # the others are one pass, which TensorFlow merges with the product, or as slow when compiled
        return cls(activation, norms[0].epsilon if norms else None, drop.rate)

    def apply(self, x: Tensor, dense: Any, steps: Sequence[Any], rows: int) -> Tensor:
        """`hidden`, by these formulas, compiled where the batch has so many rows."""
        *norms, _, drop = steps
        z = tf.matmul(x, dense.kernel)  # (batch, units)
        none = tf.zeros([z.shape[-1]])
        bias = tf.convert_to_tensor(dense.bias) if dense.use_bias else none
        gamma, beta = (tf.convert_to_tensor(norms[0].gamma), tf.convert_to_tensor(norms[0].beta)) if norms else (none, bias)
        bits = threshold = tf.zeros([1, 1], tf.uint8)
        if self.rate:
            bits, threshold = random_bytes(z, self.rate, drop.next_seed())
        is_usual = tf.equal(tf.shape(z)[0], rows)

        def run(name: str, *tensors: Tensor) -> Any:
            formula = getattr(self, name)
            return tf.cond(is_usual, lambda: _compiled(formula)(*tensors), lambda: formula(*tensors))

        @tf.custom_gradient
        def rest(z: Tensor, gamma: Tensor, beta: Tensor, bias: Tensor) -> Any:
            y, mean, variance = run("forward", z, bits, threshold, gamma, beta)

            def gradient(dy: Tensor, *_: Tensor) -> Any:
                return *run("backward", dy, z, bits, threshold, gamma, beta, mean, variance), tf.zeros_like(bias)

            return (tf.ensure_shape(y, z.shape), mean + bias, variance), gradient

        y, mean, variance = rest(z, gamma, beta, bias)
        for norm in norms:
            move_statistics(norm, mean, variance)
        return y

    def forward(self, z: Tensor, bits: Tensor, threshold: Tensor, gamma: Tensor, beta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`y, mean, variance`."""
        mean, variance = tf.zeros_like(gamma), tf.zeros_like(gamma)
        if self.epsilon is not None:
            mean = tf.reduce_mean(z, axis=0)
            variance = tf.reduce_mean(tf.math.squared_difference(z, mean), axis=0)
            z = (z - mean) * (tf.math.rsqrt(variance + self.epsilon) * gamma)
        return self._drop(self.activation(z + beta), bits, threshold), mean, variance

    def backward(
        self,
        dy: Tensor,
        z: Tensor,
        bits: Tensor,
        threshold: Tensor,
        gamma: Tensor,
        beta: Tensor,
        mean: Tensor,
        variance: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The gradients of `z`, `gamma` and `beta`.

        `du = drop(dy) * activation'(u)` at `u = gamma x + beta`; `dbeta = sum(du)`, `dgamma = sum(du * x)`, over the rows, and
        `dz = gamma / sqrt(variance + epsilon) * (du - (dbeta + x dgamma) / batch)`.

        Reference: [Ioffe & Szegedy, 2015](https://arxiv.org/abs/1502.03167), section 3.
        """
        dy = self._drop(dy, bits, threshold)
        if self.epsilon is None:
            du = self._through_activation(z + beta, dy)
            return du, tf.zeros_like(gamma), tf.reduce_sum(du, axis=0)
        inverse = tf.math.rsqrt(variance + self.epsilon)
        x = (z - mean) * inverse
        du = self._through_activation(x * gamma + beta, dy)
        dbeta, dgamma = tf.reduce_sum(du, axis=0), tf.reduce_sum(du * x, axis=0)
        rows = tf.cast(tf.shape(z)[0], z.dtype)
        return (du - (dbeta + x * dgamma) / rows) * (gamma * inverse), dgamma, dbeta

    def _drop(self, y: Tensor, bits: Tensor, threshold: Tensor) -> Tensor:
        return dropped(y, bits >= threshold, self.rate) if self.rate else y

    def _through_activation(self, u: Tensor, dy: Tensor) -> Tensor:
        with tf.GradientTape() as tape:
            tape.watch(u)
            y = self.activation(u)
        return tape.gradient(y, u, dy)


def at_once(formula: Callable[..., Any], *tensors: Tensor) -> Any:
    """`formula(*tensors)`, and its gradient, each compiled for batches of the size of `usual_batches`, in float32.

    What XLA compiles takes few passes over its tensors, where TensorFlow writes and reads one for each operation. The backward
    pass computes the formula anew. Other batches are computed by the same formula op by op.

    Args:
        formula: a function of a module, which TensorFlow compiles once.
        tensors: its arguments; the rows of the first one are those of the batch.
    """
    rows = _usual_rows.get()
    tensors = tuple(map(tf.convert_to_tensor, tensors))
    if rows is None or {tensor.dtype for tensor in tensors} != {tf.float32}:
        return formula(*tensors)
    is_usual = tf.equal(tf.shape(tensors[0])[0], rows)

    def run(formula: Callable[..., Any], *tensors: Tensor) -> Any:
        return tf.cond(is_usual, lambda: _compiled(formula)(*tensors), lambda: formula(*tensors))

    @tf.custom_gradient
    def fused(*tensors: Tensor) -> Any:
        return run(formula, *tensors), lambda *upstream: run(_backward(formula), tensors, upstream)

    return fused(*tensors)


@functools.cache
def _backward(formula: Callable[..., Any]) -> Callable[..., Any]:
    def backward(tensors: tuple[Tensor, ...], upstream: tuple[Tensor, ...]) -> Any:
        tensors = tuple(map(tf.identity, tensors))  # one that is given twice has two gradients
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            outputs = tf.nest.flatten(formula(*tensors))
        return tape.gradient(outputs, tensors, list(upstream), unconnected_gradients=tf.UnconnectedGradients.ZERO)

    return backward


@functools.cache
def _compiled(formula: Callable[..., Any]) -> Any:
    return tf.function(formula, jit_compile=True, autograph=False)


def _function_of(layer: Any) -> Callable[[Tensor], Tensor] | None:
    """The function of an activation of Keras that has no weights; None for others, which XLA may not know how to compile."""
    if type(layer) is keras.layers.LeakyReLU:
        return _leaky_relu(float(layer.negative_slope))
    function = layer.activation if type(layer) is keras.layers.Activation else None
    return function if function is getattr(keras.activations, getattr(function, "__name__", ""), None) else None


@functools.cache
def _leaky_relu(slope: float) -> Callable[[Tensor], Tensor]:
    return functools.partial(keras.activations.leaky_relu, negative_slope=slope)


def _is_plain_dense(layer: Any) -> bool:
    """Whether a layer is Keras' dense layer as it is made, and linear."""
    plain = type(layer) is keras.layers.Dense and layer.activation is keras.activations.linear
    return plain and not layer.lora_enabled and layer.quantization_mode is None


def move_statistics(norm: Any, mean: Tensor, variance: Tensor) -> None:
    """Let a batch normalization remember the mean and variance of a batch."""
    for moving, value in ((norm.moving_mean, mean), (norm.moving_variance, variance)):
        moving.assign(moving * norm.momentum + value * (1.0 - norm.momentum))


def is_plain_norm(layer: Any) -> bool:
    """Whether a layer is Keras' batch normalization over the rows, as it trains."""
    plain = type(layer) is keras.layers.BatchNormalization and layer.axis in (-1, 1) and layer.trainable
    return plain and layer.gamma is not None and layer.beta is not None and not (layer.synchronized or layer.renorm)


def can_compile() -> bool:
    """Whether XLA compiles here, now: a `LocalServer` switches it off in its process, as TensorFlow Serving does.

    With a GPU, nothing is compiled: it was never measured there.
    """
    try:
        tf.function(lambda: tf.zeros([]), jit_compile=True)()
    except tf.errors.OpError:
        return False
    return not tf.config.list_logical_devices("GPU")
