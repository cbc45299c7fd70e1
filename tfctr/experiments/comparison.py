"""What a comparison came to: figures with their spread, and which differences are more than noise."""

import csv
import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfctr.config import Config
from tfctr.errors import TrainingError
from tfctr.experiments.statistics import holm, paired_t_test, wilcoxon_test
from tfctr.metrics import relative_improvement, without_nan
from tfctr.storage import atomic_file, write_json
from tfctr.training.resuming import DECIDE_BITS
from tfctr.types import StrPath

METRICS = ("auc", "group_auc", "log_loss", "pcoc", "ece")
COSTS = ("epochs", "seconds_per_epoch", "rows_per_second")
_TESTED = {"auc": "AUC", "log_loss": "log loss"}
_LEVEL = 0.05


@dataclasses.dataclass(frozen=True)
class Contender:
    """One model with its settings.

    Args:
        name: what the spec calls it.
        config: its settings; the seed in it says nothing.
        is_baseline: whether others may be compared with it.
        results: `{seed: {"figures", "metrics", "environment", "groups", "folder"}}`, or `{"failed": why}` for a seed.
    """

    name: str
    config: Config
    is_baseline: bool
    results: dict[int, dict[str, Any]]

    @property
    def finished(self) -> dict[int, dict[str, Any]]:
        """The results of the seeds that came to an end."""
        return {seed: result for seed, result in self.results.items() if "failed" not in result}

    def values(self, metric: str, split: str) -> dict[int, float]:
        """`{seed: value}` on a split; NaN where it is not defined."""
        found = {seed: result["figures"][split][metric] for seed, result in self.finished.items()}
        return {seed: math.nan if value is None else value for seed, value in found.items()}

    def group_aucs(self) -> np.ndarray | None:
        """The AUC of each group, mean over the seeds; None where the data have no groups."""
        each = [result["groups"][0] for result in self.finished.values() if result["groups"] is not None]
        return np.mean(each, axis=0) if each else None


class Comparison:
    """Contenders on the same rows, and one of them, the best baseline, with which the others are compared.

    The baseline is the one with the largest mean AUC on the valid split, so that the test split chooses nothing.

    Args:
        contenders: all of them, in the order of the spec.
        split: where `rows` measures.
        manifest: the SHA-256 of the dataset's manifest.
        jobs: how many runs shared the machine.

    Raises:
        TrainingError: no baseline has a result.
    """

    def __init__(self, contenders: Sequence[Contender], split: str, manifest: str, jobs: int = 1) -> None:
        self.contenders, self.split, self.manifest, self.jobs = [*contenders], split, manifest, jobs
        baselines = [contender for contender in self.contenders if contender.is_baseline and contender.finished]
        if not baselines:
            raise TrainingError("no baseline has a result: all of its runs failed.", fix="name another one in `baselines`")
        self.baseline = max(baselines, key=lambda baseline: _mean(baseline.values("auc", "valid").values()))
        self._others = [c for c in self.contenders if c is not self.baseline and c.finished]

    def rows(self) -> list[dict[str, Any]]:
        """The table, one mapping a contender.

        `model`, `seeds`, `failed`, `baseline`; for `auc`, `group_auc`, `log_loss`, `pcoc` and `ece` the mean and, `_std`, the
        standard deviation over the seeds (NaN for one); `valid_auc`; `rela_impr`, of the mean AUC over the baseline's (CETN,
        Eq. 22); `parameters`; `epochs`, `seconds_per_epoch` and `rows_per_second`, means; and of `auc` and `log_loss` the mean
        difference from the baseline over the seeds that both have, `_difference`, with the p-values of Student's paired test,
        `_t`, and Wilcoxon's, `_wilcoxon`, over the seeds; of AUC over groups, too: `group_auc_difference`, `group_auc_t`,
        `group_auc_wilcoxon`, of each group's AUC, mean over the seeds. p-values are corrected by Holm over the contenders; NaN
        where there is no test.
        """
        tests = self._tests()
        base = _mean(self.baseline.values("auc", self.split).values())
        rows = []
        for contender in self.contenders:
            row: dict[str, Any] = {
                "model": contender.name,
                "seeds": len(contender.finished),
                "failed": len(contender.results) - len(contender.finished),
                "baseline": contender is self.baseline,
            }
            for metric in METRICS:
                values = [*contender.values(metric, self.split).values()]
                row |= {metric: _mean(values), f"{metric}_std": _spread(values)}
            row["valid_auc"] = _mean(contender.values("auc", "valid").values())
            row["rela_impr"] = relative_improvement(row["auc"], base)
            costs = [result["metrics"] for result in contender.finished.values()]
            row["parameters"] = costs[0]["parameters"] if costs else None
            row |= {cost: _mean(values[cost] for values in costs) for cost in COSTS}
            rows.append(row | tests.get(contender.name, {}))
        return rows

    def sentences(self) -> list[str]:
        """What the differences from the baseline are, in words, and whether they are more than noise."""
        said = [f"{self.baseline.name} is the baseline: of those named, the best on the valid split."]
        tests = self._tests()
        for contender in self._others:
            found = tests[contender.name]
            seeds = len(contender.finished.keys() & self.baseline.finished.keys())
            parts = [_in_words(title, metric, found, seeds) for metric, title in _TESTED.items()]
            if not math.isnan(found["group_auc_t"]):
                difference, verdict = found["group_auc_difference"], _verdict(found["group_auc_t"])
                parts.append(f"each group's AUC {difference:+.5f}, {verdict} over the groups")
            said.append(f"{contender.name}: {'; '.join(parts)}.")
        for contender in self.contenders:
            if failed := [seed for seed, result in contender.results.items() if "failed" in result]:
                why = contender.results[failed[0]]["failed"]
                said.append(f"{contender.name}: {len(failed)} of {len(contender.results)} seeds failed, {failed}: {why}")
        if max(len(contender.finished) for contender in self.contenders) == 1:
            said.append("One seed says nothing of chance: give `seeds: 5`.")
        runs = [result["environment"] for contender in self.contenders for result in contender.finished.values()]
        for name in DECIDE_BITS:
            if len(values := {str(run.get(name)) for run in runs}) > 1:
                said.append(f"The runs are not of one {name}: {', '.join(sorted(values))}. That differs, too.")
        return said

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain data: the table, the sentences, and each run's figures, settings and environment."""
        return {
            "split": self.split,
            "baseline": self.baseline.name,
            "manifest_sha256": self.manifest,
            "jobs": self.jobs,
            "rows": self.rows(),
            "sentences": self.sentences(),
            "contenders": [
                {
                    "name": contender.name,
                    "config": contender.config.to_dict(),
                    "results": {
                        str(seed): {key: value for key, value in result.items() if key not in ("groups", "folder")}
                        for seed, result in contender.results.items()
                    },
                }
                for contender in self.contenders
            ],
        }

    def save(self, folder: StrPath) -> None:
        """Write `comparison.json`, `comparison.csv` and `comparison.html` into a folder, each whole or not at all."""
        from tfctr.experiments.page import page

        rows, folder = self.rows(), Path(folder)
        names = [*dict.fromkeys(name for row in rows for name in row)]
        with atomic_file(folder / "comparison.csv") as file:
            writer = csv.DictWriter(file, names, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        write_json(folder / "comparison.json", without_nan(self.to_dict()))
        with atomic_file(folder / "comparison.html") as file:
            file.write(page(self))

    def _tests(self) -> dict[str, dict[str, float]]:
        """`{name: {figure: value}}` of all but the baseline."""
        found: dict[str, dict[str, float]] = {contender.name: {} for contender in self._others}
        theirs = {metric: self.baseline.values(metric, self.split) for metric in _TESTED}
        groups = self.baseline.group_aucs()
        for contender in self._others:
            tests = found[contender.name]
            for metric in _TESTED:
                ours = contender.values(metric, self.split)
                seeds = [seed for seed in ours if seed in theirs[metric]]
                pair = [ours[seed] for seed in seeds], [theirs[metric][seed] for seed in seeds]
                tests[f"{metric}_difference"] = _mean(np.subtract(*pair).tolist())
                tests |= {f"{metric}_t": paired_t_test(*pair), f"{metric}_wilcoxon": wilcoxon_test(*pair)}
            own = contender.group_aucs()
            tests |= {"group_auc_difference": math.nan, "group_auc_t": math.nan, "group_auc_wilcoxon": math.nan}
            if own is not None and groups is not None:
                used = ~np.isnan(own)
                pair = own[used], groups[used]
                tests["group_auc_difference"] = _mean(np.subtract(*pair))
                tests |= {"group_auc_t": paired_t_test(*pair), "group_auc_wilcoxon": wilcoxon_test(*pair)}
        for test in (f"{metric}_{kind}" for metric in (*_TESTED, "group_auc") for kind in ("t", "wilcoxon")):
            for name, value in zip(found, holm([tests[test] for tests in found.values()]), strict=True):
                found[name][test] = value
        return found


def _in_words(title: str, metric: str, found: dict[str, float], seeds: int) -> str:
    difference, p = found[f"{metric}_difference"], found[f"{metric}_t"]
    if not seeds:
        return f"{title}: no seed that both have"
    if math.isnan(difference):
        return f"{title} is not defined"
    if math.isnan(p):
        return (
            f"{title} {difference:+.5f}, {'in each' if seeds > 1 else 'of one'} seed" if difference else f"{title} is the same"
        )
    return f"{title} {difference:+.5f}, {_verdict(p)} over the seeds"


def _verdict(p: float) -> str:
    return f"more than noise (p = {p:.2g})" if p < _LEVEL else f"no more than noise (p = {p:.2g})"


def _mean(values: Any) -> float:
    values = [*values]
    return float(np.mean(values)) if values else math.nan


def _spread(values: Sequence[float]) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
