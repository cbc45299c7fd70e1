"""Time of a training step against the size of the vocabulary, for each optimizer of the tables.

    python benchmarks/vocabulary.py [--vocabularies 10000 1000000] [--optimizers adam lazy_adam] [--model DNN] [--json FILE]

39 fields (Criteo's) share the vocabulary; ids are log-uniform, as clicks are. Each vocabulary is a process of its own, in which
the optimizers take turns on the same batches, so that a busy machine disturbs all alike. `cpu` is the process's time on all
cores, which neighbours disturb least. The largest vocabulary takes 15 GB of memory.
"""

import argparse
import multiprocessing
import os
import resource
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from kit import results
from kit.made import criteo_sizes


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocabularies", type=int, nargs="+", default=[10_000, 100_000, 1_000_000, 5_500_000, 20_000_000])
    parser.add_argument("--optimizers", nargs="+", default=["adam", "lazy_adam", "exact_lazy_adam"])
    parser.add_argument("--model", default="DNN")
    parser.add_argument("--batch-size", type=int, default=4_096)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=4, help="of each optimizer in a round")
    results.add_option(parser)
    arguments = parser.parse_args()
    figures = []
    print(f"{'vocabulary':>12} {'optimizer':<16}{'ms/step':>9}{'best':>9}{'cpu ms':>9}{'samples/s':>11}{'peak MiB':>10}")
    for vocabulary in arguments.vocabularies:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            lines = pool.apply(measure, (vocabulary, arguments))
        for line in lines:
            row = "{vocabulary:>12,} {optimizer:<16}{median:>9.1f}{best:>9.1f}{cpu:>9.1f}{samples:>11,.0f}{peak:>10,.0f}"
            print(row.format(**line), flush=True)
        figures += lines
    results.keep(figures, arguments)


def measure(vocabulary, arguments):
    import numpy as np

    from tfctr.data import Split
    from tfctr.features import Categorical
    from tfctr.models import MODELS
    from tfctr.schema import Schema

    sizes = criteo_sizes(vocabulary)
    schema = Schema(features=[Categorical(f"f{i}", size=size) for i, size in enumerate(sizes)], label="click")
    rng, rows = np.random.default_rng(0), arguments.steps * arguments.batch_size
    columns = [field.offset + np.floor(field.feature.size ** rng.random(rows)) - 1 for field in schema.fields]
    labels = rng.integers(0, 2, rows).astype("float32")
    batches = Split.from_arrays(np.stack(columns, axis=1).astype("int32"), labels).batches(arguments.batch_size)
    models = {}
    for optimizer in arguments.optimizers:
        models[optimizer] = MODELS[arguments.model](schema)
        models[optimizer].compile(optimizer=optimizer)
        models[optimizer].fit(batches, epochs=1, verbose=0)  # trace
    walls, cpus = {name: [] for name in models}, {name: [] for name in models}
    for _ in range(arguments.rounds):
        for name, model in models.items():
            wall, cpu = time.perf_counter(), time.process_time()
            iterator = iter(batches)
            for _ in range(arguments.steps):
                logs = model.train_function(iterator)
            float(logs["loss"])
            walls[name].append((time.perf_counter() - wall) / arguments.steps)
            cpus[name].append((time.process_time() - cpu) / arguments.steps)
    return [
        {
            "vocabulary": vocabulary,
            "model": arguments.model,
            "optimizer": name,
            "median": 1e3 * statistics.median(walls[name]),
            "best": 1e3 * min(walls[name]),
            "cpu": 1e3 * statistics.median(cpus[name]),
            "samples": arguments.batch_size / statistics.median(walls[name]),
            "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,  # of all together
        }
        for name in models
    ]


if __name__ == "__main__":
    main()
