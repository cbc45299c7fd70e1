"""`tfctr.drift`: how far a further table is from the training table of a fit, feature by feature."""

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tfctr.data.dataset import Dataset
from tfctr.data.encoding import Fit, Reading, open_table, require_table
from tfctr.data.engine import quiet, refuse_storage_failures
from tfctr.data.remote_datasets import is_dataset
from tfctr.data.separated import Layout
from tfctr.data.shares import shares_of
from tfctr.data.staging import Wanted
from tfctr.errors import ConfigError, DriftError, require_number
from tfctr.schema import RawTable, Schema
from tfctr.storage import read_json
from tfctr.types import StrPath


def drift(
    fitted: Dataset | Schema | StrPath,
    table: RawTable | Dataset,
    *,
    max_psi: float | None = None,
    max_unseen: float | None = None,
    max_missing: float | None = None,
    memory_limit: str = "1GB",
    threads: int | None = None,
    separator: str | None = None,
    columns: Sequence[str] | None = None,
    missing: Sequence[str] = (),
    encoding: str | None = None,
) -> dict[str, dict[str, Any]]:
    """Compare each feature of a further table with the training table of a fit. Nothing is written.

    Args:
        fitted: a dataset that `prepare` has written, its folder, or its `schema`.
        table: as in `tfctr.prepare`; it needs no labels. Or what `encode` has made of one by this fit, or its folder.
        max_psi: the most that a feature's population stability index may be, such as 0.25: see `tfctr.data.profile`. One that
            chance explains is never too much.
        max_unseen: by how much the share of tokens that the fit does not know may be above what rows like training's have.
        max_missing: by how much the share of rows without a value may be above training's.
        memory_limit, threads, separator, columns, missing, encoding: as in `tfctr.prepare`. What does not fit into memory lies
            in the folder for temporary files meanwhile.

    Returns:
        `{feature: {"psi", "psi_by_chance", "distance", "by_chance", "unseen", "expected", "missing", "missing_in_training",
        ...}}`, as far as each has a meaning: what `Split.shares` and `Split.profile` say of a split.

    Raises:
        DriftError: a feature is further away than it may be; its `found` is the mapping.
        DataError, ConfigError, StorageError: as `tfctr.encode`.

    >>> import tempfile, tfctr
    >>> schema = tfctr.Schema(features=[tfctr.Categorical("hour")], label="click")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     clicks = {"hour": [8, 8, 9, 9], "click": [0, 1, 0, 1]}
    ...     monday = tfctr.prepare(schema, train=clicks, out=f"{folder}/monday")
    ...     found = drift(monday, {"hour": [8, 9, 10, None]})
    ...     found["hour"]["missing"], round(found["hour"]["unseen"], 2)
    (0.25, 0.33)
    """
    limits = {"max_psi": max_psi, "max_unseen": max_unseen, "max_missing": max_missing}
    for name, limit in limits.items():
        if limit is not None:
            require_number(name, limit, least=0)
    reading = Reading(Wanted(labels=False), Layout(separator, columns, missing, encoding), memory_limit, threads)
    encoded = _encoded(table)
    if encoded is None:
        require_table(table, reading.layout)
    fit = Fit.of(fitted)
    if fit.profile is None or "training" not in fit.facts:
        fix = "give the dataset that `tfctr prepare` has written; one of an earlier version has no profile"
        raise ConfigError("nothing is known of the training table of this fit.", fix=fix)
    entry = _count(fit, table, reading) if encoded is None else _counted(fit, encoded)
    shares = shares_of(entry["counts"], fit.facts["training"])
    found = {name: {**shares[name], **entry["profile"][name]} for name in shares}
    if excesses := _excesses(found, limits):
        raise DriftError(found, excesses)
    return found


def _encoded(table: RawTable | Dataset) -> Dataset | None:
    """The dataset that is given, itself or by its folder, in the place of a raw table."""
    if isinstance(table, str | os.PathLike) and is_dataset(table):
        table = Dataset.load(table)
    return table if isinstance(table, Dataset) else None


def _counted(fit: Fit, encoded: Dataset) -> dict[str, Any]:
    """What `encode` has counted of a table."""
    if not encoded.is_encoded:
        problem = f"{encoded.folder} is a dataset with a fit of its own, which says nothing of how far it is from this one."
        raise ConfigError(problem, fix="give its raw table, or what `tfctr encode` makes of that by this fit")
    fit.schema.require_fit(encoded.schema.digest, str(encoded.folder), fix="encode its raw table by this fit")
    (entry,) = read_json(encoded.folder / "manifest.json")["splits"].values()
    return entry


def _count(fit: Fit, table: RawTable, reading: Reading) -> dict[str, Any]:
    """The same of a raw table."""
    with (
        tempfile.TemporaryDirectory(prefix="tfctr-drift-") as folder,
        refuse_storage_failures(folder, reading.memory_limit),
        quiet(),
        open_table(fit, table, Path(folder), reading, "given") as rows,
    ):
        blocks = rows.blocks()
        for _ in blocks:
            pass  # they are counted
        return rows.describe(blocks)


def _excesses(found: Mapping[str, Mapping[str, Any]], limits: Mapping[str, float | None]) -> list[str]:
    """A sentence for each feature and limit that is exceeded."""
    excesses = []
    for name, values in found.items():
        for limit, value in (
            ("max_psi", values.get("psi", 0) if values.get("psi", 0) > values.get("psi_by_chance", 0) else 0),
            ("max_unseen", _above(values, "unseen", "expected")),
            ("max_missing", _above(values, "missing", "missing_in_training")),
        ):
            most = limits[limit]
            if most is not None and value > most:
                excesses.append(f"{name!r}: {limit.removeprefix('max_')} {value:.4g}, at most {most:g} is allowed")
    return excesses


def _above(values: Mapping[str, Any], share: str, expected: str) -> float:
    return (values.get(share) or 0) - (values.get(expected) or 0)
