"""Lines of separated cells: how a file lays them out, and its columns as text.

The separator is that of the file's kind (`tfctr.data.files`), unless its first lines are cut evenly by another one only.
What was seen and is not what the ending says is logged, and each of it can be forced: see `Layout`.
"""

import codecs
import csv
import dataclasses
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tfctr.data.engine import Engine
from tfctr.data.files import JSON_LINES, LIBSVM_FIX, SEPARATED, find_files, is_files, kind_of, refuse_another_kind
from tfctr.data.parts import Part, refuse_corrupt
from tfctr.errors import ConfigError, DataError, require
from tfctr.schema import RawTable

_MARKS = (",", ";", "\t", "|")
_FIRST_LINES = 20
_LONGEST_LINE = 2**21  # DuckDB's own limit
_LIBSVM_LINE = re.compile(r"\S+( \d+:\S+)+\s*")
_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?', re.IGNORECASE)
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
_RECBOLE = re.compile(r"(.+):(token|token_seq|float|float_seq)")
_MARKED = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


@dataclasses.dataclass(frozen=True)
class Layout:
    """How files of separated cells are laid out, where they do not show it themselves.

    Args:
        separator: what stands between two cells, one to four characters; by default what the file's ending says, or what cuts
            its first lines evenly.
        columns: the names of the columns of files without a header line, in their order.
        missing: texts that mean that a value is missing, such as `["NA", "?"]`, in every column; an empty cell always does.
        encoding: of text that is not UTF-8 (or UTF-16 with its mark), such as `"cp1252"`.

    Raises:
        ConfigError: an argument cannot be used.
    """

    separator: str | None = None
    columns: Sequence[str] | None = None
    missing: Sequence[str] = ()
    encoding: str | None = None

    def __post_init__(self) -> None:
        if self.separator is not None:
            separator = {r"\t": "\t"}.get(self.separator, self.separator)  # as a shell passes it
            is_text = isinstance(separator, str) and 1 <= len(separator.encode()) <= 4 and not set(separator) & set('"\r\n')
            fix = "give one to four characters, such as ';'; no quote, no line end"
            require(is_text, f"`separator` is {self.separator!r}.", fix=fix)
            object.__setattr__(self, "separator", separator)
        if self.columns is not None:
            fix = "list all columns of the file in their order, each name once: ['user', 'item', 'click']"
            require(_are_texts(self.columns) and all(self.columns), f"`columns` is {self.columns!r}.", fix=fix)
            require(len(set(self.columns)) == len(self.columns) > 0, f"`columns` is {self.columns!r}.", fix=fix)
            object.__setattr__(self, "columns", tuple(self.columns))
        require(_are_texts(self.missing), f"`missing` is {self.missing!r}.", fix="give a list of texts: ['NA']")
        object.__setattr__(self, "missing", tuple(self.missing))
        if self.encoding is not None:
            fix = "name one that Python knows: 'cp1252', 'utf-16'"
            require(_is_encoding(self.encoding), f"`encoding` is {self.encoding!r}.", fix=fix)


def refuse_idle(layout: Layout, sources: Iterable[RawTable]) -> None:
    """Raise `ConfigError` where a layout is given, and no source is a file of separated cells."""
    given = [field.name for field in dataclasses.fields(layout) if getattr(layout, field.name) != field.default]
    files = [file for source in sources if is_files(source) for file in find_files(source)]
    if given and not any(kind_of(file) in SEPARATED for file in files):
        instead = {
            "missing": f"; write null for these values: of a DataFrame table = table.replace({dict.fromkeys(layout.missing)})",
            "columns": f"; give the table these names: of a DataFrame table.columns = {list(layout.columns or ())}",
        }
        fix = f"leave `{given[0]}` out{instead.get(given[0], '')}"
        raise ConfigError(f"`{given[0]}` is for files of separated cells, and there is none.", fix=fix)


def _are_texts(values: object) -> bool:
    return isinstance(values, list | tuple) and all(isinstance(value, str) for value in values)


def _is_encoding(name: Any) -> bool:
    try:
        return codecs.lookup(name)._is_text_encoding  # "hex" and the like are none
    except (LookupError, TypeError, ValueError):
        return False


def read_separated(engine: Engine, name: str, path: Path, layout: Layout) -> Part:
    """The `Part` of a file of separated cells: every cell as text, an empty one as NULL.

    Raises:
        DataError: its text cannot be decoded, it begins with an empty line, or it has not the given number of columns.
        ConfigError: it is of another kind.
    """
    path, encoding = as_utf8(engine, name, path, layout.encoding)
    lines = _first_lines(name, path)
    kind = path.suffix
    said = _SEPARATOR_LINE.fullmatch(lines[0].strip("\r\n"))  # as Excel writes it before the header
    if not said:
        _refuse_preamble(name, lines, layout.separator or SEPARATED[kind])
    lines = [line for line in lines[bool(said) :] if line.strip("\r\n")]
    separator = layout.separator or (said and said[1]) or _separator(lines, SEPARATED[kind])
    header = _header(name, lines, separator)
    names = _given_names(name, layout.columns, header) if layout.columns else [cell.strip() for cell in header]
    sequences: list[str] = []
    plain = [found[1] for found in map(_RECBOLE.fullmatch, names) if found]
    seen = {
        f"it is read as {encoding}": encoding,
        f"its cells are separated by {separator!r}, as its first lines are (`separator` takes another)": (
            separator not in (layout.separator, SEPARATED[kind], said and said[1]) and len(header) > 1
        ),
        f"its cells are separated by {separator!r}, as its first line says": bool(said),
        f"RecBole's types are no part of the names: {names[0]!r} is {plain[0] if plain else ''!r}": len(plain) == len(names),
    }
    if len(plain) == len(names):
        sequences = [found[1] for found in map(_RECBOLE.fullmatch, names) if found and found[2].endswith("_seq")]
        seen[f"lists, with spaces between their values: {', '.join(sequences)} (sequences, `separator: ' '`)"] = bool(sequences)
        names = plain
    columns = {f"column{position}": "string" for position in range(len(names))}
    options = {"delim": separator, "quote": '"', "escape": '"', "header": not layout.columns, "auto_detect": False}
    options["skip"] = int(bool(said))
    with refuse_corrupt(name):
        table = engine.connection.read_csv(str(path), columns=columns, **options)
    if layout.missing:
        markers = [text.strip() for text in layout.missing]
        given = {column: table[column].strip().isin(markers).ifelse(None, table[column]) for column in columns}
        table = table.mutate(**given)
    is_headless = not layout.columns and any(_NUMBER.fullmatch(name) for name in names)
    notes = tuple(note for note, holds in seen.items() if holds)
    return Part.of(name, table, names, notes=notes, is_headless=is_headless, sequences=frozenset(sequences))


def as_utf8(engine: Engine, name: str, path: Path, encoding: str | None = None) -> tuple[Path, str | None]:
    """(the file as UTF-8, its encoding if it had another one). Raises `DataError` if its text cannot be decoded."""
    with open(path, "rb") as file:
        start = file.read(8)
    refuse_another_kind(name, path.suffix, start)
    encoding = encoding or next((marked for mark, marked in _MARKED.items() if start.startswith(mark)), None)
    is_quoted = start[3:].lower() == b'"sep='
    if start.startswith(codecs.BOM_UTF8) and (path.suffix in JSON_LINES or is_quoted):  # where DuckDB takes no mark
        encoding = "utf-8-sig"
    elif encoding is None and b"\0" in start[:2] and len(start) > 1:
        order = "le" if start[1] == 0 else "be"
        fix = f"name its encoding: --encoding utf-16-{order} (in Python encoding='utf-16-{order}')"
        if path.suffix in JSON_LINES:
            fix = f"write it as UTF-8: iconv -f utf-16{order} -t utf-8 FILE > NEW"
        raise DataError(f"{name} looks like UTF-16 without its mark.", fix=fix)
    plain = ("utf-8", "ascii") if path.suffix in JSON_LINES or is_quoted else ("utf-8", "utf-8-sig", "ascii")
    if encoding is None or codecs.lookup(encoding).name in plain:
        return path, None
    copy = engine.new_path(path.suffix)
    try:
        with open(path, encoding=encoding, newline="") as source, open(copy, "w", encoding="utf-8", newline="") as target:
            shutil.copyfileobj(source, target, 1 << 20)
    except UnicodeError as error:
        raise DataError(f"{name} is not {encoding} text: {error}.", fix="name its encoding, or write it as UTF-8") from error
    return copy, encoding


def _first_lines(name: str, path: Path) -> list[str]:
    """The first lines, of which the first is not empty."""
    # Only what is wrong with the header is told here; DuckDB tells the rest with its line.
    with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        lines = [file.readline(_LONGEST_LINE) for _ in range(_FIRST_LINES)]
    header = lines[0].strip("\r\n")
    try:
        header.encode()
    except UnicodeEncodeError as error:
        fix = "write the file as UTF-8, or name its encoding: --encoding cp1252 (in Python encoding='cp1252')"
        raise DataError(f"{name}: its header line is not UTF-8 text.", fix=fix) from error
    if not header:
        raise DataError(f"{name} begins with an empty line.", fix="begin with the names of the columns, or with the first row")
    if _SEPARATOR_LINE.fullmatch(header) and not lines[1].strip("\r\n"):
        raise DataError(f"{name} has no header line behind {header!r}.", fix="write or fetch it again")
    if _LIBSVM_LINE.fullmatch(header):
        raise ConfigError(f"{name} holds libsvm lines, whose columns have no names: {header[:60]!r}.", fix=LIBSVM_FIX)
    return lines


def _refuse_preamble(name: str, lines: Sequence[str], usual: str | None) -> None:
    """Raise `DataError` for lines of one cell, or of comments, before a header of several cells."""
    numbered = [(number, line) for number, line in enumerate(lines) if line.strip("\r\n")]
    texts = [line for _, line in numbered]
    for before in range(1, len(texts) - 1):
        is_comment = texts[before - 1].startswith("#")
        mark = _separator(texts[before:], usual) if is_comment else usual
        width, own = (_even_width(some, mark) if mark else 1 for some in (texts[before:], texts[before - 1 : before]))
        if own == width > 1 or (own > 1 and not is_comment):
            return
        if width > 1:
            number = numbered[before][0]
            read = f"pandas.read_csv({name!r}, sep={mark!r}, skiprows={number}, dtype=str)"
            stand = f"{number} line{'s stand' if number > 1 else ' stands'}"
            fix = f"drop what is before it: tail -n +{number + 1} FILE > NEW; or read it in Python: {read}"
            raise DataError(f"{name}: {stand} before its header, beginning with {texts[0].strip()[:60]!r}.", fix=fix)


def _separator(lines: Sequence[str], usual: str | None) -> str:
    """What cuts all first lines into the same number of cells: the usual one of this kind of file before others."""
    marks = _MARKS if usual else (*_MARKS, "::")
    widths = {mark: _even_width(lines, mark) for mark in marks}
    if usual is None and max(widths.values()) == 1:
        widths[" "] = _even_width(lines, " ")
    best = max(widths, key=lambda mark: widths[mark])
    if widths[best] == 1 or (usual is not None and widths.get(usual, 1) > 1):
        best = usual or ","
    return f"{best} " if best in _MARKS and all(_is_spaced(line, best) for line in lines) else best


def _even_width(lines: Sequence[str], separator: str) -> int:
    """How many cells each of the first lines has; 1 where they differ."""
    try:
        widths = [len(cells) for cells in _rows(lines, separator)]
    except csv.Error:
        return 1
    if len(widths) > 1 and len(lines) == _FIRST_LINES:
        del widths[-1]  # which may go on
    return widths[0] if len(set(widths)) == 1 else 1


def _header(name: str, lines: Sequence[str], separator: str) -> list[str]:
    try:
        return next(_rows(lines, separator))
    except csv.Error as error:
        raise DataError(f"{name}: its header line cannot be read: {error}.", fix="close every quote in it") from error


def _rows(lines: Sequence[str], separator: str) -> Iterator[list[str]]:
    """The cells of each row."""
    if separator[1:] not in ("", " "):  # Python's reader takes one character
        return (line.rstrip("\r\n").split(separator) for line in lines)
    return csv.reader(lines, delimiter=separator[0], skipinitialspace=separator[1:] == " ")


def _is_spaced(line: str, mark: str) -> bool:
    bare = re.sub('"[^"]*"', '""', line)
    return bare.count(mark) == bare.count(f"{mark} ") > 0


def _given_names(name: str, columns: Sequence[str], header: Sequence[str]) -> list[str]:
    if list(columns) == [cell.strip() for cell in header]:
        raise ConfigError(f"{name}: its first line holds the names that `columns` gives.", fix="leave `columns` out")
    if len(columns) != len(header):
        fix = "name every column of the file, in their order"
        raise DataError(f"{name} has {len(header)} cells a line, and `columns` names {len(columns)}.", fix=fix)
    return list(columns)
