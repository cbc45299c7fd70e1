"""A model as a config and back, and `.keras` files, with an error that says what is wrong with one."""

import contextlib
import itertools
import json
import re
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import h5py
import keras

from tfctr.errors import ConfigError, StorageError
from tfctr.layers.nested import nested_states, restore_nested
from tfctr.models._graph import embeddings_of
from tfctr.optimizers import unwrap_loss_scaling
from tfctr.schema import Schema
from tfctr.types import StrPath

_WEIGHTS = "model.weights.h5"  # in a .keras file
_CONFIG = "config.json"  # in it, too
_LARGE = 2**26  # bytes
_MOST_TIMES = 3  # weights count twice, as a file in the archive and as arrays in that file
_TRUST = "load only files that you or those whom you trust have saved"
_INSTEAD_OF_LAMBDA = 'write a layer with its own class, decorated with @keras.saving.register_keras_serializable("mine")'
_UNSAFE = re.compile("Not allowed|disallowed")  # in Keras' words for what may run code or reads other files
_UNKNOWN_CLASS = re.compile(r"Could not locate (?:class|function) '(\w+)'")


def load_model(path: StrPath, custom_objects: Mapping[str, Any] | None = None, compile: bool = True) -> Any:
    """A `.keras` file as a model.

    Args:
        path: of the file.
        custom_objects: `{name: class}` of those in it that are neither Keras', nor tfctr's, nor registered.
        compile: with its optimizer, to go on with training. Without, it scores and is exported, in a third of the memory: Adam
            keeps two moments of each weight.

    Raises:
        StorageError: the file is missing, corrupt, no `.keras` file, needs a class that is not known, or another version; or
            could run code, read or write other files, or take many times its size of memory.
    """
    path = Path(path)
    if not path.is_file():
        if path.is_dir():
            fix = "a SavedModel is served: `tfctr serve`, or used as keras.layers.TFSMLayer(...)"
            raise StorageError(f"{path} is a folder, and no .keras file.", fix=fix)
        raise StorageError(f"{path} does not exist.", fix="check the path")
    _require_harmless(path)
    try:
        with contextlib.ExitStack() as kept:
            return keras.saving.load_model(_unpacked(path, kept), custom_objects=custom_objects, compile=compile)
    except Exception as error:  # Keras says what it cannot do in many ways, "File not found" among them
        raise _what_is_wrong(path, error) from error


def _unpacked(path: Path, kept: contextlib.ExitStack) -> Path:
    """A large file as a temporary folder, which Keras reads array by array; of a file it holds all bytes beside the arrays.

    The file itself where there is no room for that, or something is wrong with it, which its reader says.
    """
    if path.stat().st_size < _LARGE:
        return path
    with contextlib.suppress(Exception), zipfile.ZipFile(path) as archive:
        folder = Path(kept.enter_context(tempfile.TemporaryDirectory(prefix="tfctr-load-")))
        if sum(info.file_size for info in archive.infolist()) < shutil.disk_usage(folder).free:
            archive.extractall(folder)
            return folder
    return path


def _what_is_wrong(path: Path, error: Exception) -> StorageError:
    if path.name.endswith(".weights.h5"):
        fix = "build the model as it was and call model.load_weights(path)"
        return StorageError(f"{path} holds weights without their model.", fix=fix)
    if not _is_whole(path):
        return StorageError(f"{path} is corrupt: {error}", fix="restore it or train again")
    if _UNSAFE.search(str(error)):
        said = str(error).rpartition("Exception encountered: ")[2].partition(" If you trust ")[0]
        fix = f"{_TRUST}; for a Lambda of your own, {_INSTEAD_OF_LAMBDA}, and save again"
        return StorageError(f"{path} could run code or read other files, and is refused: {said}", fix=fix)
    unknown = _UNKNOWN_CLASS.search(str(error))
    if unknown:
        name = unknown[1]
        fix = (
            f"import the module in which it is decorated with @tfctr.models.register (a layer: "
            f'@keras.saving.register_keras_serializable("mine")), or load_model(path, custom_objects={{"{name}": {name}}})'
        )
        return StorageError(f"{path} needs the class {name!r}, which is not known here.", fix=fix)
    fix = "use the version of the code that wrote it, or train again"
    return StorageError(f"{path} is whole, but its model cannot be built here: {error}", fix=fix)


def _require_harmless(path: Path) -> None:
    """Raise `StorageError` for a file that takes far more memory than it is, or unpacks elsewhere: Keras compresses nothing."""
    size = path.stat().st_size
    unpacked: list[int] = []
    members: list[zipfile.ZipInfo] = []
    floats = 0
    # A damaged archive raises errors of many kinds; what it lacks is said by who loads it.
    with contextlib.suppress(Exception), zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        unpacked += [info.file_size for info in members]
        if size < _LARGE and archive.getinfo(_WEIGHTS).file_size < _LARGE:
            with archive.open(_WEIGHTS) as file, h5py.File(file, "r") as weights:
                weights.visititems(lambda _, item: unpacked.append(getattr(item, "nbytes", 0)))
        if sum(unpacked) <= _MOST_TIMES * size + _LARGE:
            arguments = json.loads(archive.read(_CONFIG))["config"]
            floats = _floats_of_tables(arguments)
            floats = max(floats, _floats_of_layers(arguments))
    if sum(unpacked) > _MOST_TIMES * size + _LARGE:
        problem = f"{path} of {size:,} bytes unpacks to {sum(unpacked):,}."
        raise StorageError(problem, fix=_TRUST)
    if floats > max(size, _LARGE):  # each takes two bytes at least
        problem = f"{path} of {size:,} bytes asks for embeddings or layers of {floats:,} numbers, which it does not hold."
        raise StorageError(problem, fix=_TRUST)
    for name in (info.filename for info in members):
        if name.startswith("/") or ".." in Path(name).parts:
            raise StorageError(f"{path} has the member {name!r}, outside of the file's own folder.", fix=_TRUST)


def _floats_of_tables(arguments: Mapping[str, Any]) -> int:
    """How many numbers the embedding tables of a saved model have at least, by its own words."""
    width = arguments.get("embedding_dim", 1)  # LR has none
    return Schema.from_config(arguments["schema"]).table_rows * (width if isinstance(width, int) else 1)


def _floats_of_layers(config: Any) -> int:
    """The same of its hidden layers: one for each pair of units in neighbouring layers, whatever their list is called.

    >>> _floats_of_layers({"simple_encoder": {"hidden_units": [400, 300, 2]}, "name": "ctr", "schema": {"sizes": [9, 9]}})
    120600
    """
    if isinstance(config, dict):
        return sum(_floats_of_layers(value) for name, value in config.items() if name != "schema")
    if not isinstance(config, list):
        return 0
    if all(isinstance(value, int) for value in config):
        return sum(first * second for first, second in itertools.pairwise(config))
    return sum(map(_floats_of_layers, config))


def _is_whole(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None and {_CONFIG, "metadata.json"} <= set(archive.namelist())
    except Exception:  # a damaged archive raises errors of many kinds
        return False


class Saved(keras.Model):
    """What a model does to be saved, copied and exported; `settle` brings its rows up to date before."""

    # (argument, value): what a saved config that lacks the argument means, as there was no choice yet
    EARLIER: tuple[tuple[str, Any], ...] = ()

    # The constructor's arguments, and the options of the L2 term as they were when the model was made.
    _arguments: dict[str, Any]
    _l2_made: dict[str, Any]

    def get_weights(self) -> list[Any]:
        """Keras' `get_weights`."""
        self.settle()
        return super().get_weights()

    def set_weights(self, weights: Sequence[Any]) -> None:
        """Keras' `set_weights`: rows that owe steps are settled before, or these would move what is set."""
        self.settle()
        super().set_weights(weights)

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Keras' `save`. Raises `ConfigError`, before a file is begun, where the model could not be built anew."""
        self.get_config()
        self.settle()
        super().save(*args, **kwargs)

    def save_weights(self, *args: Any, **kwargs: Any) -> None:
        """Keras' `save_weights`."""
        self.settle()
        super().save_weights(*args, **kwargs)

    def load_weights(self, *args: Any, **kwargs: Any) -> None:
        """Keras' `load_weights`, settled before as `set_weights` is."""
        self.settle()
        super().load_weights(*args, **kwargs)

    def export(self, *args: Any, **kwargs: Any) -> Any:
        """Keras' `export`: a SavedModel from prepared ids to the named logits.

        What a server needs, probabilities of raw rows, `tfctr.serving.export` writes.
        """
        self.settle()
        return super().export(*args, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        self.settle()
        return super().__reduce__()

    def quantize(self, *args: Any, **kwargs: Any) -> None:
        """Refused: a saved model is built anew from its arguments, in floats. Raises `ConfigError` with what works."""
        fix = "serve small tables: tfctr.serving.export(..., tables=tfctr.serving.compress_tables(model, rows, 'int8'))"
        raise ConfigError("a model of tfctr is not quantized in place.", fix=fix)

    def _run_through_graph(self, *args, **kwargs):
        # What `keras.models.clone_model` makes of these outputs is a plain graph, which would train by other losses.
        if getattr(kwargs.get("operation_fn"), "__module__", None) == keras.models.clone_model.__module__:
            fix = (
                "type(model).from_config(model.get_config()) has new weights, copy.deepcopy(model) the same; "
                "scikit-learn's wrappers take a function that makes the model"
            )
            raise ConfigError("keras.models.clone_model would drop the model's losses.", fix=fix)
        return super()._run_through_graph(*args, **kwargs)

    def get_config(self) -> dict[str, Any]:
        name = {"name": self.name, "dtype": keras.dtype_policies.serialize(self.dtype_policy)}
        name |= {"trainable": self.trainable, "nested": nested_states(self)}
        set_by_hand = {key: getattr(self, key) for key, made in self._l2_made.items() if getattr(self, key) != made}
        arguments = {**self._arguments, **set_by_hand}
        if not arguments.get("frozen"):  # which models saved before there was a choice have not
            arguments.pop("frozen", None)
        graph = {}
        if _is_given_its_graph(self):
            arguments = {key: value for key, value in arguments.items() if key not in ("ids", "outputs", "embeddings")}
            graph = _config_of_graph(self)
        config = name | _config_of_arguments(self, arguments) | graph
        _require_no_code(config)
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Mapping[str, Any] | None = None) -> Self:
        config = {**dict(cls.EARLIER), **config}
        trainable = config.pop("trainable", True)  # files of older versions have neither this one nor the next
        nested = config.pop("nested", None)
        with _under_policy(config.pop("dtype")):
            graph = _graph_of_config(config.pop("graph"), config.pop("embeddings")) if "graph" in config else {}
            model = cls(**_arguments_of_config(config), **graph)
        model.trainable = trainable
        if nested is not None:
            restore_nested(model, nested)
        return model

    def get_compile_config(self) -> dict[str, Any] | None:
        if not self.compiled:
            return None
        return {
            **_built_for(self),
            "optimizer": keras.optimizers.serialize(self.optimizer),
            "loss": keras.losses.serialize(self.ctr_loss),
            "metrics": keras.saving.serialize_keras_object(self._metrics_given),
            "clip_norm": self.clip_norm,
            "run_eagerly": self.run_eagerly,
            "steps_per_execution": self.steps_per_execution,
        }

    def compile_from_config(self, config: Mapping[str, Any]) -> None:
        config = dict(config)
        metrics, weighted_metrics = keras.saving.deserialize_keras_object(config.pop("metrics", [None, None]))
        optimizer = keras.optimizers.deserialize(config.pop("optimizer"))
        loss = keras.losses.deserialize(config.pop("loss"))
        if "built_for" in config:
            optimizer.build([self.weights[place] for place in config.pop("built_for")])
        # The saved optimizer is wrapped for loss scaling, or is not to be.
        self.compile(optimizer, loss, metrics=metrics, weighted_metrics=weighted_metrics, auto_scale_loss=False, **config)


def _require_no_code(config: Any, name: str | None = None) -> None:
    """Raise `ConfigError` for a Python lambda in a config: Keras writes it as code, which nobody should load."""
    if isinstance(config, list | tuple):
        for inner in config:
            _require_no_code(inner, name)
    elif isinstance(config, dict):
        # The second form is that of an activation.
        if config.get("class_name") == "__lambda__" or (set(config) == {"value"} and isinstance(config["value"], tuple)):
            raise ConfigError(f"the layer {name!r} has a lambda, which no file keeps.", fix=_INSTEAD_OF_LAMBDA)
        for inner in config.values():
            _require_no_code(inner, config.get("name", name))


def _built_for(model: keras.Model) -> dict[str, Any]:
    """Which weights the optimizer is of: some may be frozen by now. Nothing where one is gone: its layer was quantized."""
    places = {id(variable): place for place, variable in enumerate(model.weights)}
    found = [places.get(id(variable)) for variable in unwrap_loss_scaling(model.optimizer)._trainable_variables]
    return {} if None in found else {"built_for": found}


def _is_given_its_graph(model: Saved) -> bool:
    """Whether the outputs are an argument as they are: of `CTRModel` itself, and of a subclass that hands them on."""
    given = model._arguments.get("outputs")
    outputs = model.output
    return isinstance(given, dict) and set(given) == set(outputs) and all(given[name] is outputs[name] for name in outputs)


def _config_of_arguments(model: Saved, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The constructor arguments of a model as plain data. Raises `ConfigError` for a tensor: it belongs to one graph."""
    config = {}
    for name, value in arguments.items():
        if any(isinstance(leaf, keras.KerasTensor) for leaf in keras.tree.flatten(value)):
            kind = type(model).__name__
            raise ConfigError(
                f"`{name}` of {kind} is a tensor, so that {kind} cannot be built anew from its arguments.",
                fix=f"let {kind} make its graph in __init__, or use CTRModel(schema, ids, outputs) itself",
            )
        config[name] = value.get_config() if isinstance(value, Schema) else keras.saving.serialize_keras_object(value)
    return config


def _arguments_of_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """What `_config_of_arguments` had."""
    arguments = {name: keras.saving.deserialize_keras_object(value) for name, value in config.items() if name != "schema"}
    return ({"schema": Schema.from_config(config["schema"])} if "schema" in config else {}) | arguments


def _config_of_graph(model: Saved) -> dict[str, Any]:
    """The config of a model's layers and of how they are connected, and which of its embeddings are which."""
    graph = keras.Model(model.input, model.output)
    embeddings = embeddings_of(graph)
    places = [next(i for i, found in enumerate(embeddings) if found is embedding) for embedding in model.embeddings]
    return {"graph": keras.saving.serialize_keras_object(graph), "embeddings": places}


def _graph_of_config(config: Mapping[str, Any], places: Sequence[int]) -> dict[str, Any]:
    """The arguments `ids`, `outputs` and `embeddings` of that graph, with new weights."""
    graph = keras.saving.deserialize_keras_object(config)
    embeddings = embeddings_of(graph)
    return {"ids": graph.input, "outputs": graph.output, "embeddings": [embeddings[place] for place in places]}


@contextlib.contextmanager
def _under_policy(policy: Mapping[str, Any]) -> Iterator[None]:
    """Build layers under a serialized dtype policy, and put back the one before."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(keras.dtype_policies.deserialize(policy))
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
