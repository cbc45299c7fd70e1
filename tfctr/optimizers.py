"""Gradient steps that keep the gradients of embedding tables sparse and exact."""

import contextlib
import re

import keras
import tensorflow as tf

from tfctr.errors import TrainingError


def minimize(optimizer, compute_terms, variables, clip_norm=None):
    """One gradient step on the sum of named loss terms.

    `compute_terms()` gives `{name: scalar}`, each a mean over this replica's rows. Duplicate ids are merged, the gradient of
    the global batch is scaled to a global norm of at most `clip_norm`, and applied once. Returns the terms.

    Raises:
        tf.errors.InvalidArgumentError: a term is not finite; `stop_on_non_finite` makes it a `TrainingError`.
    """
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    with tf.GradientTape() as tape:
        terms = compute_terms()
        loss = optimizer.scale_loss(tf.add_n([tf.cast(term, tf.float32) for term in terms.values()]) / replicas)
    gradients = tape.gradient(loss, variables)
    # A head that no term trains has no gradient: it stays as it is.
    trained = [(merge_duplicates(g), v) for g, v in zip(gradients, variables, strict=True) if g is not None]
    gradients, trained_variables = map(list, zip(*trained, strict=True))
    if clip_norm is not None:
        gradients = _clip_global_batch(gradients, clip_norm * optimizer.scale_loss(1.0), replicas)
    if not optimizer.built:
        optimizer.build(variables)
    with tf.control_dependencies([_assert_finite(name, term, optimizer.iterations) for name, term in terms.items()]):
        optimizer.apply(gradients, trained_variables)
    return terms


_NON_FINITE = "tfctr: a loss term is not finite"


def _assert_finite(name, term, step):
    return tf.debugging.Assert(tf.math.is_finite(term), [_NON_FINITE, name, tf.convert_to_tensor(step), term])


@contextlib.contextmanager
def stop_on_non_finite():
    """Turn the failed assertion of `minimize` into a `TrainingError` that names the term and the step."""
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        found = re.search(rf"{_NON_FINITE}\W+(\w+)\D+(\d+)\W+(-?\w+)", str(error))
        if found is None:
            raise
        term, step, value = found.groups()
        raise TrainingError(
            f"the loss term {term!r} became {value} at step {step}; the weights are those of the step before.",
            fix="lower the learning rate, or set a smaller clip_norm; check numeric columns for huge values",
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


def clip_by_global_norm(gradients, norm):
    """Scale all gradients by `min(1, norm / global norm)`. Duplicates must be merged before; sparse gradients stay sparse."""
    values = [g.values if isinstance(g, tf.IndexedSlices) else g for g in gradients]
    scale = norm / tf.maximum(tf.linalg.global_norm(values), norm)
    return [
        tf.IndexedSlices(g.values * scale, g.indices, g.dense_shape) if isinstance(g, tf.IndexedSlices) else g * scale
        for g in gradients
    ]


def _clip_global_batch(gradients, norm, replicas):
    if replicas == 1:
        return clip_by_global_norm(gradients, norm)
    # The norm is that of the global batch, so the replicas' gradients are added before it is taken. `optimizer.apply` will add
    # the replicas' (now equal) gradients once more.
    summed = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, gradients)
    return [
        tf.IndexedSlices(g.values / replicas, g.indices, g.dense_shape) if isinstance(g, tf.IndexedSlices) else g / replicas
        for g in clip_by_global_norm([merge_duplicates(g) for g in summed], norm)
    ]


@keras.saving.register_keras_serializable("tfctr")
class Adam(keras.optimizers.Adam):
    """Adam (Kingma & Ba, 2015) through TensorFlow's fused kernel: one pass, no temporaries.

    `m = b1 m + (1-b1) g;  v = b2 v + (1-b2) g^2;  w -= lr sqrt(1-b2^t)/(1-b1^t) m / (sqrt(v) + epsilon)`

    The same result as `keras.optimizers.Adam` with a dense gradient; sparse gradients are merged first, so it also has it with
    a sparse one. `epsilon` is that of the papers' PyTorch code.

    Reference: [Kingma and Ba, 2015](https://arxiv.org/abs/1412.6980), algorithm 1 and the note under it.
    """

    def __init__(self, learning_rate=0.001, beta_1=0.9, beta_2=0.999, epsilon=1e-8, name="adam", **kwargs):
        super().__init__(learning_rate, beta_1, beta_2, epsilon, name=name, **kwargs)

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
            grad=tf.convert_to_tensor(merge_duplicates(gradient)),
        )


def _local(variable):
    """The plain `tf.Variable` of this replica behind a Keras variable."""
    variable = variable.value if isinstance(variable, keras.Variable) else variable
    return variable._get_on_device_or_primary() if hasattr(variable, "_get_on_device_or_primary") else variable
