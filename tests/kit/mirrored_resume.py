"""Whether a fit on two logical CPUs that breaks off ends with the bits of one that does not: `python mirrored_resume.py DIR`.

Run as a process of its own: logical devices can only be made before TensorFlow starts.
"""

import sys

import tensorflow as tf

if __name__ == "__main__":
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)

    from breaking_off import broken_off, dnn, fit, same_bits

    from tfctr.training import Checkpoint

    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with strategy.scope():
        whole, first, second = (dnn("exact_lazy_adam") for _ in range(3))
    history = fit(whole).history
    broken_off(first, sys.argv[1], steps=22)
    resumed = fit(second, Checkpoint(sys.argv[1], 5)).history
    assert [round(value, 5) for value in resumed["ctr"]] == [round(value, 5) for value in history["ctr"]]
    print("the same bits" if same_bits(whole, second) else "other bits")
