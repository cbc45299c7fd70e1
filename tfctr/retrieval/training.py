"""From a prepared dataset to two towers in a folder, trained in a process of its own."""

import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

import tfctr
from tfctr import errors
from tfctr.data.dataset import Dataset
from tfctr.errors import DataError, TrainingError, require
from tfctr.retrieval.items import Items, item_features
from tfctr.retrieval.library import VARIABLE, require_installed
from tfctr.retrieval.options import TowerOptions
from tfctr.retrieval.retriever import WEIGHTS, Retriever, load_retriever
from tfctr.storage import atomic_folder, read_json, require_free, sha256, write_json
from tfctr.types import StrPath

_FILES = ("schema.json", "items.npy", *WEIGHTS.values())
_PACKAGES = ("tensorflow", "keras", "tensorflow-recommenders", "tf-keras")


def train(
    data: Dataset | StrPath, out: StrPath, *, item: Sequence[str], options: TowerOptions | None = None, **fields: Any
) -> Retriever:
    """Train a two-tower model on the positive rows of a prepared dataset, with TensorFlow Recommenders.

    One tower makes a vector of a user's features, the other of an item's; an item's score for the user is their product.
    The loss is a softmax over the items of the batch, and items drawn uniformly beside them, corrected for how often each is
    among these by its frequency (logQ); the same item twice in a batch is no negative. After each epoch `FactorizedTopK` gives
    the recall among all items on positive rows of the valid split, at most 20,000 of them; the best epoch's weights are kept.

    Training is a process of its own, since TensorFlow Recommenders needs Keras 2, and all else is Keras 3: see
    `tfctr.retrieval.library`. The same dataset, options and seed give the same bits on the same machine. The folder is whole or
    absent: `retriever.json`, `schema.json`, `items.npy` and the weights of both towers.

    Args:
        data: a prepared `Dataset`, or its folder.
        out: the folder to write.
        item: names of the item's features, first the one that names the item; all others are the user's, context included.
        options: a `TowerOptions`; its defaults if None.
        fields: those of `TowerOptions`, which replace the ones in `options`: `train(data, out, item=["item"], epochs=5)`.

    Returns:
        The `Retriever`.

    Raises:
        ConfigError: an option or a name that cannot be used; the extra `retrieval` is not installed.
        DataError: the training split has fewer than two items, or fewer than two clicks on them.
        StorageError: `data` is no prepared dataset, or `out` holds something.
        TrainingError: the loss is not finite, or the process that trains has ended.
    """
    require_installed()
    out = Path(out)
    require_free(out)
    options = TowerOptions.of({**(options or TowerOptions()).to_dict(), **fields})
    dataset = data if isinstance(data, Dataset) else Dataset.load(data)
    features = item_features(dataset.schema, item)
    split = dataset.train
    items = Items.of(dataset.schema, features, split)
    clicks = len(items.clicks(split)[0])
    problem = f"the train split has {clicks} clicks on items that it knows."
    require(clicks > 1, problem, fix="prepare a table with more clicks", error=DataError)
    with atomic_folder(out) as folder:
        values = {
            "item": list(features),
            "options": options.to_dict(),
            "data": {
                "folder": str(dataset.folder.resolve()),
                "manifest_sha256": sha256(dataset.folder / "manifest.json"),
                "clicks": clicks,
                "items": len(items),
            },
            "versions": {
                "tfctr": tfctr.__version__,
                "python": platform.python_version(),
                **{name: metadata.version(name) for name in _PACKAGES},
            },
        }
        dataset.schema.save(folder / "schema.json")
        np.save(folder / "items.npy", items.ids, allow_pickle=False)
        write_json(folder / "retriever.json", values)
        _fit(folder)
        values["history"] = read_json(folder / "history.json")
        (folder / "history.json").unlink()
        write_json(folder / "retriever.json", {**values, "sha256": {name: sha256(folder / name) for name in _FILES}})
    return load_retriever(out)


def _fit(folder: Path) -> None:
    """Train in a process of its own; what it refuses is raised here."""
    with tempfile.TemporaryDirectory(prefix="tfctr-retrieval-") as temporary:
        report = Path(temporary) / "report.json"
        command = [sys.executable, "-P", "-m", "tfctr.retrieval.fitting", str(folder.resolve()), str(report)]
        search_path = os.pathsep.join(folder or os.getcwd() for folder in sys.path)
        environment = {**os.environ, VARIABLE: "1", "PYTHONPATH": search_path, "KERAS_BACKEND": "tensorflow"}
        environment.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        code = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL).returncode
        if report.exists():
            refusal = read_json(report)
            raise getattr(errors, refusal["class"])(refusal["problem"], fix=refusal["fix"])
    problem = f"the process that trains has ended with the exit code {code}."
    require(code == 0, problem, fix="see what it has printed; free memory, or lower `batch_size`", error=TrainingError)
