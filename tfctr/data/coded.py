"""A table of Ibis by codes: its own engine only groups, numbers and joins, and DuckDB puts the values back.

| what leaves the engine | of which columns |
|---|---|
| the distinct values, each with its rows and code, a query a column | text, whole numbers, true and false, dates and times |
| for each row its codes, int8 to int32, in one query | the same |
| for each row its values, beside the codes | the others: floating and decimal numbers, lists |

NULL is a value like others. What is read here is the table itself, so that tokens, numbers, separators and times have one rule,
and no dialect's. Values and codes together are the rows: they hide nothing from who has both.
"""

import contextlib
import dataclasses
import functools
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import ibis
import ibis.expr.operations as ops
import pyarrow as pa

from tfctr.data.engine import Engine, Table, Value
from tfctr.data.parts import refuse_corrupt
from tfctr.data.sources import stream, write_batches
from tfctr.errors import ConfigError, StorageError, require, require_one_of
from tfctr.schema import RawTable

_LOG = logging.getLogger(__name__)

TRANSFERS = ("rows", "codes")

_TEXTS = ("a", "A", "a ", "á", "a\u0301")  # which some collations take for one


@dataclasses.dataclass(frozen=True)
class Coded:
    """A table of Ibis that shall come by codes."""

    table: Table


def transferred(tables: Mapping[str, RawTable], transfer: str) -> dict[str, RawTable]:
    """The tables, with `transfer` "codes" those of Ibis as `Coded`.

    Raises:
        ConfigError: there is no such `transfer`, or it is "codes", and no table is one of Ibis.
    """
    require_one_of(TRANSFERS, transfer, "transfer")
    if transfer == "rows":
        return dict(tables)
    coded = {name: Coded(table) if isinstance(table, ibis.Table) else table for name, table in tables.items()}
    problem = "`transfer` is 'codes', which is for tables of Ibis, and there is none."
    require(any(isinstance(table, Coded) for table in coded.values()), problem, fix="leave `transfer` out")
    return coded


def without_order(table: Table) -> tuple[Table, Sequence[Any]]:
    """The table without the `order_by` that it ends with, and the keys of that: joins would lose the order.

    Raises:
        ConfigError: another step follows it.
    """
    node = table.op()
    if isinstance(node, ops.Sort):
        return node.parent.to_expr(), node.keys
    while (node := getattr(node, "parent", None)) is not None:
        fix = "end with it, too: table.select(...).order_by(...)"
        require(not isinstance(node, ops.Sort), "with `transfer` 'codes' `order_by` must be a table's last step.", fix=fix)
    return table, ()


@dataclasses.dataclass(frozen=True)
class Queries:
    """What is asked of an engine; columns are called by their positions.

    Args:
        kinds: the columns of the table, by their names.
        base: these, `c0`, `c1`, ..., and what they are ordered by, `o0`, ...
        keys: in which way they are ordered.
        text: a row that says how many of `_TEXTS` each column of text tells apart; None if there is none.
        values: `{position: its distinct values}`: `value`, `rows`, and `code` in their order.
    """

    kinds: Any
    base: Table
    keys: Sequence[Any]
    text: Table
    values: dict[int, Table]

    @classmethod
    def of(cls, table: Table, chosen: Mapping[str, Value], keys: Sequence[Any]) -> Self:
        """The queries for the `chosen` columns of a table, in the order of the sort keys of Ibis."""
        columns = {f"c{index}": _typed(value) for index, value in enumerate(chosen.values())}
        base = table.select(**columns, **{f"o{index}": key.arg.to_expr() for index, key in enumerate(keys)})
        kinds = {name: base[column].type() for name, column in zip(chosen, columns, strict=True)}
        values = {index: _numbered(base, name) for index, name in enumerate(columns) if _is_coded(base[name].type())}
        return cls(ibis.schema(kinds), base, keys, _told_apart(base, columns), values)

    def rows(self, counts: Mapping[int, int]) -> Table:
        """`c0`, `c1`, ...: the code of each value, as short as the counts of distinct values allow, or the value itself."""
        joined = self.base.view()  # else Ibis joins on to the joins that the table has, and mistakes the columns
        for index, numbers in self.values.items():
            code = numbers.code.cast(_shortest(counts[index]))
            renamed = numbers.select(**{f"v{index}": numbers.value, f"n{index}": code})
            joined = joined.left_join(renamed, [(f"c{index}", f"v{index}")])
        columns = {f"c{index}": joined[f"c{index}"] for index in range(len(self.kinds))}
        codes = {f"c{index}": _code(joined, index) for index in self.values}
        order = {f"o{index}": joined[f"o{index}"] for index in range(len(self.keys))}
        rows = joined.select(**{**columns, **codes, **order})
        if self.keys:
            rows = rows.order_by([_like(key, rows[name]) for name, key in zip(order, self.keys, strict=True)]).select(*columns)
        return rows


def _typed(column: Value) -> Value:
    return column.cast("string") if column.type().is_null() else column


def _is_coded(kind: Any) -> bool:
    return kind.is_string() or kind.is_integer() or kind.is_boolean() or kind.is_date() or kind.is_timestamp()


def _numbered(base: Table, name: str) -> Table:
    groups = base.group_by(value=base[name]).agg(rows=base.count())
    return groups.mutate(code=ibis.row_number().over(order_by=groups.value).cast("int32"))


def _shortest(count: int) -> str:
    return next((f"int{bits}" for bits in (8, 16) if count < 2 ** (bits - 2)), "int32")  # twice as many are seen as a change


def _code(joined: Table, index: int) -> Value:
    """NULL where the value is: ClickHouse gives 0 where a join finds nothing."""
    code = joined[f"n{index}"]
    return joined[f"c{index}"].isnull().ifelse(ibis.null(code.type()), code)


def _like(key: Any, column: Value) -> Value:
    return (ibis.asc if key.ascending else ibis.desc)(column, nulls_first=key.nulls_first)


def _told_apart(base: Table, columns: Sequence[str] | Mapping[str, Any]) -> Table:
    """Of no row, but in the type and collation that each column has: an aggregate of nothing is one row."""
    texts = [name for name in columns if base[name].type().is_string()]
    if not texts:
        return None
    none = base.filter(ibis.literal(False))
    rows = [none.agg(**{name: ibis.coalesce(none[name].max(), text) for name in texts}) for text in _TEXTS]
    plain = none.select(*texts)  # of which a union in SQLite has the collation
    probe: Table = functools.reduce(ibis.union, [plain, *rows] if plain.schema() == rows[0].schema() else rows)
    return probe.agg(**{name: probe[name].nunique() for name in texts})


@contextlib.contextmanager
def decoded(engine: Engine, table: Table, chosen: Mapping[str, Value], keys: Sequence[Any], what: str) -> Iterator[Path]:
    """The `chosen` columns of a table in the order of `keys`, which came by codes, as a Parquet file in the engine's folder.

    Raises:
        ConfigError: the engine takes texts that differ for one.
        StorageError: it cannot compute them, or the table has changed meanwhile.
    """
    asked = Queries.of(table, chosen, keys)
    with contextlib.ExitStack() as files, refuse_corrupt(what):
        backend = table.get_backend()
        paths = [files.enter_context(_new_file(engine)) for _ in range(len(asked.values) + 2)]
        _refuse_loose(backend, asked, what)
        rows, *sizes = _fetch(backend, asked, paths, what)
        message = "%s: %d rows of %d columns (%s) from %s: %d bytes of Arrow as codes, and %d of distinct values"
        names = list(asked.kinds)
        _LOG.info(message, what, rows, len(names), ", ".join(names), backend.name, *sizes)
        _decode(engine, asked, paths, what)
        yield paths[-1]


@contextlib.contextmanager
def _new_file(engine: Engine) -> Iterator[Path]:
    path = engine.new_path(".parquet")
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def _fetch(backend: Any, asked: Queries, paths: Sequence[Path], what: str) -> tuple[int, int, int]:
    """Write the rows, and the values of each column; how many rows there are, their bytes, and those of the values."""

    def write(query: Table, path: Path) -> tuple[int, int]:
        kinds = query.schema().to_pyarrow()
        return write_batches(path, kinds, stream(backend, query, kinds, what))

    found = {index: write(query, path) for (index, query), path in zip(asked.values.items(), paths[1:-1], strict=True)}
    rows = write(asked.rows({index: count for index, (count, _) in found.items()}), paths[0])
    return *rows, sum(size for _, size in found.values())


def _refuse_loose(backend: Any, asked: Queries, what: str) -> None:
    """Raise `ConfigError` where a column of text takes texts that differ for one."""
    if asked.text is None:
        return
    kinds = asked.text.schema().to_pyarrow()
    (found,) = pa.concat_tables(stream(backend, asked.text, kinds, what)).to_pylist()
    for name, count in found.items():
        column = list(asked.kinds)[int(name[1:])]
        problem = f"{what}: {backend.name} takes texts that differ in case, accents or spaces for one in column {column!r}."
        require(count == len(_TEXTS), problem, fix="leave out `transfer`: its rows can come", error=ConfigError)


def _decode(engine: Engine, asked: Queries, paths: Sequence[Path], what: str) -> None:
    """Join the values to the codes, into the last of `paths`."""
    read = engine.connection.read_parquet
    codes = joined = read(str(paths[0]), file_row_number=True)
    for (index, _), path in zip(asked.values.items(), paths[1:-1], strict=True):
        numbers = read(str(path))
        _refuse_changed(engine, codes[f"c{index}"], numbers, what, list(asked.kinds)[index])
        renamed = numbers.select(**{f"n{index}": numbers.code, f"v{index}": numbers.value})
        joined = joined.left_join(renamed, [(f"c{index}", f"n{index}")])
    names = [f"v{index}" if index in asked.values else f"c{index}" for index in range(len(asked.kinds))]
    ordered = joined.order_by("file_row_number").select(*names)
    kinds = asked.kinds.to_pyarrow()
    batches = (pa.Table.from_batches([batch]).rename_columns(kinds.names).cast(kinds) for batch in engine.stream(ordered))
    write_batches(paths[-1], kinds, batches)


def _refuse_changed(engine: Engine, codes: Value, numbers: Table, what: str, column: str) -> None:
    """Raise `StorageError` where the rows have other codes, or other numbers of them, than the values have."""
    seen = codes.cast("int32").name("code").as_table()
    seen = seen.group_by("code").agg(rows=seen.count())
    told = numbers.select(code=numbers.value.isnull().ifelse(None, numbers.code), rows=numbers.rows)
    different = ibis.union(seen.difference(told), told.difference(seen))
    problem = f"{what}: column {column!r} changed while it was read, or each query finds other rows."
    fix = "read it while nothing writes to it: a copy, a snapshot, a closed day; and let no step of its query draw rows"
    require(not engine.fetch(different.limit(1)), problem, fix=fix, error=StorageError)
