"""A run that is killed while it saves leaves whole files: the model before, or the new one."""

import itertools
import multiprocessing
import os
import signal
import time

import pytest

import tfctr
from tfctr.config import Config
from tfctr.training import load_run

# Children start from a process that has imported TensorFlow once and never used it, not from a new one each.
FORKSERVER = multiprocessing.get_context("forkserver")
FORKSERVER.set_forkserver_preload(["tfctr.training"])


def train_and_always_save(data, out):
    """Train with every epoch counted as the best, so that each one saves its model."""
    from tfctr.training import schedule, train

    better = itertools.count()
    schedule.MONITORS["auc"] = lambda logs: next(better)
    run = {"model": {"name": "DNN", "hidden_units": [64]}, "training": {"batch_size": 64, "epochs": 100_000}}
    train(Config.from_dict(run), data, out)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    schema = tfctr.Schema(features=[tfctr.Categorical("user"), tfctr.Categorical("item")], label="click")
    table = {"user": list("abab") * 16, "item": list("xxyy") * 16, "click": [0, 1, 1, 0] * 16}
    folder = tmp_path_factory.mktemp("prepared") / "data"
    tfctr.prepare(schema, train=table, valid=table, out=folder)
    return folder


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
        wait_for(lambda: (out / "model.keras").exists(), child)
        wait_for(lambda: list(out.glob(".tmp-*-model.keras")), child)
        time.sleep(delay)
    finally:
        os.kill(child.pid, signal.SIGKILL)
        child.join()


def kill_repeatedly(times, data, folder):
    halfway = 0
    for attempt in range(times):
        out = folder / str(attempt)
        kill_while_saving(data, out, delay=0.1 * attempt / times)
        run = load_run(out)
        assert run.model.count_params() == run.metrics["parameters"]
        assert [epoch["epoch"] for epoch in run.history] == list(range(1, len(run.history) + 1))
        assert len(run.history) - run.metrics["epochs"] in (0, 1)  # one file may be an epoch behind the other
        orphans = list(out.glob(".tmp-*"))
        assert len(orphans) <= 1
        halfway += bool(orphans)
    assert halfway > 0, "no kill hit a save"


def test_killed_while_saving(data, tmp_path):
    kill_repeatedly(5, data, tmp_path)


@pytest.mark.slow
def test_killed_while_saving_often(data, tmp_path):
    kill_repeatedly(20, data, tmp_path)
