"""`Part`: one file or one table as an Ibis table, its columns by their own names."""

import contextlib
import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

import duckdb
import pyarrow as pa
from ibis.common.exceptions import IbisError

from tfctr.data.engine import Table, Value
from tfctr.data.files import SEPARATED
from tfctr.errors import DataError, StorageError, did_you_mean


@dataclasses.dataclass(frozen=True)
class Part:
    """One file, or one table.

    Args:
        name: what errors call it.
        table: the Ibis table; None where none of the columns that are needed can be read.
        columns: its columns, by their names in the source.
        duplicates: names that several columns have.
        unreadable: columns that no engine takes: name -> what each is, in words.
        notes: what was seen in the file that its name does not say.
        is_headless: whether the names look like values.
        sequences: columns that hold lists with spaces between their values, as their header says.
        all_names: of all columns of the source, where `columns` has those only that are needed.
    """

    name: str
    table: Table
    columns: dict[str, Value]
    duplicates: frozenset[str] = frozenset()
    unreadable: dict[str, str] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()
    is_headless: bool = False
    sequences: frozenset[str] = frozenset()
    all_names: tuple[str, ...] = ()

    @classmethod
    def of(cls, name: str, table: Table, names: Sequence[str] | None = None, **seen: Any) -> Self:
        """The part of a table whose columns have these names in the source; `seen` are its other fields."""
        # By position: SQL engines rename columns that differ in case only.
        names = list(table.columns if names is None else names)
        columns = {name: table[position] for position, name in enumerate(names)}
        return cls(name, table, columns, frozenset(name for name in columns if names.count(name) > 1), **seen)

    def require(self, roles: Mapping[str, str]) -> None:
        """Raise `DataError` when a column of `{name: role}` is not there, or there twice, or cannot be read."""
        for name, role in roles.items():
            if name in self.unreadable:
                fix = (
                    "convert it to a column of text or numbers, such as .astype(str); columns without a role may hold anything"
                )
                raise DataError(f"{self.name}: column {name!r} ({role}) {self.unreadable[name]}.", fix=fix)
            if name not in self.columns:
                raise DataError(f"{self.name} has no column {name!r} ({role}).", fix=self._hint(name))
            if name in self.duplicates:
                raise DataError(f"{self.name} has several columns named {name!r} ({role}).", fix="rename all but one")

    def _hint(self, name: str) -> str:
        names = list(self.all_names or self.columns)
        if self.is_headless:
            shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
            return (
                f"its first line looks like values ({shown}), not names: name its {len(names)} columns in their order, "
                f"--columns a,b,c (in Python columns=['a', 'b', 'c'])"
            )
        only = names[0] if len(names) == 1 else ""
        mark = next((mark for mark in ";\t|, " if mark in only), None) if self._has_cells() else None
        if mark:
            return f"its one name is {only[:80]!r}: is {mark!r} its separator? --separator (in Python separator={mark!r})"
        return did_you_mean(name, names)

    def _has_cells(self) -> bool:
        return bool(re.search(rf"({'|'.join((*_CELLS, re.escape('.zip')))})(\.[a-z0-9]+)?$", self.name, re.IGNORECASE))


@contextlib.contextmanager
def refuse_corrupt(part_name: str) -> Iterator[None]:
    """Turn what DuckDB and Arrow say about a file or stream that they cannot read into one error that names it."""
    try:
        yield
    except (duckdb.OutOfMemoryException, StorageError, DataError):
        raise
    except (duckdb.Error, pa.ArrowException, IbisError, OSError) as error:
        if re.search("write file|No space left", str(error)):  # of ours: the same statement reads and writes
            raise
        raise _unreadable(part_name, error) from error


def _unreadable(name: str, error: Exception) -> DataError | StorageError:
    line = re.search(r"in line (\d+)|on Line: (\d+)", str(error))
    is_lines = re.search(rf"({'|'.join(_LINE_FORMATS)})(\.[a-z0-9]+)?$", name, re.IGNORECASE)
    if is_lines and not isinstance(error, duckdb.IOException | OSError):
        where = f", line {line[1] or line[2]}" if line else ""
        return DataError(f"{name}{where}: {_reason(str(error))}", fix=_line_fix(str(error)))
    return StorageError(f"{name} cannot be read: {_reason(str(error))}", fix="write or fetch it again")


_CELLS = tuple(re.escape(kind) for kind in SEPARATED)
_LINE_FORMATS = (*_CELLS, r"\.jsonl", r"\.ndjson", r"\.json", r"\.zip")


def _line_fix(message: str) -> str:
    if "Invalid unicode" in message:
        return "name its encoding, such as --encoding cp1252 (in Python encoding='cp1252'), or write it as UTF-8"
    if "UTF-8 encoding" in message:
        return "write it as UTF-8: iconv -f cp1252 -t utf-8 FILE > NEW"
    if "Malformed JSON" in message:
        return "write each object, whole, on one line of its own"
    if "invalid state" in message:
        return "let all its lines end alike (dos2unix FILE does), and close every quote"
    return "correct that line, or write the file again"


def _reason(message: str) -> str:
    """The sentence of a DuckDB message that says what is wrong; the rest quotes our SQL and DuckDB's own options."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    original = next((line.removeprefix("Original Line: ") for line in lines if line.startswith("Original Line: ")), None)
    if "invalid state" in message:
        return "its cells cannot be told apart: lines end in several ways, or quotes do not fit."
    if original is None:
        sentence = re.sub(r"^[A-Z][\w ]* Error: ", "", lines[0]) if lines else "no reason is given"
        return re.sub(r'( in file)? ["\']/[^"\']*["\'],?', "", sentence)
    signs = ("Expected Number", "Invalid unicode", "Value with", "Maximum line")
    sentence = next((line for line in lines if line.startswith(signs)), lines[0])
    return f"{sentence} (the line is {original[:80]!r})"
