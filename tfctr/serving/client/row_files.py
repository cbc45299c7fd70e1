"""Rows for a client from files, part by part: JSON lines, or any table that `tfctr.prepare` reads.

JSON lines need nothing but Python. Text files of cells and Parquet are read by `tfctr.data`, so that a cell is to the served
model what it was in training; its libraries are imported here only for such a file.
"""

import contextlib
import dataclasses
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tfctr.data.files import JSON_LINES, SEPARATED, find_files, is_files, opened
from tfctr.errors import ConfigError, DataError
from tfctr.serving.wire.row_values import plain
from tfctr.serving.wire.rows import RowError, read_json_lines
from tfctr.serving.wire.types import Rows
from tfctr.types import StrPath

_MOST_ROWS = 10_000
_TABLES = (*SEPARATED, ".parquet", ".zip")


@dataclasses.dataclass(frozen=True)
class Part:
    """Some rows of one file.

    Args:
        rows: as `tfctr.serving.wire.rows.to_columns` takes them.
        numbers: for each row its line, or its number in the table, from 1.
        file: the file's name.
        unit: what is counted: "line" or "row".
    """

    rows: Rows
    numbers: Sequence[int]
    file: str
    unit: str

    @contextlib.contextmanager
    def named(self) -> Iterator[None]:
        """Inside it, an error of a row says where in its file the row is."""
        try:
            yield
        except RowError as error:
            where = f"{self.file}, {self.unit} {self.numbers[error.row]}, column {error.column!r}"
            raise DataError(f"{where}: {error.reason}", fix=error.fix) from error


def read_rows(source: StrPath | Sequence[StrPath], **layout: Any) -> Iterator[Part]:
    """Yield one `Part` after the other, in the order of the files and of their rows.

    Args:
        source: a path, a glob, or a list of those; "-" is standard input, with JSON lines. What its ending does not call a file
            of separated cells or Parquet holds JSON lines, and so does what begins with a brace.
        layout: `separator`, `columns`, `missing` and `encoding` of files of separated cells, as in `tfctr.prepare`.

    Raises:
        StorageError: a file is missing or corrupt.
        DataError: a file is empty, or a line is not what it must be.
        ConfigError: a file cannot be read, or its libraries are not installed.
    """
    files = ["-"] if str(source) == "-" else find_files(source) if is_files(source) else [source]
    tables = [file for file in files if _is_table(file)]
    given = {name: value for name, value in layout.items() if value}
    if given and not tables:
        name = next(iter(given))
        raise ConfigError(f"`{name}` is for files of separated cells, and there is none.", fix=f"leave `{name}` out")
    for file in files:
        yield from _table_parts(file, given) if _is_table(file) else _json_parts(file)


def read_examples(source: StrPath | Sequence[StrPath]) -> list[dict[str, Any]]:
    """All rows of such files, as a list with one dictionary a row."""
    return [row for part in read_rows(source) for row in (part.rows if isinstance(part.rows, list) else _rows_of(part.rows))]


def _rows_of(batch: Any) -> list[dict[str, Any]]:
    """The rows of an Arrow batch."""
    names = batch.schema.names
    return [dict(zip(names, row, strict=True)) for row in zip(*map(plain, batch.columns), strict=True)]


def _is_table(file: Any) -> bool:
    suffixes = [suffix.lower() for suffix in getattr(file, "suffixes", [])[-2:]]
    if any(suffix in JSON_LINES for suffix in suffixes) or not any(suffix in _TABLES for suffix in suffixes):
        return False
    with opened(file) as stream:
        return not stream.read(100).lstrip().startswith(b"{")


def _json_parts(file: Any) -> Iterator[Part]:
    for rows in read_json_lines(file, most=_MOST_ROWS):
        yield Part(list(rows.values()), list(rows), str(file), "line")


def _table_parts(file: Any, given: Mapping[str, Any]) -> Iterator[Part]:
    try:
        from tfctr.data.engine import Engine, quiet, refuse_storage_failures
        from tfctr.data.parts import refuse_corrupt
        from tfctr.data.reading import read_parts
        from tfctr.data.separated import Layout
    except ImportError as error:
        fix = "pip install 'ibis-framework[duckdb]' pyarrow; or give JSON lines, which need neither"
        raise ConfigError(f"{file} cannot be read: {error}.", fix=fix) from error
    layout = Layout(**given)
    with tempfile.TemporaryDirectory() as folder, refuse_storage_failures(folder), quiet(), Engine(folder) as engine:
        for part in read_parts(engine, file, "the rows", {}, layout=layout):
            names = [*part.columns, *part.duplicates]  # twice, so that a model that needs one is refused
            table = part.table.select(**{f"c{position}": part.columns[name] for position, name in enumerate(names)})
            first = 1
            with refuse_corrupt(part.name):
                batches = engine.stream(table, rows=_MOST_ROWS)
            while True:
                with refuse_corrupt(part.name):
                    batch = next(batches, None)
                if batch is None:
                    break
                if batch.num_rows:
                    yield Part(batch.rename_columns(names), range(first, first + batch.num_rows), part.name, "row")
                first += batch.num_rows
            if first == 1:
                raise DataError(f"{part.name} has no rows.", fix="give a table with rows")
