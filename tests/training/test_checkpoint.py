"""`tfctr.training.Checkpoint`: a `fit` that breaks off anywhere goes on with the bits of one that did not."""

import contextlib
import logging
import os
import signal
import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest

import tfctr
from tfctr import Categorical, Schema, layers, models
from tfctr.data import Split
from tfctr.errors import ConfigError, StorageError
from tfctr.models import CTRModel, ids_input
from tfctr.training import Checkpoint, paper_callbacks
from tfctr.training.snapshot import Snapshot

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


@pytest.fixture(scope="module")
def whole():
    """`{optimizer: (model, history)}` of fits that nobody disturbs, as far as they are asked for."""
    found = {}

    def of(optimizer):
        if optimizer not in found:
            model = dnn(optimizer)
            found[optimizer] = model, fit(model).history
        return found[optimizer]

    return of


@pytest.mark.parametrize(
    ("optimizer", "steps"),
    [("adam", 4), ("adam", STEPS), ("lazy_adam", STEPS + 9), ("exact_lazy_adam", 3 * STEPS - 1), ("adagrad", 12), ("ftrl", 12)],
)
def test_the_same_bits_and_the_same_history(optimizer, steps, whole, tmp_path):
    expected, history = whole(optimizer)
    broken_off(dnn(optimizer), tmp_path / "folder", steps=steps)
    again = dnn(optimizer)
    assert fit(again, Checkpoint(tmp_path / "folder", every=5)).history == history
    assert same_bits(again, expected)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("validation", [1, 2, EPOCHS])
def test_broken_off_in_validation(validation, whole, tmp_path):
    expected, history = whole("exact_lazy_adam")
    broken_off(dnn("exact_lazy_adam"), tmp_path, validations=validation)
    again = dnn("exact_lazy_adam")
    assert fit(again, Checkpoint(tmp_path)).history == history
    assert same_bits(again, expected)


def test_twice_in_one_epoch(whole, tmp_path):
    expected, history = whole("adam")
    broken_off(dnn(), tmp_path, steps=7)
    broken_off(dnn(), tmp_path, steps=11)  # of which 5 are passed over
    again = dnn()
    assert fit(again, Checkpoint(tmp_path)).history == history
    assert same_bits(again, expected)


def test_it_goes_on_and_does_not_begin_anew(tmp_path, caplog):
    caplog.set_level(logging.INFO, "tfctr")
    broken_off(dnn(), tmp_path, steps=STEPS + 12)
    assert sorted(file.name for file in tmp_path.glob("*.zip")) == [f"checkpoint-000001-00000000{n}.zip" for n in (5,)] + [
        "checkpoint-000001-000000010.zip"
    ]
    made = []
    fit(dnn(), keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: made.append(batch)), Checkpoint(tmp_path))
    assert "epoch 2, after 10 of its steps" in caplog.text
    assert made == [*range(STEPS), *range(STEPS)], "steps have the numbers that they would have had"


def test_after_the_last_epoch_nothing_is_trained(tmp_path):
    model = dnn()

    class Last(keras.callbacks.Callback):
        def on_train_end(self, logs=None):
            raise BrokenOff

    with pytest.raises(BrokenOff):
        fit(model, Last(), Checkpoint(tmp_path))
    again = dnn()
    history = fit(again, Checkpoint(tmp_path))
    assert len(history.history["loss"]) == EPOCHS == len(history.epoch)
    assert int(again.optimizer.iterations.numpy()) == EPOCHS * STEPS


def test_early_stopping_is_remembered(tmp_path):
    expected = dnn("sgd")
    history = fit(expected, patience=2, epochs=9).history
    stopped = len(history["loss"])
    assert stopped < 9
    broken_off(dnn("sgd"), tmp_path, steps=STEPS * stopped - 3, patience=2, epochs=9)
    again = dnn("sgd")
    assert fit(again, Checkpoint(tmp_path), patience=2, epochs=9).history == history
    assert same_bits(again, expected)


@pytest.mark.parametrize("moment", ["on_test_begin", "on_test_end"])
def test_the_logs_of_an_epoch_that_ends_in_its_validation(moment, tmp_path):
    """Validation counts in the sums of compiled metrics, too: those of training are kept."""
    expected = dnn(metrics=["AUC", "accuracy"])
    history = fit(expected).history

    class Terminate(keras.callbacks.Callback):
        epoch = 0

        def notice(self, logs=None):
            Terminate.epoch += 1
            if Terminate.epoch == 2:
                signal.raise_signal(signal.SIGTERM)

    setattr(Terminate, moment, Terminate.notice)
    with ending_by_error(), pytest.raises(BrokenOff):
        fit(dnn(metrics=["AUC", "accuracy"]), Terminate(), Checkpoint(tmp_path))
    again = dnn(metrics=["AUC", "accuracy"])
    assert fit(again, Checkpoint(tmp_path)).history == history
    assert same_bits(again, expected)


def test_a_sigterm_at_the_very_end_is_not_swallowed(tmp_path):
    late = keras.callbacks.LambdaCallback(on_train_end=lambda logs: signal.raise_signal(signal.SIGTERM))
    with ending_by_error(), pytest.raises(BrokenOff):
        fit(dnn(), late, Checkpoint(tmp_path / "folder"), epochs=1)
    assert list(tmp_path.iterdir()) == [], "all is done"


def test_steps_per_execution(tmp_path):
    expected = dnn(steps_per_execution=3)
    history = fit(expected).history
    broken_off(dnn(steps_per_execution=3), tmp_path, every=6, steps=STEPS // 3 + 4)
    again = dnn(steps_per_execution=3)
    assert fit(again, Checkpoint(tmp_path)).history == history
    assert same_bits(again, expected)


def test_loss_scaling_metrics_and_added_losses(tmp_path):
    def model():
        keras.utils.set_random_seed(1)
        ids = ids_input(SCHEMA)
        fields = keras.layers.Flatten()(layers.FeatureEmbedding(SCHEMA, 4)(ids))
        hidden = keras.layers.Dense(8, activation="relu", activity_regularizer="l2")(keras.layers.GaussianNoise(0.1)(fields))
        made = CTRModel(SCHEMA, ids, {"logit": keras.layers.Dense(1)(hidden)})
        made.compile(keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam()), metrics=["accuracy"])
        return made

    expected = model()
    history = fit(expected).history
    assert {"added", "accuracy"} <= history.keys()
    for broken in ({"steps": STEPS + 9}, {"validations": 2}):
        broken_off(model(), tmp_path, every=1, **broken)
        again = model()
        assert fit(again, Checkpoint(tmp_path)).history == history
        assert same_bits(again, expected)


def test_weights_of_sixteen_bits_and_rows_in_windows(tmp_path):
    def model():
        keras.utils.set_random_seed(1)
        before = keras.config.dtype_policy()
        keras.config.set_dtype_policy("bfloat16")
        try:
            made = models.DNN(SCHEMA, embedding_dim=4, hidden_units=[8], dropout=0.1)
        finally:
            keras.config.set_dtype_policy(before)
        made.compile("sgd")
        return made

    def batches():
        split = rows(1000, 1, "train")
        split.memory_limit = 0
        return split.batches(64, seed=3)

    expected = model()
    fit(expected, batches=batches())
    broken_off(model(), tmp_path, steps=STEPS + 9, batches=batches())
    again = model()
    fit(again, Checkpoint(tmp_path), batches=batches())
    assert same_bits(again, expected)


def test_arrays_go_on_at_the_end_of_an_epoch(tmp_path):
    ids, labels = TRAIN.ids, TRAIN.labels
    given = {"batch_size": 64, "shuffle": False, "verbose": 0}
    expected = dnn()
    expected.fit(ids, labels, epochs=3, **given)
    with pytest.raises(BrokenOff):
        dnn().fit(ids, labels, epochs=3, callbacks=[BreakOff(STEPS + 9), Checkpoint(tmp_path)], **given)
    again = dnn()
    again.fit(ids, labels, epochs=3, callbacks=[Checkpoint(tmp_path)], **given)
    assert same_bits(again, expected)
    with pytest.raises(ConfigError, match="`every` is 10, and within an epoch of these data no place can be found again"):
        dnn().fit(ids, labels, callbacks=[Checkpoint(tmp_path, every=10)], **given)


# what is no way to go on


def test_another_training_is_refused(tmp_path):
    broken_off(dnn(), tmp_path, steps=STEPS + 9)
    kept = sorted(tmp_path.iterdir())
    other = Schema(
        features=[Categorical("user", size=53), Categorical("item", size=203, vocabulary_sha256="0" * 64)], label="click"
    )
    wider = models.DNN(SCHEMA, embedding_dim=4, hidden_units=[16, 9], dropout=0.2, batch_norm=True)
    wider.compile()
    moved = models.DNN(other, embedding_dim=4, hidden_units=[16, 8], dropout=0.2, batch_norm=True)
    moved.compile()
    ftrl = dnn("ftrl")
    focal = models.DNN(SCHEMA, embedding_dim=4, hidden_units=[16, 8], dropout=0.9, batch_norm=True)
    focal.compile(loss="focal")
    for model, problem in (
        (focal, r"settings\.arguments\.dropout is 0\.2 there and 0\.9 here"),
        (dnn(tfctr.optimizers.Adam(0.01)), r"learning rate is 0\.001 there and 0\.01 here"),
        (dnn(loss="focal"), r"settings\.loss\.class_name is '\w+' there and 'FocalLoss' here"),
        (dnn(steps_per_execution=5), r"settings\.steps_per_execution is 1 there and 5 here"),
        (models.LR(SCHEMA), "model is 'DNN' there and 'LR' here"),
        (wider, r"settings\.arguments\.hidden_units is \[16, 8\] there and \[16, 9\] here"),
        (moved, "fit is '"),
        (ftrl, r"settings\.optimizer\.class_name is 'Adam' there and 'SparseFtrl' here"),
    ):
        if not model.compiled:
            model.compile()
        with pytest.raises(ConfigError, match=problem):
            model.fit(TRAIN.batches(64, seed=3), callbacks=[*paper_callbacks(), Checkpoint(tmp_path)], verbose=0)
    with pytest.raises(ConfigError, match=r"order of the rows\.seed is 3 there and 4 here"):
        fit(dnn(), Checkpoint(tmp_path), batches=TRAIN.batches(64, seed=4))
    with pytest.raises(ConfigError, match=r"callbacks is \['PlateauSchedule'\] there and \[\] here"):
        dnn().fit(TRAIN.batches(64, seed=3), callbacks=[Checkpoint(tmp_path)], verbose=0)
    assert sorted(tmp_path.iterdir()) == kept


def test_wrong_use(tmp_path):
    for every in ("10", "10 m", "0s", "", 0, 1.5, True, "soon"):
        with pytest.raises(ConfigError, match="`every` is"):
            Checkpoint(tmp_path, every=every)
    with pytest.raises(ConfigError, match="Checkpoint stands before PlateauSchedule"):
        dnn().fit(TRAIN.batches(64), callbacks=[Checkpoint(tmp_path), *paper_callbacks()], verbose=0)
    with pytest.raises(ConfigError, match="steps_per_epoch is 3, and an epoch of these batches has 16"):
        dnn().fit(TRAIN.batches(64), steps_per_epoch=3, callbacks=[Checkpoint(tmp_path)], verbose=0)
    plain = keras.Sequential([keras.layers.Dense(1)])
    plain.compile("sgd", "mse")
    with pytest.raises(ConfigError, match="Checkpoint is for models of tfctr"):
        plain.fit(np.ones((4, 2)), np.ones(4), callbacks=[Checkpoint(tmp_path)], verbose=0)


def test_one_training_a_folder(tmp_path):
    refused = []

    def another(*_):
        with pytest.raises(StorageError, match="another process trains with"):
            fit(dnn(), Checkpoint(tmp_path), epochs=1)
        refused.append(True)

    fit(dnn(), keras.callbacks.LambdaCallback(on_train_end=another), Checkpoint(tmp_path), epochs=1)
    assert refused


def test_stopping_rules_that_forget_are_told(tmp_path, caplog):
    forgetful = keras.callbacks.EarlyStopping("val_loss", patience=9)
    broken_off(dnn(), tmp_path, steps=STEPS + 2)
    fit(dnn(), forgetful, Checkpoint(tmp_path))
    assert "EarlyStopping begins anew" in caplog.text


def test_a_model_can_be_trained_on_without_it(tmp_path):
    model = dnn()
    fit(model, Checkpoint(tmp_path / "folder", every=1))
    broken_off(model, tmp_path / "folder", steps=3)
    made = int(model.optimizer.iterations.numpy())
    kept = sorted((tmp_path / "folder").iterdir())
    fit(model, epochs=2)
    assert int(model.optimizer.iterations.numpy()) == made + 2 * STEPS
    assert sorted((tmp_path / "folder").iterdir()) == kept
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


# damage


def test_a_damaged_file_is_told_and_the_one_before_is_taken(whole, tmp_path, caplog):
    expected, _ = whole("adam")
    broken_off(dnn(), tmp_path, every=6, steps=STEPS + 14)
    _, last = sorted(tmp_path.glob("*.zip"))
    last.write_bytes(last.read_bytes()[:-100])
    again = dnn()
    with pytest.raises(BrokenOff):
        fit(again, BreakOff(validations=2), Checkpoint(tmp_path))
    assert f"{last} is corrupt" in caplog.text
    fit(again, Checkpoint(tmp_path))
    assert same_bits(again, expected)
    broken_off(dnn(), tmp_path, every=6, steps=STEPS + 14)
    for file in tmp_path.glob("*.zip"):
        file.write_bytes(b"")
    with pytest.raises(StorageError, match=r"no checkpoint in .* is whole"):
        fit(dnn(), Checkpoint(tmp_path))


def test_any_flipped_bit_is_found_or_changes_nothing(tmp_path):
    broken_off(dnn(), tmp_path, every=6, steps=8)
    (file,) = tmp_path.glob("*.zip")
    found = Snapshot.open(file)
    names = [f"variables/{number}" for number in range(len(found.state["is_of"]["variables"]))]
    arrays = [array.tobytes() for array in found.arrays(names)]
    content = file.read_bytes()
    rng = np.random.default_rng(5)
    refused = 0
    for flip in rng.integers(0, len(content), 300).tolist():
        damaged = bytearray(content)
        damaged[flip] ^= 1 << int(rng.integers(8))
        file.write_bytes(damaged)
        try:
            other = Snapshot.open(file)
            assert other.state == found.state
            assert [array.tobytes() for array in other.arrays(names)] == arrays
        except StorageError:
            refused += 1
    assert refused > 100


def test_a_file_of_another_version_is_refused(tmp_path):
    (tmp_path / "folder").mkdir()
    Snapshot.write(tmp_path / "folder" / "checkpoint-000001-000000000.zip", {"tfctr": "9.0", "format": 9}, [])
    with pytest.raises(StorageError, match=r"was written by another version, tfctr 9\.0"):
        fit(dnn(), Checkpoint(tmp_path / "folder"))


def test_a_full_disk_loses_nothing(whole, tmp_path, monkeypatch, caplog):
    expected, history = whole("adam")
    write = zipfile.ZipFile.writestr
    full = []

    def writestr(archive, *arguments, **options):
        if full:
            raise OSError(28, "No space left on device")
        return write(archive, *arguments, **options)

    monkeypatch.setattr(zipfile.ZipFile, "writestr", writestr)
    fill = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: full.append(True) if epoch == 1 else None)
    with pytest.raises(BrokenOff):
        fit(dnn(), fill, BreakOff(STEPS + 9), Checkpoint(tmp_path, every=2))
    assert "no checkpoint of epoch 1, step 8; those before are kept, training goes on" in caplog.text
    assert "No space left on device" in caplog.text
    assert sorted(file.name for file in tmp_path.glob("*[!k]")) == [
        "checkpoint-000000-000000014.zip",
        "checkpoint-000001-000000000.zip",
    ]
    full.clear()
    again = dnn()
    assert fit(again, Checkpoint(tmp_path)).history == history
    assert same_bits(again, expected)


def test_nothing_half_written_has_a_name(tmp_path, monkeypatch):
    names = []
    replace = os.replace

    def noting(source, target):
        names.append(os.path.basename(target))
        replace(source, target)

    monkeypatch.setattr(os, "replace", noting)
    broken_off(dnn(), tmp_path, steps=12)
    assert names == ["checkpoint-000000-000000005.zip", "checkpoint-000000-000000010.zip"]


# SIGTERM

TERMINATED = """
import os, signal, sys, threading
sys.path[:0] = {path!r}
from test_checkpoint import *

class Terminate(keras.callbacks.Callback):
    async_safe = True
    steps = 0
    def on_train_batch_begin(self, batch, logs=None):
        Terminate.steps += 1
        if Terminate.steps == {steps!r}:
            os.kill(os.getpid(), signal.SIGTERM)
    def on_test_batch_end(self, batch, logs=None):
        if {steps!r} is None:
            os.kill(os.getpid(), signal.SIGTERM)

fit(dnn("exact_lazy_adam"), Terminate(), Checkpoint({folder!r}))
"""


@pytest.mark.parametrize(("steps", "kept"), [(STEPS + 9, ("000001", range(8, 11))), (None, ("000000", [STEPS]))])
def test_sigterm_writes_one_and_ends_the_process(steps, kept, whole, tmp_path):
    expected, history = whole("exact_lazy_adam")
    program = TERMINATED.format(path=[os.path.dirname(__file__), *sys.path], steps=steps, folder=str(tmp_path))
    child = subprocess.run([sys.executable, "-c", program], capture_output=True, encoding="utf-8")
    assert child.returncode == -signal.SIGTERM, child.stderr
    last = max(tmp_path.glob("*.zip")).name
    assert last in [f"checkpoint-{kept[0]}-{step:09d}.zip" for step in kept[1]]
    again = dnn("exact_lazy_adam")
    assert fit(again, Checkpoint(tmp_path)).history == history
    assert same_bits(again, expected)
