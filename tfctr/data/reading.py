"""Files and tables of any kind, as Ibis tables.

| input | how its columns are read |
|---|---|
| `.csv`, `.tsv` (UTF-8, header line; also `.gz`) | all as text: "007" stays "007" |
| `.jsonl`, `.ndjson`, `.json` (one object a line; also `.gz`) | as JSON values |
| `.parquet` | as stored |
| an Ibis table | as its own engine computes it, once |
| a pandas, polars or pyarrow table, or a dictionary of lists | as it is |

Nothing is guessed from a sample of the rows.
"""

import contextlib
import csv
import dataclasses
import glob
import gzip
import re
import shutil
import zlib
from pathlib import Path

import duckdb
import ibis
import pyarrow as pa
import pyarrow.parquet
from ibis.common.exceptions import IbisError

from tfctr.data.values import exact_table
from tfctr.errors import ConfigError, DataError, StorageError, suggest


@dataclasses.dataclass(frozen=True)
class Part:
    """One file, or one table: the name that errors call it by, and its columns by their names in it."""

    name: str
    table: ibis.Table
    columns: dict[str, ibis.Value]
    duplicates: frozenset[str] = frozenset()

    @classmethod
    def of(cls, name, table, names=None):
        # By position: SQL engines rename columns that differ in case only.
        names = list(table.columns) if names is None else names
        columns = {name: table[position] for position, name in enumerate(names)}
        return cls(name, table, columns, frozenset(name for name in columns if names.count(name) > 1))

    def require(self, roles):
        """Raise `DataError` when a column of `{name: role}` is not there, or there twice."""
        for name, role in roles.items():
            if name not in self.columns:
                raise DataError(f"{self.name} has no column {name!r} ({role}).", fix=self._hint(name))
            if name in self.duplicates:
                raise DataError(f"{self.name} has several columns named {name!r} ({role}).", fix="rename all but one")

    def _hint(self, name):
        mark = next((mark for mark in ";\t|" if len(self.columns) == 1 and mark in next(iter(self.columns))), None)
        return f"the separator looks like {mark!r}: write the file with commas" if mark else suggest(name, self.columns)


def read_parts(engine, source, what, roles, whole=False):
    """Yield one `Part` a file or table of `source`; use each before the next one is taken.

    Args:
        engine: the `Engine` that will read them.
        source: a path, a glob, a list of those, or a table.
        what: how errors call a table that has no file name, such as "the train table".
        roles: the columns that must be there, each with its role.
        whole: read the other columns of a table too; those of a file are always there.

    Raises:
        StorageError: a file is missing or corrupt.
        DataError: a file is empty or not what its name says, or has not the columns.
        ConfigError: a kind of file that cannot be read.
    """
    if is_files(source):
        files = find_files(source)
        readers = [_read_function(file) for file in files]
        for file, read in zip(files, readers, strict=True):
            with _plain_file(engine, file) as path:
                part = read(engine, str(file), path)
                part.require(roles)
                yield part
        return
    part = _table_part(source, what)
    part.require(roles)
    if isinstance(source, ibis.Table):
        with _computed(engine, source if whole else source.select(*roles), what) as path:
            yield _read_parquet(engine, what, path)
    else:
        yield part


def is_files(source):
    """Whether `source` names files; else it is a table."""
    return isinstance(source, str | Path | list | tuple)


def find_files(source):
    """The files that a path, a glob, or a list of those names; a glob's files come in the order of their names."""
    if isinstance(source, list | tuple):
        if not source:
            raise ConfigError("an empty list of files.", fix="name at least one file")
        return [file for entry in source for file in find_files(entry)]
    if not isinstance(source, str | Path):
        raise ConfigError(f"{source!r} in a list of files.", fix="list paths or globs only")
    path = Path(source)
    if path.is_dir():
        raise StorageError(f"{path} is a folder.", fix=f"name its files, for example '{path}/*.parquet'")
    if path.exists():
        return [path]
    matches = [Path(match) for match in sorted(glob.glob(str(source), recursive=True)) if Path(match).is_file()]
    if not matches:
        problem = f"no file matches {source}." if glob.has_magic(str(source)) else f"{source} does not exist."
        raise StorageError(problem, fix="check the path")
    return matches


@contextlib.contextmanager
def refuse_corrupt(part_name):
    """Turn what DuckDB and Arrow say about a file or stream that they cannot read into one error that names it."""
    try:
        yield
    except (duckdb.OutOfMemoryException, StorageError, DataError):
        raise
    except (duckdb.Error, pa.ArrowException, IbisError, OSError) as error:
        if re.search("write file|No space left", str(error)):  # of ours: the same statement reads and writes
            raise
        raise _unreadable(part_name, error) from error


def _unreadable(name, error):
    line = re.search(r"in line (\d+)|on Line: (\d+)", str(error))
    if _suffix(name) in _LINE_FORMATS and not isinstance(error, duckdb.IOException | OSError):
        where = f", line {line[1] or line[2]}" if line else ""
        return DataError(f"{name}{where}: {_reason(str(error))}", fix="correct that line, or write the file again")
    return StorageError(f"{name} cannot be read: {_reason(str(error))}", fix="write or fetch it again")


def _reason(message):
    """The sentence of a DuckDB message that says what is wrong; the rest quotes our SQL and DuckDB's own options."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    original = next((line.removeprefix("Original Line: ") for line in lines if line.startswith("Original Line: ")), None)
    if original is None:
        sentence = re.sub(r"^[A-Z][\w ]* Error: ", "", lines[0]) if lines else "no reason is given"
        return re.sub(r'( in file)? ["\']/[^"\']*["\'],?', "", sentence)
    signs = ("Expected Number", "Invalid unicode", "Value with", "Maximum line")
    sentence = next((line for line in lines if line.startswith(signs)), lines[0])
    return f"{sentence} (the line is {original[:80]!r})"


def _suffix(name):
    return Path(str(name).lower().removesuffix(".gz")).suffix


def _read_function(file):
    if _suffix(file) not in _FORMATS:
        raise ConfigError(f"{file} is of an unknown kind.", fix=f"use one of {', '.join(_FORMATS)}, or an Ibis table")
    return _FORMATS[_suffix(file)]


@contextlib.contextmanager
def _plain_file(engine, file):
    """The file under a short name in the engine's folder, so that DuckDB takes no character of its name for a pattern.

    A gzip file is decompressed: Python checks its checksum, where DuckDB would read a truncated one silently short.
    """
    path = engine.new_path(_suffix(file))
    try:
        _link_or_decompress(file, path)
        if path.stat().st_size == 0:
            raise DataError(f"{file} is empty.", fix="write or fetch it again")
        yield path
    finally:
        path.unlink(missing_ok=True)


def _link_or_decompress(file, path):
    is_gzip = file.suffix.lower() == ".gz" and file.stat().st_size > 0
    try:
        with gzip.open(file) if is_gzip else open(file, "rb") as source:
            if not is_gzip:
                path.symlink_to(file.resolve())
                return
            with open(path, "wb") as target:
                shutil.copyfileobj(source, target, 1 << 20)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise StorageError(f"{file} is not a whole gzip file: {error}.", fix="write or fetch it again") from error


@contextlib.contextmanager
def _computed(engine, table, what):
    """The table as a Parquet file of ours: its own engine computes it once, and then it can be read many times."""
    path = engine.new_path(".parquet")
    try:
        with refuse_corrupt(what):
            table.to_parquet(path)
        yield path
    finally:
        path.unlink(missing_ok=True)


def _read_separated(delimiter):
    def read(engine, name, path):
        header = _header(name, path, delimiter)
        columns = {f"column{position}": "string" for position in range(len(header))}
        options = {"delim": delimiter, "quote": '"', "escape": '"', "header": True, "auto_detect": False}
        with refuse_corrupt(name):
            return Part.of(name, engine.connection.read_csv(str(path), columns=columns, **options), header)

    return read


def _header(name, path, delimiter):
    try:
        # Python decodes whole blocks; only what is wrong with the header is told here.
        with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            header = next(csv.reader(file, delimiter=delimiter), [])
        "".join(header).encode()
    except (UnicodeEncodeError, csv.Error) as error:
        raise DataError(f"{name}: its header line is not UTF-8 text.", fix="write the file as UTF-8") from error
    if not header:
        raise DataError(f"{name} begins with an empty line.", fix="begin with the names of the columns")
    return header


def _read_json(engine, name, path):
    with refuse_corrupt(name):
        # Depth 1 finds the keys of all lines, and leaves each value as JSON.
        options = {"format": "newline_delimited", "maximum_depth": 1, "sample_size": -1}
        table = engine.connection.read_json(str(path), **options)
    if list(table.columns) == ["json"]:
        raise DataError(f"{name} does not hold one JSON object a line.", fix='write lines such as {"user": "60", "click": 1}')
    return Part.of(name, table)


def _read_parquet(engine, name, path):
    with refuse_corrupt(name):
        schema = pa.parquet.read_schema(path)
        part = Part.of(name, engine.connection.read_parquet(str(path)), schema.names)
    for column, kind in zip(schema.names, schema.types, strict=True):
        if pa.types.is_null(getattr(kind, "value_type", kind)):  # nothing but nulls or empty lists: of no type that Ibis knows
            part.columns[column] = ibis.null("string")
    return part


def _table_part(source, what):
    try:
        table = source if isinstance(source, ibis.Table) else ibis.memtable(exact_table(source))
        return Part.of(what, table)
    except (IbisError, pa.ArrowException, TypeError, ValueError) as error:
        raise DataError(
            f"{what} cannot be read: {error}", fix="give a file, an Ibis table, or a pandas or pyarrow table"
        ) from error


_FORMATS = {
    ".csv": _read_separated(","),
    ".tsv": _read_separated("\t"),
    ".parquet": _read_parquet,
    ".jsonl": _read_json,
    ".ndjson": _read_json,
    ".json": _read_json,
}
_LINE_FORMATS = frozenset(_FORMATS) - {".parquet"}
