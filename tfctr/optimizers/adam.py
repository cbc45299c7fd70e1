"""Adam: over whole variables, or over the rows that a batch reads."""

from typing import Any

import keras
import tensorflow as tf

from tfctr.errors import ConfigError, require_count
from tfctr.optimizers.gradients import LearningRate, merge_duplicates, subtract_rows
from tfctr.optimizers.row_sparse import RowSparse
from tfctr.replicas import resource
from tfctr.types import Tensor


@keras.saving.register_keras_serializable("tfctr")
class Adam(keras.optimizers.Adam):
    """Adam (Kingma & Ba, 2015) through TensorFlow's fused kernel: one pass, no temporaries.

    `m = b1 m + (1-b1) g;  v = b2 v + (1-b2) g^2;  w -= lr sqrt(1-b2^t)/(1-b1^t) m / (sqrt(v) + epsilon)`

    The same result as `keras.optimizers.Adam` with a dense gradient, and with a sparse one that of the dense gradient it stands
    for. `epsilon` is the number of the papers' code in the place that TensorFlow and Keras have it in ("epsilon hat"): beside
    the root of the uncorrected `v`. In PyTorch's place it would be `epsilon / sqrt(1-b2^t)`, 3.2e-7 for 1e-8 at the first step.

    Raises:
        ConfigError: `amsgrad=True`, which the kernel does not know; at the first step, weights of 16 bits.

    Reference: [Kingma and Ba, 2015](https://arxiv.org/abs/1412.6980), algorithm 1 and the note under it.
    """

    def __init__(
        self,
        learning_rate: LearningRate = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        name: str = "adam",
        **kwargs: Any,
    ) -> None:
        rate: Any = learning_rate  # Keras takes a schedule, too, and only says so in words
        super().__init__(rate, beta_1, beta_2, epsilon, name=name, **kwargs)
        if self.amsgrad:
            raise ConfigError("`amsgrad` is True.", fix="use keras.optimizers.Adam(amsgrad=True, epsilon=1e-8)")

    def update_step(self, gradient: Tensor, variable: keras.Variable, learning_rate: Tensor) -> None:
        dtype = keras.backend.standardize_dtype(variable.dtype)
        if dtype in ("float16", "bfloat16"):
            problem = f"{self.name} cannot train weights of {dtype}, where its epsilon is 0 or its beta_2 is 1."
            raise ConfigError(problem, fix=f"build the model under the dtype policy 'mixed_{dtype}', or use \"sgd\"")
        index = self._get_variable_index(variable)
        step = tf.cast(self._next_step(), variable.dtype)
        if isinstance(gradient, tf.IndexedSlices):
            gradient = tf.math.unsorted_segment_sum(gradient.values, gradient.indices, variable.shape[0])
        tf.raw_ops.ResourceApplyAdam(
            var=resource(variable).handle,
            m=resource(self._momentums[index]).handle,
            v=resource(self._velocities[index]).handle,
            beta1_power=tf.cast(self.beta_1, variable.dtype) ** step,
            beta2_power=tf.cast(self.beta_2, variable.dtype) ** step,
            lr=tf.cast(learning_rate, variable.dtype),
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=gradient,
        )

    def _next_step(self) -> Tensor:
        """The number of the step that is being made: 1 at first."""
        iterations: Any = self.iterations
        return iterations + 1


@keras.saving.register_keras_serializable("tfctr")
class LazyAdam(RowSparse, Adam):
    """Adam that reads and writes the rows of a sparse gradient only, so that a step costs the same at every vocabulary size.

    The rows of a batch get `Adam`'s update; `m`, `v` and `w` of all others stay as they are. This is another algorithm than
    Adam, whose momentum goes on moving rows that are not read: see `ExactLazyAdam`. Dense gradients get `Adam`'s update.

    Args:
        dense_rows: tables of fewer rows are updated whole, by `Adam`, which is faster there.

    Raises:
        ConfigError: an option of Keras that would write every row: `weight_decay`, `global_clipnorm`, `use_ema`,
            `loss_scale_factor`, `gradient_accumulation_steps`; or `amsgrad`.

    >>> table = keras.Variable([[1.0], [2.0], [3.0]])
    >>> LazyAdam(0.1).apply([tf.IndexedSlices(tf.constant([[5.0]]), tf.constant([1]), tf.constant([3, 1]))], [table])
    >>> table.numpy().ravel().astype(float).round(3).tolist()
    [1.0, 1.9, 3.0]
    """

    def __init__(
        self,
        learning_rate: LearningRate = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        dense_rows: int = 0,
        name: str = "lazy_adam",
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, beta_1, beta_2, epsilon, name=name, **kwargs)
        require_count("dense_rows", dense_rows, least=0)
        self.dense_rows = dense_rows

    def update_step(self, gradient: Tensor, variable: keras.Variable, learning_rate: Tensor) -> None:
        if isinstance(gradient, tf.IndexedSlices) and self.updates_rows(variable):
            self.update_rows(merge_duplicates(gradient), variable, learning_rate)
        else:
            super().update_step(gradient, variable, learning_rate)

    def update_rows(self, gradient: Tensor, variable: keras.Variable, learning_rate: Tensor) -> None:
        """One step of the rows of a gradient in which each row stands once."""
        m, v = self._moments(variable)
        rows = gradient.indices
        slopes = gradient.values
        momentums, velocities = self.read_moments(variable, rows)
        b1, b2 = self._betas()
        momentums = b1 * momentums + (1 - b1) * slopes  # (rows, dim)
        velocities = b2 * velocities + (1 - b2) * tf.square(slopes)
        m.scatter_update(tf.IndexedSlices(momentums, rows))
        v.scatter_update(tf.IndexedSlices(velocities, rows))
        rate = self._rate(self._next_step(), learning_rate)
        subtract_rows(variable, rate * momentums / (tf.sqrt(velocities) + self.epsilon), rows)

    def read_moments(self, variable: keras.Variable, rows: Tensor) -> tuple[Tensor, Tensor]:
        """`m` and `v` of some rows: `(rows, dim)` each."""
        m, v = self._moments(variable)
        return m.sparse_read(rows), v.sparse_read(rows)

    def _moments(self, variable: keras.Variable) -> tuple[Any, Any]:
        index = self._get_variable_index(variable)
        return resource(self._momentums[index]), resource(self._velocities[index])

    def _rate(self, step: Tensor, learning_rate: Tensor) -> Tensor:
        """`lr sqrt(1-b2^t) / (1-b1^t)`"""
        b1, b2 = self._betas()
        step = tf.cast(step, tf.float32)
        return tf.cast(learning_rate, tf.float32) * tf.sqrt(1 - b2**step) / (1 - b1**step)

    def _betas(self) -> tuple[Tensor, Tensor]:
        """As float32 before `1 - b2` is taken, like the fused kernel: what that rounds away is then the same everywhere."""
        return tf.constant(self.beta_1, tf.float32), tf.constant(self.beta_2, tf.float32)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "dense_rows": self.dense_rows}
