"""Gradient steps that keep the gradients of embedding tables sparse and exact."""

import contextlib
import re

import keras
import tensorflow as tf

from tfctr.errors import ConfigError, TrainingError


def minimize(optimizer, compute_terms, variables, clip_norm=None, rows=None):
    """One gradient step on the sum of named loss terms.

    `compute_terms()` gives `{name: scalar}`, each a mean over this replica's rows. The gradient is that of the mean over the
    rows of all replicas; duplicate ids are merged; it is scaled to a global norm of at most `clip_norm`, and applied once.
    Returns the terms.

    Args:
        rows: how many rows this replica has; None where all replicas have as many.

    Raises:
        tf.errors.InvalidArgumentError: a term or the gradient is not finite; `stop_on_non_finite` makes it a `TrainingError`.
    """
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    with tf.GradientTape() as tape:
        terms = compute_terms()
        total = tf.add_n([tf.cast(term, tf.float32) for term in terms.values()])
        loss = optimizer.scale_loss(total * _share(rows, replicas))
    gradients = tape.gradient(loss, variables)
    # A head that no term trains has no gradient: it stays as it is.
    trained = [(merge_duplicates(g), v) for g, v in zip(gradients, variables, strict=True) if g is not None]
    gradients, trained_variables = map(list, zip(*trained, strict=True))
    if replicas > 1 and clip_norm is not None:
        # The norm is that of the global batch, so the replicas' gradients are added before it is taken. `optimizer.apply` will
        # add the replicas' (now equal) gradients once more.
        summed = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, gradients)
        gradients = [scale(merge_duplicates(gradient), 1 / replicas) for gradient in summed]
    norm = global_norm(gradients)
    if clip_norm is not None:
        most = clip_norm * optimizer.scale_loss(1.0) / replicas
        gradients = [scale(gradient, most / tf.maximum(norm, most)) for gradient in gradients]
    if not optimizer.built:
        optimizer.build(variables)
    checked = dict(terms)
    if not isinstance(optimizer, keras.optimizers.LossScaleOptimizer):  # which leaves out such a step by itself
        checked[_GRADIENT] = norm
    with tf.control_dependencies([_assert_finite(name, value, optimizer.iterations) for name, value in checked.items()]):
        optimizer.apply(gradients, trained_variables)
    return terms


def _share(rows, replicas):
    """This replica's share of the rows of all replicas."""
    if replicas == 1 or rows is None:
        return 1 / replicas
    rows = tf.cast(rows, tf.float32)
    return rows / tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, rows)


_NON_FINITE = "tfctr: not finite"
_GRADIENT = "gradient_norm"


def _assert_finite(name, value, step):
    return tf.debugging.Assert(tf.math.is_finite(value), [_NON_FINITE, name, tf.convert_to_tensor(step), value])


@contextlib.contextmanager
def stop_on_non_finite():
    """Turn the failed assertion of `minimize` into a `TrainingError` that names the term and the step."""
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        found = re.search(rf"{_NON_FINITE}\W+(?:b')?(\w+)\D+(\d+)\W+(-?\w+)", str(error))
        if found is None:
            raise
        name, step, value = found.groups()
        what = "the norm of the gradient" if name == _GRADIENT else f"the loss term {name!r}"
        raise TrainingError(
            f"{what} became {value} at step {step}; the weights are those of the step before.",
            fix="lower the learning rate, or set a smaller clip_norm; check labels, weights and numeric columns",
        ) from error


def merge_duplicates(gradient):
    """`IndexedSlices` in which each row stands once, with the sum of its slices; a dense gradient passes through.

    Adaptive optimizers square the gradient, and the square of a sum is not the sum of the squares.
    """
    if not isinstance(gradient, tf.IndexedSlices):
        return gradient
    rows, position = tf.unique(gradient.indices)
    values = tf.math.unsorted_segment_sum(gradient.values, position, tf.size(rows))
    return tf.IndexedSlices(values, rows, gradient.dense_shape)


def global_norm(gradients):
    """The square root of the sum of squares of all gradients. Duplicates must be merged before."""
    return tf.linalg.global_norm([g.values if isinstance(g, tf.IndexedSlices) else g for g in gradients])


def scale(gradient, factor):
    """`gradient * factor`; a sparse gradient stays sparse."""
    if isinstance(gradient, tf.IndexedSlices):
        return tf.IndexedSlices(gradient.values * factor, gradient.indices, gradient.dense_shape)
    return gradient * factor


@keras.saving.register_keras_serializable("tfctr")
class Adam(keras.optimizers.Adam):
    """Adam (Kingma & Ba, 2015) through TensorFlow's fused kernel: one pass, no temporaries.

    `m = b1 m + (1-b1) g;  v = b2 v + (1-b2) g^2;  w -= lr sqrt(1-b2^t)/(1-b1^t) m / (sqrt(v) + epsilon)`

    The same result as `keras.optimizers.Adam` with a dense gradient, and with a sparse one that of the dense gradient it stands
    for. `epsilon` is that of the papers' PyTorch code.

    Raises:
        ConfigError: `amsgrad=True`, which the kernel does not know.

    Reference: [Kingma and Ba, 2015](https://arxiv.org/abs/1412.6980), algorithm 1 and the note under it.
    """

    def __init__(self, learning_rate=0.001, beta_1=0.9, beta_2=0.999, epsilon=1e-8, name="adam", **kwargs):
        super().__init__(learning_rate, beta_1, beta_2, epsilon, name=name, **kwargs)
        if self.amsgrad:
            raise ConfigError("`amsgrad` is True.", fix="use keras.optimizers.Adam(amsgrad=True, epsilon=1e-8)")

    def update_step(self, gradient, variable, learning_rate):
        index = self._get_variable_index(variable)
        step = tf.cast(self.iterations + 1, variable.dtype)
        tf.raw_ops.ResourceApplyAdam(
            var=_local(variable).handle,
            m=_local(self._momentums[index]).handle,
            v=_local(self._velocities[index]).handle,
            beta1_power=tf.cast(self.beta_1, variable.dtype) ** step,
            beta2_power=tf.cast(self.beta_2, variable.dtype) ** step,
            lr=tf.cast(learning_rate, variable.dtype),
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=tf.convert_to_tensor(gradient),  # which adds up duplicates
        )


def _local(variable):
    """The plain `tf.Variable` of this replica behind a Keras variable."""
    variable = variable.value if isinstance(variable, keras.Variable) else variable
    return variable._get_on_device_or_primary() if hasattr(variable, "_get_on_device_or_primary") else variable
