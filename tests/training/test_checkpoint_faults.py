"""`tfctr.training.Checkpoint`: another training, damage, full disks and SIGTERM."""

import os
import signal
import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest
from kit.breaking_off import (
    SCHEMA,
    STEPS,
    TRAIN,
    BreakOff,
    BrokenOff,
    broken_off,
    dnn,
    fit,
    same_bits,
    whole,
)

import tfctr
from tfctr import Categorical, Schema, models
from tfctr.errors import ConfigError, StorageError
from tfctr.training import Checkpoint, paper_callbacks
from tfctr.training.snapshot import Snapshot

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


@pytest.mark.slow
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


def test_a_damaged_file_is_told_and_the_one_before_is_taken(tmp_path, caplog):
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


def test_a_full_disk_loses_nothing(tmp_path, monkeypatch, caplog):
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
import keras
from kit.breaking_off import *

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


@pytest.mark.sampled(1)
@pytest.mark.parametrize(("steps", "kept"), [(STEPS + 9, ("000001", range(8, 11))), (None, ("000000", [STEPS]))])
def test_sigterm_writes_one_and_ends_the_process(steps, kept, tmp_path):
    expected, history = whole("exact_lazy_adam")
    program = TERMINATED.format(path=[os.path.dirname(__file__), *sys.path], steps=steps, folder=str(tmp_path))
    child = subprocess.run([sys.executable, "-c", program], capture_output=True, encoding="utf-8")
    assert child.returncode == -signal.SIGTERM, child.stderr
    last = max(tmp_path.glob("*.zip")).name
    assert last in [f"checkpoint-{kept[0]}-{step:09d}.zip" for step in kept[1]]
    again = dnn("exact_lazy_adam")
    assert fit(again, Checkpoint(tmp_path)).history == history
    assert same_bits(again, expected)
