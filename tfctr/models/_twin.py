"""Two encoders, one prediction: the backbone of TF4CTR and of every model with parallel encoders."""

from typing import Any

import keras

from tfctr.errors import ConfigError, choose
from tfctr.layers import FUSIONS, MLP, SELECTIONS
from tfctr.layers.selection import LearnedSelection
from tfctr.schema import Schema
from tfctr.types import Tensor


def twin_outputs(ids: Tensor, selection: Any, simple_encoder: Any, complex_encoder: Any, fusion: Any) -> dict[str, Tensor]:
    """The named logits of two encoders: `ids -> views -> representations -> logits`.

    Each part is a layer. Raises `ConfigError` for an encoder that is none.
    """
    for name, encoder in (("simple_encoder", simple_encoder), ("complex_encoder", complex_encoder)):
        if not isinstance(encoder, keras.layers.Layer):
            raise ConfigError(f"`{name}` is {encoder!r}.", fix="give a layer, such as tfctr.layers.MLP([400, 400])")
    simple_view, complex_view = selection(ids)  # (batch, fields, dim) each
    simple = simple_encoder(simple_view)  # (batch, units)
    complex_ = complex_encoder(complex_view)  # (batch, units)
    return fusion([simple, complex_])  # {"logit", "simple", "complex"}: (batch, 1) each


def make_selection(
    selection: str | keras.layers.Layer, schema: Schema, embedding_dim: int, *encoders: keras.layers.Layer
) -> Any:
    """A selection layer by name, or the layer itself.

    The networks of one by name have dropout and batch normalization as the last of `encoders` that is an `MLP`, and none
    where no encoder is; they keep ReLU, as in the authors' code. A layer has its own.
    """
    if isinstance(selection, keras.layers.Layer):
        return selection
    layer = choose(SELECTIONS, selection, "selection")
    networks = {}
    if issubclass(layer, LearnedSelection):
        for mlp in (encoder for encoder in encoders if isinstance(encoder, MLP)):
            networks = {"dropout": mlp.dropout, "batch_norm": mlp.batch_norm}
    return layer(schema, embedding_dim, **networks)


def keep_selection(arguments: dict[str, Any], layer: keras.layers.Layer) -> None:
    """Write a learned selection into a model's config as the layer it became: a name there means plain networks.

    Models saved before the networks followed the encoders hold the name, and are rebuilt as they were: see `named_plain`.
    """
    if isinstance(layer, LearnedSelection) and "selection" in arguments:
        arguments["selection"] = layer


def named_plain(config: dict[str, Any]) -> dict[str, Any]:
    """A saved model's config, with a learned selection that it only names as the layer of plain networks it was."""
    layer = SELECTIONS.get(config["selection"]) if isinstance(config.get("selection"), str) else None
    if layer is None or not issubclass(layer, LearnedSelection):
        return config
    plain = {"schema": config["schema"], "embedding_dim": config["embedding_dim"]}
    name = keras.saving.get_registered_name(layer)
    serialized = {"module": layer.__module__, "class_name": layer.__name__, "config": plain, "registered_name": name}
    return {**config, "selection": serialized}


def make_fusion(fusion: str | keras.layers.Layer) -> Any:
    """A fusion layer by name, or the layer itself."""
    return fusion if isinstance(fusion, keras.layers.Layer) else choose(FUSIONS, fusion, "fusion")()
