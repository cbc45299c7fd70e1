"""Fits that break off anywhere, and go on from a checkpoint."""

import contextlib
import functools
import signal

import keras
import numpy as np
import pytest

from tfctr import Categorical, Schema, models
from tfctr.data import Split
from tfctr.training import Checkpoint, paper_callbacks

SCHEMA = Schema(features=[Categorical("user", size=53), Categorical("item", size=203)], label="click")
STEPS = 16  # an epoch, the last of 40 rows
EPOCHS = 3


def rows(number, seed, name):
    rng = np.random.default_rng(seed)
    ids = np.stack([rng.integers(3, 53, number), rng.integers(56, 256, number)], axis=1)
    return Split.from_arrays(ids, rng.integers(0, 2, number), name=name)


TRAIN, VALID = rows(1000, 1, "train"), rows(300, 2, "valid")


def dnn(optimizer="adam", **compiled):
    keras.utils.set_random_seed(1)
    model = models.DNN(SCHEMA, embedding_dim=4, hidden_units=[16, 8], dropout=0.2, batch_norm=True)
    model.compile(optimizer, **compiled)
    return model


class BrokenOff(Exception):
    """As a kill: no callback hears of it."""


class BreakOff(keras.callbacks.Callback):
    """After so many steps, or within the validation of so many epochs."""

    def __init__(self, steps=None, validations=None):
        super().__init__()
        self.left = {"steps": steps, "validations": validations}

    def count(self, what):
        if self.left[what] is not None:
            self.left[what] -= 1
            if self.left[what] == 0:
                raise BrokenOff

    def on_train_batch_end(self, batch, logs=None):
        self.count("steps")

    def on_test_begin(self, logs=None):
        self.count("validations")


def fit(model, *callbacks, patience=5, epochs=EPOCHS, batches=None):
    batches = TRAIN.batches(64, seed=3) if batches is None else batches
    return model.fit(
        batches,
        validation_data=VALID.batches(64),
        epochs=epochs,
        callbacks=[*paper_callbacks(patience=patience), *callbacks],
        verbose=0,
    )


@contextlib.contextmanager
def ending_by_error():
    """Let SIGTERM be an error, in the place of the end of the process."""

    def end(*_):
        raise BrokenOff

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def same_bits(model, other):
    pairs = zip(model.get_weights(), other.get_weights(), strict=True)
    return all(ours.tobytes() == theirs.tobytes() for ours, theirs in pairs)


def broken_off(model, folder, every=5, *, steps=None, validations=None, **arguments):
    with pytest.raises(BrokenOff):
        fit(model, BreakOff(steps, validations), Checkpoint(folder, every), **arguments)


@functools.cache
def whole(optimizer):
    """The model and the history of a fit that nobody disturbs."""
    model = dnn(optimizer)
    return model, fit(model).history
