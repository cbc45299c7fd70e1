"""What a device must compute: a `DNN` with one hidden layer, its gradients and its optimizers, in NumPy's float64.

`logit = w . relu(V e + b) + c`, where `e` are the rows of a batch's ids side by side; the loss is the mean log loss.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

import numpy as np

Weights: TypeAlias = Sequence[np.ndarray]  # table, V, b, w, c
Batch: TypeAlias = tuple[np.ndarray, np.ndarray]  # ids `(rows, columns)`, labels `(rows,)`

# As float32 before `1 - b` is taken, like the kernels.
_BETA_1, _BETA_2 = (float(np.float32(beta)) for beta in (0.9, 0.999))
_START = {"adagrad": 0.1, "ftrl": 0.1}  # of the sum of squares
BY_ROWS = ("lazy_adam", "ftrl")  # what leaves rows that are not read as they are, where the dense rule would move them


def probabilities(weights: Weights, ids: np.ndarray) -> np.ndarray:
    """`sigmoid(logit)`: `(rows, columns) -> (rows,)`."""
    return 1 / (1 + np.exp(-_forward(weights, ids)[-1]))


def gradients(weights: Weights, batch: Batch) -> list[np.ndarray]:
    """Those of the mean log loss, one for each weight."""
    (table, kernel, _, last, _), (ids, labels) = weights, batch
    fields, hidden, logit = _forward(weights, ids)
    slope = ((1 / (1 + np.exp(-logit)) - labels) / len(labels))[:, None]  # (rows, 1)
    before = slope * last.T * (hidden > 0)  # (rows, units)
    of_table = np.zeros_like(table)
    np.add.at(of_table, ids, (before @ kernel.T).reshape(*ids.shape, -1))
    return [of_table, fields.T @ before, before.sum(axis=0), hidden.T @ slope, slope.sum(axis=0)]


def trained(optimizer: str, rate: float, weights: Weights, batches: Iterable[Batch]) -> list[np.ndarray]:
    """The weights after one step for each batch."""
    weights = [np.array(weight, np.float64) for weight in weights]
    moments = [(np.zeros_like(weight), np.full_like(weight, _START.get(optimizer, 0.0))) for weight in weights]
    for step, batch in enumerate(batches, 1):
        for index, slope in enumerate(gradients(weights, batch)):
            rows = np.unique(batch[0]) if index == 0 and optimizer in BY_ROWS else np.arange(len(slope))
            first, second = (moment[rows] for moment in moments[index])
            found = RULES[optimizer](weights[index][rows], slope[rows], first, second, rate, step)
            weights[index][rows], moments[index][0][rows], moments[index][1][rows] = found
    return weights


def _forward(weights: Weights, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The fields side by side, the hidden units, and the logits."""
    table, kernel, bias, last, shift = weights
    fields = table[ids].reshape(len(ids), -1)  # (rows, columns * dim)
    hidden = np.maximum(fields @ kernel + bias, 0)  # (rows, units)
    return fields, hidden, (hidden @ last + shift)[:, 0]


# The rules: `(w, gradient, m, v, rate, step) -> (w, m, v)`. Their formulas stand in the docstrings of `tfctr.optimizers`.


def _sgd(w, g, m, v, rate, step):
    return w - rate * g, m, v


def _adam(w, g, m, v, rate, step):
    m, v = _BETA_1 * m + (1 - _BETA_1) * g, _BETA_2 * v + (1 - _BETA_2) * g**2
    rate *= np.sqrt(1 - _BETA_2**step) / (1 - _BETA_1**step)
    return w - rate * m / (np.sqrt(v) + 1e-8), m, v


def _adagrad(w, g, m, v, rate, step):
    v = v + g**2
    return w - rate * g / (np.sqrt(v) + 1e-7), m, v


def _ftrl(w, g, z, n, rate, step):
    z, n = z + g - (np.sqrt(n + g**2) - np.sqrt(n)) / rate * w, n + g**2
    return -z * rate / np.sqrt(n), z, n


RULES: dict[str, Callable[..., tuple[np.ndarray, np.ndarray, np.ndarray]]] = {
    "sgd": _sgd,
    "adam": _adam,
    "lazy_adam": _adam,
    "exact_lazy_adam": _adam,
    "adagrad": _adagrad,
    "ftrl": _ftrl,
}
