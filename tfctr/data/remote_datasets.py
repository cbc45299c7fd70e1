"""Prepared datasets at URLs: written with the manifest last, and read through a folder of this machine.

That folder is `datasets/<SHA-256 of the manifest>` in `$TFCTR_CACHE`, else in `$XDG_CACHE_HOME/tfctr`, else in
`~/.cache/tfctr`. It is a dataset like others, but that its files come when they are needed, those of a split when that is first
asked for. Its file `origin` has the URL, without password and query: credentials belong into the environment.
"""

import contextlib
import glob
import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from tfctr.data.remote import RemoteFile, RemoteFolder, is_url
from tfctr.errors import StorageError, require
from tfctr.storage import atomic_file, atomic_folder, make_folder, sha256, temporary_folder
from tfctr.types import StrPath

MANIFEST = "manifest.json"
_ORIGIN = "origin"
_LARGEST_MANIFEST = 1 << 28


def cache_folder() -> Path:
    """Where files of datasets at URLs are kept. Remove it, or a part of it, whenever nothing reads it."""
    if named := os.environ.get("TFCTR_CACHE"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tfctr"


def local_folder(place: StrPath) -> Path:
    """The folder of a dataset: of one at a URL that of this machine, with its manifest.

    Raises:
        StorageError: there is no dataset at the URL, or it cannot be read.
    """
    if not is_url(place):
        return Path(place)
    remote = RemoteFolder(str(place))
    fix = f"give the URL where it is, or make it: tfctr prepare SCHEMA --train TABLE --valid TABLE --out {remote}"
    problem = f"{remote} is not a prepared dataset: it has no {MANIFEST}."
    require(remote.holds(MANIFEST), problem, fix=fix, error=StorageError)
    with remote.open(MANIFEST) as file:
        manifest = file.read(_LARGEST_MANIFEST)
    folder = _folder_of(hashlib.sha256(manifest).hexdigest())
    for name, content in ((_ORIGIN, str(remote).encode()), (MANIFEST, manifest)):
        if not (folder / name).is_file() or (folder / name).read_bytes() != content:
            with atomic_file(folder / name, "wb") as target:
                target.write(content)
    return folder


def is_dataset(place: StrPath) -> bool:
    """Whether a path or URL is the folder of a dataset."""
    if is_url(place):
        return not glob.has_magic(str(place)) and RemoteFolder(str(place)).holds(MANIFEST)
    return (Path(place) / MANIFEST).is_file()


def origin_of(folder: Path) -> RemoteFolder | None:
    """Where the files of a folder come from; None if they are all there."""
    origin = folder / _ORIGIN
    return RemoteFolder(origin.read_text(encoding="utf-8")) if origin.is_file() else None


def fetch(remote: RemoteFolder, folder: Path, digests: Mapping[str, str], verify: bool) -> None:
    """Bring files into a folder that lacks them, or with `verify` has other ones.

    Args:
        remote: where they are.
        folder: that of this machine.
        digests: `{name: SHA-256}`.
        verify: whether what is there is compared, too; what comes always is.

    Raises:
        StorageError: a file is missing or changed where it comes from, or no name of a file in the folder.
    """
    for name, digest in digests.items():
        path = folder / name
        is_inside = not PurePosixPath(name).is_absolute() and ".." not in PurePosixPath(name).parts
        require(is_inside, f"{remote}/{MANIFEST} names a file {name!r}.", fix="prepare the data again", error=StorageError)
        if path.is_file() and (not verify or sha256(path) == digest):
            continue
        with remote.open(name) as source, atomic_file(path, "wb") as target:
            found = hashlib.sha256()
            while block := source.read(1 << 20):
                found.update(block)
                target.write(block)
            problem = f"{remote}/{name} is not the file that was written: its SHA-256 is not the manifest's."
            fix = "restore it, or prepare the data again"
            require(found.hexdigest() == digest, problem, fix=fix, error=StorageError)


@contextlib.contextmanager
def new_dataset(out: StrPath) -> Iterator[Path]:
    """Fill the folder of a new dataset, which appears at `out`, a path or a URL, when the block ends well, whole or not at all.

    Raises:
        ConfigError: nothing can be written to such a URL.
        StorageError: there is something already, or it cannot be written.
    """
    if not is_url(out):
        with atomic_folder(out) as folder:
            yield folder
        return
    problem = f"nothing can be written to {RemoteFile(str(out), 0)}."
    require(not str(out).lower().startswith("http"), problem, fix="give a URL of an object store: s3://bucket/data")
    remote = RemoteFolder(str(out))
    remote.require_free()
    with temporary_folder(cache_folder() / "new") as folder:
        yield folder
        remote.require_free()  # hours later
        remote.upload(folder, last=MANIFEST)
        _keep(folder)


def _keep(folder: Path) -> None:
    """What was written need not come back. That of an equal dataset may be there already."""
    kept = _folder_of(sha256(folder / MANIFEST))
    make_folder(kept.parent)
    with contextlib.suppress(OSError):
        os.rename(folder, kept)


def _folder_of(digest: str) -> Path:
    return cache_folder() / "datasets" / digest
