"""A new version beside the one that is live: is it as good, can the same clients call it, are its scores like the old ones?"""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tfctr.errors import StorageError, require_number
from tfctr.metrics import pcoc_excess, worse_than_constant
from tfctr.serving.publishing.clicks import Clicks, probabilities_of, signature_of_rows
from tfctr.serving.runtime.saved_model import SavedModel, read_signatures
from tfctr.serving.runtime.warmup import read_warmup
from tfctr.serving.store.manifest import verify
from tfctr.serving.wire.protocol import arrays_of, type_name
from tfctr.storage import read_object
from tfctr.types import StrPath

_SIGNATURE, _OUTPUT = "serving_default", "probability"
_ADVISORY = {"unseen"}  # a client asks for it only where the model has it


@dataclasses.dataclass(frozen=True)
class Bounds:
    """How much a new version may differ from the live one, and how far its probabilities may be from the clicks.

    Args:
        auc_drop: how far an AUC may fall; of all metrics whose name ends in "auc".
        log_loss_rise: how far a log loss may rise.
        psi: the population stability index of the scores, over the deciles of the live ones; 0.2 is commonly called a shift.
        difference: the mean absolute difference of the scores.
        pcoc: how far predicted over observed clicks of the new version may be from 1, beyond what chance makes of the number
            of clicks: within `1 / (1 + a)` and `1 + a`, where `a = pcoc + 3 / sqrt(clicks)`.
        slice_auc_drop, slice_log_loss_rise: as the first two, for each slice.

    Raises:
        ConfigError: one of them is not a number of at least 0.
    """

    auc_drop: float = 0.002
    log_loss_rise: float = 0.002
    psi: float = 0.2
    difference: float = 0.1
    pcoc: float = 0.2
    slice_auc_drop: float = 0.02
    slice_log_loss_rise: float = 0.02

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            require_number(field.name, getattr(self, field.name), least=0)


def compare(
    new: StrPath, live: StrPath, bounds: Bounds, clicks: Clicks | None = None, slices: Iterable[str] = ()
) -> dict[str, Any]:
    """Compare a new version with the live one.

    With `clicks`, both versions answer the same labelled rows, and metrics and scores are those of these rows. Without, the
    metrics are those that each version reports of rows of its own, and scores those of the golden rows of the new version.
    The width of `ids` is not compared: each fitted schema numbers ids anew.

    Args:
        new, live: the folders of the two versions.
        bounds: a `Bounds`.
        clicks: `Clicks`, or None.
        slices: names of features; each frequent value of one is a slice of the rows that has bounds of its own.

    Returns:
        A dict: `failures`, a sentence each, none if all is within the bounds; `metrics`, `{name: {"live", "new"}}`, those of a
        slice named "auc of item=7"; `measured_on`, what the rows are, None where each version reports its own; and of the
        scores `rows`, `psi` and `difference`: 0, None and None where the live version cannot answer.
    """
    report = {"metrics": {}, "measured_on": None, "rows": 0, "psi": None, "difference": None}
    failures = []
    try:
        verify(live)
        broken = list(_broken_calls(read_signatures(new), read_signatures(live)))
        if clicks is None or broken:
            report["metrics"] = _metrics_of_both(new, live, bounds)
        if not broken:
            report |= _score_drift(*_scores(live, new)) if clicks is None else _measure(new, live, clicks, slices)
        failures += [*_metric_failures(report["metrics"], bounds), *broken]
        if not broken:
            failures += _drift_failures(report, bounds)
    except StorageError as error:
        failures.append(f"the live version cannot be compared with: {error.problem.removesuffix('.')}")
    return {**report, "failures": failures}


def measure(version: StrPath, clicks: Clicks) -> dict[str, Any]:
    """The `figures` of a version on labelled rows. Raises `StorageError` where it cannot answer them."""
    return clicks.figures(probabilities_of(SavedModel(version), version, clicks.columns))


def floor_failures(figures: Mapping[str, Any], labels: np.ndarray, bounds: Bounds) -> Iterator[str]:
    """Why a version should not go live whatever else is: a sentence for each of its measured figures that says so."""
    if problem := worse_than_constant(figures, labels):
        yield problem
    pcoc, clicks = figures["pcoc"], figures["clicks"]
    if pcoc is None:
        return
    if problem := pcoc_excess(pcoc, clicks, bounds.pcoc):
        yield problem


def stability_index(expected: np.ndarray, found: np.ndarray, bins: int = 10) -> float:
    """The population stability index of two samples of scores, over quantiles of `expected`; half a row is in each bin.

    >>> scores = np.linspace(0, 1, 1000)
    >>> stability_index(scores, scores), round(stability_index(scores, scores**2), 2)
    (0.0, 0.38)
    """
    edges = np.unique(np.quantile(expected, np.linspace(0, 1, bins + 1)[1:-1]))
    expected, found = (
        (np.bincount(np.searchsorted(edges, scores, side="right"), minlength=len(edges) + 1) + 0.5)
        / (len(scores) + 0.5 * (len(edges) + 1))
        for scores in (expected, found)
    )
    return float(np.sum((found - expected) * np.log(found / expected)))


def _metrics_of_both(new, live, bounds):
    """`{name: {"live", "new"}}` of each metric that the live version has and a bound is for."""
    metrics = {
        face: read_object(Path(version) / "assets.extra" / "model_card.json").get("metrics", {})
        for face, version in (("live", live), ("new", new))
    }
    known = [name for name, value in metrics["live"].items() if value is not None and _bound(name, bounds)]
    return {name: {face: values.get(name) for face, values in metrics.items()} for name in known}


def _bound(name, bounds):
    """`(sign of a change for the worse, how large it may be)`; None for what is no metric, such as a number of rows."""
    name, _, of_slice = name.partition(" of ")
    ends = {"auc": (-1, bounds.auc_drop), "log_loss": (1, bounds.log_loss_rise)}
    if of_slice:
        ends = {"auc": (-1, bounds.slice_auc_drop), "log_loss": (1, bounds.slice_log_loss_rise)}
    return next((bound for end, bound in ends.items() if name.endswith(end)), None)


def _metric_failures(metrics, bounds):
    for name, values in metrics.items():
        if (bound := _bound(name, bounds)) is None:  # pcoc is judged by itself
            continue
        sign, most = bound
        if values["new"] is None:
            yield f"{name} is {values['live']:.6g} live and not defined for the new version"
        elif (worse := sign * (values["new"] - values["live"])) > most:
            yield f"{name} is {values['live']:.6g} live and {values['new']:.6g} now: worse by {worse:.6g}, more than {most:g}"


def _broken_calls(new, live):
    """What a client of the live version would notice: a sentence each."""
    for name in sorted(set(live) - _ADVISORY):
        if name not in new:
            yield f"signature {name!r} is gone"
        else:
            yield from _input_changes(name, new[name], live[name])
            yield from _output_changes(name, new[name], live[name])


def _input_changes(signature, new, live):
    for name in sorted(live.inputs):
        if name not in new.inputs:
            yield f"signature {signature!r} no longer takes the input {name!r}"
        elif new.inputs[name].dtype != live.inputs[name].dtype:
            types = [type_name(face.inputs[name].dtype) for face in (live, new)]
            yield f"signature {signature!r}: the input {name!r} was {types[0]} and is {types[1]}"
    for name in sorted(_demanded(new) - _demanded(live)):
        yield f"signature {signature!r} demands the input {name!r}, without which it answers now"


def _demanded(signature):
    """The inputs that a request must have."""
    return set(signature.inputs) - set(signature.defaults)


def _output_changes(signature, new, live):
    # What else a model explains is its own: another model has other parts.
    for name in [_OUTPUT] if signature == "explain" else sorted(live.outputs):
        if name not in new.outputs or new.outputs[name].dtype != live.outputs[name].dtype:
            yield f"signature {signature!r} no longer gives the output {name!r} as {type_name(live.outputs[name].dtype)}"


def _measure(new, live, clicks, slices):
    """What both versions are on the same rows, all and each slice."""
    scores = {
        face: probabilities_of(SavedModel(version), version, clicks.columns) for face, version in (("live", live), ("new", new))
    }
    compared = {"": (slice(None), clicks)} | {f" of {name}": some for name, some in clicks.slices(slices)}
    metrics = {}
    for suffix, (rows, some) in compared.items():
        figures = {face: some.figures(found[rows]) for face, found in scores.items()}
        names = [name for name in ("auc", "group_auc", "log_loss", "pcoc") if figures["live"].get(name) is not None]
        metrics |= {f"{name}{suffix}": {face: known[name] for face, known in figures.items()} for name in names}
    return {"metrics": metrics, "measured_on": clicks.name, **_score_drift(scores["live"], scores["new"])}


def _score_drift(expected, found):
    difference = np.abs(expected - found)
    return {"rows": len(found), "psi": stability_index(expected, found), "difference": float(difference.mean())}


def _drift_failures(report, bounds):
    for name, meaning in (("psi", "stability index"), ("difference", "mean absolute difference")):
        if report[name] > getattr(bounds, name):
            yield f"the scores moved: their {meaning} is {report[name]:.4g}, more than {getattr(bounds, name):g}"


def _batches(version):
    asking = [record for record in read_warmup(version) if record.signature == _SIGNATURE]
    return [{"inputs": arrays_of(record.request.inputs), "outputs": record.outputs} for record in asking]


def _scores(version, asked):
    """What a version answers to the golden rows of the version `asked`, and the scores that stand with them.

    Rows without an input that the version demands are left out, as are columns that it does not take.

    Raises:
        StorageError: it gives no numbers.
    """
    model = SavedModel(version)
    demanded = _demanded(signature_of_rows(model, version))
    batches = [batch for batch in _batches(asked) if demanded <= set(batch["inputs"])]
    if not batches:
        raise StorageError(f"{asked} has no golden rows that {version} answers.", fix="export it again")
    scores = np.concatenate([probabilities_of(model, version, batch["inputs"]) for batch in batches])
    return scores, np.concatenate([batch["outputs"][_OUTPUT] for batch in batches])
