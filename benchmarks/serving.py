"""What a request costs: encoding in the client, the model's work, and the whole call to the local stand-in over loopback.

    python benchmarks/serving.py [--data runs/frappe/data] [--model DNN] [--batches 1 64 512] [--calls 500] [--json FILE]

`encode` is from lists of values, or a DataFrame, to the bytes of a request; `compute` the exported model alone, by the strict
loader; `call` is `PredictionClient.predict`. What `call` has above these two is gRPC and the stand-in, which is Python in this
process: TensorFlow Serving needs less. Without `--data`, clicks of Frappe's shape are made: ten columns of text.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import pandas as pd
from kit import made, results

from tfctr import serving
from tfctr.models import MODELS
from tfctr.serving.calls import pack
from tfctr.serving.golden import golden_rows
from tfctr.serving.loader import SavedModel
from tfctr.serving.rows import to_columns

HEADER = f"{'batch':>6}{'encode ms':>12}{'DataFrame ms':>14}{'compute ms':>12}{'call ms':>10}{'p99 ms':>9}"
LINE = "{batch:>6}{encode_ms:>12.3f}{encode_dataframe_ms:>14.3f}{compute_ms:>12.3f}{call_ms:>10.3f}{call_p99_ms:>9.3f}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a folder that `tfctr prepare` wrote; made clicks if absent")
    parser.add_argument("--model", choices=sorted(MODELS), default="DNN")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 64, 512])
    parser.add_argument("--calls", type=int, default=500, help="of each kind and batch size")
    results.add_option(parser)
    arguments = parser.parse_args()
    print(HEADER)
    with tempfile.TemporaryDirectory() as folder:
        dataset = made.load_or_make(arguments.data, Path(folder) / "data")
        base = Path(folder) / "clicks"
        model = SavedModel(serving.export(MODELS[arguments.model](dataset.schema), base, check=False))
        with serving.LocalServer(base, port=0) as server:
            client = serving.PredictionClient(server.target, model="clicks", max_rows=max(arguments.batches))
            with client:
                figures = [measure(batch, dataset.schema, model, client, arguments.calls) for batch in arguments.batches]
    results.keep(figures, arguments)


def measure(batch, schema, model, client, calls):
    known = slice(16, 16 + batch)  # golden rows begin with strange ones, and end with a mixture
    columns = {name: column[known] for name, column in golden_rows(schema, 2 * batch + 32).items()}
    inputs = {name: (column.dtype, (None,)) for name, column in columns.items()}
    rows = {name: [plain(value) for value in column.tolist()] for name, column in columns.items()}
    table = pd.DataFrame(rows)
    kinds = {
        "encode": lambda: pack(to_columns(rows, inputs)),
        "encode_dataframe": lambda: pack(to_columns(table, inputs)),
        "compute": lambda: model.run("serving_default", columns),
        "call": lambda: client.predict(rows),
    }
    seconds = {kind: timed(call, calls) for kind, call in kinds.items()}
    line = {"batch": batch, **{f"{kind}_ms": 1e3 * np.median(times) for kind, times in seconds.items()}}
    line["call_p99_ms"] = 1e3 * np.quantile(seconds["call"], 0.99)
    print(LINE.format(**line), flush=True)
    return line


def plain(value):
    return value.decode() if isinstance(value, bytes) else value


def timed(call, calls):
    """The seconds of each call, after one that does not count."""
    call()
    seconds = []
    for _ in range(calls):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return seconds


if __name__ == "__main__":
    main()
