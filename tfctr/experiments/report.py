"""`tfctr.experiments.report`: one page of any runs, with pictures."""

import html
import importlib.util
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfctr.data.split import SPLITS
from tfctr.errors import ConfigError, DataError, choose, require
from tfctr.evaluation import figures
from tfctr.experiments import pictures
from tfctr.experiments.page import details, document, list_of, picture
from tfctr.experiments.pictures import Scored
from tfctr.serving.exporting.explanation import Explanation
from tfctr.storage import atomic_file, yaml_text
from tfctr.training import Run, load_run
from tfctr.types import StrPath

_EXPLAINED_ROWS = 100_000
_ROWS_AT_A_TIME = 10_000
_FIGURES = {"auc": 5, "group_auc": 5, "log_loss": 5, "pcoc": 3, "ece": 4}  # digits behind the point
_TITLES = ("AUC", "gAUC", "log loss", "predicted / observed", "calibration error")


def report(
    runs: Sequence[Run | StrPath], out: StrPath, split: str | None = None, data: StrPath | None = None
) -> dict[str, Any]:
    """Write one HTML page of runs, which needs nothing beside it, and loads nothing.

    It has, of all runs: exact metrics, metrics on valid and the terms of the loss after each epoch, ROC and lift, calibration
    (predicted over observed click rate, expected calibration error), and the scores of clicks and of the other rows; of each
    with several logits what they give to the true class of hard, challenging and easy rows (TF4CTR's classes, at 0.3 and 0.6);
    fusion weights and gates where the model has them; its settings, environment and the hash of its data.

    Args:
        runs: `Run`s, or their folders.
        out: the file; one that is there is replaced.
        split: on which they are measured: `"train"`, `"valid"` or `"test"`; by default `"test"` where all have one, else
            `"valid"`.
        data: where the dataset of the runs is now, if it has moved.

    Returns:
        `split`, and `runs`, `{name: what `tfctr.evaluation.figures` says}`.

    Raises:
        ConfigError: no run, one given twice, a split that does not exist, or Matplotlib or scikit-learn are missing.
        DataError: rows of one class only, or of weight 0.
        StorageError: a folder is no run, its dataset is missing or another one, or the file cannot be written.

    Example, not run here:

        report(["runs/dnn", "runs/tf4ctr"], "report.html")["runs"]["runs/dnn"]["auc"]
    """
    for module in ("matplotlib", "sklearn"):
        require(importlib.util.find_spec(module), f"`report` needs {module}.", fix='pip install "tfctr[report]"')
    loaded: dict[str, Run] = {}
    for given in runs:
        run = given if isinstance(given, Run) else load_run(given)
        name = str(run.folder)
        require(name not in loaded, f"the run {name} is given twice.", fix="name each run once")
        loaded[name] = run
    require(loaded, "there is no run to report.", fix="tfctr report RUN --out report.html")
    datasets = {name: run.dataset(data) for name, run in loaded.items()}
    if split is None:
        split = "test" if all("test" in dataset.splits for dataset in datasets.values()) else "valid"
    choose(SPLITS, split, "split")
    for dataset in datasets.values():
        require(split in dataset.splits, f"{dataset.folder} has no {split} split.", fix="--split valid, or another one")
    path = Path(out)
    if path.is_dir():
        raise ConfigError(f"`out` is the folder {path}.", fix=f"give a file: {path / 'report.html'}")
    scored = [_scored(name, run, datasets[name].splits[split]) for name, run in loaded.items()]
    groups = [datasets[name].splits[split].groups for name in loaded]
    found = [figures(run.labels, run.probabilities, own, run.weights) for run, own in zip(scored, groups, strict=True)]
    with atomic_file(path) as file:
        file.write(_page(scored, found, split))
    return {"split": split, "runs": {run.name: values for run, values in zip(scored, found, strict=True)}}


def _scored(name: str, run: Run, split: Any) -> Scored:
    labels, weights = split.labels, split.weights
    rate = split.click_rate
    if not 0 < rate < 1:
        raise DataError(f"the {split.name} split of {name} has a click rate of {rate:g}.", fix="report on rows of both classes")
    model = run.inference_model
    probabilities = model.predict(split.batches(_ROWS_AT_A_TIME, shuffle=False), verbose=0)[:, 0]
    rows = np.unique(np.linspace(0, split.rows - 1, min(split.rows, _EXPLAINED_ROWS)).astype(np.int64))
    explain, parts = Explanation(model), []
    for some in np.array_split(rows, -(-len(rows) // _ROWS_AT_A_TIME)):
        parts.append({key: np.asarray(value) for key, value in explain(split.ids_of(some)).items() if "difficulty" not in key})
    explained = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    return Scored(name, run, labels, weights, probabilities, explained, labels[rows])


def _page(scored: Sequence[Scored], found: Sequence[Mapping[str, Any]], split: str) -> str:
    parts = [
        f"<h1>{len(scored)} run{'s' * (len(scored) > 1)} on the {split} split</h1>",
        list_of(_sentences(scored)),
        _table(scored, found),
        picture(pictures.metrics_by_epoch(scored)),
        picture(pictures.loss_terms(scored)),
        picture(pictures.ranking(scored, split)),
        picture(pictures.calibration(scored, found, split)),
    ]
    for number, run in enumerate(scored):
        parts.append(f"<h2 id='run-{number}'>{html.escape(run.name)}</h2>")
        for figure in (pictures.heads_by_difficulty(run), pictures.weights(run)):
            parts += [] if figure is None else [picture(figure)]
        parts.append(details("settings", yaml_text(run.run.config.to_dict(), short=True)))
        environment = {**run.run.environment, "model_sha256": run.run.metrics.get("model_sha256")}
        parts.append(details("environment, and hashes of data and model", json.dumps(environment, indent=2)))
    return document("tfctr report", parts)


def _sentences(scored: Sequence[Scored]) -> list[str]:
    """What the page does not show."""
    said = ["A run has one seed: what is between two runs may be chance. `tfctr compare` tells."] if len(scored) > 1 else []
    hashes = {run.run.environment["data"]["manifest_sha256"] for run in scored}
    if len(hashes) > 1:
        said.append(f"The runs are of {len(hashes)} datasets: their figures are of other rows.")
    for run in scored:
        if not run.run.metrics.get("finished", True):
            said.append(f"{run.name} is not finished: this is its best epoch so far.")
        if warning := run.run.metrics.get("warning"):
            said.append(f"{run.name}: {warning}")
    return said


def _table(scored: Sequence[Scored], found: Sequence[Mapping[str, Any]]) -> str:
    titles = ("run", "model", *_TITLES, "parameters", "best epoch", "epochs", "s an epoch")
    lines = ""
    for number, (run, values) in enumerate(zip(scored, found, strict=True)):
        metrics = run.run.metrics
        numbers = ["-" if np.isnan(values[name]) else f"{values[name]:.{digits}f}" for name, digits in _FIGURES.items()]
        cost = [f"{metrics[name]:,}" for name in ("parameters", "best_epoch", "epochs")]
        texts = [run.run.config.model.name, *numbers, *cost, f"{metrics['seconds_per_epoch']:.2f}"]
        link = f"<td><a href='#run-{number}'>{html.escape(run.name)}</a></td>"
        lines += f"<tr>{link}{''.join(f'<td>{html.escape(text)}</td>' for text in texts)}</tr>"
    return f"<table><tr>{''.join(f'<th>{title}</th>' for title in titles)}</tr>{lines}</table>"
