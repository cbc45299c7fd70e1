"""A model that begins where an earlier one ended, though it knows other tokens."""

import logging
import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

import keras
import numpy as np
import tensorflow as tf

from tfctr.config import Config
from tfctr.data.dataset import Dataset
from tfctr.data.earlier_ids import carried, earlier_ids
from tfctr.data.split import Split
from tfctr.errors import ConfigError, choose
from tfctr.features import OUT_OF_VOCABULARY, has_vocabulary_file
from tfctr.layers import FeatureEmbedding
from tfctr.models import CTRModel
from tfctr.models._base import require_model
from tfctr.models._graph import embeddings_of
from tfctr.models._state import arguments_of
from tfctr.optimizers import ExactLazyAdam, LazyAdam, unwrap_loss_scaling
from tfctr.replicas import resource, write_rows
from tfctr.schema import Schema
from tfctr.training.run import Run, load_run
from tfctr.types import StrPath, Tensor

_LOG = logging.getLogger(__name__)

_BLOCK = 2**16  # rows that are carried at a time
NewRows: TypeAlias = Literal["out_of_vocabulary", "random"]
_NEW_ROWS = {"out_of_vocabulary": True, "random": False}
_NO_ARCHITECTURE = ("auxiliary", "embedding_l2", "l2_scope", "frozen")


def warm_start(
    model: CTRModel,
    earlier: Run | CTRModel | StrPath,
    new_rows: NewRows = "out_of_vocabulary",
    data: StrPath | None = None,
    begun: Collection[str] = (),
) -> dict[str, Any]:
    """Let a fresh model begin with what an earlier one has learnt: token by token, whatever ids each of the two gives it.

    Carried are the row of each token that both know, with its moments in the optimizer, and those of padding, missing and out
    of vocabulary; all other weights with their moments, the statistics of batch normalization, and the number of steps made.
    The learning rate is that of the fresh model.

    Args:
        model: compiled, of the same architecture, over the same features; such as one built for a dataset that extends the
            earlier one's (`tfctr.prepare(extend=...)`).
        earlier: a run, its folder, or a model whose `schema` knows its vocabulary files.
        new_rows: where rows of tokens that the earlier model does not know start: at its row for unknown tokens, or at
            `"random"`, as they are in a fresh model. Their moments are 0.
        data: the dataset of the earlier run, where it has moved.
        begun: features whose new tokens stay at what they are: they have begun with vectors (`start_with_vectors`).

    Returns:
        `{"features": {feature: {"carried", "new", "forgotten"}}, "moments": whether they were carried}`: how many tokens have
        their earlier row, have none, and are no longer known; of features with a vocabulary.

    Raises:
        ConfigError: the architecture differs, and where; the model is not compiled; features, edges, means or hash buckets
            differ.
        StorageError: a vocabulary file is missing or corrupt.

    >>> import tempfile, tfctr
    >>> schema = tfctr.Schema(features=[tfctr.Categorical("user")], label="click")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     monday = tfctr.prepare(schema, train={"user": ["7", "60"], "click": [1, 0]}, out=f"{folder}/monday")
    ...     tuesday = tfctr.prepare(extend=monday, train={"user": ["8", "8"], "click": [1, 0]}, out=f"{folder}/tuesday")
    ...     models = [tfctr.models.LR(dataset.schema) for dataset in (monday, tuesday)]
    ...     for model in models:
    ...         model.compile()
    ...     warm_start(models[1], models[0])["features"]
    {'user': {'carried': 2, 'new': 1, 'forgotten': 0}}
    """
    of_unknown = choose(_NEW_ROWS, new_rows, "new_rows")
    require_model(model)
    if not model.compiled:
        raise ConfigError("the model is not compiled, so no moments can be carried.", fix="call model.compile(...) first")
    before, schema = _model_and_schema(earlier, data)
    _require_same_architecture(model, before)
    ids = earlier_ids(model.schema, schema)
    before.settle()
    model.settle()
    pairs = list(zip(embeddings_of(model), embeddings_of(before), strict=True))
    rows = {id(new.table): _Rows(new, old, ids, begun) for new, old in pairs}
    for weight, old in zip(model.weights, before.weights, strict=True):
        if id(weight) in rows:
            rows[id(weight)].carry(weight, resource(old).sparse_read, of_unknown)
        else:
            weight.assign(old)
    moments = _carry_moments(model, before, rows)
    report = {"features": _counts(model.schema, schema, ids), "moments": moments}
    for name, found in report["features"].items():
        _LOG.info("%s: rows of %d tokens carried, %d new, %d forgotten", name, *found.values())
    return report


def next_config(earlier: Run) -> Config:
    """The settings of a warm start that nobody has set: those of the earlier run, but for what would undo what it learnt.

    The learning rate is that of its best epoch, and of a run that was trained anew at most the first one to which a plateau
    lowers it: steps at the rate with which it began are too large, also where its best epoch came, by luck, that early. There
    is one epoch: a second pass learns the rows of one day by heart. And L2 moves the rows of a batch: over whole tables, it
    would take tokens of other days for useless. See `benchmarks/week.py`. Vectors are read again only from a file that is named
    again: see `start_with_vectors`.
    """
    rate = earlier.history[(earlier.metrics["best_epoch"] or 1) - 1]["learning_rate"]
    settings = earlier.config.training
    if "warm_start" not in earlier.environment:
        rate = min(rate, max(settings.learning_rate * settings.learning_rate_factor, settings.min_learning_rate))
    values = earlier.config.to_dict()
    # A float32, as its shortest decimal: 0.0001 and not 0.00009999999747.
    values["training"] |= {"epochs": 1, "learning_rate": float(str(np.float32(rate))), "pretrained": {}}
    if values["model"].get("embedding_l2"):
        values["model"]["l2_scope"] = "batch"
    return Config.from_dict(values)


def with_replay(train: Split, schema: Schema, earlier: Dataset, share: float, seed: int) -> Split:
    """The training rows, and `share` times as many of an earlier dataset's, drawn without replacement, as far as it has them.

    Args:
        train: the split, of the fit of `schema`.
        earlier: the dataset of the run before, whose tokens are found again by their text.
        share: of the rows of `train`.
        seed: of the draw.
    """
    before = earlier.train
    number = min(round(share * train.rows), before.rows)
    rows = np.sort(np.random.default_rng(seed).choice(before.rows, number, replace=False))
    ids = carried(before.ids_of(rows), schema, earlier.schema, earlier_ids(schema, earlier.schema))
    return train.joined_by(ids, before.labels[rows], None if before.weights is None else before.weights[rows])


class _Rows:
    """From which row of an earlier table each row of a table comes."""

    def __init__(
        self, new: FeatureEmbedding, old: FeatureEmbedding, ids: Mapping[str, np.ndarray], begun: Collection[str]
    ) -> None:
        firsts = np.cumsum([0, *(field.size for field in old.blocks)])
        own = [ids[field.feature.name] for field in new.blocks]
        self.source = np.concatenate(
            [np.where(some < 0, -1, some + first) for some, first in zip(own, firsts[:-1], strict=True)]
        )
        owners = {field.feature.owner for field in new.fields if field.feature.name in begun and new.embedding_dim > 1}
        stays = [field.feature.owner in owners for field in new.blocks]
        unknown = np.where(stays, -1, firsts[:-1] + OUT_OF_VOCABULARY)
        self.of_unknown = np.repeat(unknown, [len(some) for some in own])

    def carry(self, new: keras.Variable, read: Callable[[Tensor], Tensor], of_unknown: bool = False) -> None:
        """Write what `read(rows)` gives of the earlier table; rows of new tokens get that of unknown ones, or stay."""
        source = np.where(self.source < 0, self.of_unknown, self.source) if of_unknown else self.source
        rows = np.flatnonzero(source >= 0)
        for start in range(0, len(rows), _BLOCK):
            some = rows[start : start + _BLOCK]
            write_rows(new, tf.constant(some), read(tf.constant(source[some])))


def _model_and_schema(earlier: Run | CTRModel | StrPath, data: StrPath | None) -> tuple[CTRModel, Schema]:
    """The earlier model, and its schema with the vocabulary files."""
    if isinstance(earlier, CTRModel):
        if data is None:
            return earlier, earlier.schema
        schema = Dataset.load(data).schema
        earlier.schema.require_fit(schema.digest, str(data), fix="give the dataset that the earlier model was trained on")
        return earlier, schema
    if not isinstance(earlier, Run | str | os.PathLike):
        raise ConfigError(f"`earlier` is {earlier!r}.", fix="give a run, its folder, or a model")
    run = earlier if isinstance(earlier, Run) else load_run(Path(earlier))
    return run.model, run.dataset(data).schema


def _require_same_architecture(model: CTRModel, before: CTRModel) -> None:
    if type(model) is not type(before):
        problem = f"the earlier model is a {type(before).__name__}, this one a {type(model).__name__}."
        raise ConfigError(problem, fix="build the model as it was, or train anew")
    ours, theirs = _architecture(model), _architecture(before)
    for argument in ours:
        if ours[argument] != theirs.get(argument):
            problem = f"`{argument}` was {theirs.get(argument)!r} in the earlier model and is {ours[argument]!r}."
            raise ConfigError(problem, fix="build the model as it was, or train anew")
    tables = {id(embedding.table) for embedding in embeddings_of(model)}
    for new, old in zip(model.weights, before.weights, strict=True):
        if id(new) not in tables and new.shape != old.shape:
            problem = f"the weight {new.path} has the shape {tuple(new.shape)}, and had {tuple(old.shape)}."
            raise ConfigError(problem, fix="build the model as it was, or train anew")


def _architecture(model: CTRModel) -> dict[str, Any]:
    """The arguments that say which weights a model has; how strongly these are held small does not."""
    arguments = {name: value for name, value in arguments_of(model).items() if name not in _NO_ARCHITECTURE}
    return {**arguments, "number of weights": len(model.weights)}


def _carry_moments(model: CTRModel, before: CTRModel, rows: Mapping[int, _Rows]) -> bool:
    """Carry what the optimizer keeps of each weight, and its steps; False where another optimizer kept it, or none."""
    optimizer = unwrap_loss_scaling(model.optimizer)
    earlier = unwrap_loss_scaling(before.optimizer) if before.compiled else None
    if earlier is None or not (isinstance(optimizer, type(earlier)) or isinstance(earlier, type(optimizer))):
        _LOG.warning("the optimizer begins anew: it is %s, and was %s", _name(optimizer), _name(earlier))
        return False
    earlier_of = {id(weight): old for weight, old in zip(model.weights, before.weights, strict=True)}
    kept = {id(weight): slots for weight, slots in zip(earlier._trainable_variables, slots_of(earlier), strict=True)}
    for weight, slots in zip(optimizer._trainable_variables, slots_of(optimizer), strict=True):
        old = earlier_of[id(weight)]
        old_slots = kept.get(id(old), {})  # none of one that was frozen
        for name in slots.keys() & old_slots.keys():
            if id(weight) in rows:
                rows[id(weight)].carry(slots[name], _reader(earlier, old, name, old_slots[name]))
            else:
                slots[name].assign(old_slots[name])
    for name, value in vars(optimizer).items():  # the steps made, and what else an optimizer counts
        if isinstance(value, keras.Variable) and value.shape == () and name != "_learning_rate":
            value.assign(getattr(earlier, name))
    if isinstance(optimizer, ExactLazyAdam):
        optimizer.begin_here()
    return True


def _reader(optimizer: Any, table: keras.Variable, name: str, slot: keras.Variable) -> Callable[[Tensor], Tensor]:
    """What reads rows of a slot: of a lazy optimizer, as they are after the steps that they missed."""
    if isinstance(optimizer, LazyAdam):
        place = ("_momentums", "_velocities").index(name)
        return lambda rows: optimizer.read_moments(table, rows)[place]
    return resource(slot).sparse_read


def _name(optimizer: Any) -> str:
    return "none" if optimizer is None else type(optimizer).__name__


def slots_of(optimizer: Any) -> list[dict[str, keras.Variable]]:
    """For each trained weight, what the optimizer keeps of it: `{"_momentums": variable, ...}`."""
    weights = optimizer._trainable_variables
    others = (weights, optimizer._variables)
    lists = {
        name: values
        for name, values in vars(optimizer).items()
        if isinstance(values, list) and len(values) == len(weights) and not any(values is other for other in others)
    }
    return [
        {name: values[place] for name, values in lists.items() if getattr(values[place], "shape", None) == weight.shape}
        for place, weight in enumerate(weights)
    ]


def _counts(schema: Schema, earlier: Schema, ids: Mapping[str, np.ndarray]) -> dict[str, dict[str, int]]:
    counts = {}
    for feature, other in zip(schema.features, earlier.features, strict=True):
        if has_vocabulary_file(feature) and feature.vocabulary_sha256 is not None:
            new = int((ids[feature.name] < 0).sum())
            carried = len(ids[feature.name]) - new - OUT_OF_VOCABULARY - 1
            known = (other.size or 0) - OUT_OF_VOCABULARY - 1
            counts[feature.name] = {"carried": carried, "new": new, "forgotten": known - carried}
    return counts
