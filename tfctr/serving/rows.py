"""What a client may pass as rows, turned into the arrays that a served signature takes.

Rows come as a mapping of columns, a list of dicts, a pandas or polars DataFrame, a pyarrow table, or, for a signature with one
matrix, a matrix. None of those libraries is imported. Every mistake is found here, by column and row, before anything is sent.
"""

import functools
import math
from collections.abc import Mapping

import numpy as np

from tfctr.errors import ConfigError, DataError, suggest

_ABSENT = {"NAType", "NaTType"}  # pandas.NA and NaT, which equal nothing, not even themselves
# Most columns hold one type only, and these two need no look at each value.
_PURE = {str: str.encode, int: b"%d".__mod__}


def to_arrays(rows, inputs, separator="|"):
    """The arrays of one request, all with the same number of rows.

    Args:
        rows: see above.
        inputs: input name -> (NumPy type, shape with None for the batch), as the server describes them.
        separator: joins the lists of sequence columns; a dict gives each column its own.

    Returns:
        Input name -> array; text as `object` arrays of `bytes`.

    Raises:
        DataError: a column is missing, unknown or of another length, or a value cannot be what the column is.
        ConfigError: `rows` is none of the things above.

    >>> to_arrays({"user": [60.0, None, "x"]}, {"user": (np.dtype(object), (None,))})
    {'user': array([b'60', b'', b'x'], dtype=object)}
    """
    columns = _columns(rows, inputs)
    _check_names(columns, inputs)
    separators = separator if isinstance(separator, Mapping) else dict.fromkeys(inputs, separator)
    arrays = {name: _array(name, columns[name], *inputs[name], separators.get(name)) for name in inputs}
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        counted = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise DataError(f"the columns differ in rows: {counted}.", fix="give every column one value a row")
    return arrays


def slices(arrays, max_rows, max_bytes):
    """Cut the rows of `arrays` into slices of at most `max_rows` and about `max_bytes`, at least one row each, in order.

    >>> list(slices({"ids": np.zeros((5, 2), "int32")}, max_rows=1000, max_bytes=20))
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    ends = np.cumsum(sum(map(_row_bytes, arrays.values())))
    start = 0
    while start < len(ends):
        sent = ends[start - 1] if start else 0
        fitting = int(np.searchsorted(ends, sent + max_bytes, side="right"))
        stop = max(start + 1, min(fitting, start + max_rows))
        yield slice(start, stop)
        start = stop


def _row_bytes(array):
    if array.dtype.hasobject:  # a text takes its bytes, a field number and a length
        return np.fromiter((len(text) + 3 for text in array), np.int64, len(array))
    return np.full(len(array), array.itemsize * math.prod(array.shape[1:]), np.int64)


def _columns(rows, inputs):
    """Name -> values, from any form of rows."""
    if isinstance(rows, Mapping):
        return rows
    names = getattr(rows, "column_names", getattr(rows, "columns", None))
    if names is not None:
        names = list(names)
        for name in names:
            if names.count(name) > 1:
                raise DataError(f"column {name!r} is in the table twice.", fix="rename or drop one of the two")
        return {name: rows[name] for name in names}
    if isinstance(rows, list | tuple) and rows and all(isinstance(row, Mapping) for row in rows):
        return _transpose(rows)
    matrices = [name for name, (_, shape) in inputs.items() if len(shape) == 2]
    if len(inputs) == len(matrices) == 1 and not isinstance(rows, str | bytes):
        return {matrices[0]: rows}
    raise ConfigError(
        f"cannot read rows from {type(rows).__name__}.",
        fix="pass a dict of columns, a list of dicts, or a DataFrame; a matrix only to a signature that takes one",
    )


def _transpose(rows):
    names = rows[0].keys()
    for number, row in enumerate(rows):
        if row.keys() != names:
            name = min(row.keys() ^ names, key=str)
            there = "this row, but not in row 0" if name in row else "row 0, but not in this row"
            raise DataError(
                f"row {number}: column {name!r} is in {there}.",
                fix="give every row the same columns, with None for a missing value",
            )
    return {name: [row[name] for row in rows] for name in names}


def _check_names(columns, inputs):
    for name in columns:
        if name not in inputs:
            raise DataError(f"the model has no input {name!r}.", fix=f"drop or rename this column. {suggest(name, inputs)}")
    missing = [name for name in inputs if name not in columns]
    if missing:
        raise DataError(
            f"column {missing[0]!r} is missing"
            + (f", and {len(missing) - 1} more: {', '.join(missing[1:])}." if missing[1:] else "."),
            fix="add it, with None where the value is unknown",
        )


def _array(name, values, dtype, shape, separator):
    if isinstance(values, str | bytes | Mapping) or not hasattr(values, "__len__") or getattr(values, "shape", None) == ():
        raise DataError(f"column {name!r}: {values!r} is one value, not a column.", fix=f"write {{{name!r}: [{values!r}]}}")
    if len(shape) == 2:
        return _matrix(name, values, dtype, shape[1])
    if dtype.hasobject:
        return _texts(name, _plain(values), separator)
    return _numbers(name, values, dtype)


def _plain(values):
    """A list of plain Python values, from a NumPy array, a Series of any library, or any sequence."""
    for method in ("tolist", "to_list", "to_pylist"):
        if hasattr(values, method):
            return getattr(values, method)()
    return list(values)


def _texts(name, values, separator):
    kinds = set(map(type, values))
    token = _PURE.get(kinds.pop()) if len(kinds) == 1 else None
    token = token or functools.partial(_token, separator=separator)
    array = np.empty(len(values), object)
    for row, value in enumerate(values):
        try:
            array[row] = token(value)
        except (TypeError, UnicodeEncodeError) as error:
            raise DataError(
                f"column {name!r}, row {row}: {value!r} is neither text nor a whole number.",
                fix="pass valid Unicode text, whole numbers, true or false, None, or a flat list of these",
            ) from error
    return array


def _token(value, separator=None):
    """The bytes of one value, as `prepare` reads it; `TypeError` if it cannot."""
    match value:
        case bytes():
            return bytes(value)
        case str():
            return value.encode()
        case bool() | np.bool_():
            return b"true" if value else b"false"
        case int() | np.integer():
            return b"%d" % int(value)
        case list() | tuple() | np.ndarray() if separator is not None:
            return separator.encode().join(map(_token, value))
    if _is_absent(value):
        return b""
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return b"%d" % int(value)
    raise TypeError


def _is_absent(value):
    return value is None or type(value).__name__ in _ABSENT or (isinstance(value, float | np.floating) and math.isnan(value))


def _numbers(name, values, dtype):
    held = getattr(values, "dtype", None)
    if isinstance(held, np.dtype) and values.ndim == 1 and (held == dtype or (held.kind in "fiub" and dtype.kind == "f")):
        return np.asarray(values).astype(dtype)
    values = _plain(values)
    numbers = np.empty(len(values), dtype)
    for row, value in enumerate(values):
        try:
            numbers[row] = _number(value, dtype)
        except (TypeError, ValueError, OverflowError) as error:
            raise DataError(
                f"column {name!r}, row {row}: {value!r} is not a number ({dtype}).", fix="pass numbers only"
            ) from error
    return numbers


def _number(value, dtype):
    if _is_absent(value) and dtype.kind == "f":
        return math.nan
    # Text and dates are no numbers, even where NumPy would read them as such.
    if not isinstance(value, int | float | np.number | np.bool_):
        raise TypeError
    if dtype.kind == "f":
        return float(value)
    if value != int(value):
        raise ValueError
    return int(value)


def _matrix(name, values, dtype, width):
    matrix = values if isinstance(values, np.ndarray) else _plain_matrix(name, values)
    if matrix.ndim != 2 or (width is not None and matrix.shape[1] != width):
        raise DataError(
            f"{name!r} has the shape {matrix.shape}; the model takes (rows, {width}).", fix="use the ids of this model's schema"
        )
    if matrix.dtype != dtype and not _fits(matrix, dtype):
        raise DataError(f"{name!r} holds {matrix.dtype} values that are not {dtype}.", fix="use the ids of this model's schema")
    return matrix.astype(dtype)


def _fits(matrix, dtype):
    if dtype.kind != "i" or matrix.dtype.kind not in "iu":
        return dtype.kind == "f" and matrix.dtype.kind in "iuf"
    limits = np.iinfo(dtype)
    return not matrix.size or (limits.min <= matrix.min() and matrix.max() <= limits.max)


def _plain_matrix(name, values):
    try:
        return np.asarray(values)
    except ValueError as error:
        raise DataError(f"the rows of {name!r} differ in length.", fix="pass a matrix") from error
