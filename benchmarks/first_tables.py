"""The page's commands on tables that nobody tuned a model for, beside logistic regression and LightGBM on the same rows.

    python benchmarks/first_tables.py --lightgbm lightgbm/bin/python [--tables ids numbers rare] [--seeds 1 2 3]
        [--model TF4CTR] [--json FILE]

Three made tables of different nature: many ids; mostly numbers, many of them repeated; and 0.2 % clicks. Each goes, as CSV
files, through `tfctr infer`, `prepare`, `train` and `evaluate` with their defaults alone. The peers are a process of their own
(`contenders/tabular.py`), in an environment of their own; where it has no LightGBM, logistic regression is the only one:

    python -m venv lightgbm && lightgbm/bin/pip install lightgbm scikit-learn pandas

Figures are those of the test rows; each seed makes another table, and other initial weights.
"""

import argparse
import csv
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from kit import results
from kit.tables import ROWS, TABLES

HERE = Path(__file__).parent
SPLITS = {"train": 0.6, "valid": 0.2, "test": 0.2}
METRICS = ("auc", "log_loss", "pcoc")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--rows", type=int, help="of all splits; 50,000, and 300,000 of the table with rare clicks, if absent")
    parser.add_argument("--model", default="TF4CTR")
    parser.add_argument("--lightgbm", type=Path, default=Path(sys.executable), help="a Python with lightgbm and scikit-learn")
    results.add_option(parser)
    arguments = parser.parse_args()
    figures = {table: [] for table in arguments.tables}
    for seed in arguments.seeds:
        for table in arguments.tables:
            with tempfile.TemporaryDirectory() as folder:
                figures[table].append({"seed": seed, **compare(Path(folder), table, seed, arguments)})
            print(table, json.dumps(figures[table][-1]), file=sys.stderr, flush=True)
            results.keep(figures, arguments)
    print(markdown(figures))


def compare(folder, table, seed, arguments):
    """The figures of one table by contender."""
    write(folder, TABLES[table](np.random.default_rng(seed), arguments.rows or ROWS[table]))
    files = [option for split in SPLITS for option in (f"--{split}", folder / f"{split}.csv")]
    tfctr("infer", folder / "train.csv", "--label", "click", "--out", folder / "schema.yaml")
    tfctr("prepare", folder / "schema.yaml", *files, "--out", folder / "data")
    run = tfctr("train", "--data", folder / "data", "--out", folder / "run", "--model", arguments.model, "--seed", seed)
    ours = tfctr("evaluate", folder / "run", "--split", "test")
    peers = [arguments.lightgbm, HERE / "contenders" / "tabular.py", folder, str(seed)]
    peers = json.loads(subprocess.run(peers, check=True, stdout=subprocess.PIPE, text=True).stdout)
    best = {"epochs": run["epochs"], "seconds_per_epoch": run["seconds_per_epoch"]}
    return {
        "constant": {"auc": 0.5, "log_loss": ours["log_loss_of_constant"], "pcoc": 1.0},
        **peers,
        f"tfctr {arguments.model}": {name: ours[name] for name in METRICS} | best,
    }


def write(folder, columns):
    """The columns as one CSV file a split."""
    rows = list(zip(*(column.tolist() for column in columns.values()), strict=True))
    ends = np.cumsum([int(len(rows) * share) for share in SPLITS.values()])
    for split, start, end in zip(SPLITS, [0, *ends], ends, strict=False):
        with open(folder / f"{split}.csv", "w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([list(columns), *rows[start:end]])


def tfctr(*command):
    """What a command of `tfctr` prints as JSON."""
    command = [sys.executable, "-m", "tfctr", *map(str, command), "--json"]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout)


def markdown(figures):
    """A table of means, with standard deviations, over the seeds.

    >>> run = {"auc": 0.8, "log_loss": 0.4, "pcoc": 1.02}
    >>> print(markdown({"ids": [{"LightGBM": run}, {"LightGBM": run}]}))
    | table | model | AUC | log loss | predicted over observed |
    |---|---|---|---|---|
    | ids | LightGBM | 0.8000 ± 0.0000 | 0.40000 ± 0.00000 | 1.02 ± 0.00 |
    """
    lines = ["| table | model | AUC | log loss | predicted over observed |", "|---|---|---|---|---|"]
    for table, runs in figures.items():
        for contender in [name for name in runs[0] if name != "seed"]:
            values = {name: np.array([run[contender][name] for run in runs]) for name in METRICS}
            cells = [
                f"{values[name].mean():.{places}f} ± {values[name].std():.{places}f}"
                for name, places in zip(METRICS, (4, 5, 2), strict=True)
            ]
            lines.append(f"| {table} | {contender} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
