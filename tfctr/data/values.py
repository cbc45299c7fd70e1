"""Python values as one Arrow column, and every whole number exact: beside None, in lists, and beyond 64 bits."""

import decimal
import numbers
from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa

_SHORT = {np.float32, np.float16}
_LISTS = {list, tuple, np.ndarray}
_SETS = {set, frozenset}


def exact_array(values: Iterable[Any]) -> pa.Array:
    """Values of any kinds, None among them, as an Arrow array that DuckDB takes.

    Numbers that no type of Arrow holds exactly beside each other become text, as a CSV file holds them. A float32 or float16
    beside others is the double that its shortest text means.

    Raises:
        TypeError, ValueError: values of several kinds, or a set, whose values have no order.

    >>> exact_array([2**53 + 1, 2**53, None]).to_pylist()
    [9007199254740993, 9007199254740992, None]
    >>> exact_array([2**64, 1.5, None]).to_pylist()
    ['18446744073709551616', '1.5', None]
    >>> exact_array([np.float32(0.1), 0.2]).to_pylist()
    [0.1, 0.2]
    """
    values = _of_one_width([None if _is_absent(value) else value for value in values])
    try:
        return pa.array(values, from_pandas=True)  # which makes no double of a whole number that it does not hold
    except (OverflowError, pa.ArrowInvalid, pa.ArrowTypeError) as error:
        try:
            return pa.array([_texts(value) for value in values])
        except TypeError:
            raise error from None


def _of_one_width(values: list[Any]) -> list[Any]:
    kinds = set(map(type, values))
    if kinds & _SETS:
        raise TypeError("a set has no order: give lists")
    if kinds & _LISTS:
        for value in values:
            kinds |= _types(value) if type(value) in _LISTS else set()
    kinds -= {*_LISTS, type(None)}
    return values if len(kinds) == 1 or not kinds & _SHORT else list(map(_with_doubles, values))


def _types(several: Any) -> set[type]:
    kind = getattr(several, "dtype", None)
    return {kind.type} if kind is not None and not kind.hasobject else set(map(type, several))


def _with_doubles(value: Any) -> Any:
    if type(value) in _LISTS:
        return list(map(_with_doubles, value))
    return float(str(value)) if type(value) in _SHORT else value


def _texts(value: Any) -> Any:
    if isinstance(value, list | tuple | np.ndarray):
        return [_text(None if _is_absent(each) else each) for each in value]
    return _text(value)


def _text(value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    if isinstance(value, numbers.Real | decimal.Decimal):
        return _number_text(value)
    raise TypeError(f"a value of type {type(value).__name__} stands beside numbers, or lists")


def _number_text(value: Any) -> str:
    if isinstance(value, decimal.Decimal):
        return f"{value:f}"
    if isinstance(value, numbers.Integral):
        return str(int(value))
    number = float(str(value))
    if not abs(number) < 2**53:
        raise ValueError(f"{value!r} may stand for several whole numbers")
    return str(int(number)) if number.is_integer() else repr(number)


def _is_absent(value: Any) -> bool:
    return value is None or type(value).__name__ in ("NAType", "NaTType") or (isinstance(value, float) and value != value)
