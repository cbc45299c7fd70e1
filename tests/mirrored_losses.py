"""Losses of a small TF4CTR on some logical CPUs, as JSON: `python mirrored_losses.py DEVICES CLIP_NORM L2_SCOPE`.

Run as a process of its own: logical devices can only be made before TensorFlow starts.
"""

import json
import sys

import keras
import numpy as np
import tensorflow as tf

from tfctr.layers import MLP
from tfctr.models import TF4CTR
from tfctr.schema import Categorical, Schema


def losses(devices, clip_norm, l2_scope):
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * devices)
    names = [device.name for device in tf.config.list_logical_devices("CPU")]
    strategy = tf.distribute.MirroredStrategy(names) if devices > 1 else tf.distribute.get_strategy()

    rng = np.random.default_rng(0)
    rows = 128 + 127 + 1
    ids = np.stack([rng.integers(3, 20, rows), 20 + rng.integers(3, 30, rows)], axis=1).astype("int32")
    labels = (ids.sum(axis=1, keepdims=True) % 2).astype("float32")
    weights = rng.uniform(0.5, 2.0, size=(rows, 1)).astype("float32")
    samples = tf.data.Dataset.from_tensor_slices((ids, labels, weights))
    # Batches of 128, 127 and 1 row: the second does not divide by two, and of the third one device has nothing.
    batches = samples.take(255).batch(128).concatenate(samples.skip(255).batch(128))

    schema = Schema(features=[Categorical("user", size=20), Categorical("item", size=30)], label="click")
    keras.utils.set_random_seed(1)
    with strategy.scope():
        # Batch normalization sees each replica's rows alone, so it is left out.
        model = TF4CTR(schema, 4, simple_encoder=MLP([8]), complex_encoder=MLP([8, 8]), embedding_l2=0.5, l2_scope=l2_scope)
        model.compile(clip_norm=clip_norm)
    history = model.fit(batches, validation_data=batches, epochs=3, verbose=0).history
    return {name: [float(value) for value in values] for name, values in history.items()}


if __name__ == "__main__":
    json.dump(losses(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3]), sys.stdout)
