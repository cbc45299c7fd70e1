"""Rows a second and peak memory of `tfctr.evaluation.score` on a table of Criteo's shape, beside other ways to score it.

    python benchmarks/scoring.py --rows 1000000

The table is that of benchmarks/prepare.py. A model, not trained, scores all of its rows three times: as a raw table, to a
Parquet file; by `predict` over the ids that `prepare` has written; and by a client of a server, which runs in the client's
process here. Each is a process of its own; the probabilities are compared by bits.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from kit import results
from prepare import COUNTS, TOKENS, generate

BATCH = 10_000  # rows scored at a time, whoever scores them


def make(file, folder, name):
    """Prepare the table, and save a model for it."""
    import tfctr

    features = [*(tfctr.Numeric(count) for count in COUNTS), *(tfctr.Categorical(token, min_count=2) for token in TOKENS)]
    schema = tfctr.Schema(features=features, label="label")
    dataset = tfctr.prepare(schema, train=file, out=folder / "data")
    model = tfctr.models.MODELS[name](dataset.schema)
    model.compile()
    model.save(folder / "model.keras")


def score(file, folder, memory_limit):
    """Score the raw table."""
    import tfctr

    model = tfctr.load_model(folder / "model.keras", compile=False)
    start = time.perf_counter()
    said = tfctr.evaluation.score(model, file, out=folder / "scores.parquet", batch_size=BATCH, memory_limit=memory_limit)
    return figures(said["rows"], time.perf_counter() - start)


def predict(folder):
    """Score the prepared ids."""
    import tfctr

    model = tfctr.load_model(folder / "model.keras", compile=False)
    dataset = tfctr.Dataset.load(folder / "data", verify=False)
    start = time.perf_counter()
    probabilities = model.predict(dataset.train.batches(BATCH, shuffle=False), verbose=0)[:, 0]
    found = figures(len(probabilities), time.perf_counter() - start)
    np.save(folder / "predicted.npy", probabilities)
    return found


def serve(file, folder):
    """Send the raw table to a server."""
    import tfctr

    tfctr.serving.export(tfctr.load_model(folder / "model.keras", compile=False), folder / "served")
    whole_batches = {"max_rows": BATCH, "max_bytes": 2**30, "timeout": 60.0}
    with (
        tfctr.serving.LocalServer(folder / "served", port=0) as server,
        tfctr.serving.PredictionClient(server.target, model="served", **whole_batches) as client,
    ):
        start = time.perf_counter()
        probabilities = client.predict_file(file)
        found = figures(len(probabilities), time.perf_counter() - start)
    np.save(folder / "served.npy", probabilities)
    return found


def figures(rows, seconds):
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"rows": rows, "seconds": round(seconds, 1), "rows_per_second": round(rows / seconds), "peak_rss_mib": round(peak)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--model", default="DNN")
    parser.add_argument("--memory-limit", default="1GB", help="of the engine")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="where the table and the scores lie")
    parser.add_argument("--step", choices=["generate", "make", "score", "predict", "serve"], help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    results.add_option(parser)
    arguments = parser.parse_args()
    file = arguments.folder / f"tfctr-benchmark-{arguments.rows}.parquet"
    if arguments.step:
        steps = {
            "generate": lambda: generate(file, arguments.rows),
            "make": lambda: make(file, arguments.work, arguments.model),
            "score": lambda: score(file, arguments.work, arguments.memory_limit),
            "predict": lambda: predict(arguments.work),
            "serve": lambda: serve(file, arguments.work),
        }
        print(json.dumps(steps[arguments.step]()))
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder) as work:
        found = {}
        for step in (*([] if file.exists() else ["generate"]), "make", "score", "predict", "serve"):
            command = [sys.executable, __file__, *sys.argv[1:], "--step", step, "--work", work]
            answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1]
            found[step] = json.loads(answer)
        found = {step: found[step] for step in ("score", "predict", "serve")}
        found["rows whose bits differ"] = {other: differing(Path(work), other) for other in ("predicted", "served")}
    for name, values in found.items():
        print(name, values)
    del arguments.step, arguments.work
    results.keep(found, arguments)


def differing(folder, other):
    from pyarrow import parquet

    scored = parquet.read_table(folder / "scores.parquet")["probability"].to_numpy()
    return int((scored.view(np.uint32) != np.load(folder / f"{other}.npy").view(np.uint32)).sum())


if __name__ == "__main__":
    main()
