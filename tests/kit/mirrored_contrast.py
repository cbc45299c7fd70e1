"""Losses over pairs of rows, on one device and on two that hold 3 and 2 of the 5 rows; prints values and gradients as JSON.

Run as a process of its own: logical devices can only be made before TensorFlow starts.
"""

import json

import numpy as np
import tensorflow as tf

from tfctr import losses

LOSSES = {
    "info_nce": lambda left, right: losses.info_nce(left, right, 0.3),
    "do_info_nce": lambda left, right: losses.do_info_nce(left, right, 0.3),
    "feature_alignment": lambda left, right: losses.feature_alignment(left[:, None] * right[:, :, None]),
}


def values_and_gradients(loss, left, right):
    with tf.GradientTape() as tape:
        tape.watch([left, right])
        values = loss(left, right)
        total = tf.reduce_sum(values)
    return [values, *tape.gradient(total, [left, right])]


def on_two_devices(strategy, loss, left, right):
    parts = [(left[:3], right[:3]), (left[3:], right[3:])]
    inputs = strategy.experimental_distribute_values_from_function(lambda context: parts[context.replica_id_in_sync_group])
    found = tf.function(lambda pair: strategy.run(lambda pair: values_and_gradients(loss, *pair), args=(pair,)))(inputs)
    return [np.concatenate([part.numpy() for part in strategy.experimental_local_results(tensor)]) for tensor in found]


def main():
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    left, right = (tf.constant(x, tf.float32) for x in np.random.default_rng(0).normal(size=(2, 5, 4)))
    found = {
        name: [
            [x.numpy().tolist() for x in values_and_gradients(loss, left, right)],
            [x.tolist() for x in on_two_devices(strategy, loss, left, right)],
        ]
        for name, loss in LOSSES.items()
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
