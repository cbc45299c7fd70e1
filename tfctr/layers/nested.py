"""What a config of constructor arguments does not say of the layers within: names, frozen or not, precision, regularizers."""

import keras

from tfctr.errors import ConfigError


def nested_states(layer):
    """The state of each layer within `layer`, as plain data, for `restore_nested`.

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
        }
        for inner in _within(layer)
    ]


def restore_nested(layer, states):
    """Give the layers within `layer`, made from the same arguments, the states that `nested_states` has found.

    Raises:
        ConfigError: they are others than those that had these states.
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


class Nested(keras.layers.Layer):
    """The base of all layers with layers within: Keras saves their states with the shapes that it builds from."""

    def get_build_config(self):
        config = super().get_build_config()
        states = nested_states(self)
        return {**config, "nested": states} if config and states else config

    def build_from_config(self, config):
        super().build_from_config(config)
        if config and "nested" in config:
            restore_nested(self, config["nested"])


def _within(layer):
    return layer._flatten_layers(include_self=False)
