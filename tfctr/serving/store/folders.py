"""Versions of a served model: `BASE/<number>/`, each whole or absent, never edited, the highest one served.

A server polls BASE and loads a version as soon as its folder exists. So a version is written under a hidden name on the same
file system, flushed to disk, and renamed: one step that either happens or does not, and that never replaces a version that
another process has just published. It goes the same way: renamed to a hidden name, then removed.
"""

import contextlib
import errno
import itertools
import os
import re
import reprlib
import shutil
from collections.abc import Callable, Collection, Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from tfctr.errors import ConfigError, StorageError, require, require_count
from tfctr.serving.store.manifest import seal
from tfctr.storage import (
    atomic_folder,
    fsync_folder,
    locked,
    make_folder,
    read_object,
    remove_folder,
    temporary_path,
    write_json,
)
from tfctr.types import StrPath

# TensorFlow Serving also reads " 7", "+7" and "007" as versions; one spelling for each number is enough.
_VERSION = re.compile(r"[1-9][0-9]{0,17}", re.ASCII)
_READ_AS_VERSION = re.compile(r"\s*\+?[0-9]+\s*", re.ASCII)
_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}", re.ASCII)
_UNREADABLE = re.compile(r"[\[\\\ud800-\udfff]")  # a pattern to TensorFlow, when it restores variables; no UTF-8
_TAKEN = {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR}

PUBLICATION = "assets.extra/publication.json"  # how a version came to be: written by `tfctr publish` and `tfctr rollback`
HISTORY = ".tfctr-history"  # in BASE: the publications of versions that were removed; no server reads hidden names
_PINNED = "pinned.json"  # there


def versions(base: StrPath) -> list[int]:
    """The numbers of the published versions, ascending; none if BASE does not exist."""
    return sorted(number for number, entry in _numbered(base) if entry.is_dir())


def latest(base: StrPath) -> int:
    """The highest published version. Raises `StorageError` when there is none.

    >>> latest("no/such/folder")
    Traceback (most recent call last):
    tfctr.errors.StorageError: no/such/folder holds no published version.
      fix: export a model there: tfctr export RUN no/such/folder
    """
    published = versions(base)
    if not published:
        models = models_below(base)
        fix = (
            f"give the folder of one model: {_listed(base, models)}"
            if models
            else f"export a model there: tfctr export RUN {base}"
        )
        raise StorageError(f"{base} holds no published version.", fix=fix)
    return published[-1]


def models_below(base: StrPath) -> list[str]:
    """The names of the folders in BASE that hold versions themselves: it is a folder of models, and not of one model."""
    folders = sorted(Path(base).iterdir()) if Path(base).is_dir() else ()
    return [folder.name for folder in folders if folder.is_dir() and not folder.name.startswith(".") and versions(folder)]


def version_folder(base: StrPath, number: int | str) -> Path:
    """The folder of one published version.

    Args:
        base: the folder of all versions.
        number: an `int`, or its usual spelling.

    Raises:
        ConfigError: `number` is not a version's number: `"007"`, `"../x"`, `2**63`.
        StorageError: there is no such version, or it is a link.

    >>> version_folder("serving/frappe", "007")
    Traceback (most recent call last):
    tfctr.errors.ConfigError: '007' is not a version's number.
      fix: give a whole number from 1 to 999999999999999999, written without leading zeros
    """
    if isinstance(number, bool) or not isinstance(number, int | str) or not _VERSION.fullmatch(str(number)):
        fix = f"give a whole number from 1 to {'9' * 18}, written without leading zeros"
        raise ConfigError(f"{reprlib.repr(number)} is not a version's number.", fix=fix)
    folder = Path(base) / str(number)
    if folder.is_symlink():
        raise StorageError(f"{folder} is a link, not a version.", fix="remove the link")
    if not folder.is_dir():
        there = ", ".join(map(str, versions(base))) or "none"
        raise StorageError(f"{base} has no version {number}.", fix=f"choose one of those that there are: {there}")
    return folder


def require_base(base: StrPath) -> Path:
    """`base` as an absolute path, if TensorFlow Serving reads there the versions that tfctr does, and no others.

    Raises:
        ConfigError: its name cannot be a model's.
        StorageError: it is a link, a file, or one version; or something in it only looks like a version; or TensorFlow cannot
            read files there.

    >>> require_base("serving/7")
    Traceback (most recent call last):
    tfctr.errors.ConfigError: '7' cannot be the name of a served model.
      fix: name the folder of all versions with letters, digits and _ . -, at most 100, and not by a number
    """
    if not str(base).strip():
        raise ConfigError("the folder's name is empty.", fix="give the folder of all versions, such as serving/NAME")
    name = os.path.basename(os.path.abspath(str(base)))
    if "\0" in str(base) or not _MODEL.fullmatch(name) or _READ_AS_VERSION.fullmatch(name):
        fix = "name the folder of all versions with letters, digits and _ . -, at most 100, and not by a number"
        raise ConfigError(f"{reprlib.repr(name)} cannot be the name of a served model.", fix=fix)
    base = Path(os.path.abspath(base))
    problem = f"TensorFlow cannot read files in {str(base)!r}."
    fix = "choose a path in UTF-8 without [ and \\"
    require(not _UNREADABLE.search(str(base)), problem, fix=fix, error=StorageError)
    for path in (base, base / HISTORY):
        fix = f"put what it links to in its place: {os.path.realpath(path)}"
        require(not path.is_symlink(), f"{path} is a link.", fix=fix, error=StorageError)
    is_folder = base.is_dir() or not base.exists()
    require(is_folder, f"{base} is not a folder.", fix="give the folder of all versions", error=StorageError)
    is_version = (base / "saved_model.pb").exists()
    require(not is_version, f"{base} is one version.", fix=f"give the folder of all: {base.parent}", error=StorageError)
    _require_no_false_versions(base)
    return base


def _require_no_false_versions(base: Path) -> None:
    """Raise `StorageError` for what TensorFlow Serving would read as a version, and tfctr would not."""
    for entry in base.iterdir() if base.is_dir() else ():
        ours = _VERSION.fullmatch(entry.name) and entry.is_dir() and not entry.is_symlink()
        problem = f"TensorFlow Serving would read {str(entry)!r} as a version, which it is not."
        looks = ours or not _READ_AS_VERSION.fullmatch(entry.name)
        require(looks, problem, fix="move it elsewhere", error=StorageError)


def require_place(base: StrPath) -> Path:
    """`require_base`, for a folder that is to be written: without versions yet, it must hold nothing else.

    Raises:
        StorageError: other models lie in it, or other files, as where a folder's name was forgotten.
    """
    base = require_base(base)
    if base.is_dir() and not versions(base):
        models = models_below(base)
        fix = f"give the new version's model a folder: {base / 'NAME'}, or one of theirs: {_listed(base, models)}"
        problem = f"{base} holds the models {', '.join(models)}, and is none itself."
        require(not models, problem, fix=fix, error=StorageError)
        others = sorted(entry.name for entry in base.iterdir() if not entry.name.startswith("."))
        problem = f"{base} holds other files: {reprlib.repr(others)}."
        require(not others, problem, fix=f"give a new folder: {base / 'NAME'}", error=StorageError)
    return base


def add_version(base: StrPath, build: Callable[[Path], object]) -> Path:
    """Make the next version with `build(folder)`, and publish it whole, with a SHA-256 of each file in its manifest.

    Args:
        base: the folder of all versions; made if absent.
        build: fills the empty folder that it is given; an exception from it publishes nothing.

    Returns:
        The path of the new version, `BASE/<number>`.

    Raises:
        StorageError: BASE cannot be written, or the folder came with a manifest that does not hold.
    """
    base = Path(base)
    try:
        make_folder(base)
    except OSError as error:
        raise StorageError(f"cannot write {base}: {error.strerror}.", fix="choose a folder that you may write") from error
    staged = temporary_path(base / "version")
    try:
        with atomic_folder(staged) as folder:
            build(folder)
            seal(folder)
        return _rename_to_next_version(staged, base)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def prune(base: StrPath, keep: int, protected: Iterable[int] = ()) -> list[int]:
    """Remove all versions but the `keep` highest ones, and those that `pin` noted. Their publications stay in BASE's history.

    Args:
        base: the folder of all versions.
        keep: at least 2: where the highest version cannot be loaded, a server that restarts has another one.
        protected: numbers that stay, too, such as those that a label stands for.

    Returns:
        The numbers that were removed, ascending.

    Raises:
        StorageError: some could not be removed, such as another user's. The others are.
    """
    require_count("keep", keep, least=2)
    removed = []
    problems = []
    with _pinning(base) if len(versions(base)) > keep else contextlib.nullcontext():
        protected = {*protected, *itertools.chain.from_iterable(pinned_versions(base).values())}
        for number in [number for number in versions(base)[:-keep] if number not in protected]:
            try:
                _remove(Path(base), number)
                removed.append(number)
            except OSError as error:
                problems.append(f"version {number} of {base} cannot be removed: {getattr(error, 'problem', error)}")
    if problems:
        raise StorageError("; ".join(problems), fix="let the owner remove it; whoever publishes with `keep` tries again")
    return removed


def pin(base: StrPath, config: StrPath, numbers: Collection[int]) -> None:
    """Note in BASE's history which versions a model configuration file needs, so that `prune` keeps them; none if empty."""
    file = Path(base) / HISTORY / _PINNED
    if numbers or file.exists():
        with _pinning(base):
            pinned = {**pinned_versions(base), str(Path(config).absolute()): sorted(numbers)}
            write_json(file, {known: needed for known, needed in pinned.items() if needed})


def pinned_versions(base: StrPath) -> dict[str, list[int]]:
    """`{model configuration file: its versions}`, as `pin` noted them. Raises `StorageError` where that is damaged."""
    file = Path(base) / HISTORY / _PINNED
    if not file.exists():
        return {}
    try:
        return read_object(file)
    except StorageError as error:
        fix = "remove it, and repeat `tfctr label` with a label for each file that servers read"
        raise StorageError(f"{error.problem} It tells which versions are in use.", fix=fix) from error


def _pinning(base: StrPath) -> AbstractContextManager[None]:
    """Nobody else pins or removes versions meanwhile."""
    return locked(Path(base) / HISTORY / f".{_PINNED}.lock")


def removed_versions(base: StrPath) -> list[int]:
    """The numbers of the versions that BASE's history has a publication of."""
    return [int(file.stem) for file in (Path(base) / HISTORY).glob("*.json") if _VERSION.fullmatch(file.stem)]


def read_publication(folder: StrPath) -> dict[str, Any]:
    """How a version came to be; `{}` for one that was exported only."""
    path = Path(folder) / PUBLICATION
    return read_object(path) if path.exists() else {}


def _remove(base: Path, number: int) -> None:
    folder = version_folder(base, number)
    for path in (folder, *folder.rglob("*")):
        mine = not path.is_dir() or os.access(path, os.R_OK | os.W_OK | os.X_OK)
        require(mine, f"you may not write {path}", fix="let its owner remove it", error=StorageError)
    write_json(base / HISTORY / f"{number}.json", read_publication(folder))
    remove_folder(folder)


def _rename_to_next_version(staged: Path, base: Path) -> Path:
    while True:
        number = max((number for number, _ in _numbered(base)), default=0) + 1
        version = base / str(number)
        if not _VERSION.fullmatch(version.name):
            raise StorageError(f"{base} has no version number left after {number - 1}.", fix="publish to a new folder")
        try:
            os.rename(staged, version)
        except OSError as error:
            if error.errno not in _TAKEN:  # else another process has just published this number
                raise
        else:
            fsync_folder(base)
            return version


def _numbered(base: StrPath) -> list[tuple[int, Path]]:
    with contextlib.suppress(FileNotFoundError):
        return [(int(entry.name), entry) for entry in Path(base).iterdir() if _VERSION.fullmatch(entry.name)]
    return []


def _listed(base: StrPath, models: list[str]) -> str:
    return ", ".join(str(Path(base) / name) for name in models[:5]) + (", ..." if len(models) > 5 else "")
