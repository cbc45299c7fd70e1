"""What is searched for one model, as a YAML file says it."""

import dataclasses
import json
import math
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from tfctr.config import Config
from tfctr.data.dataset import Dataset
from tfctr.errors import require, require_count, require_one_of
from tfctr.experiments.runs import require_usable
from tfctr.experiments.spec import (
    KEYS_OF_A_MODEL,
    LARGEST_SEED,
    base_of,
    entry_of,
    mapping_of,
    merged,
    naming,
    require_choices,
    require_path,
    varied,
)
from tfctr.models import describe_arguments
from tfctr.storage import read_yaml
from tfctr.types import StrPath

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

_KEYS = (*KEYS_OF_A_MODEL, "vary", "trials", "seed", "prune_from")
_EXAMPLE = "vary: {training.learning_rate: {float: [1e-4, 1e-2], log: true}, model.dropout: [0, 0.2]}"
_TRIALS = 20
_MOST_TRIALS = 10_000


@dataclasses.dataclass(frozen=True)
class Space:
    """A model, and the values among which `tune` searches.

    Args:
        vary: for each path of a value, such as `"model.alpha"`, what it may be: a list of choices; `{"float": [0.1, 0.9]}`; or
            `{"int": [8, 32]}`. With `"log": True` evenly over its magnitudes; with `"step": 8` only each eighth number.
        entry: `config`, `model` and `training`, as of a model in a `Spec`: what does not vary.
        trials: how many settings are tried.
        seed: of the search, and of each trial's training.
        prune_from: the first epoch after which a trial that is worse than the median of the others may end; None for never.
        folder: where the file is that `config` names.

    Raises:
        ConfigError: a name that does not exist, or a value that cannot be used, with the place of it.

    >>> space = Space.from_dict({"model": {"name": "DNN"}, "vary": {"model.dropout": {"float": [0, 0.5], "step": 0.1}}})
    >>> space.trials, space.seed, space.prune_from
    (20, 1, 1)
    """

    vary: Mapping[str, Any]
    entry: Mapping[str, Any]
    trials: int = _TRIALS
    seed: int = 1
    prune_from: int | None = 1
    folder: Path = Path()

    @classmethod
    def load(cls, path: StrPath) -> Self:
        """Read a YAML or JSON file. Raises `ConfigError` or `StorageError`, which name the file."""
        with naming(path):
            return cls.from_dict(read_yaml(path), Path(path).parent)

    @classmethod
    def from_dict(cls, values: Any, folder: Path = Path()) -> Self:
        """The search that plain data describe."""
        require(isinstance(values, dict) and "vary" in values, "the section `vary` is missing.", fix=f"write {_EXAMPLE}")
        for key in values:
            require_one_of(_KEYS, key, "key")
        vary = mapping_of(values["vary"], "vary")
        require(vary, "`vary` names nothing.", fix=f"write {_EXAMPLE}")
        for path, given in vary.items():
            if isinstance(given, dict):
                _require_range(path, given)
            else:
                require_choices(path, given)
            fix = "fix it under `training`: by it the trials are compared"
            require(path != "training.monitor", "vary.training.monitor would compare trials by several measures.", fix=fix)
        entry = entry_of({key: values[key] for key in KEYS_OF_A_MODEL if key in values}, "")
        trials, seed, prune_from = (values.get(key, getattr(cls, key)) for key in ("trials", "seed", "prune_from"))
        require_count("trials", trials, 1, _MOST_TRIALS)
        require_count("seed", seed, 0, LARGEST_SEED)
        if prune_from is not None:
            require_count("prune_from", prune_from)
        return cls(vary, entry, trials, seed, prune_from, folder)

    def base(self, dataset: Dataset) -> Config:
        """The settings that the search begins with. Raises `ConfigError` for a name, or a value to choose, that cannot be."""
        settings = merged(base_of("TF4CTR", self.entry, dataset, self.folder), self.entry)
        settings["training"]["seed"] = self.seed
        base = varied(settings, [], dataset, "")
        require_usable(base.model.name, base)
        for path, given in self.vary.items():
            for value in given if isinstance(given, list) else _ends(given):
                require_usable(base.model.name, varied(settings, [f"{path}={_text(value)}"], dataset, ""))
        return base

    def plain(self, chosen: Mapping[str, Any]) -> dict[str, Any]:
        """What Optuna has chosen, as values."""
        return {path: json.loads(value) if isinstance(self.vary[path], list) else value for path, value in chosen.items()}

    def distributions(self) -> dict[str, "BaseDistribution"]:
        """The space as Optuna has it; a choice is its JSON text, since choices may be lists."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        found: dict[str, BaseDistribution] = {}
        for path, given in self.vary.items():
            if isinstance(given, list):
                found[path] = CategoricalDistribution([_text(value) for value in given])
            elif "int" in given:
                found[path] = IntDistribution(*given["int"], log=given.get("log", False), step=given.get("step") or 1)
            else:
                found[path] = FloatDistribution(*given["float"], log=given.get("log", False), step=given.get("step"))
        return found

    def chosen_by(self, base: Config) -> dict[str, Any] | None:
        """The base as a choice of Optuna's; None where it is not in the space."""
        found = {}
        for path, given in self.vary.items():
            value = _value_at(base, path)
            if isinstance(given, list):
                value = next((_text(choice) for choice in given if _is_same(choice, value)), None)
                if value is None:
                    return None
            elif not _is_in(given, value):
                return None
            found[path] = value
        return found


def with_values(base: Config, settings: Mapping[str, Any]) -> Config:
    """The settings of a trial: the base with these values, `{path: value}`."""
    return Config.from_dict(base.to_dict(), [f"{path}={_text(value)}" for path, value in settings.items()])


def _require_range(path: str, given: Mapping[str, Any]) -> None:
    require_path(path)
    for key in given:
        require_one_of(("float", "int", "log", "step"), key, f"key in vary.{path}:")
    problem, fix = f"vary.{path} is {dict(given)!r}.", "give a list of choices, {float: [0.1, 0.9]}, or {int: [8, 32]}"
    require(("float" in given) != ("int" in given), problem, fix=fix)
    ends, kinds = _ends(given), int if "int" in given else int | float
    require(isinstance(ends, list) and len(ends) == 2 and all(_is_number(end, kinds) for end in ends), problem, fix=fix)
    low, high = ends
    require(low < high, problem, fix=f"the first number of a range is the lower one: [{high}, {low}]")
    log, step = given.get("log", False), given.get("step")
    require(isinstance(log, bool), f"vary.{path}.log is {log!r}.", fix="use true or false")
    require(not log or (low > 0 and step is None), problem, fix="a range with `log` begins above 0, and has no `step`")
    if step is not None:
        fits = _is_number(step, kinds) and step > 0 and (Fraction(str(high)) - Fraction(str(low))) % Fraction(str(step)) == 0
        require(fits, f"vary.{path}.step is {step!r}.", fix=f"use one that leads from {low} to {high}")


def _is_number(value: Any, kinds: Any) -> bool:
    return isinstance(value, kinds) and not isinstance(value, bool) and math.isfinite(value)


def _ends(given: Mapping[str, Any]) -> Any:
    return given["int"] if "int" in given else given["float"]


def _is_in(given: Mapping[str, Any], value: Any) -> bool:
    """Whether a value is one of a range."""
    low, high = _ends(given)
    if not _is_number(value, int if "int" in given else int | float) or not low <= value <= high:
        return False
    step = given.get("step")
    return step is None or (Fraction(str(value)) - Fraction(str(low))) % Fraction(str(step)) == 0


def _value_at(config: Config, path: str) -> Any:
    """The value of a run at a path, or the default of the model's argument."""
    value: Any = config.to_dict()
    for key in path.split("."):
        if not isinstance(value, dict) or key not in value:
            argument = path.removeprefix("model.")
            return describe_arguments(config.model.name).get(argument, {}).get("default")
        value = value[key]
    return value


def _is_same(choice: Any, value: Any) -> bool:
    """Whether they are one value: 1 and 1.0 are, 1 and true are not."""
    value = list(value) if isinstance(value, tuple) else value
    return choice == value and isinstance(choice, bool) == isinstance(value, bool)


def in_words(settings: Mapping[str, Any]) -> str:
    """The settings of a trial in one line.

    >>> in_words({"model.dropout": 0.123456, "model.hidden_units": [64, 32]})
    'dropout=0.1235, hidden_units=[64, 32]'
    """
    keys = [path.rpartition(".")[2] for path in settings]
    names = keys if len({*keys}) == len(keys) else [*settings]
    return ", ".join(f"{name}={short(value)}" for name, value in zip(names, settings.values(), strict=True))


def short(value: Any) -> str:
    """A value in four digits, or as JSON."""
    return f"{value:.4g}" if isinstance(value, float) else _text(value)


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
