"""Seconds of our exact metrics beside scikit-learn's, on the same rows, in one run.

    python benchmarks/metrics.py [--rows 5000000] [--groups 100000] [--repeats 3] [--json]

The two sides take turns, so that a busy machine disturbs both. scikit-learn has no grouped AUC: its side is one
`roc_auc_score` a group, timed over the first 1,000 groups and scaled to all.
"""

import argparse
import itertools
import json
import statistics
import time

import numpy as np
from sklearn.metrics import log_loss, roc_auc_score

from tfctr import metrics

SCALED_GROUPS = 1_000


def main():
    arguments = parse_arguments()
    results = {name: compare(arguments.repeats, *calls) for name, calls in contests(arguments.rows, arguments.groups).items()}
    print(json.dumps(results, indent=2) if arguments.json else table(results))


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--groups", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return parser.parse_args()


def contests(rows, groups):
    """Name to (our call, scikit-learn's call, how much of the work the latter does)."""
    rng = np.random.default_rng(0)
    labels = (rng.random(rows) < 0.25).astype(np.float32)
    scores = 1 / (1 + np.exp(-rng.normal(loc=labels)))
    users = np.sort(rng.integers(0, groups, rows))
    weights = rng.gamma(1.0, size=rows)
    float32 = scores.astype(np.float32)
    share = min(1.0, SCALED_GROUPS / groups)
    return {
        "AUC, float32": (lambda: metrics.auc(labels, float32), lambda: roc_auc_score(labels, float32), 1.0),
        "AUC, float64": (lambda: metrics.auc(labels, scores), lambda: roc_auc_score(labels, scores), 1.0),
        "AUC, float32, weights": (
            lambda: metrics.auc(labels, float32, weights),
            lambda: roc_auc_score(labels, float32, sample_weight=weights),
            1.0,
        ),
        f"gAUC, float32, {groups:,} groups": (
            lambda: metrics.group_auc(labels, float32, users),
            lambda: one_call_a_group(labels, float32, users),
            share,
        ),
        "log loss, float32": (lambda: metrics.log_loss(labels, float32), lambda: log_loss(labels, float32), 1.0),
    }


def one_call_a_group(labels, scores, sorted_users):
    edges = np.flatnonzero(np.diff(sorted_users, prepend=-1, append=-1))[: SCALED_GROUPS + 1]
    for start, stop in itertools.pairwise(edges):
        if 0 < labels[start:stop].sum() < stop - start:
            roc_auc_score(labels[start:stop], scores[start:stop])


def compare(repeats, ours, theirs, share):
    seconds = [(measure(ours), measure(theirs) / share) for _ in range(repeats)]
    medians = [statistics.median(side) for side in zip(*seconds, strict=True)]
    return {"tfctr_s": medians[0], "scikit_learn_s": medians[1], "ratio": medians[1] / medians[0]}


def measure(call):
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def table(results):
    lines = [f"{'median seconds':32}{'tfctr':>10}{'scikit-learn':>14}{'ratio':>8}"]
    for name, result in results.items():
        lines.append(f"{name:32}{result['tfctr_s']:10.3f}{result['scikit_learn_s']:14.3f}{result['ratio']:7.1f}x")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
