"""`train(resume=True)`, `tfctr train --resume`: a run that was stopped goes on, and ends as one that was not."""

import io
import json
import logging
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import rich.console
from kit.commands import done, tfctr_
from kit.killed_training import KillAt, prepare_clicks

import tfctr
from tfctr.config import Config
from tfctr.errors import ConfigError, StorageError
from tfctr.training import load_run, resuming, train, trainer

FORKSERVER = multiprocessing.get_context("forkserver")
FORKSERVER.set_forkserver_preload(["tfctr.training"])
ROWS = 4000


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return prepare_clicks(tmp_path_factory.mktemp("prepared") / "data", ROWS)


def config(optimizer="adam", **training):
    model = {"name": "DNN", "embedding_dim": 4, "hidden_units": [16], "dropout": 0.2, "batch_norm": True}
    training = {"optimizer": optimizer, "batch_size": 64, "epochs": 4, "learning_rate": 0.01, **training}
    return Config.from_dict({"model": model, "training": training})


def quiet():
    return rich.console.Console(file=io.StringIO())


def told(run):
    """All that a run says of itself, but for how long it took."""
    timed = ("seconds", "seconds_per_epoch", "rows_per_second")
    kept = [{key: value for key, value in part.items() if key not in timed} for part in (*run.history, run.metrics)]
    del kept[-1]["model_sha256"]  # the file has the time in it
    return kept


def same_bits(run, other):
    pairs = zip(run.model.get_weights(), other.model.get_weights(), strict=True)
    return all(ours.tobytes() == theirs.tobytes() for ours, theirs in pairs)


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """`{optimizer: run}` of runs that nobody disturbs, as far as they are asked for."""
    found = {}

    def of(optimizer):
        if optimizer not in found:
            found[optimizer] = train(config(optimizer), data, tmp_path_factory.mktemp("whole") / "run", quiet())
        return found[optimizer]

    return of


def train_in_child(optimizer, data, out, *callbacks):
    train(config(optimizer), data, out, quiet(), resume=True, checkpoint_every=7, callbacks=callbacks)


@pytest.mark.slow
def test_killed_and_gone_on(data, whole, tmp_path):
    """Before the first checkpoint, within the first epoch, and in a later one; each time with some steps to take again."""
    out = tmp_path / "run"
    for steps in (3, 33, 90):
        child = FORKSERVER.Process(target=train_in_child, args=("exact_lazy_adam", data, out, KillAt(steps)))
        child.start()
        child.join()
        assert child.exitcode == -signal.SIGKILL
    check_gone_on("exact_lazy_adam", data, whole, out)


def check_gone_on(optimizer, data, whole, out):
    if (out / "metrics.json").exists():
        assert load_run(out).metrics["valid"]["auc"] > 0, "what is there can be used"
    run = train(config(optimizer), data, out, quiet(), resume=True)
    assert told(run) == told(whole(optimizer))
    assert same_bits(run, whole(optimizer))
    assert {file.name for file in out.iterdir()} == {file.name for file in whole(optimizer).folder.iterdir()}


def until_killed(optimizer, data, out, delay):
    """`(alive, seconds)`: whether a SIGKILL, so long after the run began or went on, came before its end."""
    child = FORKSERVER.Process(target=train_in_child, args=(optimizer, data, out))
    child.start()
    deadline = time.monotonic() + 120
    while not (out / resuming.LOCK).exists() and child.is_alive():
        assert time.monotonic() < deadline
        time.sleep(0.001)
    begun = time.monotonic()
    child.join(delay)
    was_alive = child.is_alive()
    child.kill()
    child.join()
    return was_alive, time.monotonic() - begun


def killed_at_random_moments(number, seed, optimizers, data, whole, folder):
    """Moments are shares of how long a run takes here, so that a kill is one on any machine."""
    _, seconds = until_killed(optimizers[0], data, folder / "timed", None)
    rng = np.random.default_rng(seed)
    kills = 0
    for attempt in range(number):
        optimizer, out = optimizers[attempt % len(optimizers)], folder / str(attempt) / "run"
        out.parent.mkdir()
        for share in rng.uniform(0.0, 0.9, 1 + attempt % 3):
            kills += until_killed(optimizer, data, out, share * seconds)[0]
        check_gone_on(optimizer, data, whole, out)
    assert kills > 0


@pytest.mark.slow
def test_killed_at_random_moments(data, whole, tmp_path):
    killed_at_random_moments(2, 7, ["adam", "lazy_adam"], data, whole, tmp_path)


def test_killed_behind_its_end(data, whole, tmp_path):
    out = shutil.copytree(whole("adam").folder, tmp_path / "run")
    (out / resuming.LOCK).touch()
    check_gone_on("adam", data, whole, out)


@pytest.mark.every
@pytest.mark.parametrize("optimizer", ["adam", "lazy_adam", "exact_lazy_adam"])
def test_killed_at_ten_random_moments_each(optimizer, data, whole, tmp_path):
    killed_at_random_moments(10, 8, [optimizer], data, whole, tmp_path)


class Fault(BaseException):
    """What no code of ours expects, as a kill."""


def stop_after(epochs, monkeypatch):
    """Let the recorder fail once it has kept so many epochs."""
    keep = trainer.RunRecorder.on_epoch_end

    def keep_or_stop(self, epoch, logs=None):
        if epoch == epochs:
            raise Fault
        keep(self, epoch, logs)

    monkeypatch.setattr(trainer.RunRecorder, "on_epoch_end", keep_or_stop)


@pytest.fixture
def stopped(data, tmp_path):
    """The folder of a run that was stopped in its third epoch."""
    with pytest.MonkeyPatch.context() as patch:
        stop_after(2, patch)
        with pytest.raises(Fault):
            train(config(), data, tmp_path / "run", quiet(), checkpoint_every=20)
    return tmp_path / "run"


def test_the_same_call_begins_goes_on_and_returns(data, whole, stopped, caplog):
    caplog.set_level(logging.INFO, "tfctr")
    assert load_run(stopped).metrics["finished"] is False
    run = train(config(), data, stopped, quiet(), resume=True)
    assert "goes on from" in caplog.text
    assert told(run) == told(whole("adam"))
    before = {file.name: file.stat().st_mtime_ns for file in stopped.iterdir()}
    assert told(train(config(), data, stopped, quiet(), resume=True)) == told(run)
    assert "is finished" in caplog.text
    assert {file.name: file.stat().st_mtime_ns for file in stopped.iterdir()} == before


def test_a_run_knows_its_configuration_and_its_data(whole, stopped):
    assert same_bits(train(out=stopped, console=quiet(), resume=True), whole("adam"))


def test_what_is_another_training(data, stopped, tmp_path):
    with pytest.raises(StorageError, match=r"holds a run that was stopped\.\n  fix: let it go on: --resume"):
        train(config(), data, stopped)
    with pytest.raises(ConfigError, match=r"training\.epochs is 4 there and 5 here"):
        train(config(epochs=5), data, stopped, resume=True)
    with pytest.raises(ConfigError, match=r"model\.name is 'DNN' there and 'LR' here"):
        train(Config.from_dict({"model": {"name": "LR"}}), data, stopped, resume=True)
    other = tmp_path / "other"
    tfctr.prepare(tfctr.Schema.load(data / "schema.json"), train={"user": [1, 2], "item": [1, 2], "click": [0, 1]}, out=other)
    with pytest.raises(StorageError, match="is not the dataset that"):
        train(config(), other, stopped, resume=True)
    with pytest.raises(ConfigError, match="`data` is missing"):
        train(out=tmp_path / "new", resume=True)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.yaml").write_text("mine")
    with pytest.raises(StorageError, match="already exists"):
        train(config(), data, tmp_path / "mine", resume=True)


def test_a_finished_run_is_that_of_the_call_or_none(data, tmp_path):
    shutil.copytree(data, tmp_path / "data")
    out = tmp_path / "run"
    train(config(epochs=1), tmp_path / "data", out, quiet())
    with pytest.raises(ConfigError, match=r"training\.epochs is 1 there and 5 here"):
        train(config(epochs=5), tmp_path / "data", out, resume=True)
    other = tmp_path / "other"
    tfctr.prepare(tfctr.Schema.load(data / "schema.json"), train={"user": [1, 2], "item": [1, 2], "click": [0, 1]}, out=other)
    with pytest.raises(StorageError, match="is not the dataset that"):
        train(config(epochs=1), other, out, resume=True)
    for given in (["--model", "LR"], ["--epochs", "9"], ["--seed", "77"]):
        assert tfctr_("train", "--out", out, "--data", tmp_path / "data", "--resume", *given).exit_code == 2
    shutil.rmtree(tmp_path / "data")
    assert train(config(epochs=1), tmp_path / "data", out, resume=True).metrics["finished"]
    done("train", "--out", out, "--data", tmp_path / "data", "--resume", "--epochs", "1")
    done("train", "--out", out, "--resume")


def test_a_dataset_in_the_working_folder_is_not_asked(data, tmp_path, monkeypatch):
    out = tmp_path / "run"
    train(config(epochs=1), data, out, quiet())
    other = tmp_path / "other"
    tfctr.prepare(tfctr.Schema.load(data / "schema.json"), train={"user": [1, 2], "item": [1, 2], "click": [0, 1]}, out=other)
    monkeypatch.chdir(other)
    assert train(out=out, resume=True).metrics["finished"]


def test_a_run_killed_before_its_first_checkpoint_needs_its_data(data, tmp_path):
    out = tmp_path / "run"
    child = FORKSERVER.Process(target=killed_at_once, args=(data, out))
    child.start()
    child.join()
    before = sorted(out.iterdir())
    assert before
    with pytest.raises(ConfigError, match="`data` is missing"):
        train(out=out, resume=True)
    assert sorted(out.iterdir()) == before, "nothing is removed"
    assert train(config(epochs=1), data, out, quiet(), resume=True).metrics["finished"]


def killed_at_once(data, out):
    trainer._fit = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    train(config(), data, out, quiet())


def test_a_run_that_another_process_finishes_meanwhile_is_not_trained_again(data, stopped, monkeypatch):
    """It ends between the look at the folder and the lock."""
    hold = resuming.hold

    def finished_before(folder):
        monkeypatch.setattr(trainer, "hold", hold)
        train(config(), data, folder, quiet(), resume=True)
        return hold(folder)

    monkeypatch.setattr(trainer, "hold", finished_before)
    run = train(config(), data, stopped, quiet(), resume=True)
    assert run.metrics["finished"]
    assert not (stopped / resuming.LOCK).exists()
    assert len(run.history) == 4


def test_nothing_to_go_on_from(data, stopped):
    for file in (stopped / "checkpoints").glob("*.zip"):
        file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(StorageError, match=r"no checkpoint in .* is whole"):
        train(config(), data, stopped, quiet(), resume=True)
    for file in (stopped / "checkpoints").glob("*.zip"):
        file.unlink()
    with pytest.raises(StorageError, match="has no checkpoint to go on from"):
        train(config(), data, stopped, quiet(), resume=True)
    assert load_run(stopped).metrics["epochs"] == 2, "its best epoch can be used as it is"


def test_another_environment_is_told(data, stopped, caplog):
    environment = json.loads((stopped / "environment.json").read_text())
    (stopped / "environment.json").write_text(json.dumps({**environment, "tensorflow": "2.20.0", "threads": 77}))
    train(config(), data, stopped, quiet(), resume=True)
    assert re.search(
        r"goes on under tensorflow \S+ \(was 2\.20\.0\), threads \d+ \(was 77\): its numbers may differ", caplog.text
    )


def test_two_at_once(data, stopped):
    with resuming.hold(stopped), pytest.raises(StorageError, match="another process is training in"):
        train(config(), data, stopped, quiet(), resume=True)


def test_the_best_model_that_is_gone_is_written_again(data, whole, stopped):
    """As after a fall back to an earlier checkpoint: a later epoch had been better, and had replaced the file."""
    for file in stopped.glob("model-*.keras"):
        file.unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer.RunRecorder, "on_epoch_end", lambda self, epoch, logs=None: None)
        train(config(), data, stopped, quiet(), resume=True)
    run = load_run(stopped)
    assert run.metrics["finished"] is True
    assert run.model.count_params() == whole("adam").model.count_params()


def test_a_disk_that_is_full_for_the_model_too(data, whole, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr("tfctr.training.recorder.save_model", full)
        with pytest.raises(OSError, match="No space left"):
            train(config(), data, out, quiet(), checkpoint_every=20)
    assert resuming.has_checkpoint(out)
    with pytest.raises(StorageError, match="stopped before the end of its first epoch"):
        load_run(out)
    assert same_bits(train(config(), data, out, quiet(), resume=True), whole("adam"))


@pytest.mark.slow
def test_the_command(data, tmp_path):
    config(epochs=300, learning_rate=1e-5, patience=300).save(tmp_path / "run.yaml")
    command = [sys.executable, "-m", "tfctr", "train", "run.yaml", "--data", str(data), "--out", "run", "--json"]
    command += ["--resume", "--checkpoint-every", "5"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    given = {"cwd": tmp_path, "env": environment, "encoding": "utf-8", "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}

    def terminated(mark):
        """What the command said until a SIGTERM, once `mark()` holds."""
        with subprocess.Popen(command, **given) as child:
            while not mark():
                assert child.poll() is None, child.stderr.read()
                time.sleep(0.01)
            child.send_signal(signal.SIGTERM)
            _, said = child.communicate()
        assert child.returncode == 143, said
        assert re.search(r"stopped; run keeps (epoch \d+ and )?a checkpoint; --resume goes on from it\n$", said), said
        return said

    def epochs():
        return (
            json.loads((tmp_path / "run/metrics.json").read_text())["epochs"] if (tmp_path / "run/metrics.json").exists() else 0
        )

    terminated(lambda: list(tmp_path.glob("run/checkpoints/*.zip")))
    wrong = subprocess.run([*command, "--set", "training.epochs=3"], **given)
    assert wrong.returncode == 2
    assert "training.epochs is 300 there and 3 here" in json.loads(wrong.stdout)["error"]["problem"]
    before = epochs()
    said = terminated(lambda: epochs() > before)
    assert "goes on from run/checkpoints/checkpoint-" in said
    missing = subprocess.run([sys.executable, "-m", "tfctr", "train", "--out", "new", "--resume"], **given)
    assert (missing.returncode, "`--data` is missing" in missing.stderr) == (2, True)
