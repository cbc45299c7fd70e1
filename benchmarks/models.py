"""Every registered model with its defaults on one prepared dataset: parameters, training rows a second, AUC and log loss.

    python benchmarks/models.py --data runs/frappe/data [--models CETN DNN] [--epochs 1] [--batch-size 10000] [--json]

A first look that shows that each learns and what it costs, not a comparison: nothing is tuned, and there is one seed.
"""

import argparse
import json
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras

import tfctr
from tfctr.models import MODELS


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="a folder that `tfctr prepare` wrote")
    parser.add_argument("--models", nargs="+", choices=sorted(MODELS), default=sorted(MODELS))
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=10_000)
    parser.add_argument("--embedding-l2", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="one JSON object a model")
    arguments = parser.parse_args()
    dataset = tfctr.Dataset.load(arguments.data)
    if not arguments.json:
        print(f"{'model':<10}{'parameters':>12}{'rows/s':>10}{'AUC':>10}{'log loss':>10}")
    for name in arguments.models:
        values = measure(name, dataset, arguments)
        line = "{model:<10}{parameters:>12,}{rows_per_second:>10,.0f}{auc:>10.5f}{log_loss:>10.5f}"
        print(json.dumps(values) if arguments.json else line.format(**values), flush=True)


def measure(name, dataset, arguments):
    keras.utils.set_random_seed(arguments.seed)
    model = MODELS[name](dataset.schema, embedding_l2=arguments.embedding_l2)
    model.compile()
    batches = dataset.train.batches(arguments.batch_size, seed=arguments.seed)
    model.fit(batches.take(1), epochs=1, verbose=0)  # the graph is made; one step more than the epochs have
    start = time.perf_counter()
    model.fit(batches, epochs=arguments.epochs, verbose=0)
    seconds = time.perf_counter() - start
    scores = model.evaluate(dataset.valid.batches(arguments.batch_size), return_dict=True)
    return {
        "model": name,
        "parameters": model.count_params(),
        "rows_per_second": dataset.train.rows * arguments.epochs / seconds,
        "auc": scores["auc"],
        "log_loss": scores["log_loss"],
    }


if __name__ == "__main__":
    main()
