"""Gradient steps that keep the gradients of embedding tables sparse and exact."""

import contextlib
import math
import re
import warnings
from collections.abc import Callable, Iterator, Sequence

import keras
import tensorflow as tf

from tfctr.errors import DataError, TrainingError
from tfctr.optimizers.gradients import global_norm, merge_duplicates, scale
from tfctr.optimizers.row_sparse import unwrap_loss_scaling
from tfctr.replicas import number_of_replicas, resource
from tfctr.types import Tensor


def minimize(
    optimizer: keras.optimizers.Optimizer,
    compute_terms: Callable[[], dict[str, Tensor]],
    variables: Sequence[keras.Variable],
    clip_norm: float | None = None,
    rows: Tensor | None = None,
    row_l2: float = 0.0,
    tables: Sequence[keras.Variable] = (),
    labels: Tensor | None = None,
) -> dict[str, Tensor]:
    """One gradient step on the sum of named loss terms.

    `compute_terms()` gives `{name: scalar}`, each a mean over this replica's rows. The gradient is that of the mean over the
    rows of all replicas; duplicate ids are merged, before it travels between replicas, which it does once, and after; it is
    scaled to a global norm of at most `clip_norm`, and applied once. Returns the terms.

    Args:
        rows: how many rows this replica has; None where all replicas have as many.
        row_l2: adds the term `l2 = row_l2 / 2 * sum of squares` of the distinct rows of `tables` that the batch reads.
        labels: those of the batch: where a term is not finite, the first that is neither 0 nor 1 is told.

    Raises:
        tf.errors.InvalidArgumentError: a term or the gradient is not finite; `stop_on_non_finite` says what it means.
    """
    terms, gradients = _terms_and_gradients(optimizer, compute_terms, variables, rows)
    # A head that no term trains has no gradient: it stays as it is.
    trained = [(merge_duplicates(g), v) for g, v in zip(gradients, variables, strict=True) if g is not None]
    if not trained:
        warnings.warn("The model does not have any trainable weights.", stacklevel=2)  # as in Keras
        return terms
    gradients, trained_variables = map(list, zip(*trained, strict=True))
    if number_of_replicas() > 1:
        gradients = _added_over_replicas(optimizer, gradients)
    if row_l2:
        gradients, terms["l2"] = _with_row_l2(optimizer, gradients, trained_variables, row_l2, tables)
    norm = global_norm(gradients)
    if clip_norm is not None:
        gradients = _clipped(gradients, norm, clip_norm * optimizer.scale_loss(1.0))
    if not optimizer.built:
        optimizer.build(variables)
    with tf.control_dependencies([_finite_check(optimizer, terms, norm, labels)]):
        optimizer.apply(gradients, trained_variables)
    return terms


def _terms_and_gradients(
    optimizer: keras.optimizers.Optimizer,
    compute_terms: Callable[[], dict[str, Tensor]],
    variables: Sequence[keras.Variable],
    rows: Tensor | None,
) -> tuple[dict[str, Tensor], list[Tensor | None]]:
    """The terms, and for each variable this replica's part of the gradient; None where no term reads it."""
    with tf.GradientTape() as tape:
        terms = compute_terms()
        total = tf.add_n([tf.cast(term, tf.float32) for term in terms.values()])
        loss = optimizer.scale_loss(total * _share(rows))
    return terms, tape.gradient(loss, variables)


def _added_over_replicas(optimizer: keras.optimizers.Optimizer, gradients: Sequence[Tensor]) -> list[Tensor]:
    """Those of the global batch, for a norm and distinct rows that are of it; duplicate ids are merged.

    `optimizer.apply` would add the replicas' gradients, equal by then, once more, by a method that is private to Keras: it is
    taken off this optimizer.
    """
    inner = unwrap_loss_scaling(optimizer)
    assert hasattr(inner, "_all_reduce_sum_gradients")
    inner._all_reduce_sum_gradients = list
    summed = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, gradients)
    return [merge_duplicates(gradient) for gradient in summed]


def _clipped(gradients: Sequence[Tensor], norm: Tensor, most: Tensor) -> list[Tensor]:
    """The gradients, whose global norm is given, scaled down to one of at most `most`."""
    most = tf.cast(most, norm.dtype)
    return [scale(gradient, most / tf.maximum(norm, most)) for gradient in gradients]


def _with_row_l2(
    optimizer: keras.optimizers.Optimizer,
    gradients: Sequence[Tensor],
    variables: Sequence[keras.Variable],
    row_l2: float,
    tables: Sequence[keras.Variable],
) -> tuple[list[Tensor], Tensor]:
    """The gradients with that of the L2 term of the rows in those of `tables`, and the term."""
    gradients = list(gradients)
    term = tf.constant(0.0)
    for index, variable in enumerate(variables):
        if any(variable is table for table in tables):
            gradients[index], squares = _add_row_l2(gradients[index], variable, optimizer.scale_loss(row_l2))
            term += row_l2 / 2 * squares
    return gradients, term


def _finite_check(
    optimizer: keras.optimizers.Optimizer, terms: dict[str, Tensor], norm: Tensor, labels: Tensor | None
) -> Tensor:
    """What fails unless all terms and the norm of the gradient are finite; it tells the first that is not."""
    values = dict(terms)
    if not isinstance(optimizer, keras.optimizers.LossScaleOptimizer):  # which leaves out such a step by itself
        values[_GRADIENT] = norm
    finite = tf.stack([tf.math.is_finite(value) for value in values.values()])

    def say():
        first = tf.argmax(tf.cast(~finite, tf.int32))
        value = tf.stack([tf.cast(value, tf.float64) for value in values.values()])[first]
        told = [_NON_FINITE, tf.constant([*values])[first], tf.convert_to_tensor(optimizer.iterations), value]
        return tf.debugging.Assert(False, told if labels is None else [*told, _LABEL, *_first_of_no_click(labels)])

    return tf.cond(tf.reduce_all(finite), tf.no_op, say)


def _add_row_l2(gradient: Tensor, table: keras.Variable, row_l2: Tensor) -> tuple[Tensor, Tensor]:
    """The gradient with `row_l2 * w` on its rows, and their sum of squares."""
    weights = tf.gather(resource(table), gradient.indices)  # (rows, dim)
    return type(gradient)(gradient.values + row_l2 * weights, gradient.indices, gradient.dense_shape), tf.reduce_sum(weights**2)


def _share(rows: Tensor | None) -> Tensor:
    """This replica's share of the rows of all replicas."""
    replicas = number_of_replicas()
    if replicas == 1 or rows is None:
        return 1 / replicas
    rows = tf.cast(rows, tf.float32)
    return rows / tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, rows)


_NON_FINITE = "tfctr: not finite"
_LABEL = "tfctr: labels"
_GRADIENT = "gradient_norm"


def label_check(labels: Tensor, step: Tensor) -> Tensor:
    """What fails unless all labels are 0 or 1, as `stop_on_non_finite` tells it.

    For `tf.control_dependencies` around the forward pass, which moves the statistics of batch normalization.
    """

    def say():
        told = [_NON_FINITE, "ctr", tf.convert_to_tensor(step), math.nan, _LABEL, *_first_of_no_click(labels)]
        return tf.debugging.Assert(False, told)

    values = tf.cast(labels, tf.float32)
    return tf.cond(tf.reduce_all((values == 0) | (values == 1)), tf.no_op, say)


def _first_of_no_click(labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """How many labels are neither 0 nor 1; and of the first, the row and the label."""
    labels = tf.reshape(tf.cast(labels, tf.float32), [-1])
    wrong = (labels != 0) & (labels != 1)
    row = tf.argmax(tf.cast(wrong, tf.int32))
    return tf.reduce_sum(tf.cast(wrong, tf.int32)), row, labels[row]


@contextlib.contextmanager
def stop_on_non_finite() -> Iterator[None]:
    """Turn the failed assertion of `minimize` into a `TrainingError` that names the term and the step, or the wrong label."""
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        found = re.search(rf"{_NON_FINITE}\W+(?:b')?(\w+)\D+(\d+)\W+(-?\w+)", str(error))
        if found is None:
            raise
        name, step, value = found.groups()
        label = re.search(rf"{_LABEL}\W+([1-9]\d*)\W+(\d+)[^\w-]+([-+.\w]+)", str(error))
        if label is not None:
            raise DataError(
                f"labels must be 0 or 1; row {label[2]} of the batch at step {step} holds {label[3]}.",
                fix=f"correct the rows like it: {label[1]} of this batch",
            ) from None
        what = "the norm of the gradient" if name == _GRADIENT else f"the loss term {name!r}"
        raise TrainingError(
            f"{what} became {value} at step {step}; the trained weights are those of the step before.",
            fix="lower the learning rate, or set a smaller clip_norm; check labels, weights and numeric columns",
        ) from error
