"""Files and folders at a URL, such as `s3://bucket/clicks.parquet`, through the file systems of fsspec.

`RemoteFile` has what is used here of a `Path`. Its text has neither password nor query, so that no log or manifest keeps those.
"""

import contextlib
import dataclasses
import glob
import io
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from tfctr.errors import ConfigError, StorageError, TfctrError, require

_BUFFER = 1 << 20
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


def is_url(source: object) -> bool:
    """Whether `source` names a file by its URL.

    >>> is_url("s3://bucket/clicks.parquet"), is_url("clicks.parquet")
    (True, False)
    """
    return isinstance(source, str) and _URL.match(source) is not None


@dataclasses.dataclass(frozen=True)
class RemoteFile:
    """A file that is there; `size` is in bytes.

    >>> file = RemoteFile("https://me:secret@host/clicks.csv.gz?signature=7", 100)
    >>> str(file), file.name, file.suffix
    ('https://host/clicks.csv.gz', 'clicks.csv.gz', '.gz')
    """

    url: str = dataclasses.field(repr=False)
    size: int

    def __str__(self) -> str:
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"

    @property
    def name(self) -> str:
        return PurePosixPath(urlsplit(self.url).path).name or urlsplit(self.url).netloc

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.name).suffix

    @property
    def suffixes(self) -> list[str]:
        return PurePosixPath(self.name).suffixes

    def open(self) -> io.BufferedReader:
        """Its bytes. Raises `StorageError` where they cannot be read, then or later."""
        with _refused(str(self)):
            system, path = _file_system(self.url)
            return io.BufferedReader(_Reader(system.open(path, "rb"), str(self)), _BUFFER)


class _Reader(io.RawIOBase):
    """A file of any file system, whose errors become ours."""

    def __init__(self, file: Any, shown: str) -> None:
        super().__init__()
        self._file = file
        self.name = shown

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._file.seekable()

    def readinto(self, buffer: Any) -> int:
        with _refused(self.name):
            read = self._file.read(len(buffer))
        buffer[: len(read)] = read
        return len(read)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        super().close()
        self._file.close()


class RemoteFolder:
    """A folder at a URL, which need not be there: its files by their names in it, with `/` between parts.

    Raises:
        ConfigError: a package that the kind of URL needs is not installed.
    """

    def __init__(self, url: str) -> None:
        self._shown = str(RemoteFile(url, 0)).rstrip("/")
        with _refused(self._shown):
            self._system, path = _file_system(url)
        self._path = path.rstrip("/")

    def __str__(self) -> str:
        return self._shown

    def open(self, name: str) -> io.BufferedReader:
        """The bytes of one of its files. Raises `StorageError` where they cannot be read, then or later."""
        with _refused(f"{self}/{name}"):
            file = self._system.open(f"{self._path}/{name}", "rb")
        return io.BufferedReader(_Reader(file, f"{self}/{name}"), _BUFFER)

    def holds(self, name: str) -> bool:
        """Whether there is such a file."""
        with _refused(f"{self}/{name}"):
            return self._system.isfile(f"{self._path}/{name}")

    def require_free(self) -> None:
        """Raise `StorageError` when there is something already."""
        with _refused(self._shown):
            self._system.invalidate_cache()
            found = self._system.find(self._path)
        fix = "choose another place, or remove this one first; without a manifest.json it is what a broken upload left"
        require(not found, f"{self} already exists.", fix=fix, error=StorageError)

    def upload(self, folder: Path, last: str) -> None:
        """Write all files of a folder here, that called `last` after all others. What was written goes if one fails."""
        files = [file for file in sorted(folder.rglob("*")) if file.is_file() and file != folder / last]
        written = []
        try:
            for file in (*files, folder / last):
                path = f"{self._path}/{file.relative_to(folder).as_posix()}"
                with _refused(self._shown, "written"):
                    if not getattr(self._system, "auto_mkdir", True):  # of this machine: stores make folders by themselves
                        self._system.makedirs(path.rpartition("/")[0], exist_ok=True)
                    written.append(path)
                    self._system.put_file(str(file), path)
        except BaseException:
            for path in reversed(written):
                with contextlib.suppress(Exception):
                    self._system.rm_file(path)
            raise


def find_remote(url: str) -> list[RemoteFile]:
    """The files that a URL or, but for http, a glob names, in the order of their names.

    Raises:
        ConfigError: a package that the kind of URL needs is not installed.
        StorageError: there is none, or it cannot be reached.
    """
    shown = str(RemoteFile(url, 0))
    has_pattern = glob.has_magic(url) and not url.lower().startswith("http")
    with _refused(shown):
        system, path = _file_system(url)
        found = {name: info for name, info in _infos(system, path, has_pattern).items() if info["type"] == "file"}
    if not found and not has_pattern:
        raise StorageError(f"{shown} is a folder.", fix=f"name its files, for example '{shown.rstrip('/')}/*.parquet'")
    if not found:
        raise StorageError(f"no file matches {shown}.", fix="check the URL")
    urls = {name: system.unstrip_protocol(name) if has_pattern else url for name in sorted(found)}
    return [RemoteFile(urls[name], found[name].get("size") or 0) for name in urls]


def _infos(system: Any, path: str, has_pattern: bool) -> dict[str, Any]:
    return system.glob(path, detail=True) if has_pattern else {path: system.info(path)}


def _file_system(url: str) -> tuple[Any, str]:
    """fsspec's file system for a URL, and the path in it."""
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise ConfigError(f"{RemoteFile(url, 0)} needs fsspec to be read.", fix='pip install "tfctr[urls]"') from error
    return url_to_fs(url)


@contextlib.contextmanager
def _refused(shown: str, done: str = "read") -> Iterator[None]:
    """Turn what a file system says into an error that names the URL as it is `shown`, and what could not be `done` with it."""
    try:
        yield
    except TfctrError:
        raise
    except (ImportError, ValueError) as error:  # fsspec knows the protocol and lacks its package, or does not know it
        fix = "install what it says; or copy the file, and give its path"
        raise ConfigError(f"{shown} cannot be {done}: {error}", fix=fix) from error
    except FileNotFoundError as error:
        raise StorageError(f"{shown} does not exist.", fix="check the URL") from error
    except Exception as error:  # of whatever file system
        raise StorageError(f"{shown} cannot be {done}: {error}", fix="check the URL, and who may do that") from error
