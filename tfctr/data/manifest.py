"""What the manifest of a folder of ids says: of which fit they are, of which files, and the SHA-256 of each file in it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tfctr
from tfctr.data.files import File, find_files, is_files, size_of
from tfctr.data.remote import RemoteFile
from tfctr.schema import Schema
from tfctr.storage import require_sha256, sha256

FORMAT = 1
PROFILE = "profile.npz"  # what the fit's training table holds: see `tfctr.data.profile`
LAST_SEEN = "last_seen.npz"  # when each known token was last seen: see `tfctr.data.extending`
_FIT_FILES = {"profile_sha256": PROFILE, "last_seen_sha256": LAST_SEEN}  # as far as a fit has them


def describe_folder(
    schema: Schema, folder: Path, entries: dict[str, dict[str, Any]], tables: Mapping[str, Any]
) -> dict[str, Any]:
    """The manifest of a folder whose files are written.

    Args:
        schema: the fitted schema.
        folder: where `schema.json`, the vocabularies and the files of the fit are, and `entries` have been written.
        entries: `{split: what is said of it}`.
        tables: `{split: table}` that was read for it, or its share of the training table.
    """
    vocabularies = sorted((folder / "vocabulary").iterdir())
    files = {key: folder / name for key, name in _FIT_FILES.items()}
    return {
        "format": FORMAT,
        "tfctr": tfctr.__version__,
        "fit": {"digest": schema.digest, **{key: sha256(file) for key, file in files.items() if file.exists()}},
        "schema_sha256": sha256(folder / "schema.json"),
        "vocabulary": {file.name: sha256(file) for file in vocabularies},
        "width": schema.width,
        "splits": entries,
        "sources": {name: _source(table) for name, table in tables.items()},
    }


def fit_files(manifest: Mapping[str, Any]) -> dict[str, str]:
    """`{file: SHA-256}` of all that a folder has beside its manifest and its splits."""
    vocabularies = {f"vocabulary/{name}": digest for name, digest in manifest["vocabulary"].items()}
    fit = manifest.get("fit", {})
    learnt = {name: fit[key] for key, name in _FIT_FILES.items() if key in fit}
    return {"schema.json": manifest["schema_sha256"], **vocabularies, **learnt}


def require_fit_files(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Raise `StorageError` if a file that a folder's fit has is missing, or another one."""
    for key, name in _FIT_FILES.items():
        if key in manifest.get("fit", {}):
            require_sha256(folder / name, manifest["fit"][key])


def _source(table: Any) -> Any:
    if isinstance(table, float):
        return table
    if not is_files(table):
        return "a table in memory or of another engine"
    return [_described(file) for file in find_files(table)]


def _described(file: File) -> dict[str, Any]:
    digest = {} if isinstance(file, RemoteFile) else {"sha256": sha256(file)}  # it would have to come once more
    return {"file": str(file), "bytes": size_of(file), **digest}
