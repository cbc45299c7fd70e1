"""Recall of two towers, of matrix factorisation and of the most clicked items, on the clicks of a test split.

    tfctr prepare examples/ml1m.yaml --train train.parquet --valid valid.parquet --test test.parquet --out runs/ml1m
    python benchmarks/retrieval.py --data runs/ml1m --item movie_id --out runs/retrievers [--epochs 4] [--seeds 1 2 3]

The recall at K is the share of the test clicks whose item is among the first K of all items but those that the same group (the
schema's, the user) has clicked on in training. All three learn from the training clicks alone, and of several epochs of the two
towers the best on the valid split counts. Matrix factorisation is that of implicit feedback, by alternating least squares, with
the users' and items' own numbers of clicks in the regularization: it knows users and items by name, and nothing else of them.

Reference: [Rendle et al., 2022](https://arxiv.org/abs/2110.14037).
"""

import argparse
import statistics
from pathlib import Path

import numpy as np
from kit import results
from threadpoolctl import threadpool_limits

import tfctr
from tfctr.retrieval import evaluate, load_retriever, train
from tfctr.retrieval.evaluating import Clicks

KS = (10, 50)


def factors(users, places, shape, dim, weight, regularization, sweeps, seed):
    """Vectors of users and items, `(users, dim)` and `(items, dim)`, of clicks `(users[i], places[i])`.

    They minimize, by turns, `sum over clicks of (1 - u v)^2 + weight * sum over all pairs of (u v)^2`, and for each vector
    `regularization * (its clicks + weight * those on the other side) * |vector|^2`.
    """
    rng = np.random.default_rng(seed)
    sides = [rng.normal(size=(count, dim), scale=0.1 / np.sqrt(dim)) for count in shape]
    pairs = [(users, places), (places, users)]
    grouped = [_grouped(*pair, count) for pair, count in zip(pairs, shape, strict=True)]
    for _ in range(sweeps):
        for side in (0, 1):
            others = sides[1 - side]
            every = weight * others.T @ others
            for one, clicked in enumerate(grouped[side]):
                own = others[clicked]
                penalty = regularization * (len(clicked) + weight * len(others)) * np.eye(dim)
                sides[side][one] = np.linalg.solve(every + own.T @ own + penalty, own.sum(axis=0))
    return sides


def _grouped(left, right, count):
    """For each of `count`, what it is paired with."""
    order = np.argsort(left, kind="stable")
    return np.split(right[order], np.searchsorted(left[order], np.arange(1, count)))


def factorisation(retriever, arguments, seed):
    """Its recall on the same clicks."""
    dataset = tfctr.Dataset.load(retriever.data, verify=False)
    split, training, items = dataset.splits[arguments.split], dataset.splits["train"], retriever.items
    known = Clicks(items, training)
    users = training.groups[known.rows]
    shape = (int(max(training.groups.max(), split.groups.max())) + 1, len(items))
    options = (arguments.dim, arguments.weight, arguments.regularization, arguments.sweeps, seed)
    with threadpool_limits(1):  # the matrices are small: threads would wait for one another
        of_users, of_items = factors(users, known.places, shape, *options)
    return Clicks(items, split, training).recall(lambda rows: of_users[split.groups[rows]] @ of_items.T, KS)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, required=True, help="a folder that `tfctr prepare` wrote, of a schema with a group"
    )
    parser.add_argument("--item", nargs="+", required=True, help="the item's features, first the one that names it")
    parser.add_argument("--out", type=Path, required=True, help="where the retrievers are kept")
    parser.add_argument("--epochs", type=int, default=4, help="of the two towers")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--split", default="test", help="valid, to choose a setting")
    parser.add_argument("--dim", type=int, default=64, help="of matrix factorisation, as the options below")
    parser.add_argument("--weight", type=float, default=0.1, help="of all pairs")
    parser.add_argument("--regularization", type=float, default=0.003)
    parser.add_argument("--sweeps", type=int, default=10)
    results.add_option(parser)
    arguments = parser.parse_args()
    figures = {"two towers": [], "matrix factorisation": []}
    for seed in arguments.seeds:
        folder = arguments.out / f"{seed}"
        found = load_retriever(folder) if folder.exists() else _train(folder, arguments, seed)
        values = evaluate(found, arguments.split, ks=KS)
        figures["two towers"].append({"seed": seed, **{f"recall_at_{k}": values[f"recall_at_{k}"] for k in KS}})
        figures["popularity"] = [{f"recall_at_{k}": values[f"popularity_recall_at_{k}"] for k in KS}]
        figures["matrix factorisation"].append({"seed": seed, **factorisation(found, arguments, seed)})
    print(f"{'':<22}" + "".join(f"{f'recall at {k}':>14}{'sd':>9}" for k in KS))
    for name, runs in figures.items():
        columns = [[values[f"recall_at_{k}"] for values in runs] for k in KS]
        spreads = [statistics.stdev(column) if len(column) > 1 else 0.0 for column in columns]
        cells = [f"{statistics.mean(column):>14.4f}{spread:>9.4f}" for column, spread in zip(columns, spreads, strict=True)]
        print(f"{name:<22}" + "".join(cells))
    results.keep(figures, arguments)


def _train(folder, arguments, seed):
    return train(arguments.data, folder, item=arguments.item, epochs=arguments.epochs, seed=seed)


if __name__ == "__main__":
    main()
