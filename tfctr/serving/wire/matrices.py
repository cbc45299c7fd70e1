"""A matrix of ids, as a signature with one matrix takes it."""

from typing import Any

import numpy as np

from tfctr.errors import DataError
from tfctr.serving.wire.row_values import plain

_FIX = "use the ids of this model's schema"


def to_matrix(name: str, values: Any, dtype: np.dtype, width: int | None) -> np.ndarray:
    """The values of input `name`, `(rows, width)`, of that type. Raises `DataError` if they are anything else."""
    matrix = values if isinstance(values, np.ndarray) else _plain_matrix(name, values)
    if matrix.ndim != 2 or (width is not None and matrix.shape[1] != width):
        raise DataError(f"{name!r} has the shape {matrix.shape}; the model takes (rows, {width}).", fix=_FIX)
    if matrix.dtype != dtype and not _fits(matrix, dtype):
        raise DataError(f"{name!r} holds {matrix.dtype} values that are not {dtype}.", fix=_FIX)
    return matrix.astype(dtype)


def _fits(matrix: np.ndarray, dtype: np.dtype) -> bool:
    if dtype.kind != "i" or matrix.dtype.kind not in "iu":
        return dtype.kind == "f" and matrix.dtype.kind in "iuf"
    limits = np.iinfo(dtype)
    return not matrix.size or bool(limits.min <= matrix.min() and matrix.max() <= limits.max)


def _plain_matrix(name: str, values: Any) -> np.ndarray:
    try:
        matrix = np.asarray(values)
        return np.asarray(plain(values)) if matrix.dtype == object else matrix  # lists that a table holds
    except ValueError as error:
        raise DataError(f"the rows of {name!r} differ in length.", fix="pass a matrix") from error
