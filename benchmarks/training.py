"""Training throughput of the models on ids shaped like Frappe, and their share of this machine's matrix-multiplication rate.

    python benchmarks/training.py [--models TF4CTR DNN] [--rounds 7] [--steps 10] [--batch-size 10000] [--json FILE]

Each round measures the rate of float32 matrix multiplication (TensorFlow's, the three products of a 400 x 400 layer: forward,
and both of its gradients) and then `steps` training steps of each model through `fit`, so that a busy machine disturbs all
alike. The share is `multiply-adds of the dense kernels * 6 * samples a second / rate`: two operations each, forward and twice
backward.
"""

import argparse
import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf
from kit import results
from kit.made import FRAPPE_SIZES

from tfctr.data import Split
from tfctr.features import Categorical
from tfctr.layers import MLP
from tfctr.models import MODELS
from tfctr.schema import Schema

NETWORK = {"dropout": 0.2, "batch_norm": True}
BEST_TF4CTR = {
    "simple_encoder": lambda: MLP([400, 400], **NETWORK),
    "complex_encoder": lambda: MLP([400, 400, 400], **NETWORK),
    "gamma": 1.0,
    "c": 0.7,
}


def main():
    arguments = parse_arguments()
    schema = Schema(features=[Categorical(f"f{i}", size=size) for i, size in enumerate(FRAPPE_SIZES)], label="click")
    batches = frappe_like(schema, arguments.steps * arguments.batch_size).batches(arguments.batch_size)
    models = {name: make_model(name, schema, arguments.embedding_l2) for name in arguments.models}
    for model in models.values():
        model.fit(batches, epochs=1, verbose=0)  # trace
    rounds = [one_round(models, batches, arguments) for _ in range(arguments.rounds)]
    figures = summarize(rounds, models)
    print(table(figures))
    results.keep(figures, arguments)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["TF4CTR", "DNN", "DeepFM"], choices=sorted(MODELS))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=10_000)
    parser.add_argument("--embedding-l2", type=float, default=0.1)
    results.add_option(parser)
    return parser.parse_args()


def frappe_like(schema, rows):
    """Ids with a log-uniform (Zipf-like) spread in each field, and labels by chance."""
    rng = np.random.default_rng(0)
    columns = [field.offset + np.floor(field.feature.size ** rng.random(rows)) - 1 for field in schema.fields]
    return Split.from_arrays(np.stack(columns, axis=1).astype("int32"), rng.integers(0, 2, rows).astype("float32"))


def make_model(name, schema, embedding_l2):
    options = {key: make() if callable(make) else make for key, make in BEST_TF4CTR.items()} if name == "TF4CTR" else {}
    model = MODELS[name](schema, embedding_l2=embedding_l2, **options)
    model.compile()
    return model


def one_round(models, batches, arguments):
    measured = {"matmul": matmul_rate()}
    for name, model in models.items():
        start = time.perf_counter()
        model.fit(batches, epochs=1, verbose=0)
        measured[name] = arguments.steps * arguments.batch_size / (time.perf_counter() - start)
    return measured


@tf.function(autograph=False)
def _dense_layer(x, kernel):
    y = tf.matmul(x, kernel)  # forward
    dx = tf.matmul(y, kernel, transpose_b=True)  # gradient of the input
    dk = tf.matmul(x, y, transpose_a=True)  # gradient of the kernel
    return dx, dk


def matmul_rate(rows=10_000, units=400, repeats=5):
    """Floating-point operations a second of the three products of a dense layer."""
    x, kernel = tf.random.normal((rows, units)), tf.random.normal((units, units))
    _dense_layer(x, kernel)  # trace
    start = time.perf_counter()
    for _ in range(repeats):
        _dense_layer(x, kernel)[1].numpy()
    return 3 * repeats * 2 * rows * units * units / (time.perf_counter() - start)


def operations(model):
    """Floating-point operations of one training step, a sample: forward, and the gradients of input and kernel."""
    return 6 * sum(int(np.prod(w.shape)) for w in model.trainable_variables if w.path.endswith("kernel"))


def summarize(rounds, models):
    figures = {"matmul": _spread([measured["matmul"] / 1e9 for measured in rounds])}
    for name, model in models.items():
        shares = [measured[name] * operations(model) / measured["matmul"] for measured in rounds]
        figures[name] = {
            **_spread([measured[name] for measured in rounds]),
            "share_median": round(statistics.median(shares), 3),
            "share_best": round(max(shares), 3),
            "megaflop_a_sample": round(operations(model) / 1e6, 3),
            "parameters": model.count_params(),
        }
    return figures


def _spread(values):
    return {"median": round(statistics.median(values), 1), "best": round(max(values), 1)}


def table(figures):
    lines = [f"matrix multiplication: {figures['matmul']['median']} GFLOP/s (best {figures['matmul']['best']})", ""]
    lines.append(f"{'model':<10}{'samples/s':>12}{'best':>12}{'share':>8}{'best':>8}")
    for name, values in figures.items():
        if name in MODELS:
            lines.append(
                f"{name:<10}{values['median']:>12,.0f}{values['best']:>12,.0f}"
                f"{values['share_median']:>8.0%}{values['share_best']:>8.0%}"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
