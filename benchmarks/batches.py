"""Rows a second of our shuffled batches, in memory and from disk, beside the usual `tf.data` pipeline, in one run.

    python benchmarks/batches.py [--rows 1000000] [--columns 39] [--batch-size 4096] [--repeats 3] [--json FILE]

The usual pipeline is `from_tensor_slices((ids, labels)).shuffle(...).batch(...).prefetch(2)` over the same matrix. All take
turns, so that a busy machine disturbs each. Nothing consumes the batches: this is the most that a pipeline can deliver.
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf
from kit import results

from tfctr.data import Split


def main():
    arguments = parse_arguments()
    with tempfile.TemporaryDirectory() as folder:
        pipelines = make_pipelines(Path(folder), arguments.rows, arguments.columns, arguments.batch_size)
        rates = {name: [] for name in pipelines}
        for _ in range(arguments.repeats):
            for name, batches in pipelines.items():
                rates[name].append(arguments.rows / seconds(batches))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    print(table(medians))
    results.keep(medians, arguments)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--columns", type=int, default=39)
    parser.add_argument("--batch-size", type=int, default=4096)
    parser.add_argument("--repeats", type=int, default=3)
    results.add_option(parser)
    return parser.parse_args()


def make_pipelines(folder, rows, columns, batch_size):
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 1_000_000, size=(rows, columns), dtype=np.int32)
    labels = rng.integers(0, 2, size=rows).astype(np.float32)
    in_memory = Split.from_arrays(ids, labels)
    from_disk = Split("train", write_shards(folder, ids), labels)
    from_disk.memory_limit = 0
    usual = tf.data.Dataset.from_tensor_slices((ids, labels[:, None])).shuffle(10 * batch_size).batch(batch_size).prefetch(2)
    return {
        "tfctr, in memory": in_memory.batches(batch_size),
        "tfctr, from disk": from_disk.batches(batch_size),
        "from_tensor_slices": usual,
    }


def write_shards(folder, ids, shards=4):
    files = [folder / f"ids-{number:05d}.npy" for number in range(shards)]
    for file, part in zip(files, np.array_split(ids, shards), strict=True):
        np.save(file, part)
    return [np.load(file, mmap_mode="r") for file in files]


def seconds(batches):
    start = time.perf_counter()
    for _ in batches:
        pass
    return time.perf_counter() - start


def table(medians):
    naive = medians["from_tensor_slices"]
    lines = [f"{'shuffled batches':24}{'rows/s':>12}{'ratio':>8}"]
    lines += [f"{name:24}{rate:12,.0f}{rate / naive:7.1f}x" for name, rate in medians.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
