"""What a config of constructor arguments does not say of the layers within: names, frozen or not, precision, settings."""

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import keras

from tfctr.errors import ConfigError

# What `dtype` takes: the name of a dtype or of a policy, a policy, or None, which is the policy of Keras.
DTypeLike: TypeAlias = str | keras.DTypePolicy | None

if TYPE_CHECKING:

    class LayerOfInputs(keras.layers.Layer):
        """A layer whose `build` takes the shape of each argument of `call`; Keras' source names only one."""

        def build(self, *args: Any, **kwargs: Any) -> None: ...

else:
    LayerOfInputs = keras.layers.Layer

_SAID_APART = ("name", "trainable", "dtype", "activity_regularizer")  # in each state, and not in its "changed"


def remember(layer: keras.layers.Layer) -> None:
    """Keep what the config of `layer`, and of each layer within, says: what is changed by hand later is found by it."""
    for inner in (layer, *_within(layer)):
        if "_made_as" not in vars(inner):
            inner.__dict__["_made_as"] = _config_of(inner)


def nested_states(layer: keras.layers.Layer) -> list[dict[str, Any]]:
    """The state of each layer within `layer`, as plain data, for `restore_nested`.

    Raises:
        ConfigError: what was changed in one of them cannot be set again in another.

    >>> from tfctr.layers import ThroughNetwork
    >>> network = ThroughNetwork([2], [2])
    >>> network.deep.trainable = False
    >>> [state["trainable"] for state in nested_states(network)]
    [True, False, True]
    """
    return [
        {
            "class": type(inner).__name__,
            "name": inner.name,
            "trainable": inner.trainable,
            "dtype": keras.dtype_policies.serialize(inner.dtype_policy),
            "activity_regularizer": keras.regularizers.serialize(inner.activity_regularizer),
            **_changed_by_hand(inner),
        }
        for inner in _within(layer)
    ]


def restore_nested(layer: keras.layers.Layer, states: Sequence[Mapping[str, Any]]) -> None:
    """Give the layers within `layer`, made from the same arguments, the states that `nested_states` has found.

    Raises:
        ConfigError: they are not the layers that had these states.
    """
    inner = _within(layer)
    if [type(one).__name__ for one in inner] != [state["class"] for state in states]:
        fix = "use the version of the code that wrote it"
        raise ConfigError(f"{layer.name!r} has other layers within than its config says.", fix=fix)
    for one, state in zip(inner, states, strict=True):  # outer ones first: to freeze one freezes those within
        policy = keras.dtype_policies.deserialize(state["dtype"])
        if one.dtype_policy != policy:
            one.dtype_policy = policy
        if one.trainable != state["trainable"]:
            one.trainable = state["trainable"]
        one.name = state["name"]
        one.activity_regularizer = keras.regularizers.deserialize(state["activity_regularizer"])
        if "changed" in state:
            _change(one, state["changed"])


class Nested(LayerOfInputs):
    """The base of all layers with layers within: Keras saves their states with the shapes that it builds from."""

    def _post_build(self) -> None:
        super()._post_build()
        remember(self)

    def get_build_config(self) -> dict[str, Any] | None:
        config = super().get_build_config()
        states = nested_states(self)
        return {**config, **_changed_by_hand(self), "nested": states} if config else config

    def build_from_config(self, config: dict[str, Any]) -> None:
        super().build_from_config(config)
        if config and "changed" in config:
            _change(self, config["changed"])
        if config and "nested" in config:
            restore_nested(self, config["nested"])


def _plain_data(value: object) -> Any:
    """What Keras makes of an object for a file: of a layer, and of a dictionary, a dictionary."""
    return keras.saving.serialize_keras_object(value)


def _within(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    return layer._flatten_layers(include_self=False)


def _config_of(layer: keras.layers.Layer) -> dict[str, Any]:
    """What Keras would save of the layer alone, as plain data; nothing of one that has no config, or of a model as a layer."""
    if isinstance(layer, keras.Model):
        return {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a lambda: only who saves it need know
            config = _plain_data({**layer.get_config(), **_arguments_now(layer)})
    except Exception:  # a layer of a user's, which need not be saved by itself
        return {}
    return {key: _without_sharing(value) for key, value in config.items() if key not in _SAID_APART}


def _arguments_now(layer: keras.layers.Layer) -> dict[str, Any]:
    """The plain arguments of a layer of ours as they are: its config says what they were."""
    if not isinstance(layer, Nested):
        return {}
    own = {key: vars(layer)[key] for key in layer.get_config() if key in vars(layer)}
    return {key: value for key, value in own.items() if isinstance(value, bool | int | float | str | None)}


def _without_sharing(value: Any) -> Any:
    """A value of a config without the numbers that Keras adds within a file, for objects that stand in it twice."""
    if isinstance(value, dict):
        return {key: _without_sharing(inner) for key, inner in value.items() if key != "shared_object_id"}
    return [_without_sharing(inner) for inner in value] if isinstance(value, list) else value


def _differences(layer: keras.layers.Layer) -> dict[str, Any]:
    made = vars(layer).get("_made_as")
    return {key: value for key, value in _config_of(layer).items() if made.get(key) != value} if made else {}


def _changed_by_hand(layer: keras.layers.Layer) -> dict[str, Any]:
    """`{"changed": {key of its config: value}}`, or nothing. Raises `ConfigError` for what cannot be set again."""
    found = _differences(layer)
    if "lora_rank" in found:
        raise ConfigError(
            f"the layer {layer.name!r} has LoRA, which is not kept with a model.",
            fix="merge it: model.save_weights('merged.weights.h5'), and load_weights of that file in a new model",
        )
    within = {key for inner in _within(layer) for key in _differences(inner)}
    changed = {}
    for key, value in found.items():
        attribute = _attribute(layer, key)
        if getattr(getattr(layer, attribute or key, None), "__name__", "") == "<lambda>":
            problem = f"`{key}` of {type(layer).__name__} {layer.name!r} is a lambda, which no file keeps."
            raise ConfigError(problem, fix="give it a name: @keras.saving.register_keras_serializable(), and def")
        if attribute is not None and not _holds_layers(getattr(layer, attribute)):
            changed[key] = value
        elif attribute is None and key not in within:  # else it is what a layer within says of itself, such as an RNN's cell
            problem = f"`{key}` of {type(layer).__name__} {layer.name!r} was changed, and cannot be set in a built layer."
            raise ConfigError(problem, fix="make the layer as it is to be, by its arguments")
    return {"changed": changed} if changed else {}


def _change(layer: keras.layers.Layer, changed: Mapping[str, Any]) -> None:
    """Set these keys of its config in a layer that is built, to what Keras makes of them in a new layer."""
    if all(_config_of(layer).get(key) == value for key, value in changed.items()):
        return
    described = _plain_data(layer)
    described.pop("build_config", None)
    described["config"] = {**described["config"], **changed}
    anew = keras.saving.deserialize_keras_object(described)
    for key in changed:
        attribute = _attribute(layer, key)
        if attribute is not None:
            setattr(layer, attribute, getattr(anew, attribute))
            _change_variable(layer, key, getattr(anew, attribute))
    if lost := [key for key, value in changed.items() if _config_of(layer).get(key) != value]:
        problem = f"{', '.join(lost)} of {type(layer).__name__} {layer.name!r} cannot be set as it was."
        raise ConfigError(problem, fix="use the version of the code that wrote it")


def _change_variable(layer: keras.layers.Layer, key: str, value: object) -> None:
    """What a layer hands on to its variables when it is built."""
    for role in ("regularizer", "constraint"):
        variable = getattr(layer, key.removesuffix(f"_{role}"), None) if key.endswith(f"_{role}") else None
        if isinstance(variable, keras.Variable):
            setattr(variable, role, value)


def _attribute(layer: keras.layers.Layer, key: str) -> str | None:
    """Where a layer keeps what its config calls `key`, or None."""
    for name in (key, f"_{key}"):
        own = getattr(type(layer), name, None)
        if name in vars(layer) or (isinstance(own, property) and own.fset):
            return name
    return None


def _holds_layers(value: object) -> bool:
    return any(isinstance(leaf, keras.layers.Layer) for leaf in keras.tree.flatten(value))
