"""Dropout whose masks are made of eight random bits a unit."""

from typing import Any

import keras
import tensorflow as tf

from tfctr.replicas import SeedGenerator
from tfctr.types import Tensor

_VALUES = 256  # of eight random bits


@keras.saving.register_keras_serializable("tfctr")
class Dropout(keras.layers.Dropout):
    """Keras' `Dropout` with a quarter of its random numbers, which are what dropout costs on a CPU.

    `y = x / (1 - rate)` for units that are kept, and `y = 0` for the share `rate` that is dropped, in training.

    Keras draws 32 random bits a unit. Here, eight are drawn, a number of 0 to 255, and the unit is kept where that is not below
    a threshold. Each row draws its threshold, one of the two whole numbers around `256 * rate`, the nearer one the more often:
    each unit is dropped with the probability `rate`, whatever the rate, and units of a row share no more than that threshold.

    With `noise_shape` it is Keras' own. Arguments, shapes and seeds are those of Keras; each replica of a `tf.distribute`
    strategy draws masks of its own.

    >>> kept = Dropout(0.2, seed=1)(keras.ops.ones((4000, 10)), training=True).numpy() > 0
    >>> round(float(kept.mean()), 2)
    0.8

    Reference: [Srivastava et al., 2014](https://jmlr.org/papers/v15/srivastava14a.html).
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.rate > 0:
            self.seed_generator.__class__ = SeedGenerator  # of the one that Keras has made: another would draw other seeds

    def call(self, inputs: Tensor, training: bool = False) -> Tensor:
        if not training or not self.is_fast:
            return super().call(inputs, training=training)
        rows = tf.shape(inputs)[0]
        bits, threshold = random_bytes(tf.reshape(inputs, [rows, -1]), self.rate, self.next_seed())
        return _drop(inputs, tf.reshape(bits >= threshold, tf.shape(inputs)), self.rate)

    @property
    def is_fast(self) -> bool:
        """Whether the masks are made of eight bits."""
        return 0 < self.rate < 1 - 1 / _VALUES and self.noise_shape is None

    def next_seed(self) -> Tensor:
        """The seed of the next mask, int32 `(2,)`."""
        return tf.cast(self.seed_generator.next(), tf.int32)


def random_bytes(like: Tensor, rate: float, seed: Tensor) -> tuple[Tensor, Tensor]:
    """For `(rows, units)`: bits of each unit, uint8 of that shape, and the threshold of each row, `(rows, 1)`."""
    rows, units = tf.shape(like)[0], like.shape[1] or tf.shape(like)[1]
    words = tf.random.stateless_uniform([rows, (units + 3) // 4 + 1], seed, minval=None, maxval=None, dtype=tf.uint32)
    share = tf.cast(tf.bitwise.right_shift(words[:, :1], 8), tf.float32) * 2.0**-24  # (rows, 1), in [0, 1)
    bits = tf.reshape(tf.bitcast(words[:, 1:], tf.uint8), [rows, (units + 3) // 4 * 4])[:, :units]
    return bits, tf.cast(tf.floor(_VALUES * rate + share), tf.uint8)


def dropped(x: Tensor, keep: Tensor, rate: float) -> Tensor:
    """`x / (1 - rate)` where `keep`, and 0 elsewhere."""
    return tf.where(keep, x * tf.cast(1 / (1 - rate), x.dtype), tf.zeros([], x.dtype))


def _drop(x: Tensor, keep: Tensor, rate: float) -> Tensor:
    @tf.custom_gradient
    def drop(x: Tensor) -> Any:
        return dropped(x, keep, rate), lambda upstream: dropped(upstream, keep, rate)

    return drop(x)
