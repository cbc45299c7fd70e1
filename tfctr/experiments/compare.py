"""`tfctr.experiments.compare`: every run of a comparison, each in a process of its own, none of them twice."""

import concurrent.futures
import importlib.util
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import rich.console

from tfctr.data.dataset import Dataset
from tfctr.errors import StorageError, require, require_count
from tfctr.evaluation.scoring import bar
from tfctr.experiments.comparison import Comparison, Contender
from tfctr.experiments.files import GROUPS, RESULT, WHOLE
from tfctr.experiments.runs import Processes, folder_name, plan_of, require_usable
from tfctr.experiments.spec import Spec
from tfctr.storage import locked, read_object, require_sha256, sha256
from tfctr.types import StrPath

_LOG = logging.getLogger(__name__)


def compare(
    spec: Spec | StrPath | Mapping[str, Any],
    data: Dataset | StrPath,
    out: StrPath,
    jobs: int = 1,
    console: rich.console.Console | None = None,
) -> Comparison:
    """Train models with several seeds each, measure all of them on the same rows, and say which differences are noise.

    Each run is trained on train and stops by valid, in a process of its own. The split that decides nothing is read once a run.
    What is there is not trained again: a call that was stopped, or killed, goes on, and one with more seeds or models adds
    them. A run belongs to its settings, its data and the split: with others it is another one.

    Args:
        spec: a `Spec`, its file, or what such a file holds.
        data: a prepared `Dataset`, or its folder.
        out: the folder of the comparison. It gets the runs, `comparison.json`, `comparison.csv`, and `comparison.html`, one
            page with pictures, where each figure leads to its run.
        jobs: runs at a time. They share the processors, so that their seconds say less.
        console: a `rich` console for the bar, which a terminal shows; stderr by default.

    Returns:
        The `Comparison`.

    Raises:
        ConfigError: a spec that cannot be used, a split that was not prepared; or `scipy` or `matplotlib` are missing.
        StorageError: `data` is no prepared dataset, or another process works in `out`.
        TrainingError: a run ended in another way than with a result. What is finished is kept.

    Example, not run here:

        compare({"models": {"DNN": {}, "TF4CTR": {}}, "seeds": 5}, "data", "comparison").sentences()
    """
    for module in ("scipy", "matplotlib"):
        require(importlib.util.find_spec(module), f"`compare` needs {module}.", fix='pip install "tfctr[report]"')
    require_count("jobs", jobs)
    if not isinstance(spec, Spec):
        spec = Spec.from_dict(dict(spec)) if isinstance(spec, Mapping) else Spec.load(spec)
    dataset = data if isinstance(data, Dataset) else Dataset.load(data)
    for name in ("valid", spec.split):
        problem, fix = f"{dataset.folder} has no {name} split.", f"tfctr prepare ... --{name} TABLE"
        require(name in dataset.splits, problem, fix=fix)
    entries = spec.contenders(dataset)
    for name, entry in entries.items():
        require_usable(name, entry.config)
    manifest, folder = sha256(dataset.folder / "manifest.json"), Path(out)
    places = {name: folder / "runs" / folder_name(name, entry.config, manifest, spec.split) for name, entry in entries.items()}
    plans = {
        places[name] / f"seed-{seed}": plan_of(entry.config, seed, dataset, spec.split)
        for seed in spec.seeds  # all models with the first seed first: what is wrong with one shows early
        for name, entry in entries.items()
    }
    with locked(folder / ".lock", f"another process works in {folder}."):
        _train(plans, folder, jobs, console)
        found = [
            Contender(name, *entry, results={seed: _read(places[name] / f"seed-{seed}") for seed in spec.seeds})
            for name, entry in entries.items()
        ]
        comparison = Comparison(found, spec.split, manifest, jobs)
        comparison.save(folder)
    return comparison


def _read(folder: Path) -> dict[str, Any]:
    result, fix = read_object(folder / RESULT), f"restore it, or remove {folder} to train that run again"
    whole = isinstance(result.get("failed"), str) or all(isinstance(result.get(key), kind) for key, kind in WHOLE.items())
    require(whole, f"{folder / RESULT} is damaged, or another version wrote it.", fix=fix, error=StorageError)
    expected = result.get("groups_sha256")
    if expected is not None:
        require_sha256(folder / GROUPS, expected, fix)
    groups = None if expected is None else np.load(folder / GROUPS, allow_pickle=False)
    return {**result, "groups": groups, "folder": folder}


def _train(plans: Mapping[Path, dict[str, Any]], folder: Path, jobs: int, console: rich.console.Console | None) -> None:
    """Each run that has no result yet; all processes end with this block, however it ends."""
    missing = [place for place in plans if not (place / RESULT).exists()]
    if len(missing) < len(plans):
        _LOG.info("%d of %d runs are there", len(plans) - len(missing), len(plans))
    with (
        bar("runs", len(missing), console) as advance,
        concurrent.futures.ThreadPoolExecutor(jobs) as pool,
        Processes() as processes,
    ):
        running = {pool.submit(processes.run, place, plans[place]): place for place in missing}
        for done in concurrent.futures.as_completed(running):
            done.result()
            place = running[done]
            _LOG.info("%s: %s", place.relative_to(folder / "runs"), _told(read_object(place / RESULT)))
            advance(1)


def _told(result: Mapping[str, Any]) -> str:
    if "failed" in result:
        return f"failed: {result['failed']}"
    valid, metrics = result["figures"]["valid"], result["metrics"]
    epochs = f"{metrics['epochs']} epochs of {metrics['seconds_per_epoch']:.1f} s"
    return f"valid AUC {valid['auc']:.5f}, log loss {valid['log_loss']:.5f}, {epochs}"
