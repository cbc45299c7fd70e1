"""What a request costs: encoding in the client, the model's work, and the whole call to the local stand-in over loopback.

    python benchmarks/serving.py [--model DNN] [--history 20] [--candidates 4] [--batches 1 64 512] [--json FILE]

The same rows are sent as texts (lists of them, or a DataFrame), as prepared ids, and by `rank`, which takes once the features
that all candidates share: all but the last `--candidates` features. `encode` is from these to the bytes of a request; `compute`
the exported model alone, by the strict loader; `call` is the client's method. What `call` has above these two is gRPC and the
stand-in, which is Python in this process: TensorFlow Serving needs less. The clicks are made: ten columns of text of Frappe's
shape, of which the last four are the candidates', and the items that a user has seen if `--history` says how many.
"""

import argparse
import contextlib
import functools
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
from tfctr.serving.exporting.raw_features import RawFeatures
from tfctr.serving.runtime.saved_model import SavedModel
from tfctr.serving.wire.protocol import pack
from tfctr.serving.wire.rows import to_columns

TURN = 20  # calls of one work, before it is the next one's turn
LINE = "{batch:>6}  {inputs:<22}{encode_ms:>10.3f}{compute_ms:>12.3f}{call_ms:>10.3f}{call_p99_ms:>10.3f}"
HEADER = f"{'batch':>6}  {'inputs':<22}{'encode ms':>10}{'compute ms':>12}{'call ms':>10}{'p99 ms':>10}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=sorted(MODELS), default="DNN")
    parser.add_argument("--history", type=int, default=0, help="how many tokens a sequence of the user's has")
    parser.add_argument("--candidates", type=int, default=4, help="how many features differ among the candidates of `rank`")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 64, 512])
    parser.add_argument("--calls", type=int, default=500, help="of each kind and batch size")
    results.add_option(parser)
    arguments = parser.parse_args()
    print(HEADER)
    with tempfile.TemporaryDirectory() as folder:
        schema = made.dataset(Path(folder) / "data", rows=50_000, history=arguments.history).schema
        base, own = Path(folder) / "clicks", [feature.name for feature in schema.features[-arguments.candidates :]]
        version = serving.export(MODELS[arguments.model](schema), base, candidates=own, check=False)
        with serving.LocalServer(base, port=0) as server:
            options = {"model": "clicks", "max_rows": max(arguments.batches), "timeout": 60}
            with contextlib.ExitStack() as stack:
                clients = {
                    signature: stack.enter_context(serving.PredictionClient(server.target, signature=signature, **options))
                    for signature in ("serving_default", "ids")
                }
                model, figures = SavedModel(version), []
                for batch in arguments.batches:
                    kinds = requests(made_rows(batch, arguments.history), schema, own, clients)
                    figures += measure(batch, kinds, model, arguments.calls)
    for batch in arguments.batches:
        calls = {line["inputs"]: line["call_ms"] for line in figures if line["batch"] == batch}
        print(f"{batch:>6}  rank: {calls['lists of texts'] / calls['rank']:.2f} times as fast as full rows")
    results.keep(figures, arguments)


def made_rows(batch, history):
    """Lists of texts, by column: rows that training has not seen."""
    return made.clicks(batch, seed=1, history=history).drop_columns(["label"]).to_pydict()


def requests(rows, schema, own, clients):
    """For each kind of inputs: how to encode them, the signature and what it takes, and how to call."""
    columns = {name: np.array([text.encode() for text in texts], object) for name, texts in rows.items()}
    ids = RawFeatures(schema)(columns).numpy()
    specs = {name: (column.dtype, (None,)) for name, column in columns.items()}
    table = pd.DataFrame(rows)
    user = {name: values[0] for name, values in rows.items() if name not in own}
    candidates = {name: rows[name] for name in own}
    ranked = {name: column if name in own else column[:1] for name, column in columns.items()}
    matrix, matrix_spec = {"ids": ids}, {"ids": (ids.dtype, (None, ids.shape[1]))}
    shared, differing = ({name: specs[name] for name in part} for part in (user, candidates))
    default, by_ids = clients["serving_default"].predict, clients["ids"].predict
    ranking = clients["serving_default"].rank

    def encode_rank():
        return pack(to_columns([user], shared)) + pack(to_columns(candidates, differing))

    return {
        "lists of texts": (lambda: pack(to_columns(rows, specs)), "serving_default", columns, lambda: default(rows)),
        "DataFrame of texts": (lambda: pack(to_columns(table, specs)), "serving_default", columns, lambda: default(table)),
        "ids": (lambda: pack(to_columns(matrix, matrix_spec)), "ids", matrix, lambda: by_ids(matrix)),
        "rank": (encode_rank, "rank", ranked, lambda: ranking(user, candidates)),
    }


def measure(batch, kinds, model, calls):
    """A line of figures for each kind of inputs."""
    works = {}
    for inputs, (encode, signature, arrays, call) in kinds.items():
        compute = functools.partial(model.run, signature, arrays)
        works |= {(inputs, "encode"): encode, (inputs, "compute"): compute, (inputs, "call"): call}
    seconds, lines = timed(works, calls), []
    for inputs in kinds:
        line = {"batch": batch, "inputs": inputs}
        line |= {f"{part}_ms": 1e3 * np.median(seconds[inputs, part]) for part in ("encode", "compute", "call")}
        line["call_p99_ms"] = 1e3 * np.quantile(seconds[inputs, "call"], 0.99)
        print(LINE.format(**line), flush=True)
        lines.append(line)
    return lines


def timed(works, calls):
    """The seconds of each call: all works take turns, `TURN` calls each, after one that does not count."""
    seconds = {name: [] for name in works}
    for _ in range(-(-calls // TURN)):
        for name, work in works.items():
            work()
            for _ in range(TURN):
                start = time.perf_counter()
                work()
                seconds[name].append(time.perf_counter() - start)
    return seconds


if __name__ == "__main__":
    main()
