"""Latency and throughput of exported models, run as TensorFlow Serving runs them, by the C API, and without gRPC.

    python benchmarks/inference.py [--data runs/frappe/data] [--models TF4CTR CETN] [--batches 1 64 512]
        [--tables float32 int8] [--json FILE]

Weights are those of a new model: they do not change the cost. The signatures `ids` and `serving_default` (text and numbers) and
the forms of the tables take turns, one call after the other, in one thread of ours; TensorFlow uses the processors as it likes.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
from kit import made, results

from tfctr import serving
from tfctr.models import MODELS
from tfctr.serving.exporting.compression import FORMS
from tfctr.serving.exporting.golden import golden_rows
from tfctr.serving.runtime.saved_model import SavedModel

HEADER = f"{'model':<10}{'tables':<9}{'signature':<17}{'batch':>6}{'median ms':>11}{'p99 ms':>9}{'rows/s':>12}"
LINE = "{model:<10}{tables:<9}{signature:<17}{batch:>6}{median_ms:>11.3f}{p99_ms:>9.3f}{rows_per_second:>12,.0f}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a folder that `tfctr prepare` wrote; made clicks if absent")
    parser.add_argument("--models", nargs="+", choices=sorted(MODELS), default=["DNN", "TF4CTR", "CETN"])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 64, 512])
    parser.add_argument("--tables", nargs="+", choices=["float32", *FORMS], default=["float32"])
    parser.add_argument("--calls", type=int, default=1_000, help="of each signature and batch size")
    results.add_option(parser)
    arguments = parser.parse_args()
    print(HEADER)
    figures = []
    with tempfile.TemporaryDirectory() as folder:
        dataset = made.load_or_make(arguments.data, Path(folder) / "data")
        for name in arguments.models:
            for line in measure(name, dataset, arguments):
                figures.append(line)
                print(LINE.format(**line), flush=True)
    results.keep(figures, arguments)


def measure(name, dataset, arguments):
    with tempfile.TemporaryDirectory() as folder:
        models = {form: exported(name, dataset, form, folder) for form in arguments.tables}
        for batch in arguments.batches:
            raw = {name: column[-batch:] for name, column in golden_rows(dataset.schema, batch + 16).items()}
            inputs = {"ids": {"ids": dataset.valid.ids[:batch]}, "serving_default": raw}
            seconds = {(form, signature): [] for form in models for signature in inputs}
            for _ in range(arguments.calls):
                for (form, signature), times in seconds.items():
                    start = time.perf_counter()
                    models[form].run(signature, inputs[signature])
                    times.append(time.perf_counter() - start)
            for (form, signature), times in seconds.items():
                median, p99 = np.quantile(times, [0.5, 0.99])
                line = {"model": name, "tables": form, "signature": signature, "batch": batch}
                yield {**line, "median_ms": 1e3 * median, "p99_ms": 1e3 * p99, "rows_per_second": batch / median}


def exported(name, dataset, form, folder):
    model = MODELS[name](dataset.schema)
    tables = None if form == "float32" else serving.compress_tables(model, dataset.valid, form)
    return SavedModel(serving.export(model, folder, tables=tables, check=False))


if __name__ == "__main__":
    main()
