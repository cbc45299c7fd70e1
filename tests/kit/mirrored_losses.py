"""Losses of models on one and on two logical CPUs, as JSON: `python mirrored_losses.py '[[MODEL, ARGUMENTS, SETTINGS], ...]'`.

Run as a process of its own: logical devices can only be made before TensorFlow starts.
"""

import json
import sys

import keras
import numpy as np
import tensorflow as tf

from tfctr.features import Categorical, Sequence
from tfctr.models import build
from tfctr.schema import Schema

HISTORY = Sequence("history", 2, vocabulary_of="item")
SCHEMA = Schema(features=[Categorical("user", size=20), Categorical("item", size=30), HISTORY], label="click")


def batches():
    """Batches of 128, 127 and 1 row: the second does not divide by two, and of the third one device has nothing."""
    rng = np.random.default_rng(0)
    rows = 128 + 127 + 1
    ids = np.stack([rng.integers(3, 20, rows), 20 + rng.integers(3, 30, rows)], axis=1).astype("int32")
    labels = (ids.sum(axis=1, keepdims=True) % 2).astype("float32")
    weights = rng.uniform(0.5, 2.0, size=(rows, 1)).astype("float32")
    history = 20 + rng.integers(3, 30, (rows, 2)) * [1, 0] + rng.integers(0, 2, (rows, 2)) * [0, 5]  # the second may be padding
    ids = np.concatenate([ids, history], axis=1).astype("int32")
    samples = tf.data.Dataset.from_tensor_slices((ids, labels, weights))
    return samples.take(255).batch(128).concatenate(samples.skip(255).batch(128))


def losses(strategy, name, arguments, settings):
    """The history of three epochs; `settings` are those of `compile`."""
    keras.utils.set_random_seed(1)
    rng = np.random.default_rng(0)
    with strategy.scope():
        model = build(name, SCHEMA, **arguments)
        for variable in model.trainable_variables:  # fresh embeddings are nearly zero
            variable.assign(rng.normal(size=variable.shape, scale=0.3))
        model.compile(**settings)
    history = model.fit(batches(), validation_data=batches(), epochs=3, verbose=0).history
    return {term: [float(value) for value in values] for term, values in history.items()}


if __name__ == "__main__":
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    names = [device.name for device in tf.config.list_logical_devices("CPU")]
    strategies = [tf.distribute.get_strategy(), tf.distribute.MirroredStrategy(names)]
    json.dump([[losses(strategy, *run) for strategy in strategies] for run in json.loads(sys.argv[1])], sys.stdout)
