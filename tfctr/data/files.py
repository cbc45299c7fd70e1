"""Which files a source names, of what kind each is, and what it holds once decompressed. Needs the standard library only,
and for URLs fsspec: see `tfctr.data.remote`.

| ending | read as |
|---|---|
| `.csv`, `.tsv`, `.tab`, `.txt`, `.data`, `.dat`; RecBole's `.inter`, `.user`, `.item` | lines of separated cells |
| `.jsonl`, `.ndjson`, `.json` | one JSON object a line |
| `.parquet` | Parquet |
| any of these and `.gz`, `.bz2`, `.xz`, `.zst`; a `.zip` with one of these in it | the same, decompressed |
"""

import bz2
import contextlib
import glob
import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, TypeAlias

from tfctr.data.remote import RemoteFile, find_remote, is_url
from tfctr.errors import ConfigError, StorageError, TfctrError
from tfctr.types import StrPath

# One file that is there: on this machine, or at a URL.
File: TypeAlias = Path | RemoteFile

# The separator of each kind; None where only its lines tell.
SEPARATED: dict[str, str | None] = {".csv": ",", ".tsv": "\t", ".tab": "\t", ".txt": None, ".data": None, ".dat": None}
SEPARATED |= dict.fromkeys((".inter", ".user", ".item"), "\t")
JSON_LINES = (".jsonl", ".ndjson", ".json")
KINDS = (*SEPARATED, *JSON_LINES, ".parquet")

MISSING_MARKS = ("na", "n/a", "#n/a", "<na>", "none", "null", "\\n", "-", "?", ".", "missing", "unknown")  # for a number

_LIBSVM = (".libsvm", ".svm", ".svmlight", ".libfm", ".ffm")
LIBSVM_FIX = (
    "make it a table with named columns first, in Python: import pandas, sklearn.datasets; "
    "x, y = sklearn.datasets.load_svmlight_file('FILE'); "
    "table = pandas.DataFrame(x.toarray(), columns=[f'c{i}' for i in range(x.shape[1])]); "
    "table['click'] = (y > 0).astype(int); table.to_parquet('table.parquet')"
)
_FIRST_BYTES = {b"PAR1": ".parquet", b"\x1f\x8b": ".gz", b"BZh": ".bz2", b"\xfd7zXZ": ".xz", b"\x28\xb5\x2f\xfd": ".zst"}
_CORRUPT = (OSError, zipfile.BadZipFile, lzma.LZMAError, EOFError, zlib.error)


def is_files(source: object) -> bool:
    """Whether `source` names files; else it is a table."""
    return isinstance(source, str | Path | list | tuple)


def find_files(source: Any) -> list[File]:
    """The files that a path, a glob, a URL, or a list of those names; a glob's files come in the order of their names."""
    if isinstance(source, list | tuple):
        if not source:
            raise ConfigError("an empty list of files.", fix="name at least one file")
        return [file for entry in source for file in find_files(entry)]
    if not isinstance(source, str | Path):
        raise ConfigError(f"{source!r} in a list of files.", fix="list paths, globs or URLs only")
    if is_url(source):
        return [*find_remote(str(source))]
    path = Path(source)
    if path.is_dir():
        raise StorageError(f"{path} is a folder.", fix=f"name its files, for example '{path}/*.parquet'")
    if path.exists():
        return [path]
    matches: list[File] = [Path(match) for match in sorted(glob.glob(str(source), recursive=True)) if Path(match).is_file()]
    if not matches:
        problem = f"no file matches {source}." if glob.has_magic(str(source)) else f"{source} does not exist."
        raise StorageError(problem, fix="check the path")
    return matches


def kind_of(file: StrPath | RemoteFile) -> str:
    """One of `KINDS`, by the ending of the file's name, or of the name in a zip file.

    Raises:
        ConfigError: it is none that can be read, or its first bytes are those of another one.
        StorageError: a zip file that is none.
    """
    file = _as_file(file)
    name = Path(_member(file) if file.suffix.lower() == ".zip" else file.name).name.lower()
    kind = Path(name.removesuffix(file.suffix.lower()) if file.suffix.lower() in _OPENERS else name).suffix
    kind = kind or Path(name).suffix
    if kind in _LIBSVM:
        raise ConfigError(f"{file} is a libsvm file, whose columns have no names.", fix=LIBSVM_FIX)
    if kind not in KINDS:
        fix = f"use one of {', '.join(KINDS)}, also with .gz, .bz2, .xz, .zst or .zip; or, in Python, give a DataFrame"
        raise ConfigError(f"{file} is of an unknown kind.", fix=fix)
    return kind


@contextlib.contextmanager
def opened(file: StrPath | RemoteFile) -> Iterator[IO[bytes]]:
    """The bytes of a file, decompressed as its ending says. Raises `StorageError` for what is cut or damaged."""
    file = _as_file(file)
    suffix = file.suffix.lower()
    try:
        with _raw(file) as raw, _OPENERS[suffix](raw) if is_compressed(file) else raw as stream:
            yield stream
    except TfctrError:
        raise
    except _CORRUPT as error:
        if getattr(error, "errno", None) is not None:  # of the system, not of a library
            raise
        raise StorageError(f"{file} is not a whole {_NAMES[suffix]} file: {error}.", fix="write or fetch it again") from error


def is_compressed(file: StrPath | RemoteFile) -> bool:
    """Whether `opened` decompresses it. An empty file is empty whatever its name."""
    file = _as_file(file)
    return file.suffix.lower() in _OPENERS and size_of(file) > 0


def size_of(file: File) -> int:
    """In bytes."""
    return file.size if isinstance(file, RemoteFile) else file.stat().st_size


def _as_file(file: StrPath | RemoteFile) -> File:
    return file if isinstance(file, RemoteFile) else Path(file)


def _raw(file: File) -> contextlib.AbstractContextManager[IO[bytes]]:
    return file.open() if isinstance(file, RemoteFile) else open(file, "rb")


def refuse_another_kind(file: StrPath, kind: str, start: bytes) -> None:
    """Raise `ConfigError` when the first bytes of what should be text are those of something else."""
    found = next((ending for magic, ending in _FIRST_BYTES.items() if start.startswith(magic)), None)
    if start.startswith(b"PK\x03\x04"):
        raise ConfigError(f"{file} holds a zip file or an Excel sheet, not text.", fix="unpack it, or save the sheet as CSV")
    if found:
        raise ConfigError(f"{file} holds a {found} file, not text as {kind} says.", fix=f"let its name end with {found}")


def _member(file: File) -> str:
    with _raw(file) as raw:
        return _zip_member(raw)


def _zip_member(raw: IO[bytes]) -> str:
    """The name of the one file in a zip file."""
    try:
        with zipfile.ZipFile(raw) as archive:
            names = [name for name in archive.namelist() if not name.endswith("/") and not name.startswith("__MACOSX/")]
    except zipfile.BadZipFile as error:
        raise StorageError(f"{raw.name} is not a whole zip file: {error}.", fix="write or fetch it again") from error
    if len(names) != 1:
        shown = ", ".join(names[:10]) or "none"
        raise ConfigError(f"{raw.name} holds {len(names)} files, not one: {shown}.", fix="unpack it, and name the file to read")
    return names[0]


@contextlib.contextmanager
def _open_zip(raw: IO[bytes]) -> Iterator[IO[bytes]]:
    with zipfile.ZipFile(raw) as archive:
        try:
            stream = archive.open(_zip_member(raw))
        except (RuntimeError, NotImplementedError) as error:  # a password, or a method that Python does not know
            raise StorageError(
                f"{raw.name} cannot be unpacked: {error}.", fix="unpack it, and name the file to read"
            ) from error
        with stream:
            yield stream


@contextlib.contextmanager
def _open_zstd(raw: IO[bytes]) -> Iterator[io.BufferedReader]:
    try:
        import pyarrow as pa
    except ImportError as error:
        raise ConfigError(f"{raw.name} needs pyarrow to be read.", fix="pip install pyarrow, or decompress the file") from error
    with pa.input_stream(raw, compression="zstd") as stream:
        yield io.BufferedReader(stream)


_OPENERS: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open, ".zst": _open_zstd, ".zip": _open_zip}
_NAMES = {".gz": "gzip", ".bz2": "bzip2", ".xz": "xz", ".zst": "zstd", ".zip": "zip"}
