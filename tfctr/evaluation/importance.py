"""What a model reads from each feature: how much worse it is when the feature's values are permuted."""

import math
from typing import Any

import numpy as np
import rich.console

from tfctr import metrics
from tfctr.data.split import Split
from tfctr.data.view import View
from tfctr.errors import DataError, require_count
from tfctr.evaluation.evaluate import figures
from tfctr.evaluation.scoring import bar, model_and_split
from tfctr.models import CTRModel
from tfctr.training import Run
from tfctr.types import StrPath

_SIGNS = {"auc_fall": -1, "group_auc_fall": -1, "log_loss_rise": 1}  # of the change, so that what is worse is above 0


def importance(
    model: Run | CTRModel,
    split: Split | str | None = None,
    *,
    repeats: int = 5,
    seed: int = 0,
    rows: int | None = None,
    batch_size: int = 10_000,
    data: StrPath | None = None,
    console: rich.console.Console | None = None,
) -> dict[str, Any]:
    """Permutation importance: how much AUC falls and log loss rises when one feature's values are permuted over the rows.

    A permuted feature keeps its distribution and loses what it says of its row. All columns of a sequence move together, and in
    one repeat all features move by the same permutation, so that the figure of one does not depend on which others there are.
    Rows count by their weight, as in `evaluate`, and each of them may take the value of any other.

    What the figures do not say: features that say the same share their importance, or hide it, since each still says it where
    the other is permuted; permuted rows may be ones that never occur; and they are about this model, not about the world.

    Each feature costs `repeats` passes of the model over the rows; one whose rows are all equal costs none. Memory holds one
    batch, and a few numbers a row.

    Args:
        model: a `tfctr.training.Run`, or a model.
        split: for a run, the name of a split of its dataset, `"valid"` by default; for a model, a split itself. Rows that the
            model was trained on say what it has learnt, not what helps with new rows.
        repeats: permutations a feature.
        seed: of the draw of `rows`, and of the permutations: `numpy.random.default_rng([seed, r]).permutation(rows)`, r from 1.
        rows: at most so many rows, drawn without replacement; all if None.
        batch_size: rows scored at a time.
        data: for a run, as in `evaluate`.
        console: a `rich` console for the bar, which a terminal shows; stderr by default.

    Returns:
        `split`, `rows`, `of_rows` (the split's), `repeats`, `seed`; `base`, the figures of `evaluate` for these rows; and
        `features`, the largest fall of AUC first: `{feature: {"auc_fall", "group_auc_fall", "log_loss_rise"}}`, means over the
        repeats, each beside its standard deviation over them (with `repeats - 1`; NaN for one repeat), `"auc_fall_std"` and so
        on. gAUC is NaN where it is not defined: see `base["undefined"]`.

    Raises:
        ConfigError: no such split, one of another fit than the model, or an argument out of range.
        DataError: the rows have no labels, one class only, or no weight.
        StorageError: as in `evaluate`.

    Example:

    >>> from tfctr import Categorical, Schema, models
    >>> schema = Schema([Categorical("user", size=5), Categorical("day", size=4)], label="click")
    >>> model = models.LR(schema)
    >>> split = Split.from_arrays([[3, 8], [4, 8], [3, 8]], [1, 0, 1], name="valid")  # always the same day
    >>> importance(model, split)["features"]["day"]["auc_fall"]
    0.0

    Reference: [Breiman, 2001](https://doi.org/10.1023/A:1010933404324), section 10; model reliance in
    [Fisher et al., 2019](https://arxiv.org/abs/1801.01489).
    """
    for argument, value, least in (("repeats", repeats, 1), ("seed", seed, 0), ("batch_size", batch_size, 1)):
        require_count(argument, value, least)
    if rows is not None:
        require_count("rows", rows)
    model, split = model_and_split(model, split, data, default="valid")
    _require_both_classes(split)
    model.ids_check.require_split(split)
    view = View(split, _draw(split.rows, rows, seed), digest=model.schema.digest)
    if view.rows < split.rows:
        _require_both_classes(view)
    probabilities = _probabilities(model, view, batch_size)
    base = figures(view.labels, probabilities, view.groups, view.weights)
    has_groups = not math.isnan(base["group_auc"])
    unchanged = _measured(view, probabilities, has_groups)
    fields = model.schema.fields
    changes = np.zeros((len(fields), repeats, len(_SIGNS)))
    with bar("passes", len(fields) * repeats, console) as advance:
        for repeat in range(repeats):
            order = np.random.default_rng([seed, repeat + 1]).permutation(view.rows)
            for at, field in enumerate(fields):
                values = view.column(field.columns)
                permuted = values[order]
                if not np.array_equal(values, permuted):
                    probabilities = _probabilities(model, view.with_column(field.columns, permuted), batch_size)
                    changes[at, repeat] = _measured(view, probabilities, has_groups) - unchanged
                advance(1)
    changes = changes * [*_SIGNS.values()] + 0.0  # which turns -0 into 0
    if not has_groups:
        changes[..., [*_SIGNS].index("group_auc_fall")] = math.nan
    found = {field.feature.name: _summary(change) for field, change in zip(fields, changes, strict=True)}
    return {
        "split": split.name,
        "rows": view.rows,
        "of_rows": split.rows,
        "repeats": repeats,
        "seed": seed,
        "base": base,
        "features": dict(sorted(found.items(), key=lambda entry: -entry[1]["auc_fall"])),
    }


def _draw(rows: int, most: int | None, seed: int) -> np.ndarray | None:
    """The numbers of `most` of the rows, ascending; None for all."""
    if most is None or most >= rows:
        return None
    return np.sort(np.random.default_rng(seed).choice(rows, most, replace=False))


def _require_both_classes(split: Split) -> None:
    rate = metrics.click_rate(split.labels, split.weights)
    if not 0 < rate < 1:
        what = f"the {split.rows:,} rows of the {split.name} split"
        problem = f"{what} have no weight" if math.isnan(rate) else f"{what} are of one class only"
        raise DataError(f"{problem}: there is no AUC to lose.", fix="use rows with clicks and non-clicks, or more of them")


def _probabilities(model: CTRModel, split: Split, batch_size: int) -> np.ndarray:
    return model.predict(split.batches(batch_size, shuffle=False), verbose=0)[:, 0]


def _measured(split: Split, probabilities: np.ndarray, has_groups: bool) -> np.ndarray:
    """AUC, gAUC (0 where there is none) and log loss, in the order of `_SIGNS`."""
    labels, groups, weights = split.labels, split.groups, split.weights
    grouped = metrics.group_auc(labels, probabilities, groups, weights) if has_groups and groups is not None else 0.0
    return np.array([metrics.auc(labels, probabilities, weights), grouped, metrics.log_loss(labels, probabilities, weights)])


def _summary(changes: np.ndarray) -> dict[str, float]:
    """Means and standard deviations of the changes `(repeats, figures)` of one feature."""
    means = changes.mean(axis=0).tolist()
    spreads = changes.std(axis=0, ddof=1).tolist() if len(changes) > 1 else [math.nan] * len(means)
    found = {}
    for name, mean, spread in zip(_SIGNS, means, spreads, strict=True):
        found |= {name: mean, f"{name}_std": spread}
    return found
