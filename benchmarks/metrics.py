"""Seconds of our exact metrics beside scikit-learn's, on the same rows, in one run.

    python benchmarks/metrics.py [--rows 5000000] [--groups 100000] [--repeats 3] [--fuxictr PYTHON] [--json FILE]

The two sides take turns, so that a busy machine disturbs both. scikit-learn has no grouped AUC: its side is one
`roc_auc_score` a group, timed over the first 1,000 groups and scaled to all; and so is that of FuxiCTR's own gAUC, with a
Python that has it (see benchmarks/peers.py).
"""

import argparse
import itertools
import statistics
import subprocess
import time
from pathlib import Path

import numpy as np
from kit import results
from sklearn.metrics import log_loss, roc_auc_score

from tfctr import metrics

SCALED_GROUPS = 1_000


def main():
    arguments = parse_arguments()
    figures = {name: compare(arguments.repeats, *calls) for name, calls in contests(arguments).items()}
    print(table(figures))
    results.keep(figures, arguments)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--groups", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--fuxictr", type=Path, help="a Python with fuxictr")
    results.add_option(parser)
    return parser.parse_args()


def contests(arguments):
    """Name to (our call, the other's call, how much of the work the latter does)."""
    rows, groups = arguments.rows, arguments.groups
    rng = np.random.default_rng(0)
    labels = (rng.random(rows) < 0.25).astype(np.float32)
    scores = 1 / (1 + np.exp(-rng.normal(loc=labels)))
    users = np.sort(rng.integers(0, groups, rows))
    weights = rng.gamma(1.0, size=rows)
    float32 = scores.astype(np.float32)
    share = min(1.0, SCALED_GROUPS / groups)
    gauc = f"gAUC, float32, {groups:,} groups"
    contests = {
        "AUC, float32": (lambda: metrics.auc(labels, float32), lambda: roc_auc_score(labels, float32), 1.0),
        "AUC, float64": (lambda: metrics.auc(labels, scores), lambda: roc_auc_score(labels, scores), 1.0),
        "AUC, float32, weights": (
            lambda: metrics.auc(labels, float32, weights),
            lambda: roc_auc_score(labels, float32, sample_weight=weights),
            1.0,
        ),
        gauc: (
            lambda: metrics.group_auc(labels, float32, users),
            lambda: one_call_a_group(labels, float32, users),
            share,
        ),
        "log loss, float32": (lambda: metrics.log_loss(labels, float32), lambda: log_loss(labels, float32), 1.0),
    }
    if arguments.fuxictr:
        first = slice(np.searchsorted(users, SCALED_GROUPS))
        contests[f"{gauc}, FuxiCTR"] = (
            contests[gauc][0],
            FuxiCTR(arguments.fuxictr, labels[first], float32[first], users[first]),
            share,
        )
    return contests


class FuxiCTR:
    """FuxiCTR's gAUC in another Python, which says how long it took."""

    def __init__(self, python, *columns):
        self.python, self.columns = python, np.stack(columns).astype("float64").tobytes()

    def __call__(self):
        """Seconds, as the other Python measured them: its imports are no part of it."""
        command = [self.python, Path(__file__).parent / "contenders" / "fuxictr_gauc.py"]
        return float(subprocess.run(command, input=self.columns, check=True, capture_output=True).stdout)


def one_call_a_group(labels, scores, sorted_users):
    edges = np.flatnonzero(np.diff(sorted_users, prepend=-1, append=-1))[: SCALED_GROUPS + 1]
    for start, stop in itertools.pairwise(edges):
        if 0 < labels[start:stop].sum() < stop - start:
            roc_auc_score(labels[start:stop], scores[start:stop])


def compare(repeats, ours, theirs, share):
    seconds = [(measure(ours), measure(theirs) / share) for _ in range(repeats)]
    medians = [statistics.median(side) for side in zip(*seconds, strict=True)]
    return {"tfctr_s": medians[0], "other_s": medians[1], "ratio": medians[1] / medians[0]}


def measure(call):
    start = time.perf_counter()
    seconds = call()
    return seconds if isinstance(call, FuxiCTR) else time.perf_counter() - start


def table(figures):
    lines = [f"{'median seconds, beside scikit-learn':44}{'tfctr':>10}{'the other':>14}{'ratio':>8}"]
    for name, result in figures.items():
        lines.append(f"{name:44}{result['tfctr_s']:10.3f}{result['other_s']:14.3f}{result['ratio']:7.1f}x")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
