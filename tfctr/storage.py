"""Files that are either whole or absent: temporary name, fsync, rename.

A process killed at any moment leaves the previous version in place, and at most an orphan named `.tmp-<pid>-<host>-...` beside
it, which the next writer of that host in that folder removes, and one of another host after a week.
"""

import contextlib
import hashlib
import json
import math
import os
import platform
import re
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import yaml
from yaml.constructor import ConstructorError
from yaml.scanner import ScannerError

from tfctr.errors import ConfigError, StorageError
from tfctr.types import StrPath

_HOST = hashlib.sha256(platform.node().encode()).hexdigest()[:8]  # containers may share a folder, but not process ids
_ORPHAN = re.compile(r"^\.tmp-(\d+)-([0-9a-f]{8})-")
_WEEK = 7 * 24 * 3600

# YAML 1.1 reads 1e-3 as text; everybody who writes it means the number.
_EXPONENT = re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$")
# And 010 as 8, and 1:30 as 90, which nobody means: they stay text.
_INTEGER = "tag:yaml.org,2002:int"
_WHOLE = re.compile(r"^[-+]?(0|[1-9][0-9_]*|0x[0-9a-fA-F]+)$")
_LINE_ENDS = re.compile("[\x85\u2028\u2029]")  # lost outside double quotes
_MOST_VALUES = 1_000_000
# What one document may have: a schema of ten thousand columns has less, and takes some 5 s to read.
_MOST_CHARACTERS = 2**22
_MOST_TOKENS = 250_000


@contextlib.contextmanager
def atomic_file(path: StrPath, mode: str = "w", private: bool = False) -> Iterator[IO[Any]]:
    """Open `path` for writing under a temporary name; it appears under its own name only when the block ends well.

    A `private` file is never readable by other users, not even for a moment.
    """
    path = Path(path)
    temporary = temporary_path(path)
    encoding, newline = (None, None) if "b" in mode else ("utf-8", "\n")
    opener = _open_private if private else None
    try:
        with _naming(path), open(temporary, mode, encoding=encoding, newline=newline, opener=opener) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        with _naming(path):
            os.replace(temporary, path)
            fsync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: StrPath) -> Iterator[Path]:
    """Fill a new folder under a temporary name beside `path`, then rename it.

    The temporary name starts with `.tmp-`, so it never parses as a version number. Raises `StorageError` when `path`
    already holds something: a published folder is never edited.
    """
    path = Path(path)
    require_free(path)
    temporary = temporary_path(path)
    with _naming(path):
        temporary.mkdir()
    try:
        yield temporary
        with _naming(path):
            for file in sorted(temporary.rglob("*")):
                fsync_folder(file) if file.is_dir() else _fsync_file(file)
            fsync_folder(temporary)
            try:
                os.rename(temporary, path)
            except OSError:
                require_free(path)  # another process was faster
                raise
            fsync_folder(path.parent)
    except StorageError as error:
        problem = error.problem.replace(str(temporary), str(path))  # of a file within
        if problem == error.problem:
            raise
        raise StorageError(problem, fix=error.fix) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


@contextlib.contextmanager
def locked(path: StrPath, busy: str | None = None) -> Iterator[None]:
    """Hold the lock of the file `path`, made if absent, until the block ends. A process that is killed holds nothing.

    Waits for another process that holds it; where `busy` is given, raises `StorageError` with it instead, and with the number
    and host of that process, which the file says while it is held.
    """
    import fcntl  # not on Windows, where clients run, too

    path = Path(path)
    with _naming(path):
        make_folder(path.parent)
        lock = _open_lock(path)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (fcntl.LOCK_NB if busy else 0))
        except BlockingIOError as error:
            holder = os.pread(lock, 300, 0).decode(errors="replace").split()
            who = f" It is process {holder[0]} on {holder[1]}." if len(holder) == 2 else ""
            raise StorageError(f"{busy}{who}", fix="wait for it to end") from error
        except OSError as error:
            raise StorageError(f"cannot lock {path}: {error.strerror}.", fix="let all who write there write it, too") from error
        with contextlib.suppress(OSError):  # on a full disk, or in another user's file, the lock alone has to do
            os.ftruncate(lock, 0)
            os.pwrite(lock, f"{os.getpid()} {platform.node()}".encode(), 0)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                os.ftruncate(lock, 0)
    finally:
        os.close(lock)


def _open_lock(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)  # NFS locks only what is open for writing
    except PermissionError:
        if not path.exists():
            raise
        return os.open(path, os.O_RDONLY | os.O_NOFOLLOW)  # another user's: to be read is enough elsewhere


def require_free(path: Path) -> None:
    """Raise `StorageError` when a new folder `path` would hide or edit something, or cannot be there; an empty one is free."""
    with _naming(path):
        for kind, is_one in (("a link", os.path.islink), ("a mount point", os.path.ismount)):
            if is_one(path):  # which no rename replaces
                raise StorageError(f"{path} is {kind}.", fix=f"choose a folder in it: {path / 'NAME'}")
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise StorageError(f"{path} already exists.", fix="choose another place, or remove this one first")


@contextlib.contextmanager
def _naming(path: StrPath) -> Iterator[None]:
    """Name what the user named in the error of a write that fails: the temporary name says nothing."""
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        fix = "check the path, its permissions and the space on its disk"
        raise StorageError(f"cannot write {path}: {error.strerror or error}.", fix=fix) from error


def write_json(path: StrPath, value: Any) -> None:
    """Write `value` as indented JSON, atomically. NaN is refused: it is not JSON."""
    with atomic_file(path) as file:
        json.dump(value, file, indent=2, ensure_ascii=False, allow_nan=False)
        file.write("\n")


def read_json(path: StrPath) -> Any:
    """Read a JSON file; a missing or broken one, or one with a key given twice, is a `StorageError` that names it."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"), object_pairs_hook=_unique_keys)
    except FileNotFoundError as error:
        raise StorageError(f"{path} does not exist.", fix="check the path") from error
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}.", fix="check the path") from error
    except (ValueError, RecursionError) as error:
        raise StorageError(f"{path} is not valid JSON: {error}", fix="restore the file or make it again") from error


def read_object(path: StrPath) -> dict[str, Any]:
    """Read a JSON file that holds one object, as a dict; else as `read_json`."""
    value = read_json(path)
    if not isinstance(value, dict):
        raise StorageError(f"{path} is no JSON object.", fix="restore the file or make it again")
    return value


def read_yaml(path: StrPath) -> Any:
    """Read a YAML (or JSON) file as plain data. A missing file is a `StorageError`, a broken one a `ConfigError`."""
    try:
        with open(path, encoding="utf-8") as file:
            return parse_yaml(file.read(_MOST_CHARACTERS + 1), path)
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}.", fix="check the path") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not valid YAML or JSON: {error}", fix="write the file as UTF-8") from error


def parse_yaml(text: str, name: object) -> Any:
    """YAML text as plain data. Raises `ConfigError`, which calls the text by `name`."""
    try:
        if len(text) > _MOST_CHARACTERS:
            raise ValueError(f"it has more than {_MOST_CHARACTERS:,} characters")
        value = _UniqueKeyLoader(text).get_single_data()
        if _count(value, {}) > _MOST_VALUES:
            raise ValueError(f"it holds more than {_MOST_VALUES:,} values, its aliases written out")
        return value
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: no such date
        raise ConfigError(f"{name} is not valid YAML or JSON: {error}", fix="correct the file, or the value") from error


def _count(value: Any, known: dict[int, float]) -> float:
    """How many values there are with aliases written out; endless in one that holds itself. `known` has those of each list."""
    if not isinstance(value, dict | list):
        return 1
    if id(value) not in known:
        known[id(value)] = math.inf
        children = value.values() if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_count(child, known) for child in children)
    return known[id(value)]


def yaml_text(value: Any, short: bool = False) -> str:
    """Plain data as YAML that `read_yaml` reads back; if `short`, a list of numbers or a mapping in a list is one line."""
    options: dict[str, Any] = {"Dumper": _ShortDumper, "width": 128} if short else {"Dumper": _Dumper}
    return yaml.dump(value, sort_keys=False, allow_unicode=True, **options)


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {_repeated(keys)!r} is given twice")
    return values


def _repeated(keys: Iterable[Any]) -> Any:
    """The first key that is there again."""
    seen: set[Any] = set()
    return next(key for key in keys if key in seen or seen.add(key))


class _UniqueKeyLoader(yaml.SafeLoader):
    """Safe YAML that refuses a key given twice and a document of hours, and reads 1e-3 as a number."""

    def fetch_more_tokens(self) -> None:
        if self.tokens_taken > _MOST_TOKENS:  # the scanner's time is in them, not in comments
            raise ScannerError(None, None, f"it has more than {_MOST_TOKENS:,} tokens", self.get_mark())
        super().fetch_more_tokens()

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        values = super().construct_mapping(node, deep)  # refuses keys that cannot be any
        if len(values) < len(node.value):
            key = _repeated([self.construct_object(key, deep=True) for key, _ in node.value])
            raise ConstructorError(None, None, f"the key {key!r} is given twice", node.start_mark)
        return values


class _Dumper(yaml.SafeDumper):
    """Plain data as YAML; text that looks like a number is quoted."""


class _ShortDumper(_Dumper):
    """The same with short lists."""

    def represent_sequence(self, tag: str, sequence: Iterable[Any], flow_style: bool | None = None) -> yaml.SequenceNode:
        node = super().represent_sequence(tag, sequence, flow_style)
        held = [child for child in node.value if isinstance(child, yaml.CollectionNode)]
        for child in held:
            child.flow_style = True
        node.flow_style = not held
        return node


for _class in (_UniqueKeyLoader, _Dumper, _ShortDumper):
    _class.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, list("-+.0123456789"))
_UniqueKeyLoader.yaml_implicit_resolvers = {
    first: [resolver for resolver in resolvers if resolver[0] != _INTEGER]
    for first, resolvers in _UniqueKeyLoader.yaml_implicit_resolvers.items()
}
_UniqueKeyLoader.add_implicit_resolver(_INTEGER, _WHOLE, list("-+0123456789"))


_Dumper.add_representer(
    str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, '"' if _LINE_ENDS.search(text) else None)
)


def sha256(path: StrPath) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def require_sha256(path: Path, expected: str | None, fix: str = "restore the folder, or prepare the data again") -> None:
    """Raise `StorageError` for a file that is missing, or not the one whose SHA-256 was `expected`; None is any."""
    if not path.is_file():
        raise StorageError(f"{path} is missing.", fix=fix)
    if expected not in (None, sha256(path)):
        raise StorageError(f"{path} is not the file that was written: its SHA-256 is not the manifest's.", fix=fix)


@contextlib.contextmanager
def temporary_folder(path: StrPath) -> Iterator[Path]:
    """A new folder under a temporary name beside `path`, on the same disk, which is gone at the end of the block."""
    folder = temporary_path(Path(path))
    with _naming(path):
        folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def temporary_path(path: Path) -> Path:
    """A free hidden name beside `path`, marked with this process, so that it is removed if this one is killed."""
    with _naming(path):
        make_folder(path.parent)
        _remove_orphans(path.parent)
    # The end of the name has its suffix, which Keras looks at; a whole long one would make a name that is too long.
    return Path(tempfile.mktemp(prefix=f".tmp-{os.getpid()}-{_HOST}-", suffix=f"-{path.name[-40:]}", dir=path.parent))


def _remove_orphans(folder: Path) -> None:
    for entry in folder.glob(".tmp-*"):
        owner = _ORPHAN.match(entry.name)
        with contextlib.suppress(FileNotFoundError):  # another writer removes it, too
            if owner and _is_orphan(int(owner[1]), owner[2], entry.lstat().st_mtime):
                shutil.rmtree(entry, ignore_errors=True) if entry.is_dir() else entry.unlink(missing_ok=True)


def _is_orphan(pid: int, host: str, written: float) -> bool:
    """Whether nobody is left to finish what was last `written`: in a container a process often has the number of one before."""
    if host != _HOST:
        return time.time() - written > _WEEK
    return not _is_alive(pid) or _started(pid) > written + 2  # clock ticks and time stamps are coarse


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _started(pid: int) -> float:
    """When a process began, in seconds since 1970; long ago where the system does not say."""
    try:
        boot = re.search(r"^btime (\d+)$", Path("/proc/stat").read_text(encoding="utf-8"), re.MULTILINE)
        if boot is None:
            return -math.inf
        ticks = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
        return int(boot[1]) + int(ticks) / os.sysconf("SC_CLK_TCK")
    except (OSError, IndexError, ValueError):
        return -math.inf


def remove_folder(path: Path) -> None:
    """Remove a folder, which is whole under its own name until it is gone."""
    hidden = temporary_path(path)
    with _naming(path):
        os.rename(path, hidden)
        fsync_folder(path.parent)
        shutil.rmtree(hidden)


def _fsync_file(path: Path) -> None:
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def make_folder(path: StrPath) -> None:
    """Make a folder and those above it where they are absent, so that their names survive a power cut, too."""
    path = Path(path)
    absent = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in absent:
        fsync_folder(folder.parent)


def fsync_folder(path: StrPath) -> None:
    """Make the names in a folder, such as a rename just done, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
