"""`tfctr.experiments.analyze`: what the papers measure beside their tables, on any dataset, as a picture and as figures."""

import csv
import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tfctr.config import Config
from tfctr.data.dataset import Dataset
from tfctr.data.split import Split
from tfctr.errors import ConfigError, choose, require
from tfctr.experiments import analysis_pictures as pictures
from tfctr.experiments.runs import folder_name, require_usable
from tfctr.experiments.spec import Spec
from tfctr.experiments.watching import HEADS, DifficultyByEpoch, LogitGradients, SemanticSpaces, Watch
from tfctr.losses.focus import complex_focus, simple_focus
from tfctr.serving.exporting.explanation import DIFFICULTY_CLASSES
from tfctr.storage import atomic_file, locked, read_json, remove_folder, sha256, write_json
from tfctr.training import load_run, train
from tfctr.types import StrPath

_MOST_ROWS = 200_000  # of a split that are looked at after each epoch
_LOOKS = 60  # at the gradients of an epoch
_PARAMETERS = [(gamma, c) for gamma in (1.0, 2.0, 3.0) for c in (0.5, 0.7, 0.9)]
_CONFIDENCES = np.round(np.linspace(0.01, 0.99, 99), 2)


class Analysis(NamedTuple):
    """One of them.

    Args:
        counterpart: what it is in the papers.
        watch: makes the callback that looks at each training, from the dataset and the settings; None where nothing is trained.
        draw: makes the picture of the rows.
        tell: says what the rows show.
    """

    counterpart: str
    watch: Callable[[Dataset, Config], Watch] | None
    draw: Callable[[list[dict[str, Any]]], Any]
    tell: Callable[[list[dict[str, Any]]], list[str]]


def analyze(name: str, what: Spec | StrPath | None, out: StrPath, data: Dataset | StrPath | None = None) -> dict[str, Any]:
    """Write what one of the papers' analyses shows of these models, as `NAME.svg` and `NAME.csv`.

    | name | what it shows | counterpart |
    |---|---|---|
    | `focus` | both halves of the TF loss over the probability given to the true class; trains nothing | TF4CTR, Fig. 4 |
    | `difficulty` | shares of hard, challenging and easy clicks and other rows after each epoch | TF4CTR, Fig. 2 and 10 |
    | `gradients` | norms of the loss' gradients by the logits of both encoders, step by step | TF4CTR, Fig. 5 |
    | `spaces` | where 1,000 rows of valid lie in each semantic space of the trained model | CETN, Fig. 11 |

    Each model is trained with the first seed of the spec, in this process, with a callback of `tfctr.experiments.watching`
    that changes nothing of it. What is there is not trained again, and a training that was stopped goes on.

    Args:
        name: see above.
        what: a `Spec` of models, or its file; or the folder of a run, whose training is repeated. None for `focus`.
        out: the folder of the files and the trainings.
        data: a prepared `Dataset`, or its folder; that of a run is known.

    Returns:
        `analysis`, `counterpart`, `sentences`, what it shows, `files`, and `rows`, those of the CSV file.

    Raises:
        ConfigError: an analysis, a model or settings that do not exist, a model without the logits that are looked at, no
            `data`; or Matplotlib is missing.
        StorageError: `data` is no prepared dataset, or another process works in `out`.
        TrainingError: a loss became non-finite.

    Example, not run here:

        analyze("difficulty", "models.yaml", "analyses", data="data")["sentences"]
    """
    analysis = choose(ANALYSES, name, "analysis")
    require(importlib.util.find_spec("matplotlib"), "`analyze` needs matplotlib.", fix='pip install "tfctr[report]"')
    folder = Path(out)
    if analysis.watch is None:
        require(what is None, f"`{name}` trains nothing, and {what} is given.", fix="leave it out")
        entries, dataset = {}, None
    else:
        entries, dataset = _entries(name, what, data)
    with locked(folder / ".lock", f"another process works in {folder}."):
        rows = focus_rows() if dataset is None else _watched(name, analysis, entries, dataset, folder)
        files = [folder / f"{name}.svg", folder / f"{name}.csv"]
        with atomic_file(files[0]) as file:
            analysis.draw(rows).savefig(file, format="svg", metadata={"Date": None})
        with atomic_file(files[1]) as file:
            writer = csv.DictWriter(file, [*rows[0]], lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    told = {"counterpart": analysis.counterpart, "sentences": analysis.tell(rows)}
    return {"analysis": name, **told, "files": [str(file) for file in files], "rows": rows}


def _entries(name: str, what: Any, data: Dataset | StrPath | None) -> tuple[dict[str, Config], Dataset]:
    """The settings of each training by its name, and the dataset."""
    require(what is not None, f"`{name}` needs models.", fix=f"tfctr analyze {name} SPEC --data DIR, or: {name} RUN")
    if not isinstance(what, Spec) and Path(what).is_dir():
        run = load_run(what)
        dataset = data if isinstance(data, Dataset) else run.dataset(data)
        return {str(Path(what).name): run.config}, dataset
    spec = what if isinstance(what, Spec) else Spec.load(what)
    if data is None:
        raise ConfigError("`data` is missing.", fix="name the --out folder of `tfctr prepare`: --data DIR")
    dataset = data if isinstance(data, Dataset) else Dataset.load(data)
    require("valid" in dataset.splits, f"{dataset.folder} has no valid split.", fix="tfctr prepare ... --valid TABLE")
    found = {}
    for label, entry in spec.contenders(dataset).items():
        require_usable(label, entry.config)
        training = entry.config.training.model_copy(update={"seed": spec.seeds[0]})
        found[label] = entry.config.model_copy(update={"training": training})
    return found, dataset


def _watched(
    name: str, analysis: Analysis, entries: Mapping[str, Config], dataset: Dataset, folder: Path
) -> list[dict[str, Any]]:
    """Train each model that has no rows yet, and return those of all."""
    assert analysis.watch is not None
    rows, manifest = [], sha256(dataset.folder / "manifest.json")
    for label, config in entries.items():
        place = folder / "runs" / folder_name(label, config, manifest, f"{name}, seed {config.training.seed}")
        kept, run = place / f"{name}.json", place / "run"
        if not kept.exists():
            if (run / "metrics.json").exists() and read_json(run / "metrics.json").get("finished", True):
                remove_folder(run)  # the process ended before the rows were kept
            watch = analysis.watch(dataset, config)
            train(config, dataset, run, resume=True, callbacks=[watch])
            write_json(kept, watch.rows)
        rows += [{"model": label, **row} for row in read_json(kept)]
    return rows


def focus_rows() -> list[dict[str, Any]]:
    """Both halves of the TF loss (TF4CTR, Eq. 7) of a click, and its cross-entropy, over the probability given to it."""
    logits = np.log(_CONFIDENCES / (1 - _CONFIDENCES)).reshape(-1, 1).astype(np.float32)
    clicks = np.ones_like(logits)
    rows = []
    for gamma, c in _PARAMETERS:
        simple, complex_ = (np.asarray(half(clicks, logits, c, gamma))[:, 0] for half in (simple_focus, complex_focus))
        for p, easy, hard in zip(_CONFIDENCES.tolist(), simple.tolist(), complex_.tolist(), strict=True):
            row = {"gamma": gamma, "c": c, "probability": p}
            rows.append({**row, "simple": easy, "complex": hard, "cross_entropy": float(-np.log(p))})
    return rows


def _tell_focus(rows: list[dict[str, Any]]) -> list[str]:
    """Where a half rises with the probability: there it pushes the wrong way."""
    said = ["Both halves are the cross-entropy at p = 1 - c; below it `complex` is larger, above it `simple`."]
    for gamma, c in _PARAMETERS:
        curve = [row for row in rows if (row["gamma"], row["c"]) == (gamma, c)]
        for half in HEADS:
            rises = [curve[i]["probability"] for i in range(len(curve) - 1) if curve[i + 1][half] > curve[i][half]]
            if rises:
                band = f"from p = {rises[0]:.2f} to {rises[-1] + 0.01:.2f}"
                said.append(f"gamma {gamma:g}, c {c:g}: `{half}` rises {band}, and there pushes a click's logit down.")
    return said


def _drawn(split: Split) -> Split:
    """At most so many rows of a split, evenly spaced."""
    rows = np.unique(np.linspace(0, split.rows - 1, min(split.rows, _MOST_ROWS)).astype(np.int64))
    return Split.from_arrays(split.ids_of(rows), split.labels[rows], name=split.name)


def _watch_difficulty(dataset: Dataset, _: Config) -> Watch:
    return DifficultyByEpoch({"train": _drawn(dataset.train), "valid": _drawn(dataset.valid)})


def _tell_difficulty(rows: list[dict[str, Any]]) -> list[str]:
    said = []
    for model in dict.fromkeys(row["model"] for row in rows):
        for label, what in ((1, "clicks"), (0, "other rows")):
            of = [row for row in rows if (row["model"], row["split"], row["label"]) == (model, "valid", label)]
            shares = [
                f"{name} {of[0][name]:.1%} after epoch 1, {of[-1][name]:.1%} after {len(of)}" for name in DIFFICULTY_CLASSES
            ]
            said.append(f"{model}, {what} on valid: {'; '.join(shares)}.")
    return said


def _watch_gradients(dataset: Dataset, config: Config) -> Watch:
    batch_size = config.training.batch_size
    assert isinstance(batch_size, int)
    return LogitGradients(dataset.train, every=max(dataset.train.rows // batch_size // _LOOKS, 1))


def _tell_gradients(rows: list[dict[str, Any]]) -> list[str]:
    """From the mean of the first tenth of the looks to that of the last."""
    said = []
    for model in dict.fromkeys(row["model"] for row in rows):
        of = [row for row in rows if row["model"] == model]
        tenth = max(len(of) // 10, 1)
        parts = []
        for head in HEADS:
            first, last = (float(np.mean([row[head] for row in part])) for part in (of[:tenth], of[-tenth:]))
            change = "rises" if last > first else "falls"
            parts.append(f"that of `{head}` {change} from {first:.3g} to {last:.3g}")
        said.append(f"{model}: of the gradient's norms {' and '.join(parts)}.")
    said.append("In the paper, with TF Loss that of `simple` falls and that of `complex` rises; without, neither changes.")
    return said


def _watch_spaces(dataset: Dataset, _: Config) -> Watch:
    return SemanticSpaces(dataset.valid)


def _tell_spaces(rows: list[dict[str, Any]]) -> list[str]:
    said = []
    for model in dict.fromkeys(row["model"] for row in rows):
        parts = []
        for space in dict.fromkeys(row["space"] for row in rows if row["model"] == model):
            of = [row for row in rows if (row["model"], row["space"]) == (model, space)]
            first, mean = (np.mean([row[name] for row in of]) for name in ("cosine_to_first", "cosine_to_mean"))
            parts.append(f"{space} {mean:.3f} and {first:.3f}")
        said.append(f"{model}: mean cosine with the space's mean direction, and with the first space: {'; '.join(parts)}.")
    said.append(
        "In the paper the rows of CETN are dispersed, a small first cosine, and those of TriDNN concentrated, a large one."
    )
    return said


ANALYSES = {
    "focus": Analysis("TF4CTR, Fig. 4: the TF loss for several gamma and c", None, pictures.focus, _tell_focus),
    "difficulty": Analysis(
        "TF4CTR, Fig. 2 and 10: hard, challenging and easy rows by epoch",
        _watch_difficulty,
        pictures.difficulty,
        _tell_difficulty,
    ),
    "gradients": Analysis(
        "TF4CTR, Fig. 5: gradient norms of both logits", _watch_gradients, pictures.gradients, _tell_gradients
    ),
    "spaces": Analysis("CETN, Fig. 11: the semantic spaces, projected", _watch_spaces, pictures.spaces, _tell_spaces),
}
