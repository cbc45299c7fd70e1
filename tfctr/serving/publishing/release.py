"""Publishing as a team does it: a model goes live when it is no worse than the one that is, and the way back is one call.

Each version says how it came to be, in `assets.extra/publication.json`: when, by whom, compared with what, forced for which
reason. Those of versions that were removed stay in BASE, under `.tfctr-history/`, which no server reads.
"""

import contextlib
import getpass
import os
import platform
import shutil
import tempfile
from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfctr.errors import ConfigError, ExportError, StorageError, choose, require_count
from tfctr.metrics import worse_than_constant
from tfctr.serving.publishing.clicks import Clicks
from tfctr.serving.publishing.comparison import Bounds, compare, floor_failures, measure
from tfctr.serving.runtime.saved_model import SavedModel
from tfctr.serving.runtime.warmup import replay
from tfctr.serving.store.folders import (
    HISTORY,
    PUBLICATION,
    add_version,
    latest,
    pinned_versions,
    prune,
    read_publication,
    removed_versions,
    require_base,
    require_place,
    version_folder,
    versions,
)
from tfctr.serving.store.manifest import MANIFEST, verify
from tfctr.storage import locked, read_object, temporary_path, write_json
from tfctr.types import StrPath

if TYPE_CHECKING:
    from tfctr.models import CTRModel
    from tfctr.serving.exporting.options import ExportOptions


def publish_model(
    model: "CTRModel",
    base: StrPath,
    options: "ExportOptions | None" = None,
    *,
    clicks: Clicks | None = None,
    slices: Collection[str] = (),
    bounds: Bounds | None = None,
    force: str | None = None,
    dry_run: bool = False,
    keep: int | None = None,
    protected: Collection[int] = (),
    **fields: Any,
) -> dict[str, Any]:
    """Export a model and make it the live version, unless it is worse than the one that is live, or than no model at all.

    The steps: compare its log loss with a constant's; export under a hidden name, with the strict check; measure it, and the
    highest version, on the same labelled rows; compare signatures and scores; write publication and SHA-256 manifest;
    rename; remove old versions.

    Args:
        model: a `CTRModel`.
        base: the folder of all versions.
        options: an `ExportOptions`; its defaults if None. A log loss in its `metrics` that is above the metric of the same name
            with `_of_constant` behind, as in those of `evaluate` and of a run, is a reason to refuse; with a `calibration`, the
            smaller of it and the calibrated.
        clicks: labelled rows that both versions are measured on: `sample_clicks(dataset.valid, dataset.schema)`, or
            `read_clicks`. They go nowhere. Without them, metrics are compared as each run reported them of rows of its own, and
            scores on the golden rows.
        slices: names of features; each frequent value of one is a slice of `clicks` that has bounds of its own.
        bounds: a `Bounds`; its defaults if None.
        force: a reason to publish whatever these comparisons say; it is recorded. The strict check is never skipped.
        dry_run: do all but publish and remove; nothing is written to `base`.
        keep: how many versions stay, at least 2; all of them if None.
        protected: numbers of versions that stay in any case.
        fields: those of `ExportOptions`, as for `export`.

    Returns:
        The publication: `action`, `time`, `by`, `reason`, `compared_with` (a version, None), `comparison`; `measured`, what the
        new version is on `clicks`; `unseen`, the shares of the tokens of `clicks` (without them, of the examples) that the new
        version does not know, beside those to be expected; `failures`, a sentence for each that was forced; and `folder` (None
        after a dry run), `removed`, and `not_removed`: None, or why some old versions stay. The new one is live all the same.

    Raises:
        ConfigError: the name of `base`, `force` or `keep` cannot be used.
        ExportError: the model failed the strict check, or is worse than the bounds allow or a constant. Nothing is published.
        StorageError: something in `base` is not as it must be, or another process publishes or exports there.
    """
    base, bounds = require_place(base), bounds or Bounds()
    _require_usable(force, keep, slices, clicks)
    # Imported late: a rollback needs no TensorFlow in Python.
    from tfctr.serving.exporting.exporter import export
    from tfctr.serving.exporting.options import chosen_options

    options = chosen_options(options, fields)
    useless = _worse_than_constant(options)
    _require_some_use(useless, force)
    pinned_versions(base)  # if it is damaged, now, and not once the model is live
    with _staging(base, dry_run) as folder:
        live = versions(base)[-1:]
        exported = export(model, folder / base.name, options)
        measured = None
        if clicks is not None:
            measured = {"on": clicks.name, **measure(exported, clicks)}
            useless += floor_failures(measured, clicks.labels, bounds)
            _require_some_use(useless, force)
        comparison = compare(exported, version_folder(base, *live), bounds, clicks, slices) if live else None
        worse = [] if comparison is None else comparison["failures"]
        if force is None:
            _refuse(worse, base / str(*live))
        publication = {**_publication("publish", force), "compared_with": live[0] if live else None, "comparison": comparison}
        publication |= {"measured": measured, "failures": useless + worse}
        publication["unseen"] = _unseen(exported, model, options.examples if clicks is None else clicks.columns)
        if dry_run:
            return {**publication, "folder": None, "removed": [], "not_removed": None}
        if versions(base)[-1:] != live:
            raise StorageError(f"{base} has another live version than the one compared with.", fix="repeat the command")
        published = add_version(base, lambda staged: _move(exported, staged, publication))
        return {**publication, "folder": str(published), **_remove_old(base, keep, protected)}


def rollback(base: StrPath, reason: str, to: int | str | None = None) -> dict[str, Any]:
    """Publish the files of an older version again, under the next number: servers take the highest, and never one twice.

    Files are shared with the older version by hard links where the file system has them: they are never edited.

    Args:
        base: the folder of all versions.
        reason: is recorded.
        to: the version to go back to; if None, the one before the live one (or before the one that a rollback brought back).

    Returns:
        The publication: `action`, `time`, `by`, `reason`, `of` (whose files they are), `instead_of`, `folder`.

    Raises:
        ConfigError: no reason, or `to` is not a version's number, or is live.
        StorageError: there is no such version, its files are not those that were published, it has no warm-up records, or it
            cannot answer them; or another process publishes there.
        ExportError: it answers them otherwise than when it was published.
    """
    base = require_base(base)
    _require_reason("reason", reason)
    latest(base)  # before a folder that is none gets a lock
    pinned_versions(base)
    with _locked(base):
        live = latest(base)
        source = version_folder(base, _before(base, live) if to is None else to)
        if source.name == str(live):
            raise ConfigError(f"version {live} is the live one.", fix=f"choose an older one: tfctr versions {base}")
        verify(source)
        if not replay(source, SavedModel(source)):
            raise StorageError(f"{source} has no warm-up records.", fix=f"choose another version: tfctr versions {base}")
        publication = {**_publication("rollback", reason), "of": _origin(base, int(source.name)), "instead_of": live}
        return {**publication, "folder": str(add_version(base, lambda staged: _link(source, staged, publication)))}


def history(base: StrPath, removed: bool = False) -> list[dict[str, Any]]:
    """What is known of each version, ascending: a list of dicts.

    Each has `version`, `live` (whether it is the highest), `removed`, `damage` (None, or why nothing is known of it), `metrics`
    (None if unknown), and its publication.

    Args:
        base: the folder of all versions.
        removed: also those that are no longer there.
    """
    base, present = require_base(base), versions(base)
    gone = {*removed_versions(base)} - {*present} if removed else ()
    return [_describe(base, number, present) for number in sorted([*present, *gone])]


def _require_usable(force, keep, slices, clicks):
    if force is not None:
        _require_reason("force", force)
    if keep is not None:
        require_count("keep", keep, least=2)
    for name in slices:
        choose({} if clicks is None else clicks.columns, name, "feature")


def _unseen(exported, model, rows):
    from tfctr.serving.exporting.exporter import unseen_of

    return None if rows is None else unseen_of(exported, model.schema, rows)


@contextlib.contextmanager
def _staging(base, dry_run):
    """A hidden folder beside the versions, which no other process publishes to meanwhile; elsewhere for a dry run."""
    if dry_run:
        with tempfile.TemporaryDirectory(prefix="tfctr-dry-run-") as folder:
            yield Path(folder)
        return
    with _locked(base):
        folder = temporary_path(base / "publish")
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _locked(base):
    """Refuse a second publisher: it would compare with a version that is no longer the live one."""
    return locked(base / ".tfctr-lock", busy=f"another process is publishing to {base}.")


def _remove_old(base, keep, protected):
    before, problem = versions(base), None
    try:
        if keep is not None:
            prune(base, keep, protected)
    except StorageError as error:
        problem = error.problem
    return {"removed": sorted({*before} - {*versions(base)}), "not_removed": problem}


def _worse_than_constant(options):
    """A sentence for each log loss that no model at all would better."""
    metrics, calibration = options.metrics, options.calibration
    figures = {} if calibration is None else calibration.figures.get("after", {}).get(calibration.method, {})
    sentences = []
    for name in metrics:
        found, constant = metrics[name], metrics.get(f"{name}_of_constant")
        if name.endswith("log_loss") and found is not None and constant is not None:
            found = min(found, figures.get("log_loss", found))
            problem = worse_than_constant({"log_loss": found, "log_loss_of_constant": constant})
            sentences += [f"{name}: {problem}"] if problem else []
    return sentences


def _require_some_use(useless, force):
    if useless and force is None:
        raise ExportError(
            f"the model is not published: {'; '.join(useless)}.",
            fix="if the rows have few clicks, prepare with a larger valid split, or more rows; else train without CONFIG, as "
            "`tfctr train --data DATA --out RUN` does; where rows were left out of training, calibrate, or give the share that "
            "was kept; or say why it must go live all the same: --force REASON",
        )


def _refuse(failures, live):
    if failures:
        raise ExportError(
            f"the new version is not published, since {live} is live: {'; '.join(failures)}.",
            fix=f"{_remedy(failures, live.parent)}; or say why it must go live all the same: --force REASON",
        )


def _remedy(failures, base):
    if any(failure.startswith("the live version ") for failure in failures):
        return f"roll back to one that is whole: tfctr versions {base} --verify"
    if any(failure.startswith("signature ") for failure in failures):
        return "export it with the live version's candidates and optional inputs"
    return "train a better model; or give other bounds"


def _publication(action, reason):
    return {"action": action, "time": datetime.now(UTC).isoformat(timespec="seconds"), "by": _who(), "reason": reason}


def _who():
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # in a container a user may have no name
        name = str(os.getuid())
    return f"{name}@{platform.node()}"


def _require_reason(argument, reason):
    if not isinstance(reason, str) or not reason.strip() or not reason.isprintable():
        raise ConfigError(f"`{argument}` is {reason!r}.", fix="say why, in one line of text that others will read")


def _move(exported, staged, publication):
    os.rename(exported, staged)
    _write_publication(staged, publication)


def _link(source, staged, publication):
    for path in sorted(source.rglob("*")):
        copy = staged / path.relative_to(source)
        if path.is_dir():
            copy.mkdir()  # without the modes of a folder that was made read-only: it is written to
        else:
            _link_or_copy(path, copy)
    (staged / PUBLICATION).unlink(missing_ok=True)
    _write_publication(staged, publication)


def _write_publication(staged, publication):
    (staged / MANIFEST).unlink()  # it has just been checked or written; the next one tells the publication, too
    write_json(staged / PUBLICATION, publication)


def _link_or_copy(source, target):
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _before(base, live):
    try:
        origin = _origin(base, live)
    except StorageError as error:
        raise StorageError(error.problem, fix=f"say which version to go back to, with --to: tfctr versions {base}") from error
    older = [number for number in versions(base) if number < origin]
    if not older:
        raise StorageError(f"{base} has no version before {origin}.", fix=f"choose one with --to: tfctr versions {base}")
    return older[-1]


def _origin(base, number):
    """The version whose files these are."""
    return _publication_of(base, number).get("of", number)


def _publication_of(base, number):
    folder = base / str(number)
    return read_publication(folder) if folder.is_dir() else read_object(base / HISTORY / f"{number}.json")


def _describe(base, number, present):
    card = base / str(number) / "assets.extra" / "model_card.json"
    state = {"version": number, "live": number == max(present, default=None), "removed": number not in present}
    try:
        metrics = read_object(card).get("metrics") if card.exists() else None
        return {**state, "damage": None, "metrics": metrics, **_publication_of(base, number)}
    except OSError as error:
        return {**state, "damage": getattr(error, "problem", str(error)), "metrics": None}
