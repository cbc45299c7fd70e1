"""Every registered model with its defaults on one prepared dataset: cost, training rows a second, AUC and log loss.

    python benchmarks/models.py [--data runs/frappe/data] [--models CETN DNN] [--epochs 1] [--batch-size 10000] [--json FILE]

A first look that shows that each learns and what it costs, not a comparison: nothing is tuned, and there is one seed.
`MFLOP` are those of a training step, a row: three times the forward graph's as TensorFlow counts them, and the products of a
contrast. `share` is MFLOP a second over the rate of float32 matrix multiplication of benchmarks/training.py, taken before and
after each epoch: what is missing to 100 % went into what is not counted (gathers, normalizations, whole-table updates) or what
a processor does slowly (exponentials, many small products). BST and DIN read histories: see benchmarks/histories.py.
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf
from kit import made, results
from training import matmul_rate

from tfctr.losses.contrast import ContrastLoss
from tfctr.models import MODELS

HEADER = f"{'model':<10}{'parameters':>12}{'MFLOP':>9}{'rows/s':>10}{'share':>8}{'AUC':>10}{'log loss':>10}"
LINE = "{model:<10}{parameters:>12,}{megaflop:>9.3f}{rows_per_second:>10,.0f}{share:>8.0%}{auc:>10.5f}{log_loss:>10.5f}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a folder that `tfctr prepare` wrote; made clicks if absent")
    parser.add_argument("--models", nargs="+", choices=sorted(MODELS), default=sorted({*MODELS} - {"BST", "DIN"}))
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=10_000)
    parser.add_argument("--embedding-l2", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=1)
    results.add_option(parser)
    arguments = parser.parse_args()
    print(HEADER)
    figures = []
    with tempfile.TemporaryDirectory() as folder:
        dataset = made.load_or_make(arguments.data, Path(folder) / "data")
        for name in arguments.models:
            figures.append(measure(name, dataset, arguments))
            print(LINE.format(**figures[-1]), flush=True)
    results.keep(figures, arguments)


def measure(name, dataset, arguments):
    keras.utils.set_random_seed(arguments.seed)
    model = MODELS[name](dataset.schema, embedding_l2=arguments.embedding_l2)
    model.compile()
    batches = dataset.train.batches(arguments.batch_size, seed=arguments.seed)
    model.fit(batches.take(1), epochs=1, verbose=0)  # the graph is made; one step more than the epochs have
    seconds, rates = [], [matmul_rate()]
    for _ in range(arguments.epochs):
        start = time.perf_counter()
        model.fit(batches, epochs=1, verbose=0)
        seconds.append(time.perf_counter() - start)
        rates.append(matmul_rate())
    rows_per_second, flop = dataset.train.rows / statistics.median(seconds), 1e6 * megaflop(model, arguments.batch_size)
    scores = model.evaluate(dataset.valid.batches(arguments.batch_size), return_dict=True)
    return {
        "model": name,
        "parameters": model.count_params(),
        "megaflop": flop / 1e6,
        "rows_per_second": rows_per_second,
        "share": flop * rows_per_second / statistics.median(rates),
        "auc": scores["auc"],
        "log_loss": scores["log_loss"],
    }


def megaflop(model, batch_size):
    """Of a training step, a row."""
    rows = 100
    call = tf.function(lambda ids: model(ids, training=False), autograph=False)
    graph = call.get_concrete_function(tf.TensorSpec((rows, model.schema.width), "int32")).graph
    options = {**tf.compat.v1.profiler.ProfileOptionBuilder.float_operation(), "output": "none"}
    forward = tf.compat.v1.profiler.profile(graph, options=options).total_float_ops / rows
    forward += sum(einsum_flop(operation) for operation in graph.get_operations() if operation.type == "Einsum") / rows
    contrasts = [loss for loss in model.auxiliary.values() if isinstance(loss, ContrastLoss)]
    # A contrast compares a row with all others, and takes both gradients: three products of (1, units) and (units, batch).
    return (3 * forward + sum(6 * model.output[loss.left].shape[-1] * batch_size for loss in contrasts)) / 1e6


def einsum_flop(operation):
    """Which TensorFlow does not count."""
    inputs, _ = operation.get_attr("equation").decode().split("->")
    sizes = {}
    for letters, tensor in zip(inputs.split(","), operation.inputs, strict=True):
        sizes |= dict(zip(letters, tensor.shape, strict=True))
    return 2 * int(np.prod(list(sizes.values())))


if __name__ == "__main__":
    main()
