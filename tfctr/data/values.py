"""Python values as one Arrow column, and every whole number exact: beside None, in lists, and beyond 64 bits."""

import decimal
import numbers
import sys
from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa


def exact_array(values):
    """Values of any kinds, None among them, as an Arrow array that DuckDB takes.

    Numbers that no type of Arrow holds exactly beside each other become text, as a CSV file holds them.

    Raises:
        TypeError, ValueError: values of several kinds.

    >>> exact_array([2**53 + 1, 2**53, None]).to_pylist()
    [9007199254740993, 9007199254740992, None]
    >>> exact_array([2**64, 1.5, None]).to_pylist()
    ['18446744073709551616', '1.5', None]
    """
    values = [None if _is_absent(value) else value for value in values]
    try:
        return pa.array(values, from_pandas=True)  # which makes no double of a whole number that it does not hold
    except (OverflowError, pa.ArrowInvalid, pa.ArrowTypeError) as error:
        try:
            return pa.array([_texts(value) for value in values])
        except TypeError:
            raise error from None


def exact_table(source):
    """A dictionary of columns, or a pandas table, as an Arrow table; all else as it is.

    Raises:
        TypeError, ValueError: a column cannot be one; the message names it.
    """
    pandas = sys.modules.get("pandas")
    if isinstance(source, Mapping):
        columns = source
    elif pandas and isinstance(source, pandas.DataFrame) and source.columns.is_unique:
        columns = dict(source.items())
    else:
        return source
    return pa.table({str(name): _column(name, values) for name, values in columns.items()})


def _column(name, values):
    if isinstance(values, pa.Array | pa.ChunkedArray):
        return values
    if isinstance(values, str | bytes | Mapping | Iterator) or not hasattr(values, "__len__"):
        raise TypeError(f"column {name!r} is no list of values")
    try:
        is_typed = str(getattr(values, "dtype", "object")) != "object"
        return pa.array(values, from_pandas=True) if is_typed else exact_array(values)
    except (TypeError, ValueError, pa.ArrowException) as error:
        raise ValueError(f"column {name!r}: {error}") from error


def _texts(value):
    if isinstance(value, list | tuple | np.ndarray):
        return [_text(None if _is_absent(each) else each) for each in value]
    return _text(value)


def _text(value):
    if value is None:
        return None
    if isinstance(value, numbers.Real | decimal.Decimal) and not isinstance(value, bool):
        return _number_text(value)
    raise TypeError(f"a value of type {type(value).__name__} stands beside numbers, or lists")


def _number_text(value):
    if isinstance(value, decimal.Decimal):
        return f"{value:f}"
    if isinstance(value, numbers.Integral):
        return str(int(value))
    number = float(str(value))
    if not abs(number) < 2**53:
        raise ValueError(f"{value!r} may stand for several whole numbers")
    return str(int(number)) if number.is_integer() else repr(number)


def _is_absent(value):
    return value is None or type(value).__name__ in ("NAType", "NaTType") or (isinstance(value, float) and value != value)
