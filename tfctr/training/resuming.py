"""What the folder of a run that did not come to its end has to go on from, and whether that is the same training."""

import logging
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tfctr.config import Config
from tfctr.data.dataset import Dataset
from tfctr.errors import ConfigError, StorageError
from tfctr.storage import locked, read_json, remove_folder, require_free, sha256
from tfctr.training.run import Run, load_run
from tfctr.types import StrPath

_LOG = logging.getLogger(__name__)

LOCK = ".training.lock"  # in the run folder, held while it is trained
CHECKPOINTS = "checkpoints"  # in it, too
_OURS = ("config.yaml", "environment.json", "history.json", LOCK, CHECKPOINTS)
DECIDE_BITS = ("tfctr", "tensorflow", "keras", "processor", "threads", "device")


def has_checkpoint(folder: Path) -> bool:
    """Whether a run can go on."""
    return any((folder / CHECKPOINTS).glob("checkpoint-*.zip"))


def make_way(folder: Path, resume: bool) -> bool:
    """Whether a run in `folder` is to go on; else the folder is free for a new one.

    A run that was killed before its first epoch and its first checkpoint has nothing of use, and is removed.

    Raises:
        StorageError: it is still trained, or something else is there.
    """
    if is_abandoned(folder):
        with hold(folder):
            remove_folder(folder)
    if resume and is_run(folder):
        return True
    if has_checkpoint(folder):
        fix = "let it go on: --resume, from Python resume=True; or choose another place, or remove this one first"
        raise StorageError(f"{folder} holds a run that was stopped.", fix=fix)
    require_free(folder)
    return False


def is_run(folder: Path) -> bool:
    """Whether `train` has begun in a folder."""
    return (folder / "config.yaml").is_file() and (folder / "environment.json").is_file()


def is_abandoned(folder: Path) -> bool:
    """Whether it holds a run that was killed before its first epoch and its first checkpoint, and nothing else."""
    if not (folder / LOCK).is_file() or (folder / "metrics.json").exists() or has_checkpoint(folder):
        return False
    return all(entry.name in _OURS or entry.match(".tmp-*") or entry.match("model-*.keras") for entry in folder.iterdir())


def hold(folder: Path) -> Any:
    """The lock of a run that is trained, as a context. Raises `StorageError` where another process has it."""
    return locked(folder / LOCK, busy=f"another process is training in {folder}.")


def is_finished(folder: Path) -> bool:
    """Whether there is nothing left to train. Raises `StorageError` where there is nothing to go on from."""
    metrics = folder / "metrics.json"
    if metrics.exists() and read_json(metrics).get("finished", True):
        return True
    if not has_checkpoint(folder):
        problem = f"{folder} has no checkpoint to go on from."
        raise StorageError(problem, fix="train anew, into another folder; its best epoch can be used as it is")
    return False


def dataset_of(folder: Path, data: Dataset | StrPath | None) -> Dataset:
    """The dataset of the run, where it was or in `data`. Raises `StorageError` for another one."""
    if not isinstance(data, Dataset):
        data = Dataset.load(read_json(folder / "environment.json")["data"]["folder"] if data is None else data)
    require_data(folder, data.folder)
    return data


def require_data(folder: Path, data: Path) -> None:
    """Raise `StorageError` if a dataset is there, and is another than that of the run."""
    manifest = data / "manifest.json"
    if manifest.is_file() and sha256(manifest) != read_json(folder / "environment.json")["data"]["manifest_sha256"]:
        problem = f"{data} is not the dataset that {folder} is trained on."
        raise StorageError(problem, fix="give the place of that one, or train anew, into another folder")


def earlier_run(folder: Path) -> Run | None:
    """The run from which this one has its warm start, if it has one and still needs its rows."""
    warm = read_json(folder / "environment.json").get("warm_start")
    replays = Config.load(folder / "config.yaml").training.replay
    return load_run(warm["folder"]) if warm and replays else None


def config_of(folder: Path, given: Config | None) -> Config:
    """The configuration of the run. Raises `ConfigError` where another one is given."""
    kept = Config.load(folder / "config.yaml")
    if given is None:
        return kept
    if given.training.batch_size == "auto":  # from as many rows, it is that of the run
        given = given.model_copy(
            update={"training": given.training.model_copy(update={"batch_size": kept.training.batch_size})}
        )
    if differing := differences(kept.to_dict(), given.to_dict()):
        raise ConfigError(
            f"{folder} is trained by another configuration: {'; '.join(differing)}.",
            fix="leave the configuration out, or give the same; for another, train into another folder",
        )
    return kept


def differences(kept: Any, given: Any, place: str = "") -> list[str]:
    """A phrase for each value of nested mappings that is another one."""
    if not isinstance(kept, dict) or not isinstance(given, dict):
        return [] if kept == given else [f"{place} is {reprlib.repr(kept)} there and {reprlib.repr(given)} here"]
    keys = dict.fromkeys((*kept, *given))
    return [phrase for key in keys for phrase in differences(kept.get(key), given.get(key), f"{place}.{key}".lstrip("."))]


def require_same_distribution(folder: Path, distribute: str | None) -> None:
    """Raise `ConfigError` where a run with parameter servers is to go on without them, or the other way round."""
    before = read_json(folder / "environment.json").get("distribution")
    if (before == "parameter_server") != (distribute == "parameter_server"):
        began, fix = ("without", "without") if before is None else ("with", "with --distribute parameter_server")
        raise ConfigError(f"{folder} was begun {began} parameter servers, whose checkpoints are others.", fix=f"go on {fix}")


def say_other_environment(folder: Path, now: Mapping[str, Any]) -> None:
    """Log a warning where versions or machine are others than before: the bits will be, too."""
    before = read_json(folder / "environment.json")
    others = [f"{name} {now[name]} (was {before[name]})" for name in DECIDE_BITS if before.get(name) not in (None, now[name])]
    if others:
        _LOG.warning("%s goes on under %s: its numbers may differ in their last bits", folder, ", ".join(others))
