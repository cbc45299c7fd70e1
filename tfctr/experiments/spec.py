"""What is compared, as a YAML file says it."""

import contextlib
import dataclasses
import itertools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

from tfctr.config import Config
from tfctr.data.dataset import Dataset
from tfctr.errors import ConfigError, require, require_count, require_one_of
from tfctr.storage import read_yaml
from tfctr.training import suggest
from tfctr.types import StrPath

_SEEDS = 5
_MOST_SEEDS = 1_000
LARGEST_SEED = 2**31 - 1
_KEYS = ("models", "seeds", "baselines", "split", "training", "vary")
KEYS_OF_A_MODEL = ("config", "model", "training")
SECTIONS = ("model", "training")


class Entry(NamedTuple):
    """The settings of one model, and whether others may be compared with it."""

    config: Config
    is_baseline: bool


@dataclasses.dataclass(frozen=True)
class Spec:
    """Models, and the seeds that each of them is trained with.

    Args:
        models: `{name: {"config", "model", "training"}}`. `config` is the file of a run, seen from `folder`; without one, the
            settings are those that `tfctr.training.suggest` draws from the data. `model` and `training` replace some of them.
            The model is `model.name`, or that of `config`, or the one that the name says.
        seeds: how many, from 1 on; or a list of them.
        baselines: names of models; each other model is compared with the best of them on the valid split. The first model if
            none is named.
        split: where all of them are measured: `"test"`, or `"valid"` to choose among them.
        training: of all models; what a model says itself stands above it.
        vary: `{"training.loss": [...]}`: each model is trained with each combination of these values.
        folder: where the files that `config` names are.

    Raises:
        ConfigError: a name that does not exist, or a value that cannot be used, with the place of it.

    >>> models = {"DNN": {}, "small DNN": {"model": {"name": "DNN", "hidden_units": [64]}}, "paper": {"config": "tf4ctr.yaml"}}
    >>> spec = Spec.from_dict({"models": models, "training": {"epochs": 20}, "vary": {"training.loss": ["log_loss", "focal"]}})
    >>> spec.seeds, spec.baselines, spec.split
    ((1, 2, 3, 4, 5), ('DNN',), 'test')
    """

    models: Mapping[str, Mapping[str, Any]]
    seeds: tuple[int, ...] = tuple(range(1, _SEEDS + 1))
    baselines: tuple[str, ...] = ()
    split: str = "test"
    training: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    vary: Mapping[str, list[Any]] = dataclasses.field(default_factory=dict)
    folder: Path = Path()

    @classmethod
    def load(cls, path: StrPath) -> Self:
        """Read a YAML or JSON file. Raises `ConfigError` or `StorageError`, which name the file."""
        with naming(path):
            return cls.from_dict(read_yaml(path), Path(path).parent)

    @classmethod
    def from_dict(cls, values: Any, folder: Path = Path()) -> Self:
        """The comparison that plain data describe."""
        example = "models: {DNN: {}, TF4CTR: {}}"
        require(isinstance(values, dict) and "models" in values, "the section `models` is missing.", fix=f"write {example}")
        for key in values:
            require_one_of(_KEYS, key, "key")
        entries = mapping_of(values["models"], "models")
        require(entries, "`models` names none.", fix=f"write {example}")
        models = {}
        for name, entry in entries.items():
            require(name.isprintable() and name.strip(), f"`models` has the name {name!r}.", fix="give it one of one line")
            models[name] = entry_of(mapping_of(entry, f"models.{name}"), f"models.{name}.")
        baselines = values.get("baselines")
        baselines = [next(iter(models))] if baselines is None else baselines
        is_list = isinstance(baselines, list) and baselines
        require(is_list, f"`baselines` is {baselines!r}.", fix="give a list of names of models, or leave it out")
        for name in baselines:
            require_one_of(models, name, "model in `baselines`")
        split = values.get("split", "test")
        require_one_of(("valid", "test"), split, "split")
        training, vary = (mapping_of(values.get(key), key) for key in ("training", "vary"))
        require_no_seed(training, "training.seed")
        for path, choices in vary.items():
            require_choices(path, choices)
        return cls(models, _seeds(values.get("seeds", _SEEDS)), tuple(baselines), split, training, vary, folder)

    def contenders(self, dataset: Dataset) -> dict[str, Entry]:
        """`{name: Entry}` of everything that is compared, from its settings and the data."""
        found = {}
        for name, entry in self.models.items():
            base = base_of(name, entry, dataset, self.folder)
            for label, changes in self._variants():
                values = merged(base, {"training": self.training}, entry)
                config = varied(values, changes, dataset, f"models.{name}: ")
                full = ", ".join(filter(None, (name, label)))
                require(full not in found, f"two models would be called {full!r}.", fix="name each model and value once")
                found[full] = Entry(config, name in (self.baselines or [*self.models][:1]))
        return found

    def _variants(self) -> Iterator[tuple[str, list[str]]]:
        """The label of each combination of `vary`, and its values as overrides."""
        keys = [path.rpartition(".")[2] for path in self.vary]
        names = keys if len({*keys}) == len(keys) else [*self.vary]
        for values in itertools.product(*self.vary.values()):
            texts = [json.dumps(value, ensure_ascii=False) for value in values]
            told = (f"{name}={text}".replace('"', "") for name, text in zip(names, texts, strict=True))
            yield ", ".join(told), [f"{path}={text}" for path, text in zip(self.vary, texts, strict=True)]


@contextlib.contextmanager
def naming(path: StrPath) -> Iterator[None]:
    """Name the file in a `ConfigError` of the block."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{path}: {error.problem}", fix=error.fix) from error


def base_of(name: str, entry: Mapping[str, Any], dataset: Dataset, folder: Path) -> dict[str, Any]:
    """The settings that `model` and `training` of an entry replace: those of its file, or what follows from the data."""
    if "config" in entry:
        return Config.load(folder / entry["config"]).to_dict()
    return suggest(dataset, entry.get("model", {}).get("name", name)).to_dict()


def varied(values: dict[str, Any], changes: list[str], dataset: Dataset, place: str) -> Config:
    """The run of settings in which `vary` changes some. Raises `ConfigError`, which begins with the place."""
    try:
        return Config.from_dict(values, changes).for_rows(dataset.splits["train"].rows)
    except ConfigError as error:
        raise ConfigError(place + error.problem.replace("--set ", "vary: "), fix=error.fix) from error


def mapping_of(value: Any, place: str) -> dict[str, Any]:
    """A mapping with text keys, or a `ConfigError` that names its place; none is an empty one."""
    value = {} if value is None else value
    require(isinstance(value, dict), f"`{place}` is {value!r}.", fix="give a mapping, such as {}")
    for key in value:
        require(isinstance(key, str), f"`{place}` has the key {key!r}, which is not text.", fix="quote it, or correct it")
    return value


def entry_of(entry: Mapping[str, Any], place: str) -> dict[str, Any]:
    """One model of a spec, checked; `place` is what stands before its keys, such as `models.DNN.`."""
    found = {}
    for key, value in entry.items():
        require_one_of(KEYS_OF_A_MODEL, key, f"key in {place.rstrip('.')}:")
        if key in SECTIONS:
            value = mapping_of(value, f"{place}{key}")
        else:
            require(isinstance(value, str), f"{place}{key} is {value!r}.", fix="give the file of a run")
        found[key] = value
    require_no_seed(found.get("training", {}), f"{place}training.seed")
    return found


def require_no_seed(training: Mapping[str, Any], place: str) -> None:
    """Raise where settings would say another seed than the spec."""
    require("seed" not in training, f"{place} says nothing here.", fix="leave it out: `seeds` has those of all models")


def require_path(path: str) -> None:
    """Raise unless `path` is that of a value that may vary, such as `training.loss`."""
    section, _, key = path.partition(".")
    fix = "name a key of `model` or `training`: {training.loss: [log_loss, focal]}"
    require(section in SECTIONS and key, f"vary.{path} is no value of a run.", fix=fix)
    require_no_seed({key: None} if section == "training" else {}, f"vary.{path}")


def require_choices(path: str, choices: Any) -> None:
    """Raise unless `choices` are values that `path` may have."""
    require_path(path)
    problem, fix = f"vary.{path} is {choices!r}.", "give a list of values of one key: {training.loss: [log_loss, focal]}"
    require(isinstance(choices, list) and choices, problem, fix=fix)
    try:
        json.dumps(choices, allow_nan=False)
    except (TypeError, ValueError) as error:  # a date, or no finite number
        raise ConfigError(
            f"vary.{path}: {error}.", fix="use text, finite numbers, true, false, null, lists or mappings"
        ) from error


def _seeds(given: Any) -> tuple[int, ...]:
    if not isinstance(given, list):
        require_count("seeds", given, 1, _MOST_SEEDS)
        return tuple(range(1, given + 1))
    for seed in given:
        require_count("seeds", seed, 0, LARGEST_SEED)
    require(given and len({*given}) == len(given), f"`seeds` is {given}.", fix="name each seed once, and at least one")
    return tuple(given)


def merged(*parts: Mapping[str, Any]) -> dict[str, Any]:
    """The sections `model` and `training` of all parts, the later ones above; a mapping within is one value."""
    found: dict[str, Any] = {section: {} for section in SECTIONS}
    for part in parts:
        for section in SECTIONS:
            found[section] |= part.get(section) or {}
    return found
