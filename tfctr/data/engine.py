"""DuckDB behind Ibis, with a limit on memory: where a table waits between its file and its shards."""

import contextlib
import itertools
import re
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self, TypeAlias

import duckdb
import ibis
import pyarrow as pa

from tfctr.errors import ConfigError, StorageError, TfctrError
from tfctr.types import StrPath

# A table of Ibis, and a value: a column, or one number. They check nothing: of which kind a column is, which gives it its
# operators, only its `type()` tells, not its class in Ibis' own annotations.
Table: TypeAlias = Any
Value: TypeAlias = Any

_MEMORY = re.compile(r"^\d+(\.\d+)? ?([KMGT]i?)?B$", re.IGNORECASE)


class Engine:
    """One embedded database in `folder`, which holds all that does not fit into `memory_limit`.

    Args:
        folder: an existing folder; the database, its spilled data and decompressed files lie there.
        memory_limit: what DuckDB may hold at a time, such as `"1GB"` or `"512MiB"`.
        threads: how many DuckDB may use; None for all. Results never depend on it.
    """

    def __init__(self, folder: StrPath, memory_limit: str = "1GB", threads: int | None = None) -> None:
        if not isinstance(memory_limit, str) or not _MEMORY.match(memory_limit):
            raise ConfigError(f"`memory_limit` is {memory_limit!r}.", fix="write a number and a unit: '1GB', '512MiB'")
        if threads is not None and (not isinstance(threads, int) or threads < 1):
            raise ConfigError(f"`threads` is {threads!r}.", fix="use a whole number of at least 1, or None for all")
        self.folder = Path(folder)
        settings: dict[str, Any] = {"memory_limit": memory_limit, "temp_directory": str(self.folder / "spill")}
        if threads is not None:
            settings["threads"] = threads
        self.connection = ibis.duckdb.connect(self.folder / "tables.duckdb", **settings)
        # DuckDB would draw one in an interactive Python; in a notebook without ipywidgets it has none, and refuses the setting.
        if self.connection.settings["enable_progress_bar"] != "false":
            self.connection.settings["enable_progress_bar"] = False
        self._appended: set[str] = set()
        self._numbers = itertools.count()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.connection.disconnect()

    def new_path(self, suffix: str) -> Path:
        """A path for a file of ours. No two are equal: DuckDB keeps what it has read of a file under its path."""
        return self.folder / f"{next(self._numbers)}{suffix}"

    def create(self, name: str, expression: Table) -> Table:
        """Compute `expression` into a new table, and return that table."""
        return self.connection.create_table(name, expression)

    def append(self, name: str, expression: Table) -> None:
        """Compute `expression` into the end of the table `name`, in its own order; a first call creates the table."""
        if name in self._appended:
            self.connection.insert(name, expression)
        else:
            self.connection.create_table(name, expression)
        self._appended.add(name)

    def table(self, name: str) -> Table:
        """A table, with `row` = 0, 1, ... in the order in which its rows were appended."""
        table = self.connection.table(name)
        return table if "row" in table.columns else table.mutate(row=table.rowid())

    def stream(self, expression: Table, rows: int = 131_072) -> pa.RecordBatchReader:
        """The result as Arrow record batches of at most `rows` rows; read it to its end before the next query."""
        return self.connection.con.sql(self.connection.compile(expression)).to_arrow_reader(rows)

    def fetch(self, expression: Table) -> list[dict[str, Any]]:
        """A small result, as a list with one dictionary a row."""
        return self.stream(expression).read_all().to_pylist()


@contextlib.contextmanager
def refuse_storage_failures(out: StrPath, memory_limit: str = "1GB") -> Iterator[None]:
    """Turn what is said about memory and disk into a `StorageError`, which calls the folder that is written `out`.

    And what DuckDB makes of Ctrl-C back into a `KeyboardInterrupt`.
    """
    try:
        yield
    except TfctrError:
        raise
    except RuntimeError as error:
        if str(error) == "Query interrupted":
            raise KeyboardInterrupt from error
        raise
    except duckdb.OutOfMemoryException as error:
        raise StorageError(
            f"{memory_limit} of memory do not suffice.",
            fix="raise `memory_limit` (--memory-limit), or use fewer `threads` (--threads)",
        ) from error
    except (duckdb.IOException, duckdb.TransactionException, OSError) as error:
        file = getattr(error, "filename", None)  # only what is not ours has no temporary name
        what = f"write {out}" if file is None or ".tmp-" in str(file) else f"read {file}"
        reason = getattr(error, "strerror", None) or str(error).rpartition(": ")[2]
        raise StorageError(f"cannot {what}: {reason}.", fix=_space_fix(out, error)) from error


def _space_fix(out: StrPath, error: Exception) -> str:
    if "No space left" not in str(error):
        return "check the permissions, and the space on the disk"
    place = next((folder for folder in Path(out).absolute().parents if folder.is_dir()), Path("/"))
    return f"check the space on the disk: {shutil.disk_usage(place).free:,} bytes are free in {place}"


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hold back the warnings that Ibis 12 and PySpark 4 cause: of methods that DuckDB 2 deprecates, and of pandas 3."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"fetch_\w+\(\) is deprecated", DeprecationWarning)
        warnings.filterwarnings("ignore", "The 'future.infer_string' option is deprecated")
        warnings.filterwarnings("ignore", "PySpark does not yet fully support pandas", FutureWarning)
        yield
