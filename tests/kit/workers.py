"""One training run: `python -m kit.workers HOW DATA OUT OPTIMIZER NOISE KILL_AT`.

HOW is `one`, `mirrored` or `multi_worker`; with NOISE 1 there are dropout and batch normalization. After KILL_AT steps, if that
is not 0, the second worker kills itself; each run goes on from what is in OUT. The second worker fails where it writes.

Run as a process of its own: devices and workers can only be made before TensorFlow starts.
"""

import os
import sys

import tensorflow as tf

from kit.killed_training import KillAt
from tfctr.config import Config
from tfctr.training import recorder, train, trainer
from tfctr.training.snapshot import Snapshot

WRITING = [
    (recorder, "write_json"),
    (recorder, "save_model"),
    (trainer, "write_json"),
    (trainer, "atomic_folder"),
    (Snapshot, "write"),
]


def config(optimizer, noise):
    model = {"name": "DNN", "embedding_dim": 4, "hidden_units": [16], "dropout": 0.2 * noise, "batch_norm": bool(noise)}
    training = {"optimizer": optimizer, "batch_size": 256, "epochs": 3, "learning_rate": 0.01}
    return Config.from_dict({"model": model, "training": training})


def main(how, data, out, optimizer, noise, kill_at):
    if how == "mirrored":
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    second = '"index": 1' in os.environ.get("TF_CONFIG", "")
    callbacks = [KillAt(int(kill_at))] if second and int(kill_at) else []
    for module, name in WRITING if second else ():
        setattr(module, name, None)
    distribute = None if how == "one" else how
    train(config(optimizer, int(noise)), data, out, resume=True, checkpoint_every=4, callbacks=callbacks, distribute=distribute)


if __name__ == "__main__":
    main(*sys.argv[1:])
