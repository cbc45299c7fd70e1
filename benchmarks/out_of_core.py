"""Training and evaluating from disk on a split that is larger than what may stay in memory: rows a second, and memory.

    python benchmarks/out_of_core.py [--rows 50000000] [--columns 39] [--model LR] [--folder /tmp] [--json FILE]

The ids (4 bytes each: 7.8 GB by default) are written to a temporary folder and removed afterwards. `peak` is the largest
resident memory of the process so far, with Python and TensorFlow; `before` is what it was before the first batch. Evaluating
keeps labels and probabilities in memory, 8 bytes a row, and exact AUC sorts them.
"""

import argparse
import os
import resource
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
from kit import results

from tfctr.data import Split
from tfctr.evaluation import evaluate
from tfctr.features import Categorical
from tfctr.models import MODELS
from tfctr.schema import Schema

TOKENS, SHARD = 1_000, 2_000_000


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=50_000_000)
    parser.add_argument("--columns", type=int, default=39)
    parser.add_argument("--batch-size", type=int, default=10_000)
    parser.add_argument("--model", choices=sorted(MODELS), default="LR")
    parser.add_argument("--folder", type=Path, help="where there is room; by default the system's temporary folder")
    results.add_option(parser)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        result = measure(write(Path(folder), arguments), arguments)
    line = (
        "{rows:,} rows, {gigabytes:.1f} GB of ids: {rows_per_second:,.0f} rows/s, peak {peak:,.0f} MiB ({before:,.0f} before); "
        "evaluated {evaluated_per_second:,.0f} rows/s, peak {evaluated_peak:,.0f} MiB"
    )
    print(line.format(**result))
    results.keep(result, arguments)


def write(folder, arguments):
    rng = np.random.default_rng(0)
    offsets = np.arange(arguments.columns, dtype=np.int32) * TOKENS
    shards = []
    for start in range(0, arguments.rows, SHARD):
        rows = min(SHARD, arguments.rows - start)
        np.save(folder / f"{start}.npy", rng.integers(3, TOKENS, (rows, arguments.columns), dtype=np.int32) + offsets)
        shards.append(np.load(folder / f"{start}.npy", mmap_mode="r").view(np.ndarray))
    return Split("train", shards, rng.integers(0, 2, arguments.rows).astype(np.float32))


def measure(split, arguments):
    schema = Schema(features=[Categorical(f"f{i}", size=TOKENS) for i in range(arguments.columns)], label="click")
    model = MODELS[arguments.model](schema)
    model.compile()
    batches = split.batches(arguments.batch_size)
    before, start = peak(), time.perf_counter()
    model.fit(batches, epochs=1, verbose=0)
    trained, trained_peak = time.perf_counter(), peak()
    evaluate(model, split, batch_size=arguments.batch_size)
    return {
        "rows": split.rows,
        "gigabytes": 4 * split.rows * split.width / 1e9,
        "model": arguments.model,
        "rows_per_second": split.rows / (trained - start),
        "before": before,
        "peak": trained_peak,
        "evaluated_per_second": split.rows / (time.perf_counter() - trained),
        "evaluated_peak": peak(),
    }


def peak():
    """MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
