"""A run folder is whole: however training stops, `evaluate` finds the metrics that the folder states, or there is no folder."""

import io
import itertools
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import rich.console

import tfctr
from tfctr.config import Config
from tfctr.errors import StorageError
from tfctr.evaluation import evaluate
from tfctr.training import load_run, resuming, schedule, train, trainer

# Children start from a process that has imported TensorFlow once and never used it, not from a new one each.
FORKSERVER = multiprocessing.get_context("forkserver")
FORKSERVER.set_forkserver_preload(["tfctr.training"])


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    schema = tfctr.Schema(features=[tfctr.Categorical("user"), tfctr.Categorical("item")], label="click")
    table = {"user": list("abab") * 16, "item": list("xxyy") * 16, "click": [0, 1, 1, 0] * 16}
    folder = tmp_path_factory.mktemp("prepared") / "data"
    tfctr.prepare(schema, train=table, valid=table, out=folder)
    return folder


def always_better():
    """A monitor that counts every epoch as the best, so that each one saves its model."""
    values = itertools.count()
    return lambda logs: next(values)


def tiny_run(**training):
    training = {"batch_size": 64, "learning_rate": 0.01, **training}
    return Config.from_dict({"model": {"name": "DNN", "hidden_units": [64]}, "training": training})


def whole_run(folder):
    """The run in `folder`, whose model has the metrics that `metrics.json` states and no other epoch's."""
    run = load_run(folder)
    assert [epoch["epoch"] for epoch in run.history] == list(range(1, run.metrics["epochs"] + 1))
    found, stated = evaluate(run, "valid"), run.metrics["valid"]
    assert {"auc", "log_loss", "click_rate", "log_loss_of_constant"} <= stated.keys()
    assert {name: found[name] for name in stated} == pytest.approx(stated, abs=1e-7)
    others = [epoch["val_log_loss"] for epoch in run.history if epoch["epoch"] != run.metrics["best_epoch"]]
    assert not np.isclose(others, found["log_loss"], rtol=0, atol=1e-6).any()
    return run


# a fault at a chosen moment


class Fault(BaseException):
    """What no code of ours expects, as a kill."""


def break_off_before(number, monkeypatch):
    """Let the `number`th file not get its name. Files 1, 2: config, environment; then each epoch: model, history, metrics,
    checkpoint.
    """
    replace, calls = os.replace, itertools.count(1)

    def replace_or_break_off(source, target):
        if next(calls) == number:
            raise Fault
        replace(source, target)

    monkeypatch.setattr(os, "replace", replace_or_break_off)


@pytest.mark.sampled(2)
@pytest.mark.parametrize(("number", "epoch"), [(2, None), (5, None), (6, 1), (7, 1), (9, 1), (10, 2)])
def test_a_run_that_breaks_off_keeps_a_whole_epoch_or_no_folder(number, epoch, data, tmp_path, monkeypatch):
    monkeypatch.setitem(schedule.MONITORS, "auc", always_better())
    said = io.StringIO()
    console = rich.console.Console(file=said, force_terminal=True, force_interactive=True, width=150)
    with monkeypatch.context() as patch:
        break_off_before(number, patch)
        with pytest.raises(Fault):
            train(tiny_run(epochs=4), data, tmp_path / "run", console=console)
    if epoch is None:
        assert list(tmp_path.iterdir()) == []
    else:
        assert whole_run(tmp_path / "run").metrics["best_epoch"] == epoch
        kept = f"epoch {epoch}" if number == 6 else f"epoch {epoch} and a checkpoint; --resume goes on from it"
        assert said.getvalue().endswith(f"keeps {kept}\n")
    hidden, shown = (said.getvalue().rfind(f"\x1b[?25{mode}") for mode in "lh")
    assert shown >= hidden, "the bar is still there: it hides the cursor"


def test_of_two_runs_that_begin_in_one_folder_one_is_refused(data, tmp_path, monkeypatch):
    def describe_while_another_begins(*_):
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "config.yaml").write_text("theirs")
        return {"data": {"manifest_sha256": ""}}

    monkeypatch.setattr(trainer, "describe_environment", describe_while_another_begins)
    with pytest.raises(StorageError, match="run already exists"):
        train(tiny_run(), data, tmp_path / "run")
    assert [file.relative_to(tmp_path).as_posix() for file in tmp_path.rglob("*")] == ["run", "run/config.yaml"]
    assert (tmp_path / "run" / "config.yaml").read_text() == "theirs"


@pytest.mark.slow
def test_a_folder_of_a_run_that_was_killed_in_its_first_epoch_is_taken(data, tmp_path):
    out = tmp_path / "run"
    child = FORKSERVER.Process(target=train_and_wait, args=(data, out))
    child.start()
    try:
        wait_for(lambda: (out / resuming.LOCK).exists(), child)
        with pytest.raises(StorageError, match=rf"another process is training in .*run\. It is process {child.pid} on "):
            train(tiny_run(epochs=1), data, out)
    finally:
        os.kill(child.pid, signal.SIGKILL)
        child.join()
    (out / "notes.txt").write_text("mine")
    with pytest.raises(StorageError, match="run already exists"):
        train(tiny_run(epochs=1), data, out)
    (out / "notes.txt").unlink()
    with pytest.raises(StorageError, match="stopped before the end of its first epoch"):
        load_run(out)
    assert train(tiny_run(epochs=1), data, out).metrics["finished"] is True
    assert sorted(file.name for file in out.iterdir()) == [
        "config.yaml",
        "environment.json",
        "history.json",
        "metrics.json",
        "model-1.keras",
    ]


def test_sigterm_ends_as_control_c_does(data, tmp_path, caplog):
    tiny_run(epochs=100_000, learning_rate=1e-4).save(tmp_path / "run.yaml")
    command = [sys.executable, "-m", "tfctr", "train", "run.yaml", "--data", str(data), "--out", "run"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, encoding="utf-8") as child:
        while not (tmp_path / "run" / "metrics.json").exists():
            assert child.poll() is None, child.stderr.read()
            time.sleep(0.01)
        child.terminate()
        said = child.stderr.read()
    assert child.returncode == 143, said
    assert said.rstrip().rpartition("\n")[2].startswith("stopped; run keeps epoch ")
    run = whole_run(tmp_path / "run")
    assert run.metrics["finished"] is False
    assert f"run is not finished: it was stopped after epoch {run.metrics['epochs']}" in caplog.text


# Control-C, and once more from somebody who is in a hurry

INTERRUPTIBLE = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from tfctr.cli import main; main()"
WHILE_REMOVING = """
import os, signal
from tfctr.training import trainer

def interrupted(folder, remove=trainer.remove_folder):
    os.kill(os.getpid(), signal.SIGINT)
    remove(folder)

trainer.remove_folder = interrupted
"""


def interrupted(data, folder, mark, *waits, program=INTERRUPTIBLE):
    """The exit code, as a shell tells it, of a training that gets a SIGINT once `mark` is there, and after each wait."""
    tiny_run(epochs=100_000, learning_rate=1e-4).save(folder / "run.yaml")
    command = [sys.executable, "-c", program, "train", "run.yaml", "--data", str(data), "--out", "run"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, encoding="utf-8") as child:
        while not (folder / "run" / mark).exists():
            assert child.poll() is None, child.stderr.read()
            time.sleep(0.001)
        for wait in (0, *waits):
            time.sleep(wait)
            child.send_signal(signal.SIGINT)
        said = child.communicate()[1]
    # Python reports an interrupt that meets its own clean-up, such as of a weak reference, and goes on: it is no word of ours.
    assert "Traceback" not in re.sub(r"Exception ignored in.*?KeyboardInterrupt: ?\n", "", said, flags=re.DOTALL)
    return 128 - child.returncode if child.returncode < 0 else child.returncode  # by a signal, once Python is at its end


@pytest.mark.sampled(1)
@pytest.mark.parametrize("wait", [0.001, 0.05])
def test_a_second_control_c_keeps_the_whole_epochs(wait, data, tmp_path):
    assert interrupted(data, tmp_path, "metrics.json", wait) == 130
    assert whole_run(tmp_path / "run").metrics["finished"] is False
    assert list(tmp_path.rglob(".tmp-*")) == []


@pytest.mark.slow
def test_a_second_control_c_while_the_folder_is_removed_leaves_one_that_is_taken(data, tmp_path):
    assert interrupted(data, tmp_path, "environment.json", program=WHILE_REMOVING + INTERRUPTIBLE) == 130
    assert {file.name for file in (tmp_path / "run").iterdir()} == {"config.yaml", "environment.json", resuming.LOCK}
    assert train(tiny_run(epochs=1), data, tmp_path / "run").metrics["finished"] is True


# a kill at any moment


def train_and_wait(data, out):
    trainer.RunRecorder.on_epoch_end = lambda *_, **__: time.sleep(600)
    train(tiny_run(), data, out)


def train_and_always_save(data, out):
    schedule.MONITORS["auc"] = always_better()
    train(tiny_run(epochs=100_000, learning_rate=1e-4), data, out)


def wait_for(condition, child):
    deadline = time.monotonic() + 120
    while not condition():
        assert child.is_alive(), "the child ended by itself"
        assert time.monotonic() < deadline, "the child never came so far"
        time.sleep(0.001)


def kill_while_saving(data, out, delay):
    """Kill a training run `delay` seconds into a save that is not its first."""
    child = FORKSERVER.Process(target=train_and_always_save, args=(data, out))
    child.start()
    try:
        wait_for(lambda: (out / "metrics.json").exists(), child)
        wait_for(lambda: list(out.glob(".tmp-*.keras")), child)
        time.sleep(delay)
    finally:
        os.kill(child.pid, signal.SIGKILL)
        child.join()


def kill_repeatedly(times, data, folder):
    halfway = 0
    for attempt in range(times):
        out = folder / str(attempt)
        kill_while_saving(data, out, delay=0.1 * attempt / times)
        whole_run(out)
        orphans = list(out.glob(".tmp-*"))
        assert len(orphans) <= 1
        halfway += bool(orphans)
    assert halfway > 0, "no kill hit a save"


def test_killed_while_saving(data, tmp_path):
    kill_repeatedly(2, data, tmp_path)


@pytest.mark.slow
def test_killed_while_saving_often(data, tmp_path):
    kill_repeatedly(20, data, tmp_path)
