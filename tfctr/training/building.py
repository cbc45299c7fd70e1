"""From a configuration to a model."""

import contextlib
from collections.abc import Iterator

import keras

from tfctr import models
from tfctr.config import Config
from tfctr.errors import ConfigError, TfctrError
from tfctr.models import CTRModel
from tfctr.optimizers import optimizer_named
from tfctr.schema import Schema


def build_model(config: Config, schema: Schema, is_trained: bool = True) -> CTRModel:
    """The compiled model of a configuration; one that is not trained has an optimizer without moments, to know the rate.

    Raises:
        ConfigError: a model or argument that cannot be used.
    """
    settings = config.training
    model = graph_of(config, schema)
    model.compile(
        optimizer=optimizer_named(
            settings.optimizer if is_trained else "sgd", settings.learning_rate, table_l2=model.table_l2 > 0
        ),
        loss=settings.loss,
        clip_norm=settings.clip_norm,
        steps_per_execution=settings.steps_per_execution,
    )
    return model


def graph_of(config: Config, schema: Schema) -> CTRModel:
    """The same model, not compiled."""
    try:
        return models.build(config.model.name, schema, **config.model.arguments)
    except TfctrError:
        raise
    except (TypeError, ValueError) as error:  # from Keras: an argument of the wrong kind
        raise ConfigError(f"model {config.model.name}: {error}", fix="correct the arguments under `model`") from error


@contextlib.contextmanager
def dtype_policy(name: str) -> Iterator[None]:
    """Build layers under Keras' dtype policy `name`, and put back the one before."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
