"""A run whose model has a table of 3 GB: `python -m kit.large_run FOLDER`. A process of its own gives its memory back."""

import sys
from pathlib import Path

import tfctr
from tfctr.config import Config
from tfctr.storage import read_json, sha256, write_json
from tfctr.training import train
from tfctr.training.recorder import save_model

BUCKETS, DIM = 12_500_000, 64


def main(folder):
    """Trained with one number a row, and then given a model of the same fit with wide rows, as they start."""
    rows = range(400)
    table = {"user": [f"u{row}" for row in rows], "item": [f"i{row % 30}" for row in rows], "click": [row % 2 for row in rows]}
    features = [tfctr.Categorical("user", hash_buckets=BUCKETS), tfctr.Categorical("item")]
    dataset = tfctr.prepare(tfctr.Schema(features, label="click"), train=table, valid=0.2, out=folder / "data")
    settings = {"optimizer": "adagrad", "epochs": 1, "batch_size": 100}
    run = train(Config.from_dict({"model": {"name": "LR"}, "training": settings}), dataset, folder / "run")
    path = run.folder / run.metrics["model"]
    save_model(tfctr.models.DNN(dataset.schema, embedding_dim=DIM, hidden_units=[8]), path)
    write_json(run.folder / "metrics.json", {**read_json(run.folder / "metrics.json"), "model_sha256": sha256(path)})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
