"""What a client may pass as rows, turned into the columns that a served signature takes.

Rows come as a mapping of columns, a list of dicts, a pandas or polars DataFrame, a pyarrow table, or, for a signature with one
matrix, a matrix; or from a file of JSON lines. None of those libraries is imported. Columns that are no input are ignored,
whatever they hold. Every mistake is found here, by column and row, before anything is sent.
"""

import codecs
import contextlib
import decimal
import itertools
import json
import math
import reprlib
import shlex
import string
import sys
from collections.abc import Collection, Container, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from tfctr.data.files import MISSING_MARKS, opened
from tfctr.errors import ConfigError, DataError, StorageError
from tfctr.serving.wire.matrices import to_matrix
from tfctr.serving.wire.row_values import as_written, number_text, plain
from tfctr.serving.wire.types import Column, Rows, Separators, TensorSpecs
from tfctr.token_text import TRUTH
from tfctr.types import Shape, StrPath

_ABSENT = {"NAType", "NaTType"}  # pandas.NA and NaT, which equal nothing, not even themselves
# The bytes of a value of exactly one of these types.
_TOKENS = {
    str: str.encode,
    int: b"%d".__mod__,
    bytes: bytes,
    bool: {False: b"false", True: b"true"}.get,
    type(None): {None: b""}.get,
}
_NUMBERS = int | float | np.number | np.bool_ | decimal.Decimal


class RowError(DataError):
    """A value of one row that cannot be sent: its `column`, its `row`, counted from 0, and the `reason`."""

    def __init__(self, column: str, row: int, reason: str, *, fix: str) -> None:
        super().__init__(f"column {column!r}, row {row}: {reason}", fix=fix)
        self.column = column
        self.row = row
        self.reason = reason


class MissingError(DataError):
    """The rows lack a column."""


def to_columns(
    rows: Rows,
    inputs: TensorSpecs,
    separator: Separators = None,
    optional: Container[str] = (),
    fractions: Container[str] = frozenset(),
    sources: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Column]:
    """The columns of one request, all with the same number of rows; columns that are no input are left out.

    Args:
        rows: see above.
        inputs: input name -> (NumPy type, shape with None for the batch), as the server describes them.
        separator: joins the tokens of a list; a dict gives each column its own. Where there is none, lists are refused.
        optional: names of inputs that are left out where the rows do not have them.
        fractions: names of text columns that take numbers with a fraction, as their shortest decimal text.
        sources: input name -> the name of its column in a raw table, which the rows may have instead.

    Returns:
        Input name -> array, or for text a list of `bytes`.

    Raises:
        DataError: a column is of another length; a `MissingError` if there is none, a `RowError` if a value cannot be what the
            column is.
        ConfigError: `rows` is none of the things above.

    >>> to_columns({"user": [60.0, None, "x"]}, {"user": (np.dtype(object), (None,))})
    {'user': [b'60', b'', b'x']}
    >>> to_columns({"User id": [60]}, {"user": (np.dtype(object), (None,))}, sources={"user": "User id"})
    {'user': [b'60']}
    """
    given = _columns(rows, inputs, sources)
    inputs = {name: described for name, described in inputs.items() if name in given or name not in optional} or inputs
    _require_all(inputs, given, sources)
    separators = separator if isinstance(separator, Mapping) else dict.fromkeys(inputs, separator)
    columns = {name: _column(name, given[name], *inputs[name], separators.get(name), name in fractions) for name in inputs}
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        counted = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise DataError(f"the columns differ in rows: {counted}.", fix="give every column one value a row")
    return columns


def column_names(rows: Rows, inputs: TensorSpecs, sources: Mapping[str, str] = MappingProxyType({})) -> set[str]:
    """The names of all columns that the rows have, in any form that `to_columns` takes."""
    return set(_columns(rows, inputs, sources))


def to_arrays(
    rows: Rows,
    inputs: TensorSpecs,
    separator: Separators = None,
    fractions: Container[str] = frozenset(),
    sources: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, np.ndarray]:
    """`to_columns` with text as `object` arrays of `bytes`.

    >>> to_arrays({"user": [60, "x"]}, {"user": (np.dtype(object), (None,))})
    {'user': array([b'60', b'x'], dtype=object)}
    """
    columns = to_columns(rows, inputs, separator, fractions=fractions, sources=sources)
    return {name: np.array(column, object) if isinstance(column, list) else column for name, column in columns.items()}


def read_json_lines(path: StrPath, most: int = 10_000) -> Iterator[dict[int, dict[str, Any]]]:
    """The rows of a file with one JSON object a line, in parts, each a dict: line number -> row.

    Args:
        path: the file, also as `.gz` and the like, or "-" for standard input. Only "\\n" ends a line; blank lines are skipped.
        most: how many rows a part has.

    Raises:
        StorageError: the file cannot be read.
        DataError: a line is no JSON object in UTF-8, or there is none.
    """
    try:
        with contextlib.nullcontext(sys.stdin.buffer) if str(path) == "-" else opened(path) as file:
            lines = enumerate(itertools.chain([file.readline().removeprefix(codecs.BOM_UTF8)], file), start=1)
            lines = ((number, line) for number, line in lines if line.strip())
            rows = ((number, _json_row(line, f"{path}, line {number}")) for number, line in lines)
            part = dict(itertools.islice(rows, most))
            if not part:
                raise DataError(f"{path} holds no rows.", fix="give one JSON object a line")
            while part:
                yield part
                part = dict(itertools.islice(rows, most))
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        raise StorageError(f"cannot read {path}: {error.strerror}.", fix="check the path") from error


def _json_row(line: bytes, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line.decode())
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where} is not JSON: {error}.", fix="give one JSON object a line, in UTF-8 without a mark") from error
    if not isinstance(row, dict):
        raise DataError(f"{where} is not a JSON object.", fix='write a row as {"user": "60", "item": "2438"}')
    return row


def slices(columns: Mapping[str, Column], max_rows: int, max_bytes: int) -> Iterator[slice]:
    """Cut the rows of `columns` into slices of at most `max_rows` and about `max_bytes`, at least one row each, in order.

    >>> list(slices({"ids": np.zeros((5, 2), "int32")}, max_rows=1000, max_bytes=20))
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    ends = np.cumsum(sum(map(_row_bytes, columns.values())))
    start = 0
    while start < len(ends):
        sent = ends[start - 1] if start else 0
        fitting = int(np.searchsorted(ends, sent + max_bytes, side="right"))
        stop = max(start + 1, min(fitting, start + max_rows))
        yield slice(start, stop)
        start = stop


def _row_bytes(column: Column) -> np.ndarray:
    if isinstance(column, list):  # a text takes its bytes, a field number and a length
        return np.fromiter(map(len, column), np.int64, len(column)) + 3
    return np.full(len(column), column.itemsize * math.prod(column.shape[1:]), np.int64)


def _columns(rows: Rows, inputs: TensorSpecs, sources: Mapping[str, str]) -> Mapping[str, Any]:
    """Name -> values. An input that the rows do not have by its name is their column of the name that a raw table has."""
    others = {name: source for name, source in sources.items() if name in inputs}
    given = _named(rows, inputs, dict.fromkeys([*inputs, *others.values()]))
    found = {name: given[source] for name, source in others.items() if name not in given and source in given}
    return {**given, **found} if found else given


def _named(rows: Rows, inputs: TensorSpecs, wanted: Collection[str]) -> Mapping[str, Any]:
    """Name -> values, from any form of rows; of columns that are not wanted perhaps the name alone."""
    if isinstance(rows, Mapping):
        return rows
    if isinstance(rows, list | tuple) and not rows:
        return {name: np.empty((0, *(size or 0 for size in shape[1:])), dtype) for name, (dtype, shape) in inputs.items()}
    # Asked of the type: a DataFrame of pandas has an attribute for each column, whatever its name. A lazy table has no length.
    attribute = "column_names" if hasattr(type(rows), "column_names") else "columns"
    names = getattr(rows, attribute, None) if hasattr(rows, "__len__") else None
    if names is not None:
        return _named_in_table(rows, list(names), wanted)
    if isinstance(rows, list | tuple) and all(isinstance(row, Mapping) for row in rows):
        return _transpose(rows, wanted)
    matrices = [name for name, (_, shape) in inputs.items() if len(shape) == 2]
    if len(inputs) == len(matrices) == 1 and not isinstance(rows, str | bytes):
        return {matrices[0]: rows}
    raise ConfigError(
        f"cannot read rows from {type(rows).__name__}.",
        fix="pass a dict of columns, a list of dicts, or a DataFrame; a matrix only to a signature that takes one",
    )


def _named_in_table(table: Any, names: list[Any], wanted: Collection[str]) -> dict[Any, Any]:
    for name in wanted:
        if names.count(name) > 1:
            raise DataError(f"column {name!r} is in the table twice.", fix="rename or drop one of the two")
    return {name: table[name] if isinstance(name, str) and name in wanted else None for name in names}


def _transpose(rows: Sequence[Mapping[str, Any]], wanted: Collection[str]) -> dict[str, list[Any]]:
    names = dict.fromkeys(itertools.chain.from_iterable(rows))
    for name in filter(wanted.__contains__, names):
        for number, row in enumerate(rows):
            if name not in row:
                fix = "give every row the same columns, with None for a missing value"
                raise RowError(name, number, "it is not in this row, but in others.", fix=fix)
    return {name: [row.get(name) for row in rows] for name in names}


def _require_all(inputs: TensorSpecs, columns: Mapping[str, Any], sources: Mapping[str, str]) -> None:
    missing = [name for name in inputs if name not in columns]
    if missing:
        other = f", or {sources[missing[0]]!r} as in the raw table" if missing[0] in sources else ""
        raise MissingError(
            f"column {missing[0]!r} is missing"
            + (f", and {len(missing) - 1} more: {', '.join(missing[1:])}." if missing[1:] else "."),
            fix=f"add it{other}, with None where the value is unknown. The columns are: {', '.join(map(repr, columns))}."
            + ("" if any(name in columns for name in inputs) else _HEADERLESS),
        )


_HEADERLESS = (
    " If these are values of a first row, name the columns of the file in their order: --columns a,b,c "
    "(in Python columns=['a', 'b', 'c'])."
)


def _column(name: str, values: Any, dtype: np.dtype, shape: Shape, separator: str | None, fractions: bool) -> Column:
    if isinstance(values, set | frozenset | Iterator):
        fix = "give a list or an array, with its values in the order of the rows"
        raise DataError(f"column {name!r} is a {type(values).__name__}.", fix=fix)
    if isinstance(values, str | bytes | Mapping) or not hasattr(values, "__len__") or getattr(values, "shape", None) == ():
        shown = reprlib.repr(values)
        raise DataError(f"column {name!r}: {shown} is one value, not a column.", fix=f"write {{{name!r}: [{shown}]}}")
    if len(shape) == 2:
        return to_matrix(name, values, dtype, shape[1])
    if dtype.hasobject:
        arrow = _arrow_texts(values)
        return _texts(name, plain(values), separator, fractions) if arrow is None else arrow
    return _numbers(name, values, dtype)


def _arrow_texts(values: Any) -> list[bytes] | None:
    """The bytes of texts that Arrow holds, alone or for pandas: they are UTF-8 already. None for what is not that."""
    # A Series of pandas. Without pyarrow, which pandas does not need, it may have that method all the same.
    if sys.modules.get("pyarrow") and (to_arrow := getattr(getattr(values, "array", None), "__arrow_array__", None)):
        values = to_arrow()
    kind = str(getattr(values, "type", ""))
    if kind not in ("string", "large_string"):
        return None
    binary = values.cast(kind.replace("string", "binary"))
    return np.asarray(binary.fill_null(b"") if binary.null_count else binary).tolist()


def _texts(name: str, values: list[Any], separator: str | None, fractions: bool) -> list[bytes]:
    with contextlib.suppress(TypeError, UnicodeEncodeError):
        return list(map(str.encode, values))  # refuses all that is no text, which most columns are
    if set(map(type, values)) == {bytes}:
        return values
    with contextlib.suppress(KeyError, UnicodeEncodeError):
        return [_TOKENS[type(value)](value) for value in values]
    return [_named_token(name, row, value, separator, fractions) for row, value in enumerate(values)]


def _named_token(name: str, row: int, value: Any, separator: str | None, fractions: bool) -> bytes:
    try:
        return _token(value, separator, fractions)
    except (TypeError, UnicodeEncodeError) as error:
        shown = reprlib.repr(value)
        if separator is None and _is_list(value):
            fix = "give `separator`, as in the schema, or text with it between the tokens"
            raise RowError(name, row, f"{shown} is a list, and what separates its tokens is not known.", fix=fix) from error
        fix = "pass valid Unicode text, whole numbers, true or false, None, or a flat list of these"
        raise RowError(name, row, f"{shown} is neither text nor a whole number.", fix=fix) from error


def _token(value: Any, separator: str | None = None, fractions: bool = False) -> bytes:
    """The bytes of one value, as `prepare` reads it; `TypeError` if it cannot."""
    match value:
        case bytes():
            return bytes(value)
        case str():
            return value.encode()
        case bool() | np.bool_():
            return b"true" if bool(value) else b"false"
        case np.timedelta64():  # which is a whole number to NumPy
            raise TypeError
        case int() | np.integer():
            return b"%d" % int(value)
        case list() | tuple() | np.ndarray() if separator is not None and _is_list(value):
            return separator.encode().join(_token(each, fractions=fractions) for each in value)
    if _is_absent(value):
        return b""
    text = number_text(value)
    if text is None or not (fractions or text.lstrip("-").isdigit()):
        raise TypeError
    return text.encode()


def _is_list(value: Any) -> bool:
    """Whether a value is a list of tokens; an interval of Arrow is a tuple, too."""
    return isinstance(value, list | tuple | np.ndarray) and type(value).__name__ != "MonthDayNano"


def _is_absent(value: Any) -> bool:
    return value is None or type(value).__name__ in _ABSENT or (isinstance(value, float | np.floating) and math.isnan(value))


def _numbers(name: str, values: Any, dtype: np.dtype) -> np.ndarray:
    held = getattr(values, "dtype", None)
    if isinstance(held, np.dtype) and _is_exact(held, dtype) and values.ndim == 1 and not np.ma.isMaskedArray(values):
        values = np.asarray(values)
        is_short = held.itemsize < dtype.itemsize and held.kind == "f"
        return np.array([float(text) for text in map(str, values)], dtype) if is_short else values.astype(dtype)
    values = plain(values)
    if dtype == np.float64 and {float, int, type(None)}.issuperset(map(type, values)):
        with contextlib.suppress(OverflowError):
            return np.array(values, dtype)  # which reads None as NaN
    numbers = np.empty(len(values), dtype)
    for row, value in enumerate(values):
        try:
            numbers[row] = _number(value, dtype)
        except (TypeError, ValueError, OverflowError) as error:
            raise RowError(name, row, f"{reprlib.repr(value)} is not a number ({dtype}).", fix=_number_fix(value)) from error
    return numbers


def _is_exact(held: np.dtype, dtype: np.dtype) -> bool:
    return held == dtype or (held.kind in "fiub" and dtype.kind == "f")


def _number_fix(value: Any) -> str:
    if not isinstance(value, str) or value.strip().lower() not in MISSING_MARKS:
        return "pass numbers only"
    ways = f"in a text file --missing {shlex.quote(value.strip())} (in Python missing=[{value.strip()!r}]), in other rows None"
    return f"if it means that the value is missing: {ways}; else pass numbers only"


def _number(value: Any, dtype: np.dtype) -> float:
    if dtype.kind == "f" and isinstance(value, str):
        return _written_number(value)
    if dtype.kind == "f" and _is_absent(value):
        return math.nan
    if not isinstance(value, _NUMBERS) or isinstance(value, np.timedelta64):  # nor is a date, even where NumPy reads it as one
        raise TypeError
    if dtype.kind == "f":
        return as_written(value)
    if value != int(value):
        raise ValueError
    return int(value)


def _written_number(text: str) -> float:
    text = text.strip(string.whitespace)
    if not text.isascii():  # `float` reads the digits of every script, `prepare` does not
        raise ValueError
    text = text.lower()
    return TRUTH[text] if text in TRUTH else float(text or "nan")
