"""Versions of a served model: `BASE/<number>/`, each whole or absent, never edited, the highest one served.

A server polls BASE and loads a version as soon as its folder exists. So a version is written under a hidden name on the same
file system, flushed to disk, and renamed: one step that either happens or does not, and that never replaces a version that
another process has just published.
"""

import contextlib
import errno
import os
import re
import shutil
from pathlib import Path

from tfctr.errors import StorageError
from tfctr.storage import atomic_folder, fsync_folder, temporary_path

# TensorFlow Serving also reads " 7", "+7" and "007" as versions; one spelling for each number is enough.
_VERSION = re.compile(r"[1-9][0-9]{0,17}", re.ASCII)
_TAKEN = {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR}


def versions(base):
    """The numbers of the published versions, ascending; none if BASE does not exist."""
    return sorted(number for number, entry in _numbered(base) if entry.is_dir())


def latest(base):
    """The highest published version. Raises `StorageError` when there is none.

    >>> latest("no/such/folder")
    Traceback (most recent call last):
    tfctr.errors.StorageError: no/such/folder holds no published version.
      fix: export a model there: tfctr export RUN no/such/folder
    """
    published = versions(base)
    if not published:
        raise StorageError(f"{base} holds no published version.", fix=f"export a model there: tfctr export RUN {base}")
    return published[-1]


def publish(base, build):
    """Make the next version with `build(folder)`, and publish it whole.

    Args:
        base: the folder of all versions; made if absent.
        build: fills the empty folder that it is given; an exception from it publishes nothing.

    Returns:
        The path of the new version, `BASE/<number>`.

    Raises:
        StorageError: BASE cannot be written.
    """
    base = Path(base)
    try:
        base.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"cannot write {base}: {error.strerror}.", fix="choose a folder that you may write") from error
    staged = temporary_path(base / "version")
    try:
        with atomic_folder(staged) as folder:
            build(folder)
        return _rename_to_next_version(staged, base)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _rename_to_next_version(staged, base):
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


def _numbered(base):
    with contextlib.suppress(FileNotFoundError):
        return [(int(entry.name), entry) for entry in Path(base).iterdir() if _VERSION.fullmatch(entry.name)]
    return []
