"""A small prepared table, and a training on it that is killed."""

import os
import signal

import keras
import numpy as np

import tfctr


def prepare_clicks(folder, rows):
    """A dataset with `valid`, whose clicks depend on whether user and item are both even or both odd."""
    rng = np.random.default_rng(0)
    users, items = rng.integers(0, 40, rows), rng.integers(0, 30, rows)
    clicks = (rng.random(rows) < np.where((users + items) % 2, 0.8, 0.2)).astype(int)
    table = {"user": users.tolist(), "item": items.tolist(), "click": clicks.tolist()}
    schema = tfctr.Schema(features=[tfctr.Categorical("user"), tfctr.Categorical("item")], label="click")
    tfctr.prepare(schema, train=table, valid=0.2, out=folder)
    return folder


class KillAt(keras.callbacks.Callback):
    """SIGKILL after so many steps of this process, as from outside."""

    def __init__(self, steps):
        super().__init__()
        self.left = steps

    def on_train_batch_end(self, batch, logs=None):
        self.left -= 1
        if not self.left:
            self.kill()

    def kill(self):
        os.kill(os.getpid(), signal.SIGKILL)
