"""The values of a client's columns as plain Python values, and the numbers among them as text.

A float32 or float16 is the number that its shortest decimal text means, as in a CSV file: 0.3, not 0.30000001192092896.
"""

import decimal
from typing import Any

import numpy as np

from tfctr.token_text import SEVERAL_SHORT, SEVERAL_WHOLE

_SHORT: tuple[type, ...] = (np.float32, np.float16)
# As NumPy, pandas, polars and Arrow call them, and where their types of lists, categories and the like say of what.
_SHORT_TYPES = {"float32": np.float32, "float": np.float32, "float16": np.float16, "halffloat": np.float16}
_INNER = ("pyarrow_dtype", "value_type", "inner", "subtype", "categories", "dtype")
_MOST_DIGITS = 76  # of a decimal number: the most that Arrow holds


def plain(values: Any) -> list[Any]:
    """A list of plain Python values, from a NumPy array, a Series of any library, or any sequence.

    But float32 and float16 stay what they are, since their shortest text is another one than that of the same float64.

    >>> plain(np.float32([0.1]))
    [np.float32(0.1)]
    """
    if getattr(getattr(values, "dtype", None), "kind", "") in "mM" and isinstance(values, np.ndarray):
        return list(values)  # no whole numbers, which NumPy would make of them
    method = next((method for method in ("tolist", "to_list", "to_pylist") if hasattr(values, method)), None)
    found = getattr(values, method)() if method else list(values)
    short = _short_type(values)
    return found if short is None else _shortened(found, short)


def _short_type(values: Any) -> type[np.float32] | type[np.float16] | None:
    """Which of the two a column or its lists hold; None for any other."""
    kind = getattr(values, "dtype", getattr(values, "type", None))
    while kind is not None:
        if (name := str(kind).lower()) in _SHORT_TYPES:
            return _SHORT_TYPES[name]
        inner = None if isinstance(kind, np.dtype) else next((name for name in _INNER if hasattr(kind, name)), None)
        kind = getattr(kind, inner) if inner else None
    return None


def _shortened(values, short):
    """A list with its numbers, also those in lists, as they were."""
    several = (list, tuple, np.ndarray)
    return [short(v) if isinstance(v, float) else _shortened(v, short) if isinstance(v, several) else v for v in values]


def number_text(value: Any) -> str | None:
    """The shortest text of a number that is not whole by its type; None where it may stand for several, or is none."""
    if isinstance(value, decimal.Decimal) and value.is_finite() and abs(value.adjusted()) < _MOST_DIGITS:
        return _decimal_text(value)
    several = SEVERAL_SHORT if isinstance(value, _SHORT) else SEVERAL_WHOLE
    if not isinstance(value, float | np.floating) or not abs(float(value)) < several:
        return None
    number = as_written(value)
    return str(int(number)) if number.is_integer() else repr(number)


def _decimal_text(value: decimal.Decimal) -> str:
    """A decimal number with all its digits, below 1e-4 as Python writes a double: 1.5, 1.2e-05."""
    if value and value.adjusted() < -4:
        digits = "".join(map(str, value.as_tuple().digits)).rstrip("0")
        return "-" * value.is_signed() + digits[0] + "." * (len(digits) > 1) + digits[1:] + f"e-{-value.adjusted():02d}"
    text = f"{value:f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text == "-0" else text


def as_written(value: Any) -> float:
    """A double; of a float32 or float16 that of its shortest text, as a CSV file of it holds."""
    return float(str(value)) if isinstance(value, _SHORT) else float(value)
