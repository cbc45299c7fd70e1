"""Raw rows with two classes, as the estimator gets them, and as `prepare` reads them."""

import dataclasses
from typing import Any

import numpy as np
import pyarrow as pa
from sklearn.utils import assert_all_finite, column_or_1d
from sklearn.utils.multiclass import check_classification_targets, type_of_target

from tfctr.data.tables import arrow_array
from tfctr.errors import DataError, require, require_number


@dataclasses.dataclass(frozen=True)
class Rows:
    """Raw rows: their columns by name, whether each is a click, and their weights."""

    columns: dict[str, Any]
    is_click: np.ndarray
    weights: np.ndarray | None

    def take(self, rows: np.ndarray) -> "Rows":
        columns = {name: column.take(rows) for name, column in self.columns.items()}
        return Rows(columns, self.is_click[rows], None if self.weights is None else self.weights[rows])

    def weighted(self) -> "Rows":
        """Those with a weight above 0. Raises `DataError` where they are of one class."""
        rows = self if self.weights is None or self.weights.all() else self.take(np.flatnonzero(self.weights))
        fix = "give rows of both classes, with weights above zero"
        require(len(rows.is_click) > 0, "all sample weights are zero.", fix=fix, error=DataError)
        problem = "there is one class only: all rows with a weight are " + ("clicks." if rows.is_click[0] else "no clicks.")
        require(len(np.unique(rows.is_click)) == 2, problem, fix=fix, error=DataError)
        return rows

    def drawn(self, fraction: float, seed: int) -> "tuple[Rows, Rows]":
        """The rows for training and for validation: of each class so many for each, and at least one."""
        require_number("validation_fraction", fraction)
        require(0 < fraction < 1, f"`validation_fraction` is {fraction:g}.", fix="use a number between 0 and 1")
        draw = np.random.default_rng(seed)
        is_valid = np.zeros(len(self.is_click), bool)
        for rows in (np.flatnonzero(self.is_click), np.flatnonzero(~self.is_click)):
            fix = "give more rows, or validation rows of your own: X_val and y_val"
            require(len(rows) > 1, "a class has one row only, and validation needs another one.", fix=fix, error=DataError)
            is_valid[draw.permutation(rows)[: np.clip(round(fraction * len(rows)), 1, len(rows) - 1)]] = True
        return self.take(np.flatnonzero(~is_valid)), self.take(np.flatnonzero(is_valid))

    def table(self, label: str, weight: str | None) -> dict[str, Any]:
        """A table for `prepare`; where these rows have no weights, the column `weight` as it is in them, or else 1."""
        table = {**self.columns, label: self.is_click.astype(int)}
        if weight is not None and (self.weights is not None or weight not in table):
            table[weight] = np.ones(len(self.is_click)) if self.weights is None else self.weights
        return table


def labels_of(y: Any) -> np.ndarray:
    """Labels as an array, `(rows,)`. Raises `ValueError` where they are missing, of several types or columns, or infinite."""
    require(y is not None, "the estimator requires y to be passed, but the target y is None.", fix="give a class for each row")
    y = column_or_1d(y, warn=True)
    y = _of_one_type(y) if y.dtype == object else y
    assert_all_finite(y, input_name="y")
    return y


def _of_one_type(y: np.ndarray) -> np.ndarray:
    """Labels that are Python objects, all of them there: text as it is, numbers and truth values as NumPy has them."""
    try:
        values = pa.array(y, from_pandas=True)
    except pa.ArrowException as error:
        raise DataError(f"y holds values of several types: {error}.", fix="write all labels alike") from error
    row = values.is_null().index(True).as_py()
    require(row < 0, f"y is missing in row {row}.", fix="drop such rows", error=DataError)
    is_plain = pa.types.is_boolean(values.type) or pa.types.is_integer(values.type) or pa.types.is_floating(values.type)
    return values.to_numpy(zero_copy_only=False) if is_plain else y


def two_classes(y: np.ndarray) -> np.ndarray:
    """The two classes, sorted. Raises `ValueError` where there are not two."""
    check_classification_targets(y)
    kind = type_of_target(y, input_name="y")
    fix = "make one of them the click: y == 'yes'"
    require(kind == "binary", f"Only binary classification is supported. The type of the target is {kind}.", fix=fix)
    classes = np.unique(y)
    problem = f"y has one class only: {classes.tolist()[0]!r}."
    require(len(classes) == 2, problem, fix="give rows of both classes", error=DataError)
    return classes


def clicks_of(y: np.ndarray, classes: np.ndarray, name: str) -> np.ndarray:
    """Whether each label is the second class. Raises `DataError` for one that is neither."""
    is_click = y == classes[1]
    known = is_click | (y == classes[0])
    row = int(np.argmin(known))
    problem = f"`{name}` has the label {y[[row]].tolist()[0]!r} in row {row}, which `fit` has not seen."
    require(known[row], problem, fix="use {!r} and {!r}".format(*classes.tolist()), error=DataError)
    return is_click


def weights_of(sample_weight: Any) -> np.ndarray:
    """Weights as an array, `(rows,)`. Raises `ValueError` where one is negative or no finite number."""
    weights = column_or_1d(np.asarray(sample_weight, np.float64))
    assert_all_finite(weights, input_name="sample_weight")
    row = int(np.argmin(weights))
    fix = "give weights of at least 0"
    require(weights[row] >= 0, f"`sample_weight` is {weights[row]:g} in row {row}.", fix=fix, error=DataError)
    return weights


def group_codes(column: Any, name: str) -> np.ndarray:
    """A whole number for each distinct value of a column, `(rows,)`. Raises `DataError` where one is missing.

    >>> group_codes(["b", "a", "b"], "user").tolist()
    [0, 1, 0]
    """
    values = arrow_array(column)
    values = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    row = values.is_null().index(True).as_py()
    require(row < 0, f"column {name!r}, the group, is missing in row {row}.", fix="drop such rows", error=DataError)
    return values.dictionary_encode().indices.to_numpy()
