"""A pandas, polars or pyarrow table, or a dictionary of columns, as a `Part`: column by column, none spoils the others.

Values stay exact: whole numbers beside None are no doubles here. A column that Arrow or DuckDB does not take, such as one of
intervals, complex numbers or objects of several types, is named when something asks for it, and else left alone.
"""

import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import ibis
import pyarrow as pa
from ibis.common.exceptions import IbisError
from ibis.formats.pyarrow import PyArrowType

from tfctr.data.parts import Part
from tfctr.data.short_floats import is_half, widened_half
from tfctr.data.values import exact_array
from tfctr.errors import DataError
from tfctr.schema import RawTable

_FIX = "give a file, an Ibis table, a pandas, polars or pyarrow table, or a dictionary with a list for each column"
_CANNOT = (pa.ArrowException, IbisError, TypeError, ValueError, KeyError, OverflowError)
_SIMPLER = {pa.float16(): pa.float32(), pa.binary_view(): pa.binary()}  # what DuckDB does not take: what holds the same


def read_table(source: RawTable, what: str, roles: Collection[str], whole: bool = False) -> Part:
    """The `Part` of a table in memory: the columns of `roles`, or all with `whole`. Raises `DataError` if it is no table."""
    names, column_at = _columns(source, what)
    needed = [position for position, name in enumerate(names) if whole or name in roles]
    arrays: dict[int, Any] = {}
    halves: set[str] = set()
    unreadable: dict[str, str] = {}
    rows = None
    first = None
    order = {name: number for number, name in enumerate(roles)}
    for position in sorted(needed, key=lambda position: order.get(names[position], len(order))):  # the first says how many rows
        values = column_at(position)
        try:
            given = arrow_array(values)
            array = _simpler(given)
            if rows is None:
                rows = len(array)
                first = names[position]
            if len(array) == rows:
                arrays[position] = array
                halves |= {names[position]} if is_half(given.type) else set()
            else:
                unreadable[names[position]] = f"has {len(array)} values, where column {first!r} has {rows}"
        except _CANNOT as error:
            reason = " ".join(str(error).split())[:160]
            unreadable[names[position]] = f"is of type {_type_of(values)}, which cannot be read ({reason})"
    seen: dict[str, Any] = {"unreadable": unreadable, "all_names": tuple(names)}
    if not arrays:  # a column that is needed is not there, or cannot be read
        return Part(what, None, {}, **seen)
    positions = sorted(arrays)
    table = pa.table([arrays[position] for position in positions], names=[f"c{position}" for position in positions])
    part = Part.of(what, ibis.memtable(table), [names[position] for position in positions], **seen)
    part.columns.update({name: widened_half(part.columns[name]) for name in halves})
    return part


def _columns(source: RawTable, what: str) -> tuple[list[str], Callable[[int], Any]]:
    """The names of a table's columns, and a function that gives the values of the one at a position."""
    pandas = sys.modules.get("pandas")
    polars = sys.modules.get("polars")
    if isinstance(source, Mapping):
        return list(map(str, source)), list(source.values()).__getitem__
    if pandas and isinstance(source, pandas.DataFrame):
        return list(map(str, source.columns)), lambda position: source.iloc[:, position]
    if polars and isinstance(source, polars.DataFrame | polars.LazyFrame):
        frame = source.lazy().collect()
        return frame.columns, frame.get_columns().__getitem__
    try:
        table = pa.table(source)
    except _CANNOT as error:
        raise DataError(f"{what} cannot be read: {error}", fix=_FIX) from error
    return table.column_names, table.column


def _simpler(array: Any) -> Any:
    """An Arrow array as one of a type that DuckDB takes."""
    kind = _simple(array.type)
    PyArrowType.to_ibis(kind)
    return array if kind == array.type else array.cast(kind)


def arrow_array(values: Any) -> Any:
    """One column of any table, exactly. Raises what Arrow raises for values that it does not take."""
    if isinstance(values, pa.Array | pa.ChunkedArray):
        return values
    if hasattr(values, "to_arrow"):  # of polars
        return values.to_arrow()
    if hasattr(getattr(values, "sparse", None), "to_dense"):  # of pandas
        values = values.sparse.to_dense()
    if isinstance(values, str | bytes | Mapping | Iterator) or not hasattr(values, "__len__"):
        raise TypeError("it is one value, or no list")
    is_typed = str(getattr(values, "dtype", "object")) != "object"
    return pa.array(values, from_pandas=True) if is_typed else exact_array(values)


def _simple(kind: Any) -> pa.DataType:
    """The type of Arrow that holds the same for DuckDB and Ibis. Raises `TypeError` if there is none."""
    if isinstance(kind, pa.BaseExtensionType) or pa.types.is_decimal256(kind):
        raise TypeError("no type of DuckDB holds it")
    if pa.types.is_fixed_size_binary(kind):
        return pa.binary()
    if pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind):
        return pa.list_(_simple(kind.value_type))
    if isinstance(kind, pa.ListType | pa.LargeListType | pa.FixedSizeListType):
        inner = _simple(kind.value_type)
        return kind if inner == kind.value_type else pa.list_(inner)
    for position in range(kind.num_fields):
        inner = kind.field(position).type
        if _simple(inner) != inner:
            raise TypeError(f"it holds values of type {inner}")
    return _SIMPLER.get(kind, kind)


def _type_of(values: Any) -> str:
    """The type of a column in the words of its library; of objects, all their types."""
    kind = getattr(values, "dtype", getattr(values, "type", None))
    if kind is not None and str(kind) != "object":
        return str(kind)
    try:
        types = sorted({type(value).__name__ for value in values if value is not None})
    except TypeError:
        types = [type(values).__name__]
    return " and ".join(types[:4])
