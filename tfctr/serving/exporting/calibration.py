"""Probabilities that match the click-through rate: a monotone map of the logit, fitted on rows the model has not seen.

| method | probability |
|---|---|
| `none` | `sigmoid(logit)` |
| `temperature` | `sigmoid(slope * logit)` |
| `platt` | `sigmoid(slope * logit + intercept)` |
| `isotonic` | the non-decreasing function nearest to the labels, linear between its knots |

Reference: [Platt, 1999](https://www.microsoft.com/en-us/research/publication/probabilistic-outputs-for-support-vector-machines);
[Zadrozny and Elkan, 2002](https://doi.org/10.1145/775047.775151); [Guo et al., 2017](https://arxiv.org/abs/1706.04599).
"""

import dataclasses
import math
from typing import Any, Self, TypeAlias

import keras
import numpy as np
import tensorflow as tf

from tfctr import metrics
from tfctr.data.split import Split
from tfctr.errors import ConfigError, DataError, require_number, require_one_of
from tfctr.metrics import SMALLEST_PROBABILITY
from tfctr.models._base import CTRModel, require_model
from tfctr.types import Tensor

METHODS = ("temperature", "platt", "isotonic")
NONE = "none"  # the model's own sigmoid
_FOLDS = 5
_MOST_STEPS = 100


@dataclasses.dataclass(frozen=True)
class SigmoidCalibration:
    """`probability = sigmoid(slope * logit + intercept)`.

    >>> SigmoidCalibration(2.0, 0.0)(tf.constant([0.0])).numpy().tolist()
    [0.5]
    """

    slope: float = 1.0
    intercept: float = 0.0
    method: str = NONE
    figures: dict[str, Any] = dataclasses.field(default_factory=dict)

    def describe(self) -> dict[str, Any]:
        """What the model card says."""
        return {"method": self.method, "slope": self.slope, "intercept": self.intercept, **self.figures}

    def __call__(self, logits: Tensor) -> Tensor:
        return tf.sigmoid(np.float32(self.slope) * logits + np.float32(self.intercept))

    def for_all_negatives(self, kept: float) -> Self:
        """The same map for a world in which training has seen only `kept` of the non-clicks."""
        return dataclasses.replace(self, intercept=self.intercept + math.log(kept))


@dataclasses.dataclass(frozen=True)
class IsotonicCalibration:
    """A non-decreasing function of the logit through knots; constant before the first and behind the last.

    Between knots, too, `p` becomes `p / (p + (1 - p) / kept)`, where `kept` is the share of the non-clicks that were there.

    >>> IsotonicCalibration((0.0, 2.0), (0.25, 0.75))(tf.constant([-9.0, 1.0, 9.0])).numpy().tolist()
    [0.25, 0.5, 0.75]
    """

    logits: tuple[float, ...]
    probabilities: tuple[float, ...]
    method: str = "isotonic"
    figures: dict[str, Any] = dataclasses.field(default_factory=dict)
    kept: float = 1.0

    def describe(self) -> dict[str, Any]:
        """What the model card says."""
        return {"method": self.method, "knots": len(self.logits), **self.figures}

    def __call__(self, logits: Tensor) -> Tensor:
        x, y = np.array(self.logits, np.float32), np.array(self.probabilities, np.float32)
        rises = np.diff(self.probabilities) / np.diff(self.logits)
        slopes = np.float32(np.append(np.minimum(rises, np.finfo("float32").max), 0.0))
        inside = tf.clip_by_value(logits, x[0], x[-1])
        knot = tf.maximum(tf.searchsorted(x, inside, side="right") - 1, 0)
        above = np.append(y[1:], y[-1])  # rounding must not lead past the next knot
        line = tf.gather(y, knot) + tf.gather(slopes, knot) * (inside - tf.gather(x, knot))
        clicks = tf.where(tf.math.is_nan(logits), logits, tf.minimum(line, tf.gather(above, knot)))
        return clicks if self.kept == 1 else clicks / (clicks + (1.0 - clicks) / np.float32(self.kept))

    def for_all_negatives(self, kept: float) -> Self:
        """The same map for a world in which training has seen only `kept` of the non-clicks."""
        return dataclasses.replace(self, kept=self.kept * kept)


Calibration: TypeAlias = SigmoidCalibration | IsotonicCalibration


def fit_calibration(model: CTRModel, split: Split, method: str = "best", batch_size: int = 10_000) -> Calibration:
    """Fit a calibration of a model's logits on the rows of a split, best the one for validation.

    Args:
        model: a `CTRModel`.
        split: of a prepared dataset, with both labels: `dataset.valid`. Rows count by their weight where it has weights.
        method: `"temperature"`, `"platt"`, `"isotonic"`, or `"best"`: the one with the smallest cross-validated log loss, or
            none where no one improves on the model's own probabilities.
        batch_size: rows scored at a time.

    Returns:
        What `export` takes as `calibration`; its `figures` have log loss and PCOC (predicted over observed clicks) before and
        after, "after" by five-fold cross-validation, so that no row judges a map that it has shaped.

    Raises:
        ConfigError: an unknown method, or `model` is no model of ours, or `split` no split, or of another fit than the model.
        DataError: fewer than five clicks or non-clicks, logits that are not finite, or probabilities that do not
            rise with the logit.

    >>> import tfctr
    >>> calibration = fit_calibration(model, dataset.valid, "platt")  # doctest: +SKIP
    >>> tfctr.serving.export(model, "serving/frappe", calibration=calibration)  # doctest: +SKIP
    """
    require_one_of((*METHODS, "best"), method, "calibration method")
    require_model(model)
    require_split(split, model)
    model.settle()
    outputs: Any = model.output
    scorer: Any = keras.Model(model.input, outputs["logit"])
    logits = scorer.predict(split.batches(batch_size, shuffle=False), verbose=0)[:, 0]
    return calibration_of(split.labels, logits, split.weights, method)


def calibration_of(labels: Any, logits: Any, weights: Any = None, method: str = "best") -> Calibration:
    """`fit_calibration` for given logits.

    >>> rng = np.random.default_rng(0)
    >>> logits = rng.normal(size=20_000)
    >>> labels = rng.random(20_000) < 1 / (1 + np.exp(-(logits / 2 - 1)))
    >>> found = calibration_of(labels, logits, method="platt")
    >>> round(found.slope, 1), round(found.intercept, 1)
    (0.5, -1.0)
    """
    require_one_of((*METHODS, "best"), method, "calibration method")
    labels, logits = metrics.is_positive(labels).astype(np.float64), np.asarray(logits, np.float64)
    weights = np.ones(len(labels)) if weights is None else np.asarray(weights, np.float64).reshape(-1)
    _require_usable(labels, logits, weights)
    labels, logits, weights = (values[weights > 0] for values in (labels, logits, weights))
    before = _figures(labels, _sigmoid(logits), weights)
    compared = {name: _cross_validated(name, labels, logits, weights) for name in (METHODS if method == "best" else [method])}
    if method == "best":
        compared = {NONE: before, **compared}  # the first of equals
    best = min(compared, key=lambda name: compared[name]["log_loss"])
    fitted = SigmoidCalibration() if best == NONE else _fitted(best, labels, logits, weights)
    if best != NONE:
        _require_rising(fitted, logits)
    return dataclasses.replace(fitted, figures={"rows": len(labels), "before": before, "after": compared})


def all_negatives(calibration: Calibration | None, kept: float) -> Calibration | None:
    """A calibration for all rows, from one for rows of which only the share `kept` of the non-clicks was kept.

    `p / (p + (1 - p) / kept)`, which adds `ln(kept)` to the logit. `calibration` None is the model's own sigmoid.

    Raises:
        ConfigError: `calibration` is of another kind, or `kept` not in (0, 1].

    >>> round(float(all_negatives(None, 0.1)(tf.constant([0.0]))[0]), 6)  # 0.5 / (0.5 + 0.5 / 0.1)
    0.090909
    """
    if not isinstance(calibration, SigmoidCalibration | IsotonicCalibration | None):
        raise ConfigError(f"`calibration` is {calibration!r}.", fix="pass fit_calibration(model, dataset.valid)")
    require_number("negatives_kept", kept, 0, 1)
    if kept == 0:
        raise ConfigError("`negatives_kept` is 0.", fix="give the share of the non-clicks that training has seen, above 0")
    return calibration if kept == 1 else (calibration or SigmoidCalibration()).for_all_negatives(kept)


def require_split(split: Any, model: CTRModel) -> None:
    """Raise `ConfigError` unless `split` can have rows, and is of the model's fit; `DataError` for ids that cannot be."""
    if split is None or isinstance(split, str):
        raise ConfigError(f"`split` is {split!r}: there are no rows in it.", fix="pass a split, such as dataset.valid")
    model.ids_check.require_split(split)


def _require_usable(labels, logits, weights):
    if logits.shape != labels.shape or weights.shape != labels.shape:
        shapes = (labels.shape, logits.shape, weights.shape)
        raise DataError(f"labels, logits and weights have the shapes {shapes}.", fix="give one of each a row")
    for row in np.flatnonzero(~np.isfinite(logits))[:1]:
        raise DataError(f"row {row}: the logit is {logits[row]}.", fix="train the model again")
    if not ((weights >= 0) & (weights < np.inf)).all():
        raise DataError("weights must be finite and not negative.", fix="correct the weight column")
    for name, is_one in (("clicks", labels == 1), ("non-clicks", labels == 0)):
        count = int((is_one & (weights > 0)).sum())
        if count < _FOLDS:
            raise DataError(f"{count} {name} are too few to fit a calibration on.", fix=f"give rows with {_FOLDS} or more")


def _cross_validated(method, labels, logits, weights):
    """Figures of probabilities, each from a map fitted on the other folds; each fold has its share of both labels."""
    folds, probabilities = np.empty(len(labels), np.int64), np.empty(len(labels))
    for label in (0, 1):
        rows = np.flatnonzero(labels == label)
        folds[rows] = np.arange(len(rows)) % _FOLDS
    for fold in range(_FOLDS):
        held_out = folds == fold
        fitted = _fitted(method, labels[~held_out], logits[~held_out], weights[~held_out])
        probabilities[held_out] = fitted(tf.constant(logits[held_out], tf.float32)).numpy()
    return _figures(labels, probabilities, weights)


def _figures(labels, probabilities, weights):
    return {
        "log_loss": metrics.log_loss(labels, probabilities, weights),
        "pcoc": metrics.calibration(labels, probabilities, weights),
    }


def _fitted(method, labels, logits, weights):
    if method == "isotonic":
        return _isotonic(labels, logits, weights)
    inputs = logits[:, None] if method == "temperature" else np.stack([logits, np.ones_like(logits)], axis=1)
    slope, *intercept = _logistic_regression(inputs, _smooth(labels, weights), weights).tolist()
    return SigmoidCalibration(slope, *intercept, method=method)


def _require_rising(fitted, logits):
    ends = [logits.min(), logits.max()]
    low, high = fitted(tf.constant(ends, tf.float32)).numpy().tolist()
    if not low < high:
        problem = f"{fitted.method}: the lowest logit, {ends[0]:.3g}, gets {low:.3g}, the highest, {ends[1]:.3g}, {high:.3g}."
        platt = "use platt, which also shifts the logits, or " if fitted.method == "temperature" else ""
        raise DataError(problem, fix=f"{platt}calibrate a model that ranks better than chance, on its own rows")


def _smooth(labels, weights):
    """Platt's targets: not quite 0 and 1, so that the slope stays finite where the logits separate the labels."""
    clicks, others = weights[labels == 1].sum(), weights[labels == 0].sum()
    return np.where(labels == 1, (clicks + 1) / (clicks + 2), 1 / (others + 2))


def _logistic_regression(inputs, targets, weights):
    """The coefficients of least log loss: Newton's method, with halved steps where a whole one leads uphill."""
    coefficients = np.zeros(inputs.shape[1])
    coefficients[0] = 1.0
    loss = _soft_log_loss(inputs @ coefficients, targets, weights)
    for _ in range(_MOST_STEPS):
        probabilities = _sigmoid(inputs @ coefficients)
        gradient = inputs.T @ (weights * (probabilities - targets))
        curvature = (inputs * (weights * probabilities * (1 - probabilities))[:, None]).T @ inputs
        step = np.linalg.lstsq(curvature, gradient, rcond=None)[0]
        while (new := _soft_log_loss(inputs @ (coefficients - step), targets, weights)) > loss and np.abs(step).max() > 1e-12:
            step = step / 2
        coefficients, gain, loss = coefficients - step, loss - new, new
        if gain <= 1e-15 * abs(loss):
            break
    return coefficients


def _soft_log_loss(logits, targets, weights):
    return np.average(np.logaddexp(0, logits) - targets * logits, weights=weights)


def _isotonic(labels, logits, weights):
    """Pool adjacent violators; the knots are the first and the last logit of each pool."""
    unique, place = np.unique(logits.astype(np.float32), return_inverse=True)
    mass = np.bincount(place, weights)
    rates = np.bincount(place, weights * labels) / mass
    pools = []  # (click rate, mass, first logit, last logit)
    for rate, weight, logit in zip(rates.tolist(), mass.tolist(), unique.tolist(), strict=True):
        pool = (rate, weight, logit, logit)
        while pools and pools[-1][0] >= pool[0]:
            before = pools.pop()
            both = before[1] + pool[1]
            pool = ((before[0] * before[1] + pool[0] * pool[1]) / both, both, before[2], pool[3])
        pools.append(pool)
    ends = [(end, rate) for rate, _, first, last in pools for end in sorted({first, last})]
    rates = np.clip([rate for _, rate in ends], SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY)
    return IsotonicCalibration(tuple(end for end, _ in ends), tuple(rates.tolist()))


def _sigmoid(logits):
    return np.exp(-np.logaddexp(0, -logits))
