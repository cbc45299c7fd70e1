"""FuxiCTR's files as one mapping: an experiment over what is under `Base`, and its dataset over both."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tfctr.errors import ConfigError, StorageError, did_you_mean, require
from tfctr.storage import read_yaml
from tfctr.types import StrPath

_BASE = "Base"


class Keys:
    """The keys of a mapping, and which of them have been read. A key whose value is null is absent."""

    def __init__(self, given: dict[str, Any]) -> None:
        self.given = given
        self.values = {key: value for key, value in given.items() if value is not None}
        self._read: set[str] = set()

    def take(self, key: str, default: Any = None) -> Any:
        """The value of a key, which counts as read."""
        self._read.add(key)
        return self.values.get(key, default)

    @property
    def known(self) -> set[str]:
        """The keys that have been asked for, given or not."""
        return self._read

    def rest(self) -> dict[str, Any]:
        """What nobody has read."""
        return {key: value for key, value in self.values.items() if key not in self._read}


def merged(dataset: StrPath, model: StrPath, dataset_id: str | None, experiment_id: str | None) -> tuple[dict[str, Any], str]:
    """What FuxiCTR's `load_config` gives for an experiment, and the experiment's id.

    Args:
        dataset, model: a YAML file, or a folder: with `dataset_config.yaml` or `dataset_config/*.yaml`, or else with the files.
        dataset_id: in place of the experiment's own.
        experiment_id: None where the files have only one.
    """
    experiments = _entries(Path(model), "model_config")
    base = experiments.pop(_BASE, {})
    experiment_id = _chosen(experiments, experiment_id, model, "experiment", "--experiment-id")
    parameters = {**base, **experiments[experiment_id]}
    datasets = _entries(Path(dataset), "dataset_config")
    dataset_id = _chosen(datasets, dataset_id or parameters.get("dataset_id"), dataset, "dataset", "--dataset-id")
    return {**parameters, **datasets[dataset_id], "dataset_id": dataset_id}, experiment_id


def _entries(path: Path, name: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for file in _files(path, name):
        entries: Any = read_yaml(file)
        fix = f"give FuxiCTR's {name}.yaml: a mapping of ids, each to a mapping of keys"
        for key, values in entries.items() if isinstance(entries, dict) else [(None, None)]:
            if not isinstance(key, str) or not isinstance(values, dict):
                raise ConfigError(f"{file} holds no entries with keys.", fix=fix)
            require(all(isinstance(name, str) for name in values), f"{file}: {key} has a key that is not text.", fix=fix)
            require(key == _BASE or key not in found, f"{file} has {key!r} again.", fix="keep one of the two")
            found[key] = {**found.get(key, {}), **values}
    return found


def _files(path: Path, name: str) -> Sequence[Path]:
    if not path.is_dir():
        return [path]
    one = path / f"{name}.yaml"
    if one.is_file():
        return [one]
    files = sorted((path / name if (path / name).is_dir() else path).glob("*.yaml"))
    require(files, f"{path} holds no YAML file.", fix=f"give the folder with {name}.yaml, or the file", error=StorageError)
    return files


def _chosen(entries: dict[str, Any], wanted: Any, path: StrPath, what: str, option: str) -> str:
    require(entries, f"{path} holds no {what}.", fix=f"give the file with the {what}'s keys")
    if wanted is None:
        require(len(entries) == 1, f"{path} holds {len(entries)} {what}s.", fix=f"choose with {option}: {', '.join(entries)}")
        return next(iter(entries))
    if not isinstance(wanted, str) or wanted not in entries:
        raise ConfigError(f"{path} has no {what} {wanted!r}.", fix=f"{did_you_mean(wanted, entries)} Choose with {option}.")
    return wanted
