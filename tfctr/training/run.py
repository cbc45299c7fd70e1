"""A finished (or killed) training run, read back from its folder."""

import dataclasses
import functools
from pathlib import Path

import keras

import tfctr.models  # noqa: F401  a saved model is loaded by the classes that are registered there
from tfctr.config import Config
from tfctr.data import Dataset
from tfctr.errors import StorageError
from tfctr.storage import read_json, sha256


@dataclasses.dataclass(frozen=True)
class Run:
    """What `train` wrote.

    Args:
        folder: the run folder.
        config: the resolved `Config`.
        environment: versions, devices, precision, seed, and the hash of the data.
        history: one mapping an epoch.
        metrics: validation metrics of the best epoch, parameters, seconds an epoch.
    """

    folder: Path
    config: Config
    environment: dict
    history: list
    metrics: dict

    @functools.cached_property
    def model(self):
        """The model of the best epoch. Raises `StorageError` when its file is missing or corrupt."""
        return load_model(self.folder / "model.keras")

    @property
    def data(self):
        """The folder of the prepared dataset the run was trained on."""
        return Path(self.environment["data"]["folder"])

    def dataset(self, folder=None):
        """That dataset, or its copy in `folder`. Raises `StorageError` for any other one: its ids would mean other tokens."""
        folder = Path(folder or self.data)
        dataset = Dataset.load(folder)
        if sha256(folder / "manifest.json") != self.environment["data"]["manifest_sha256"]:
            raise StorageError(f"{folder} is not the dataset that {self.folder} was trained on.", fix="train again on it")
        return dataset


def load_run(folder):
    """The `Run` in a folder. Raises `StorageError` when the folder is no run, or one of its files is missing or corrupt."""
    folder = Path(folder)
    if not (folder / "config.yaml").is_file():
        raise StorageError(f"{folder} is not a run: it has no config.yaml.", fix="give the --out folder of `tfctr train`")
    if not (folder / "metrics.json").is_file():
        raise StorageError(f"{folder} was stopped before the end of its first epoch.", fix="remove it and train again")
    parts = {name: read_json(folder / f"{name}.json") for name in ("environment", "history", "metrics")}
    return Run(folder, Config.load(folder / "config.yaml"), **parts)


def load_model(path):
    """A `.keras` file as a model. Raises `StorageError` when it is missing or corrupt."""
    path = Path(path)
    if not path.is_file():
        raise StorageError(f"{path} does not exist.", fix="train again: no epoch had a defined validation AUC yet")
    try:
        return keras.saving.load_model(path)
    except Exception as error:  # Keras says a broken archive in many ways, "File not found" among them
        raise StorageError(
            f"{path} is corrupt, or was written by another version: {error}", fix="restore it or train again"
        ) from error
