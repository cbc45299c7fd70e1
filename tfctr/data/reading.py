"""Files and tables of any kind, as Ibis tables.

| input | how its columns are read |
|---|---|
| files of separated cells: `.csv`, `.tsv`, `.txt`, `.data`, `.inter` and the like | all as text: "007" stays "007" |
| `.jsonl`, `.ndjson`, `.json` (one object a line) | as JSON values |
| `.parquet` | as stored |
| an Ibis table | as its own engine computes it, once: see `tfctr.data.sources`; or by codes: `tfctr.data.coded` |
| a pandas, polars or pyarrow table, or a dictionary of lists | as it is |

Files may be compressed, and lie at a URL: see `tfctr.data.files`. No value is guessed from a sample of the rows; what the first
lines of a file of separated cells show of its layout is logged: see `tfctr.data.separated`.
"""

import contextlib
import logging
import shutil
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import ibis
import pyarrow as pa
import pyarrow.parquet as parquet

from tfctr.data.coded import Coded, decoded, without_order
from tfctr.data.engine import Engine, Value
from tfctr.data.files import SEPARATED, File, find_files, is_compressed, is_files, kind_of, opened
from tfctr.data.parts import Part, refuse_corrupt
from tfctr.data.remote import RemoteFile
from tfctr.data.separated import Layout, as_utf8, read_separated
from tfctr.data.short_floats import is_half, widened_half
from tfctr.data.sources import computed, needed
from tfctr.data.tables import read_table
from tfctr.errors import DataError
from tfctr.schema import RawTable

_LOG = logging.getLogger(__name__)


def read_parts(
    engine: Engine,
    source: RawTable,
    what: str,
    roles: Mapping[str, str],
    whole: bool = False,
    layout: Layout | None = None,
    optional: Collection[str] = (),
) -> Iterator[Part]:
    """Yield one `Part` a file or table of `source`; use each before the next one is taken.

    Args:
        engine: the `Engine` that will read them.
        source: a path, a glob, a URL, a list of those, or a table.
        what: how errors call a table that has no file name, such as "the train table".
        roles: the columns that must be there, each with its role.
        whole: read the other columns of a table too; those of a file are always there.
        layout: the `Layout` of files of separated cells.
        optional: columns that are read where they are there.

    Raises:
        StorageError: a file is missing or corrupt, or the engine of a table cannot compute it.
        DataError: a file is empty or not what its name says, or has not the columns.
        ConfigError: a kind of file that cannot be read.
    """
    if is_files(source):
        yield from _read_files(engine, source, roles, layout or Layout())
        return
    if isinstance(source, ibis.Table | Coded):
        is_coded = isinstance(source, Coded)
        given = source.table if is_coded else source
        Part.of(what, given).require(roles)
        base, keys = without_order(given) if is_coded else (given, ())
        chosen = needed(base, roles, whole, optional)
        file = decoded(engine, base, chosen, keys, what) if is_coded else computed(engine, base.select(**chosen), what)
        with file as path:
            yield _read_parquet(engine, what, path)
        return
    part = read_table(source, what, (*roles, *optional), whole)
    part.require(roles)
    yield part


def _read_files(engine: Engine, source: RawTable, roles: Mapping[str, str], layout: Layout) -> Iterator[Part]:
    files = find_files(source)
    kinds = [kind_of(file) for file in files]
    noted: set[str] = set()
    for file, kind in zip(files, kinds, strict=True):
        with _plain_file(engine, file, kind) as path:
            part = _read_file(engine, str(file), path, layout)
            _say(file, part.notes, noted)
            part.require(roles)
            _say(file, [_HEADLESS] if part.is_headless else [], noted)
            yield part


_HEADLESS = "some of its names look like values: if its first line is a row, name the columns (`columns`)"


def _say(file: File, notes: Collection[str], noted: set[str]) -> None:
    """Log what is not among `noted` yet, and add it there."""
    for note in notes:
        if note not in noted:
            _LOG.info("%s: %s", file, note)
    noted.update(notes)


def _read_file(engine: Engine, name: str, path: Path, layout: Layout) -> Part:
    if path.suffix in SEPARATED:
        return read_separated(engine, name, path, layout)
    return _read_parquet(engine, name, path) if path.suffix == ".parquet" else _read_json(engine, name, path)


@contextlib.contextmanager
def _plain_file(engine: Engine, file: File, kind: str) -> Iterator[Path]:
    """The file under a short name in the engine's folder, so that DuckDB takes no character of its name for a pattern.

    One at a URL is copied there. It is decompressed: Python checks its checksum, where DuckDB would read a truncated one
    silently short.
    """
    path = engine.new_path(kind)
    try:
        if is_compressed(file) or isinstance(file, RemoteFile):
            with opened(file) as source, open(path, "wb") as target:
                shutil.copyfileobj(source, target, 1 << 20)
        else:
            with open(file, "rb"):
                path.symlink_to(file.resolve())
        if path.stat().st_size == 0:
            raise DataError(f"{file} is empty.", fix="write or fetch it again")
        yield path
    finally:
        path.unlink(missing_ok=True)


def _read_json(engine: Engine, name: str, path: Path) -> Part:
    path, _ = as_utf8(engine, name, path)
    with refuse_corrupt(name):
        # Depth 1 finds the keys of all lines, and leaves each value as JSON.
        options = {"format": "newline_delimited", "maximum_depth": 1, "sample_size": -1}
        table = engine.connection.read_json(str(path), **options)
    if list(table.columns) == ["json"]:
        raise DataError(f"{name} does not hold one JSON object a line.", fix='write lines such as {"user": "60", "click": 1}')
    return Part.of(name, table)


def _read_parquet(engine: Engine, name: str, path: Path) -> Part:
    with refuse_corrupt(name):
        schema = parquet.read_schema(path)
        part = Part.of(name, engine.connection.read_parquet(str(path)), schema.names)
    for column, kind in zip(schema.names, schema.types, strict=True):
        if pa.types.is_floating(kind):
            part.columns[column] = _of_unknown_range(part.columns[column])
        if is_half(kind):
            part.columns[column] = widened_half(part.columns[column])
        if pa.types.is_duration(kind):  # which DuckDB reads as a whole number
            part.columns[column] = part.columns[column].as_interval("us")
        if pa.types.is_null(getattr(kind, "value_type", kind)):  # nothing but nulls or empty lists: of no type that Ibis knows
            part.columns[column] = ibis.null("string")
    return part


def _of_unknown_range(column: Value) -> Value:
    """The same values, of which DuckDB knows no least and greatest one: those of a Parquet file are not of its NaNs, and so
    DuckDB would compute that none is NaN.
    """
    return column.isnull().ifelse(None, column)
