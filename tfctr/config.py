"""One run, as a YAML file says it: which model, and how to train it.

    model:
      name: TF4CTR
      alpha: 0.25
      simple_encoder: {type: MLP, hidden_units: [400, 400], dropout: 0.2, batch_norm: true}
    training:
      batch_size: 10000

`model` holds a name of `tfctr.models.MODELS` and that model's own arguments, checked when the model is built; `training` holds
the keys of `Training`. Importing this module does not import TensorFlow.
"""

import contextlib
import math
import reprlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal, Self

import pydantic

from tfctr.errors import ConfigError, did_you_mean
from tfctr.storage import atomic_file, parse_yaml, read_yaml, yaml_text
from tfctr.types import StrPath

_FIX = "correct what is named here; `tfctr init` writes a whole run"
_PLAIN = str | int | float | bool | None
_MOST = 2**31  # what is counted stays below
_Count = Annotated[int, pydantic.Field(gt=0, lt=_MOST)]
_CountOrAuto = Annotated[  # one message for a wrong value, not one for each choice
    Annotated[_Count, pydantic.Tag("count")] | Annotated[Literal["auto"], pydantic.Tag("auto")],
    pydantic.Discriminator(lambda value: "auto" if isinstance(value, str) else "count"),
]
STEPS_AN_EPOCH = 50  # at least, but for the smallest tables
_LEAST_BATCH = 64  # rows
_LARGEST_BATCH = 8192
_DEEPEST = 6  # model.simple_encoder.hidden_units.0 is 4 deep


class _Section(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, strict=True)


class Model(_Section):
    """A model of the registry by name; every other key is an argument of that model."""

    model_config = pydantic.ConfigDict(extra="allow", protected_namespaces=())

    name: str

    @property
    def arguments(self) -> dict[str, Any]:
        """What `tfctr.models.build(name, schema, **arguments)` gets."""
        return dict(self.model_extra or {})


class Training(_Section):
    """How a model is trained; the defaults are those of the papers.

    Args:
        batch_size: rows of one gradient step; `"auto"` for a power of two from the rows: see `batch_size_for`.
        epochs: passes over the training table, at most.
        optimizer: `"adam"`, with an epsilon of 1e-8; `"lazy_adam"`, `"exact_lazy_adam"`, `"adagrad"` or `"ftrl"`, by rows; or
            `"auto"`: Adam's result, by rows where tables are large.
        learning_rate: before the first drop.
        loss: what the prediction is trained on.
        clip_norm: the gradient's global norm is scaled down to this; null for no clipping.
        start: where logits start: at `"zero"`, one half, as in the papers; or at the `"click_rate"` of the training rows: see
            `CTRModel.start_at`.
        monitor, patience, patience_from, learning_rate_factor, min_learning_rate: of `tfctr.training.paper_callbacks`.
        precision: a Keras dtype policy; embedding tables and logits stay float32.
        seed: of the initial weights, of dropout and of the order of rows.
        steps_per_execution: gradient steps in one call of the graph; above 1 only helps with small batches.
        pretrained: `{feature: file}`: vectors that its embeddings begin with, whatever the seed; `model.frozen` lets them stay.
            See `tfctr.training.start_with_vectors`. Of a run that goes on they are in its checkpoint; with a warm start, those
            of tokens that the earlier run did not know.
        replay: with a warm start, how many training rows of the earlier run are trained on beside the new ones, as a share of
            these: 0.5 is one for two.
    """

    batch_size: _CountOrAuto = 10_000
    epochs: _Count = 100
    optimizer: Literal["adam", "lazy_adam", "exact_lazy_adam", "adagrad", "ftrl", "auto"] = "adam"
    learning_rate: pydantic.PositiveFloat = 0.001
    loss: Literal["log_loss", "focal", "robust_cross_entropy"] = "log_loss"
    clip_norm: pydantic.PositiveFloat | None = 10.0
    start: Literal["zero", "click_rate"] = "zero"
    monitor: Literal["auc", "log_loss", "auc_minus_log_loss"] = "auc"
    patience: _Count = 2
    patience_from: int = pydantic.Field(default=0, ge=0, lt=_MOST)
    learning_rate_factor: float = pydantic.Field(default=0.1, gt=0, le=1)
    min_learning_rate: pydantic.NonNegativeFloat = 1e-6
    precision: Literal["float32", "mixed_float16", "mixed_bfloat16"] = "float32"
    seed: int = pydantic.Field(default=1, ge=0, lt=_MOST)
    steps_per_execution: _Count = 1
    replay: pydantic.NonNegativeFloat = 0.0
    pretrained: dict[str, str] = {}


def batch_size_for(rows: int) -> int:
    """The largest power of two, from 64 to 8,192, that makes at least 50 gradient steps an epoch.

    >>> batch_size_for(8_000), batch_size_for(200_000), batch_size_for(40_000_000)
    (128, 2048, 8192)
    """
    power = 2 ** int(math.log2(max(rows // STEPS_AN_EPOCH, 1)))
    return min(max(power, _LEAST_BATCH), _LARGEST_BATCH)


class Config(_Section):
    """One run: the sections `model` and `training`.

    >>> config = Config.from_dict({"model": {"name": "DNN", "dropout": 0.1}}, overrides=["training.batch_size=512"])
    >>> config.model.arguments, config.training.batch_size, config.training.patience
    ({'dropout': 0.1}, 512, 2)
    """

    model: Model
    training: Training = Training()

    @classmethod
    def load(cls, path: StrPath, overrides: Iterable[str] = ()) -> Self:
        """Read a YAML or JSON file. Raises `ConfigError` or `StorageError`, naming the file or the override, and the key."""
        return cls._from_values(read_yaml(path), overrides, place=f"{path}: ")

    @classmethod
    def from_dict(cls, values: dict[str, Any], overrides: Iterable[str] = ()) -> Self:
        """The run that plain data describe, after `overrides` such as `"training.batch_size=512"`.

        Raises:
            ConfigError: an unknown key (with the closest one), a value of the wrong kind or out of range: all of them at once.
        """
        return cls._from_values(values, overrides)

    @classmethod
    def _from_values(cls, values: Any, overrides: Iterable[str], place: str = "") -> Self:
        with _named(place):
            if not isinstance(values, dict):
                raise ConfigError("a run is a mapping with the section `model`.", fix="`tfctr init` writes one")
            values = _plain(values)
        places: dict[tuple[str, ...], str] = {}
        for override in overrides:
            with _named(f"--set {override}: "):
                places[_override(values, override)] = f"--set {override}: "
        try:
            return cls.model_validate(values)
        except pydantic.ValidationError as error:
            found = [{**details, "loc": details["loc"][:2]} for details in error.errors()]  # without pydantic's tags
            problems = (_place(details["loc"], places, place) + _problem(details) for details in found)
            raise ConfigError("\n  ".join(problems), fix=_FIX) from error

    def for_rows(self, rows: int) -> Self:
        """The same run on a training table of so many rows: without `"auto"`."""
        training = self.training
        if training.batch_size == "auto":
            training = training.model_copy(update={"batch_size": batch_size_for(rows)})
        return self.model_copy(update={"training": training})

    def to_dict(self) -> dict[str, Any]:
        """Plain data with every default written out."""
        return self.model_dump()

    def save(self, path: StrPath) -> None:
        """Write a YAML file, atomically; `load` gives the same run back."""
        with atomic_file(path) as file:
            file.write(yaml_text(self.to_dict()))


_SECTIONS: dict[str, type[_Section]] = {"model": Model, "training": Training}


def _plain(value: Any, *path: str | int) -> Any:
    """A copy of `value` that holds nothing but mappings with text keys, lists, text, finite numbers, booleans and null."""
    where = ".".join(map(str, path))
    if len(path) > _DEEPEST:
        raise ConfigError(f"{where} is nested too deeply.", fix=_FIX)
    if isinstance(value, dict):
        return {_key(key, where): _plain(child, *path, key) for key, child in value.items()}
    if isinstance(value, list):
        return [_plain(child, *path, index) for index, child in enumerate(value)]
    if not isinstance(value, _PLAIN) or (isinstance(value, float) and not math.isfinite(value)):
        raise ConfigError(f"{where} is {reprlib.repr(value)}.", fix="use text, a finite number, true, false, null, or a list")
    return value


def _key(key: object, where: str) -> str:
    if not isinstance(key, str):
        raise ConfigError(f"{where} has the key {reprlib.repr(key)}, which is not text.", fix="quote it, or correct it")
    return key


def _override(values: dict[str, Any], override: str) -> tuple[str, ...]:
    """Put the value of `override` into `values`, and return its key path."""
    path, equals, text = override.partition("=")
    keys = path.strip().split(".")
    if not equals or len(keys) < 2 or not all(keys):
        raise ConfigError("this is not `section.key=value`.", fix="--set training.batch_size=512")
    value = _plain(parse_yaml(text, "the value"), *keys)
    section = values
    for key in keys[:-1]:
        section = section.setdefault(key, {})
        if not isinstance(section, dict):
            raise ConfigError(f"{key!r} has no keys of its own.", fix=f"the value there is {section!r}")
    section[keys[-1]] = value
    return tuple(keys)


@contextlib.contextmanager
def _named(place: str) -> Iterator[None]:
    """Let a `ConfigError` begin with the place of the fault."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(place + error.problem, fix=error.fix) from error


def _place(path: tuple[Any, ...], overrides: Mapping[tuple[str, ...], str], file: str) -> str:
    """The override that gave the value at `path`, else the file."""
    return next((overrides[path[:end]] for end in range(len(path), 0, -1) if path[:end] in overrides), file)


def _problem(details: Mapping[str, Any]) -> str:
    """One line for one of pydantic's errors, with the key path."""
    *parents, key = details["loc"]
    path = ".".join(map(str, details["loc"]))
    if details["type"] == "extra_forbidden":
        section = _SECTIONS[parents[0]] if parents else Config
        return f"unknown key {path!r}. {did_you_mean(key, section.model_fields)}"
    if details["type"] == "missing":
        return f"the key {path!r} is missing."
    return f"{path} is {reprlib.repr(details['input'])}. {details['msg']}."
