"""Floating numbers of 32 and 16 bits as the double that their shortest decimal text means: 0.3, not 0.30000001192092896.

So they are in a CSV file, in JSON and in a request. The text is the shortest one that is rounded to the same number, as NumPy
writes it; where DuckDB's own has more digits, as 24.3046875 has for 24.304688, it is exact.
"""

from collections.abc import Callable, Iterable

import ibis
import pyarrow as pa

from tfctr.data.engine import Value


@ibis.udf.scalar.builtin(name="format")
def _written(form: str, number: float) -> str:
    """DuckDB's: a number in a form of Python."""
    ...


@ibis.udf.scalar.builtin(name="round_even")
def _rounded(number: float, places: int) -> float:
    """DuckDB's: ties go to the even neighbour."""
    ...


@ibis.udf.scalar.builtin(name="floor")
def _floor(number: float) -> float:
    """DuckDB's, which is not refused for infinity: Ibis's own is a whole number."""
    ...


def widened(column: Value) -> Value:
    """A column of float32, or of lists of them, as doubles; any other as it is."""
    kind = column.type()
    if kind.is_array():
        return column.map(widened) if kind.value_type.is_float32() else column
    if not kind.is_float32():
        return column
    number = column.cast("float64")
    text = column.cast("string").cast("float64")
    candidates = [_with_digits(number, digits) for digits in (6, 7, 8)]
    shorter = _first(candidates, lambda each: each.try_cast("float32") == column, _with_digits(number, 9))
    return (number == text).ifelse(shorter, text)


def widened_half(column: Value) -> Value:
    """A column of float16, or of lists of them, that DuckDB holds in a wider type, as doubles."""
    if column.type().is_array():
        return column.map(widened_half)
    number = column.cast("float64")
    above = number * (1 + 2.0**-12)  # a power of two has more room there: the text may be the one above the nearest
    candidates = [_with_digits(each, digits) for digits in (1, 2, 3, 4) for each in (number, above)]
    return _first(candidates, lambda each: _as_half(each) == number, _with_digits(number, 5))


def is_half(kind: pa.DataType) -> bool:
    """Whether a type of Arrow is float16, or lists of them."""
    return pa.types.is_float16(getattr(kind, "value_type", kind))


def _first(candidates: Iterable[Value], is_same: Callable[[Value], Value], otherwise: Value) -> Value:
    """The first of the numbers that `is_same`."""
    return ibis.cases(*((is_same(each), each) for each in candidates), else_=otherwise)


def _with_digits(number: Value, digits: int) -> Value:
    return _written(f"{{:.{digits - 1}e}}", number).cast("float64")


def _as_half(number: Value) -> Value:
    """The nearest float16."""
    exponent: Value = _floor(number.abs().nullif(0.0).log2())  # of 0 there is none, and NULL is no greatest
    two: Value = ibis.literal(2.0)
    unit = two ** ibis.greatest(exponent - 10, -24.0)
    return _rounded(number / unit, 0) * unit
