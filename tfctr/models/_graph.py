"""The graph of a model: one input of ids, named outputs, and the embeddings between them."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from tfctr.errors import ConfigError, did_you_mean
from tfctr.layers import FeatureEmbedding
from tfctr.schema import Schema
from tfctr.types import Tensor

PREDICTION = "logit"


def ids_input(schema: Schema) -> Tensor:
    """The one input of every model: `(batch, schema.width)` int32, named `ids`."""
    require_schema(schema)
    return keras.Input((schema.width,), dtype="int32", name="ids")


def require_schema(schema: Schema) -> None:
    """Raise `ConfigError` unless `schema` is a `Schema`."""
    if not isinstance(schema, Schema):
        raise ConfigError(f"`schema` is {schema!r}.", fix="give the schema of a prepared dataset: `dataset.schema`")


def require_graph(schema: Schema, ids: Tensor, outputs: Mapping[str, Tensor]) -> None:
    """Raise `ConfigError` unless these tensors are the ends of a model: ids of the schema, and a dict with the logit."""
    require_schema(schema)
    if not isinstance(ids, keras.KerasTensor) or "int" not in ids.dtype or tuple(ids.shape) != (None, schema.width):
        fix = f"use tfctr.models.ids_input(schema): one input, (batch, {schema.width}) int32"
        raise ConfigError(f"the input of the graph is {_shown(ids)}.", fix=fix)
    if not isinstance(outputs, Mapping) or PREDICTION not in outputs:
        fix = f'name the logit of the click among them: {{"{PREDICTION}": tensor, ...}}'
        raise ConfigError(f"the outputs of the graph are {_shown(outputs)}.", fix=fix)
    logit = outputs[PREDICTION]
    if not isinstance(logit, keras.KerasTensor) or tuple(logit.shape) != (None, 1):
        fix = "give one number a row, (batch, 1), such as keras.layers.Dense(1)(...)"
        raise ConfigError(f'the output "{PREDICTION}" is {_shown(logit)}.', fix=fix)
    if _is_probability(logit):
        fix = (
            "give the tensor before its sigmoid, which `predict` takes; of a trained Dense(1, activation='sigmoid'): "
            "layer.activation = None; logit = layer(layer.input)"
        )
        raise ConfigError(f'the output "{PREDICTION}" is a probability.', fix=fix)


def embeddings_of(model: keras.Model) -> list[FeatureEmbedding]:
    """All `FeatureEmbedding` layers of a model, those within other layers too, always in the same order."""
    return [layer for layer in model._flatten_layers(include_self=False) if isinstance(layer, FeatureEmbedding)]


def vectors_of(model: keras.Model, feature: str) -> list[FeatureEmbedding]:
    """Those in which a feature has a vector: one number a token is a weight, of the first order."""
    return [layer for layer in embeddings_of(model) if layer.embedding_dim > 1 and layer.rows_of(feature)[1]]


def freeze(model: keras.Model, features: Sequence[str]) -> None:
    """Let no step move the vectors of these features. Raises `ConfigError` for one that has none."""
    if not isinstance(features, list | tuple):
        raise ConfigError(f"`frozen` is {features!r}.", fix="give a list of names of features")
    for name in features:
        found = vectors_of(model, name)
        if not found:
            known = {field.feature.name for layer in embeddings_of(model) for field in layer.schema.fields}
            fix = "leave it out" if name in known else did_you_mean(name, known)
            raise ConfigError(f"`frozen` names {name!r}, of which the model has no vectors.", fix=fix)
        for layer in found:
            layer.frozen = tuple(dict.fromkeys((*layer.frozen, name)))


def way_to_wrap(model: keras.Model) -> str:
    """The line that makes a `CTRModel` of a plain `keras.Model`."""
    outputs = getattr(model, "output", None)
    if isinstance(model, keras.Sequential) and model.built:
        ends = 'model.inputs[0], {"logit": model.outputs[0]}'
    elif outputs is None:
        return "build it from tensors: tfctr.models.CTRModel(schema, ids, {'logit': ...}), where ids = ids_input(schema)"
    elif not isinstance(outputs, Mapping):
        ends = 'model.input, {"logit": model.output}'
    elif PREDICTION in outputs:
        ends = "model.input, model.output"
    else:
        ends = f'model.input, {{**model.output, "logit": model.output["{next(iter(outputs))}"]}}'
    return f"wrap its tensors: tfctr.models.CTRModel(schema, {ends}), where logit is before any sigmoid"


def _is_probability(tensor: Tensor) -> bool:
    operation = tensor._keras_history.operation
    sigmoid = keras.activations.sigmoid
    return getattr(operation, "activation", None) is sigmoid or type(operation).__name__ == "Sigmoid"


def _shown(value: Any) -> str:
    if isinstance(value, keras.KerasTensor):
        return f"a tensor {tuple(value.shape)} of {value.dtype}"
    return f"named {sorted(map(str, value))}" if isinstance(value, Mapping) else f"a {type(value).__name__}"


def is_low(tensor: Tensor) -> bool:
    """Whether losses of this tensor, and its sigmoid, would be too coarse: those of a user's own graph may be in float16."""
    return keras.backend.standardize_dtype(tensor.dtype) in ("float16", "bfloat16")
