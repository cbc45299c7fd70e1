"""What the manifest of a folder of ids says: of which fit they are, of which files, and the SHA-256 of each file in it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tfctr
from tfctr.data.files import find_files, is_files
from tfctr.schema import Schema
from tfctr.storage import sha256

FORMAT = 1
PROFILE = "profile.npz"  # what the fit's training table holds: see `tfctr.data.profile`


def describe_folder(
    schema: Schema, folder: Path, entries: dict[str, dict[str, Any]], tables: Mapping[str, Any]
) -> dict[str, Any]:
    """The manifest of a folder whose files are written.

    Args:
        schema: the fitted schema.
        folder: where `schema.json`, the vocabularies and the profile of training are, and `entries` have been written.
        entries: `{split: what is said of it}`.
        tables: `{split: table}` that was read for it, or its share of the training table.
    """
    vocabularies = sorted((folder / "vocabulary").iterdir())
    profile = folder / PROFILE
    return {
        "format": FORMAT,
        "tfctr": tfctr.__version__,
        "fit": {"digest": schema.digest, **({"profile_sha256": sha256(profile)} if profile.exists() else {})},
        "schema_sha256": sha256(folder / "schema.json"),
        "vocabulary": {file.name: sha256(file) for file in vocabularies},
        "width": schema.width,
        "splits": entries,
        "sources": {name: _source(table) for name, table in tables.items()},
    }


def _source(table: Any) -> Any:
    if isinstance(table, float):
        return table
    if not is_files(table):
        return "a table in memory or of another engine"
    return [{"file": str(file), "bytes": file.stat().st_size, "sha256": sha256(file)} for file in find_files(table)]
