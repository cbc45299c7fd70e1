"""What a search of settings came to: its trials, the best of them, what it cost, and what that does not show."""

import csv
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tfctr.config import Config
from tfctr.errors import TrainingError
from tfctr.experiments.space import in_words, short, with_values
from tfctr.storage import atomic_file, write_json
from tfctr.types import StrPath

_MEASURES = {"auc": "AUC", "log_loss": "log loss", "auc_minus_log_loss": "AUC minus log loss"}
_BY_SEED = 0.001  # what two seeds of one model often differ by


class Tuning:
    """The trials of a search, and the best of them by the validation split.

    Args:
        trials: one mapping a trial: `trial`, its number; `state`: `"finished"`, `"pruned"` or `"failed"`; `value`, larger is
            better, of a finished one; `auc` and `log_loss` of its best epoch; `epochs`; `seconds` of gradient steps; `folder`;
            `failed`, the reason; and `settings`, `{path: value}`.
        base: the settings in which those of a trial stand.
        manifest: the SHA-256 of the dataset's manifest.
        jobs: how many trials shared the machine.

    Raises:
        TrainingError: no trial is finished.
    """

    def __init__(self, trials: Sequence[dict[str, Any]], base: Config, manifest: str, jobs: int = 1) -> None:
        self.trials, self.base, self.manifest, self.jobs = [*trials], base, manifest, jobs
        finished = [trial for trial in self.trials if trial["state"] == "finished"]
        if not finished:
            reasons = next((trial["failed"] for trial in self.trials if trial["failed"]), "none was tried")
            fix = "correct the space, or try more: --trials"
            raise TrainingError(f"none of {len(self.trials)} trials came to its end: {reasons}", fix=fix)
        self.ranking = sorted(finished, key=lambda trial: -trial["value"])

    @property
    def best(self) -> dict[str, Any]:
        """The trial with the best value."""
        return self.ranking[0]

    @property
    def best_config(self) -> Config:
        """The run of the best trial."""
        return with_values(self.base, self.best["settings"])

    @property
    def measure(self) -> str:
        """By what the trials are compared, in words."""
        return _MEASURES[self.base.training.monitor]

    def budget(self) -> dict[str, Any]:
        """`trials`, of which `finished`, `pruned` and `failed`; `epochs`; `seconds`, of gradient steps, and `jobs`."""
        states = Counter(trial["state"] for trial in self.trials)
        counts = {state: states[state] for state in ("finished", "pruned", "failed")}
        sums = {name: sum(trial[name] or 0 for trial in self.trials) for name in ("epochs", "seconds")}
        return {"trials": len(self.trials), **counts, **sums, "jobs": self.jobs}

    def sentences(self) -> list[str]:
        """Which trial is best, how far that can be believed, and what it cost."""
        best, budget = self.best, self.budget()
        said = [
            f"Trial {best['trial']} of {budget['trials']} is the best by {self.measure} on valid: "
            f"AUC {best['auc']:.5f}, log loss {best['log_loss']:.5f}, with {in_words(best['settings'])}."
        ]
        if len(self.ranking) > 1:
            second = self.ranking[1]
            behind = best["value"] - second["value"]
            near = sum(best["value"] - trial["value"] < _BY_SEED for trial in self.ranking[1:])
            verdict = f"which a seed may make: {near} within {_BY_SEED}" if near else "of one seed each"
            said.append(f"Trial {second['trial']} is second, {behind:.5f} behind, {verdict}.")
        said.append("Each trial has one seed: `tfctr compare` with several says whether the best is better than chance.")
        said.append("The best of many is flattered by the rows that chose it: quote it on test, where none was chosen.")
        said.append(
            f"Budget: {budget['finished']} trials finished, {budget['pruned']} pruned, {budget['failed']} failed; "
            f"{budget['epochs']} epochs, {budget['seconds']:.1f} s of gradient steps."
        )
        return said

    def table_cells(self, most: int | None = None) -> list[list[str]]:
        """The trials as text, the line of titles first: finished ones, the best first, then the others; at most so many."""
        paths = [*self.best["settings"]]
        lines = [["trial", "state", "AUC", "log loss", "epochs", *paths]]
        others = [trial for trial in self.trials if trial["state"] != "finished"]
        for trial in [*self.ranking, *others][:most]:
            figures = ["-" if trial[name] is None else f"{trial[name]:.5f}" for name in ("auc", "log_loss")]
            values = [short(trial["settings"].get(path)) for path in paths]
            lines.append([str(trial["trial"]), trial["state"], *figures, str(trial["epochs"] or 0), *values])
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain data."""
        return {
            "measure": self.base.training.monitor,
            "split": "valid",
            "manifest_sha256": self.manifest,
            "budget": self.budget(),
            "best": {**self.best, "config": self.best_config.to_dict()},
            "sentences": self.sentences(),
            "trials": self.trials,
        }

    def save(self, folder: StrPath) -> None:
        """Write `best.yaml`, `tuning.json` and `tuning.csv` into a folder, each whole or not at all."""
        folder, rows = Path(folder), [{**trial, **trial["settings"]} for trial in self.trials]
        names = [name for name in self.best if name != "settings"] + [*self.best["settings"]]
        with atomic_file(folder / "tuning.csv") as file:
            writer = csv.DictWriter(file, names, lineterminator="\n", extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)
        write_json(folder / "tuning.json", self.to_dict())
        self.best_config.save(folder / "best.yaml")
