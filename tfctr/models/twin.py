"""Two encoders, one prediction: the backbone of TF4CTR and of every model with parallel encoders."""

import keras

from tfctr.errors import ConfigError, choose
from tfctr.layers import FUSIONS, SELECTIONS


def twin_outputs(ids, selection, simple_encoder, complex_encoder, fusion):
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


def make_selection(selection, schema, embedding_dim):
    """A selection layer by name, or the layer itself."""
    if isinstance(selection, keras.layers.Layer):
        return selection
    return choose(SELECTIONS, selection, "selection")(schema, embedding_dim)


def make_fusion(fusion):
    """A fusion layer by name, or the layer itself."""
    return fusion if isinstance(fusion, keras.layers.Layer) else choose(FUSIONS, fusion, "fusion")()
