"""Adam over the rows that a batch reads, with the result of Adam over all rows."""

import math
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tfctr.errors import ConfigError
from tfctr.optimizers.adam import LazyAdam
from tfctr.optimizers.gradients import LearningRate, subtract_rows
from tfctr.optimizers.row_sparse import DENSE_FIX
from tfctr.replicas import resource
from tfctr.types import Tensor

_NOTHING = 1e-9  # share of a step's first effect on a waiting row below which it is left out
_RING = 2**16  # steps whose tails are kept; a row waits at most half as many
_BLOCK = 2**16  # rows that `settle` holds in memory at a time


@keras.saving.register_keras_serializable("tfctr")
class ExactLazyAdam(LazyAdam):
    """Adam's result at the cost of `LazyAdam`: a row makes up for the steps that it missed when it is next read.

    A row that is not read has a zero gradient, and Adam goes on moving it by its fading momentum. What a row last written at
    step t misses until step n has a closed form, in which the sum is one number for all rows with the same t:

    `w -= tail_n(t) m / (sqrt(v) + epsilon);  m *= b1^(n-t);  v *= b2^(n-t)`, where
    `tail_n(t) = sum over i = t+1..n of rate_i (b1 / sqrt(b2))^(i-t)` and `rate_i = lr_i sqrt(1-b2^i) / (1-b1^i)`

    `lr_i` is the learning rate at step i, so a schedule is honoured. `catch_up` must come before a row is read, and `settle`
    before the whole table is; a `CTRModel` calls both. Catching up writes weights only: the moments, and the step that they are
    of, wait for the row's next gradient. It differs from `Adam` by rounding, and where epsilon counts beside `sqrt(v)` by
    taking it at its mean over the sum.

    Applies to the tables of `FeatureEmbedding`. They need a gradient by rows: an L2 term over the whole table moves every row
    at every step, which no closed form makes up for.

    Args:
        dense_rows: see `LazyAdam`.

    Raises:
        ConfigError: a table's gradient is dense; `beta_1` is not well below `sqrt(beta_2)`, so that a momentum outlives its
            variance; and what `LazyAdam` raises.
    """

    def __init__(
        self,
        learning_rate: LearningRate = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        dense_rows: int = 0,
        name: str = "exact_lazy_adam",
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, beta_1, beta_2, epsilon, dense_rows, name=name, **kwargs)
        self.decay = beta_1 / beta_2**0.5  # of what a step adds to a waiting row
        if not 0 < self.decay < 0.99:
            raise ConfigError(f"beta_1 {beta_1} is too large beside beta_2 {beta_2}.", fix="use the defaults, 0.9 and 0.999")
        self.window = math.ceil(math.log(_NOTHING) / math.log(self.decay))  # steps

    def build(self, var_list: Sequence[keras.Variable]) -> None:
        if self.built:
            return
        super().build(var_list)
        # variable index: (the steps that each row's moments and weights are of, tail of each step)
        self._waiting: dict[int, tuple[Any, Any]] = {}
        for index, variable in enumerate(var_list):
            if getattr(variable, "is_table", False) and self.updates_rows(variable):
                steps = self.add_variable((variable.shape[0], 2), "zeros", "int32", name="steps")
                tails = self.add_variable((_RING,), "zeros", "float32", name="tails")
                self._waiting[index] = steps, tails

    def update_step(self, gradient: Tensor, variable: keras.Variable, learning_rate: Tensor) -> None:
        if self._get_variable_index(variable) in self._waiting and not isinstance(gradient, tf.IndexedSlices):
            raise ConfigError("exact_lazy_adam: a table's gradient is dense.", fix=DENSE_FIX)
        super().update_step(gradient, variable, learning_rate)

    def update_rows(self, gradient: Tensor, variable: keras.Variable, learning_rate: Tensor) -> None:
        super().update_rows(gradient, variable, learning_rate)
        waiting = self._waiting.get(self._get_variable_index(variable))
        if waiting is None:
            return
        steps, tails = map(resource, waiting)
        step = tf.cast(self._next_step(), tf.int32)
        rows = gradient.indices
        steps.scatter_update(tf.IndexedSlices(tf.fill([tf.size(rows), 2], step), rows))
        waited = tf.range(1, self.window + 1)
        added = self._rate(step, learning_rate) * self.decay ** tf.cast(waited, tf.float32)
        tails.scatter_add(tf.IndexedSlices(added, (step - waited) % _RING))
        tails.scatter_update(tf.IndexedSlices(0.0, step % _RING))

    def read_moments(self, variable: keras.Variable, rows: Tensor) -> tuple[Tensor, Tensor]:
        if self._get_variable_index(variable) not in self._waiting:
            return super().read_moments(variable, rows)
        steps, _ = map(resource, self._waiting[self._get_variable_index(variable)])
        return self._faded_moments(variable, rows, tf.cast(self.iterations, tf.int32) - steps.sparse_read(rows)[:, 0])

    def catch_up(self, variable: keras.Variable, rows: Tensor) -> None:
        """Apply to the distinct `rows` of a table the steps that they missed; a frozen table misses none."""
        if not variable.trainable or not any(variable is self._trainable_variables[index] for index in self._waiting):
            return
        step = tf.cast(self.iterations, tf.int32)
        # A tail is overwritten after a round of the ring, so all rows are settled twice a round.
        tf.cond((step + 1) % (_RING // 2) == 0, lambda: self._settle(variable), lambda: step)
        self._make_up(variable, rows, step)

    def begin_here(self) -> None:
        """Take weights and moments of all rows, which were set from outside, for those of the last step made."""
        for steps, tails in self._waiting.values():
            steps.assign(tf.fill(steps.shape, tf.cast(self.iterations, tf.int32)))
            tails.assign(tf.zeros_like(tails))

    def settle(self) -> None:
        """Apply to all rows of all tables that are not frozen the steps that they missed."""
        for index in self._waiting:
            if self._trainable_variables[index].trainable:
                self._settle(self._trainable_variables[index])

    def _settle(self, variable):
        step = tf.cast(self.iterations, tf.int32)
        size = variable.shape[0]

        def settle_block(start):
            end = tf.minimum(start + _BLOCK, size)
            self._make_up(variable, tf.range(start, end), step)
            return (end,)

        tf.while_loop(lambda start: start < size, settle_block, (0,), parallel_iterations=1)
        return step

    def _make_up(self, variable, rows, step):
        """Only the weights are written; the moments keep the step that they are of."""
        steps, tails = map(resource, self._waiting[self._get_variable_index(variable)])
        of_moments, of_weights = tf.unstack(steps.sparse_read(rows), axis=1)  # (rows,) each
        momentums, velocities = self._faded_moments(variable, rows, of_weights - of_moments)  # (rows, dim)
        tail = tails.sparse_read(of_weights % _RING)[:, None]  # (rows, 1)
        change = tail * momentums / (tf.sqrt(velocities) + self._epsilon_of_tail)
        subtract_rows(variable, change, rows)
        of_weights = tf.fill(tf.shape(rows), step)
        steps.scatter_update(tf.IndexedSlices(tf.stack([of_moments, of_weights], axis=1), rows))

    def _faded_moments(self, variable, rows, missed):
        """The moments after `missed` (rows,) steps without a gradient."""
        momentums, velocities = super().read_moments(variable, rows)
        missed = tf.cast(missed, tf.float32)[:, None]  # (rows, 1)
        return momentums * self.beta_1**missed, velocities * self.beta_2**missed

    @property
    def _epsilon_of_tail(self):
        """In step i of the sum, epsilon stands beside `sqrt(b2)^(i-t) sqrt(v)`: divided by that factor at the mean of i - t."""
        return self.epsilon * self.beta_2 ** (-0.5 / (1 - self.decay))
