"""A finished (or killed) training run, read back from its folder."""

import dataclasses
import functools
import logging
from pathlib import Path
from typing import Any

from tfctr.config import Config
from tfctr.data.dataset import Dataset
from tfctr.data.remote_datasets import local_folder
from tfctr.errors import StorageError
from tfctr.models import CTRModel, load_model
from tfctr.storage import read_json, sha256
from tfctr.types import StrPath

_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Run:
    """What `train` wrote.

    Args:
        folder: the run folder.
        config: the resolved `Config`.
        environment: versions, device, precision, seed, and the hash of the data.
        history: one mapping an epoch.
        metrics: the best epoch, its model file and validation metrics, whether the run is `finished`, parameters, cost.
    """

    folder: Path
    config: Config
    environment: dict[str, Any]
    history: list[dict[str, Any]]
    metrics: dict[str, Any]

    @functools.cached_property
    def model(self) -> CTRModel:
        """The model of the best epoch. Raises `StorageError` when there is none, or its file is missing, corrupt or another."""
        return load_model(self._model_file)

    @functools.cached_property
    def inference_model(self) -> CTRModel:
        """The same without its optimizer, whose moments take more memory than the weights; `model`, if that has been read."""
        return self.model if "model" in vars(self) else load_model(self._model_file, compile=False)

    @property
    def _model_file(self) -> Path:
        name = self.metrics["model"]
        if name is None:
            raise StorageError(f"{self.folder} has no model: no epoch had a defined validation AUC.", fix="train again")
        if not (self.folder / name).is_file():
            raise StorageError(
                f"{self.folder / name} has been deleted or moved; metrics.json names it as the model of the best epoch.",
                fix="restore it or train again; while the run is still being trained, just repeat this",
            )
        if (expected := self.metrics.get("model_sha256")) and expected != sha256(self.folder / name):
            problem = f"{self.folder / name} is corrupt, or another model than that of the metrics: SHA-256 differs."
            raise StorageError(problem, fix="restore it, or train again")
        return self.folder / name

    @property
    def origin(self) -> dict[str, Any]:
        """What a model card says of where the model comes from; nothing in it names a folder of this machine."""
        nameless = {
            part: {name: value for name, value in self.environment[part].items() if name != "folder"}
            for part in ("data", "warm_start")
            if part in self.environment
        }
        digest = self.metrics.get("model_sha256")
        config = self.config.to_dict()
        config["training"]["pretrained"] = {name: Path(file).name for name, file in self.config.training.pretrained.items()}
        return {"config": config, "environment": {**self.environment, **nameless}, "model_sha256": digest}

    @property
    def data(self) -> Path:
        """The folder of the prepared dataset the run was trained on."""
        return Path(self.environment["data"]["folder"])

    def dataset(self, folder: StrPath | None = None) -> Dataset:
        """That dataset, or its copy in `folder` or at that URL, or one that `encode` has made by its fit.

        Raises `StorageError` for any other one: its ids would mean other tokens. Its files are compared with the manifest when
        a split is first asked for, so only those of that split are read.
        """
        folder = local_folder(folder or self.data)
        if not (folder / "manifest.json").is_file():
            raise StorageError(
                f"{folder} is no prepared dataset.",
                fix=f"if the one that {self.folder} was trained on has moved, give its new place: --data DIR",
            )
        if sha256(folder / "manifest.json") != self.environment["data"]["manifest_sha256"]:
            dataset = Dataset.load(folder)
            if dataset.is_encoded and dataset.schema.digest == self.inference_model.schema.digest:
                return dataset
            raise StorageError(
                f"{folder} is not the dataset that {self.folder} was trained on.",
                fix="give the place of that one, --data DIR, or train again on this one",
            )
        return Dataset.load(folder)


def load_run(folder: StrPath) -> Run:
    """The `Run` in a folder; of one that is not finished, a warning is logged.

    Raises:
        StorageError: the folder is no run, or one of its files is missing or corrupt.
    """
    folder = Path(folder)
    if not (folder / "config.yaml").is_file():
        raise StorageError(f"{folder} is not a run: it has no config.yaml.", fix="give the --out folder of `tfctr train`")
    if not (folder / "metrics.json").is_file():
        raise StorageError(
            f"{folder} was stopped before the end of its first epoch.",
            fix="train again: tfctr train --out takes such a folder; from its checkpoint, if it has one, with --resume",
        )
    metrics = _read(folder / "metrics.json", "model", "epochs", "valid")
    if not metrics.get("finished", True):
        said = "%s is not finished: it was stopped after epoch %d (tfctr train --resume goes on), or is still trained"
        _LOG.warning(said, folder, metrics["epochs"])
    environment = _read(folder / "environment.json", "data")
    _require_keys(folder / "environment.json", environment["data"], "folder", "manifest_sha256")
    history = read_json(folder / "history.json")[: metrics["epochs"]]  # it is written first, so it may be an epoch ahead
    return Run(folder, Config.load(folder / "config.yaml"), environment, history, metrics)


def _read(path: Path, *keys: str) -> dict[str, Any]:
    values = read_json(path)
    _require_keys(path, values, *keys)
    return values


def _require_keys(path: Path, values: Any, *keys: str) -> None:
    missing = [key for key in keys if not isinstance(values, dict) or key not in values]
    if missing:
        raise StorageError(
            f"{path} has no {missing[0]!r}: it is damaged, or another version wrote it.", fix="restore it or train again"
        )
