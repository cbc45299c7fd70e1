"""What a run folder keeps of each epoch."""

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras

from tfctr.data.split import Split
from tfctr.metrics import calibration, constant_figures
from tfctr.storage import atomic_file, read_json, sha256, write_json
from tfctr.training.schedule import PlateauSchedule
from tfctr.types import StrPath

_ROWS_AT_A_TIME = 10_000  # scored


class Stopwatch(keras.callbacks.Callback):
    """Adds to each epoch's logs the seconds of its gradient steps, validation not counted, and the rows of them a second."""

    async_safe = True  # Keras then does not wait for the device after each step

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.rows = rows
        self.before = 0.0  # seconds of the epoch, in a process before

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.start = self.last_step = time.perf_counter() - self.before
        self.before = 0.0

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self.last_step = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        assert logs is not None  # Keras gives them after every epoch
        logs["seconds"] = self.last_step - self.start
        logs["rows_per_second"] = self.rows / logs["seconds"]
        self.start = self.last_step

    def get_state(self) -> dict[str, Any]:
        """What a checkpoint keeps of it."""
        return {"seconds": self.last_step - self.start}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what `get_state` gave."""
        self.before = state["seconds"]


class RunRecorder(keras.callbacks.Callback):
    """Keeps in the run folder, after each epoch: the model if it is the best so far, the history, and the metrics of `valid`.

    The epoch counts once `metrics.json` is replaced: it names the model file, and the models before are deleted after it. So a
    run killed at any moment leaves a model and the metrics of that model. Stands behind `Stopwatch` and `PlateauSchedule`,
    whose logs and verdict it reads. Of several workers, the chief alone `writes`.
    """

    def __init__(self, folder: Path, schedule: PlateauSchedule, valid: Split, writes: bool = True) -> None:
        super().__init__()
        self.writes = writes
        self.folder = folder
        self.schedule = schedule
        self.valid = valid
        self.history: list[dict[str, Any]] = []
        self.model_sha256: str | None = None

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        assert self.model is not None
        assert logs is not None
        self.history.append({"epoch": epoch + 1, **{name: _finite_or_none(value) for name, value in logs.items()}})
        if not self.writes:
            return
        metrics = summarize(self.history, self.schedule.best_epoch, self.model.count_params())
        metrics["valid"] |= constant_figures(self.valid.labels, self.valid.weights)
        if metrics["best_epoch"] == epoch + 1:
            save_model(self.model, self.folder / metrics["model"])
            self.model_sha256 = sha256(self.folder / metrics["model"])
        metrics["model_sha256"] = self.model_sha256
        write_json(self.folder / "history.json", self.history)
        write_json(self.folder / "metrics.json", metrics)
        for file in self.folder.glob("model-*.keras"):
            if file.name != metrics["model"]:
                file.unlink()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Say that the run is finished, with the calibration of the best epoch, whose weights the schedule has brought back."""
        assert self.model is not None
        best = self.schedule.best_epoch
        probabilities: Any = best and self.model.predict(self.valid.batches(_ROWS_AT_A_TIME, shuffle=False), verbose=0)
        if not self.writes:
            return
        metrics = {**read_json(self.folder / "metrics.json"), "finished": True}
        if best:
            metrics["valid"]["pcoc"] = calibration(self.valid.labels, probabilities, self.valid.weights)
            file = self.folder / metrics["model"]
            if not file.is_file():  # a run that went on from an earlier checkpoint had replaced it by what it then did not meet
                save_model(self.model, file)
                metrics["model_sha256"] = sha256(file)
        write_json(self.folder / "metrics.json", metrics)

    def get_state(self) -> dict[str, Any]:
        """What a checkpoint keeps of it."""
        return {"history": self.history, "model_sha256": self.model_sha256}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what `get_state` gave."""
        self.history, self.model_sha256 = state["history"], state["model_sha256"]


def save_model(model: keras.Model, path: StrPath) -> None:
    """`model.save(path)`, atomically: a killed process leaves the previous file, or none."""
    with atomic_file(path, "wb") as file:  # Keras writes to the same file by its name
        model.save(file.name)


def summarize(history: Sequence[Mapping[str, Any]], best_epoch: int | None, parameters: int) -> dict[str, Any]:
    """What a run came to: the best epoch, its model file and validation metrics, and the cost of an epoch.

    >>> epoch = {"epoch": 1, "val_auc": 0.7, "val_log_loss": 0.5, "seconds": 2.0, "rows_per_second": 50.0}
    >>> metrics = summarize([epoch], 1, parameters=12)
    >>> metrics["model"], metrics["valid"]
    ('model-1.keras', {'auc': 0.7, 'log_loss': 0.5})
    """
    best = history[best_epoch - 1] if best_epoch else {}
    middle = sorted(history, key=lambda epoch: epoch["seconds"])[len(history) // 2]
    return {
        "best_epoch": best_epoch,
        "epochs": len(history),
        "finished": False,
        "model": f"model-{best_epoch}.keras" if best_epoch else None,
        "valid": {"auc": best.get("val_auc"), "log_loss": best.get("val_log_loss")},
        "parameters": parameters,
        "seconds_per_epoch": middle["seconds"],
        "rows_per_second": middle["rows_per_second"],
    }


def _finite_or_none(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
