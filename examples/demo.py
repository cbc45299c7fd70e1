"""The main job, from a raw table to a gRPC answer, on a synthetic table whose best possible scores are known.

    python examples/demo.py [--rows 100000] [--out demo]

Each step prints what it did; all files stay in the folder `demo`, which the next run of this script makes anew.
"""

import argparse
import json
import logging
import os
import shutil
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import pyarrow.parquet as parquet
from rich.console import Console
from rich.table import Table

import tfctr
from tfctr.config import Config
from tfctr.data.synthetic import best_possible, write_synthetic
from tfctr.evaluation import evaluate
from tfctr.serving import LocalServer
from tfctr.training import train

MLP = {"type": "MLP", "dropout": 0.1, "batch_norm": True}
MODELS = {
    "LR": {"embedding_l2": 0.001},
    "DNN": {"hidden_units": [128, 128], "dropout": 0.1, "batch_norm": True, "embedding_l2": 0.01},
    "TF4CTR": {
        "simple_encoder": {**MLP, "hidden_units": [128]},
        "complex_encoder": {**MLP, "hidden_units": [128, 128]},
        "embedding_l2": 0.01,
    },
}
TRAINING = {"batch_size": 1000, "epochs": 20, "learning_rate": 0.003}
MARKER = ".made-by-tfctr-demo"  # only a folder that holds this file is ever removed

console = Console()
# TensorFlow counts the tracings of all models together, and takes the first batches of several for too many of one.
logging.getLogger("tensorflow").setLevel(logging.ERROR)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--out", type=Path, default=Path("demo"))
    arguments = parser.parse_args()
    sys.stdout.reconfigure(encoding="utf-8")  # for the tables, whatever the locale
    out = arguments.out
    if out.exists() and not (out / MARKER).is_file() and (not out.is_dir() or any(out.iterdir())):
        parser.error(f"{out} holds something that this script did not make: choose another --out, or remove it")
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)
    (out / MARKER).touch()

    console.rule("1  A raw table, whose true click probabilities are known")
    files = write_synthetic(out / "table", arguments.rows)
    test = parquet.read_table(files["test"])
    console.print(f"{arguments.rows:,} rows in {out / 'table'}, columns: {', '.join(test.schema.names)}")

    console.rule("2  prepare: fit on train, ids on disk")
    schema = tfctr.Schema.load(out / "table" / "schema.yaml")
    dataset = tfctr.prepare(schema, **{name: str(path) for name, path in files.items()}, out=out / "data")
    console.print(f"{dataset.schema.table_rows:,} ids of {len(schema.features)} features in {out / 'data'}")

    console.rule("3  train: TF4CTR beside a linear model and an MLP")
    runs = {name: train(Config.from_dict(config(name)), out / "data", out / "runs" / name) for name in MODELS}

    console.rule("4  evaluate: rows that no model has seen")
    scores = {name: evaluate(run, "test") for name, run in runs.items()}
    console.print(score_table({**scores, "best possible": best_possible(test)}))

    console.rule("5  export: checked in a process that knows nothing but the SavedModel")
    version = tfctr.serving.export(runs["TF4CTR"].model, out / "serving" / "tf4ctr", metrics=runs["TF4CTR"].metrics["valid"])
    console.print(f"published {version}")

    console.rule("6  serve: five raw rows, over gRPC and offline")
    rows = test.slice(0, 5).drop_columns(["click", "probability"])
    offline = runs["TF4CTR"].model.predict(dataset.test.ids[:5], verbose=0)[:, 0]
    with (
        LocalServer(out / "serving" / "tf4ctr", port=0) as server,
        tfctr.serving.PredictionClient(server.target, model="tf4ctr") as client,
    ):
        online = client.predict(rows.to_pydict())
    console.print(answer_table(rows.to_pylist(), offline, online))
    differing = np.bitwise_count(offline.view(np.uint32) ^ online.view(np.uint32)).sum()
    console.print(f"{differing} bits differ")

    with open(out / "rows.jsonl", "w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows.to_pylist())
    console.rule("Next")
    console.print("source .venv/bin/activate")
    console.print(f"tfctr evaluate {out / 'runs' / 'TF4CTR'} --split valid")
    console.print(f"tfctr serve {out / 'serving' / 'tf4ctr'} --port 8500 &")
    console.print(f"tfctr predict localhost:8500 --model tf4ctr {out / 'rows.jsonl'}")
    return 0 if differing == 0 else 1


def config(name):
    return {"model": {"name": name, **MODELS[name]}, "training": TRAINING}


def score_table(scores):
    table = Table("model", "AUC", "gAUC", "log loss")
    for name, values in scores.items():
        table.add_row(name, *(f"{values[metric]:.4f}" for metric in ("auc", "group_auc", "log_loss")))
    return table


def answer_table(rows, offline, online):
    table = Table("user", "item", "genres", "price", "offline", "gRPC")
    for row, left, right in zip(rows, offline, online, strict=True):
        table.add_row(*(str(row[name]) for name in ("user", "item", "genres", "price")), f"{left:.9f}", f"{right:.9f}")
    return table


if __name__ == "__main__":
    raise SystemExit(main())
