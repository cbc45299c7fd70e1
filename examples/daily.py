"""A week of new tables: every day its new ids are added to the vocabularies, and a warm start trains the model of the day
before on its rows. Each model is measured on the next day, beside the first one, which nobody trains further.

    python examples/daily.py [--rows 20000] [--out DIR]

The clicks are made: some users click more and some items are clicked more, a tenth of the users is new every day, and the best
possible AUC is known.
"""

import argparse
import io
import logging
import os
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
from rich.console import Console

import tfctr
from tfctr.evaluation import evaluate
from tfctr.metrics import auc
from tfctr.training import suggest, train

USERS, ITEMS, NEW_USERS = 2_000, 300, 200
logging.getLogger("tfctr").setLevel(logging.ERROR)  # else each table is a warning: the first model does not know its new users


def clicks(day, rows):
    """The table of a day, and the probabilities that its clicks were drawn with."""
    habits = np.random.default_rng(0).normal(size=7 * NEW_USERS + USERS + ITEMS)  # the same every day
    rng = np.random.default_rng(day)
    users = rng.integers(day * NEW_USERS, day * NEW_USERS + USERS, rows)
    items = rng.integers(0, ITEMS, rows)
    probabilities = 1 / (1 + np.exp(1 - habits[users + ITEMS] - habits[items]))
    clicked = (rng.random(rows) < probabilities).astype(int)
    return {"user": [f"u{user}" for user in users], "item": items.tolist(), "click": clicked.tolist()}, probabilities


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000, help="a day")
    parser.add_argument("--out", type=Path, help="an empty folder; a temporary one if absent")
    arguments = parser.parse_args()
    out = arguments.out or Path(tempfile.mkdtemp())
    days = [clicks(day, arguments.rows) for day in range(7)]
    quiet = Console(file=io.StringIO())

    schema = tfctr.Schema(features=[tfctr.Categorical("user"), tfctr.Categorical("item")], label="click")
    data = tfctr.prepare(schema, train=days[0][0], valid=0.1, out=out / "data-0")
    first = run = train(suggest(data, "DeepFM"), data, out / "run-0", quiet)
    print("day  new users  AUC on the next day: warm  first  best possible")
    for day in range(1, 6):
        table, (tomorrow, probabilities) = days[day][0], days[day + 1]
        data = tfctr.prepare(train=table, valid=0.1, extend=data, out=out / f"data-{day}")
        run = train(None, data, out / f"run-{day}", quiet, warm_start=run)
        new = run.environment["warm_start"]["features"]["user"]["new"]
        warm, stale = (evaluate(each, table=tomorrow)["auc"] for each in (run, first))
        best = auc(tomorrow["click"], probabilities)
        print(f"{day:>3}  {new:>9}  {warm:>25.4f}  {stale:.4f}  {best:>13.4f}", flush=True)


if __name__ == "__main__":
    main()
