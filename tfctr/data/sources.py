"""A table of Ibis as a Parquet file of ours: its own engine computes it, once, and its rows stream here.

| engine | how its rows come |
|---|---|
| PySpark | one partition after the other, as Arrow batches that Spark's workers write: they need pyarrow |
| any other | as Arrow batches |
| DuckDB | it writes the file itself |

Memory holds one batch, and of Spark one partition; the disk the columns that are needed.
"""

import contextlib
import logging
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet

from tfctr.data.engine import Engine, Table, Value
from tfctr.data.parts import refuse_corrupt
from tfctr.errors import StorageError

_LOG = logging.getLogger(__name__)

_CELLS = 2**20  # of a batch: of Postgres each is a Python object for a moment


def needed(table: Table, roles: Collection[str], whole: bool, optional: Collection[str]) -> dict[str, Value]:
    """The columns of an Ibis table that are read, by their names: with `whole` also those others that a Parquet file can hold.

    What Arrow has no type for, a UUID, an address or a decimal number of any precision, is its text.
    """
    kinds = table.schema()
    others = [name for name in kinds if name not in roles and not _has_no_file(kinds[name])]
    chosen = dict.fromkeys((*roles, *(name for name in others if whole or name in optional)))
    return {name: _as_arrow_takes_it(table[name]) for name in chosen}


def _has_no_file(kind: Any) -> bool:
    return kind.is_unknown() or kind.is_interval() or kind.is_geospatial()


def _as_arrow_takes_it(column: Value) -> Value:
    kind = column.type()
    is_text = kind.is_uuid() or kind.is_inet() or kind.is_macaddr() or (kind.is_decimal() and kind.precision is None)
    return column.cast("string") if is_text else column


@contextlib.contextmanager
def computed(engine: Engine, table: Table, what: str) -> Iterator[Path]:
    """An Ibis table as a Parquet file in the engine's folder; the log says how much has come from another engine.

    Raises:
        StorageError: its engine cannot compute it.
    """
    path = engine.new_path(".parquet")
    try:
        with refuse_corrupt(what):
            backend = table.get_backend()
            if backend.name == "duckdb":
                table.to_parquet(path)
            else:
                _write(backend, table, what, path)
        yield path
    finally:
        path.unlink(missing_ok=True)


def _write(backend: Any, table: Table, what: str, path: Path) -> None:
    kinds = table.schema().to_pyarrow()
    rows, size = write_batches(path, kinds, stream(backend, table, kinds, what))
    message = "%s: %d rows of %d columns (%s) streamed from %s, %d bytes of Arrow; DuckDB does the rest"
    _LOG.info(message, what, rows, len(kinds), ", ".join(kinds.names), backend.name, size)


def write_batches(path: Path, kinds: pa.Schema, batches: Iterable[pa.Table]) -> tuple[int, int]:
    """Write Arrow tables of these `kinds` into a Parquet file, and return how many rows they have, and bytes."""
    rows = size = 0
    with parquet.ParquetWriter(path, kinds) as writer:
        for batch in batches:
            writer.write_table(batch)
            rows, size = rows + batch.num_rows, size + batch.nbytes
    return rows, size


def stream(backend: Any, table: Table, kinds: pa.Schema, what: str) -> Iterator[pa.Table]:
    """The rows as Arrow tables of some `_CELLS`, in the order in which the engine gives them.

    Raises:
        StorageError: it cannot compute them.
    """
    try:
        batches = _STREAMS.get(backend.name, _of_any)(backend, table)
        for held in _gathered(batches, len(kinds)):
            yield pa.Table.from_batches(held).cast(kinds)
    except Exception as error:  # of whatever driver
        raise StorageError(f"{what} cannot be computed by {backend.name}: {_reason(error)}", fix=_fix(error)) from error


def _of_any(backend: Any, table: Table) -> Iterator[pa.RecordBatch]:
    with table.to_pyarrow_batches(chunk_size=_rows_of(table)) as reader:
        yield from reader


def _rows_of(table: Table) -> int:
    return max(1, _CELLS // len(table.columns))


def _of_duckdb(backend: Any, table: Table) -> Iterator[pa.RecordBatch]:
    """Ibis would call what DuckDB 2 no longer has."""
    backend._run_pre_execute_hooks(table)
    yield from backend.con.sql(backend.compile(table)).to_arrow_reader(_rows_of(table))


def _of_spark(backend: Any, table: Table) -> Iterator[pa.RecordBatch]:
    """Ibis would collect all rows in Spark's driver."""
    backend._run_pre_execute_hooks(table)  # which registers tables in memory that are joined to it
    frame = backend.raw_sql(backend.compile(table))
    for row in frame.mapInArrow(_writer(), "batch binary").toLocalIterator():
        with pa.ipc.open_stream(row["batch"]) as reader:
            yield from reader


_STREAMS = {"pyspark": _of_spark, "duckdb": _of_duckdb}


def _writer() -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """What Spark's workers do, which need no tfctr for it: a function within a function is sent as a whole."""

    def write(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import pyarrow

        options = pyarrow.ipc.IpcWriteOptions(compression="zstd")
        for batch in batches:
            sink = pyarrow.BufferOutputStream()
            with pyarrow.ipc.new_stream(sink, batch.schema, options=options) as writer:
                writer.write_batch(batch)
            yield pyarrow.record_batch({"batch": pyarrow.array([sink.getvalue().to_pybytes()], pyarrow.binary())})

    return write


def _gathered(batches: Iterable[pa.RecordBatch], width: int) -> Iterator[list[pa.RecordBatch]]:
    """Batches until they have enough cells, so that the file has no small groups of rows."""
    held = []
    for batch in batches:
        held.append(batch)
        if sum(each.num_rows for each in held) * width >= _CELLS:
            yield held
            held = []
    if held:
        yield held


def _reason(error: Exception) -> str:
    """The line of an engine's message that says what is wrong: of Java the innermost cause."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    causes = [line.removeprefix("Caused by: ") for line in lines if line.startswith("Caused by: ")]
    known = [mark for mark in _FIXES if mark in str(error)]
    return (known or causes[-1:] or [line for line in lines if not line.startswith("An error occurred while calling")])[0][:300]


# What Spark says, and what helps.
_FIXES = {
    "No module named 'pyarrow'": "give its workers a Python that has it: PYSPARK_PYTHON, or the setting spark.pyspark.python",
    "TaskResultLost": "give its driver more memory, or the table smaller partitions: spark.sql.files.maxPartitionBytes",
    "maxResultSize": "raise spark.driver.maxResultSize, or give it smaller partitions: spark.sql.files.maxPartitionBytes",
}


def _fix(error: Exception) -> str:
    fixes = [fix for mark, fix in _FIXES.items() if mark in str(error)]
    return fixes[0] if fixes else "run table.limit(5).execute() to see what its engine says of it"
