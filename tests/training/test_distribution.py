"""A run on two devices and one by two workers have the same bits; a worker that dies ends all, and all go on."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from kit.at_length import at_length
from kit.commands import tfctr_
from kit.killed_training import prepare_clicks
from kit.places import ROOT, TESTS

from tfctr.errors import ConfigError
from tfctr.training import launching, load_run, train
from tfctr.training.distribution import is_named_chief
from tfctr.training.launching import launch

ROWS = 4001  # the last batch of an epoch does not divide by two


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return prepare_clicks(tmp_path_factory.mktemp("prepared") / "data", ROWS)


def run_in_processes(monkeypatch, how, data, out, optimizer="adam", noise=1, kill_at=0):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, (ROOT, TESTS))))
    command = [sys.executable, "-W", "ignore", "-m", "kit.workers", how, *map(str, (data, out, optimizer, noise, kill_at))]
    return launch(command, 2) if how == "multi_worker" else subprocess.run(command, check=True).returncode


def check_same_run(run, other):
    """The bits of the weights, and all that is told of each epoch but for how long it took."""
    for ours, theirs in zip(run.model.get_weights(), other.model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    for epoch, expected in zip(run.history, other.history, strict=True):
        untimed = expected.keys() - {"seconds", "rows_per_second"}
        assert {name: epoch[name] for name in untimed} == {name: expected[name] for name in untimed}
    assert run.metrics["finished"]
    assert sorted(file.name for file in run.folder.iterdir()) == sorted(file.name for file in other.folder.iterdir())


@pytest.mark.parametrize("optimizer", at_length(["adam", "exact_lazy_adam"], then=["exact_lazy_adam"]))
def test_two_workers_have_the_bits_of_two_devices(optimizer, data, tmp_path, monkeypatch):
    """With dropout and batch normalization; and where a worker was killed in between, too."""
    run_in_processes(monkeypatch, "mirrored", data, tmp_path / "mirrored", optimizer)
    killed = run_in_processes(monkeypatch, "multi_worker", data, tmp_path / "workers", optimizer, kill_at=22)
    assert killed == 128 + signal.SIGKILL
    assert any((tmp_path / "workers" / "checkpoints").iterdir())
    assert run_in_processes(monkeypatch, "multi_worker", data, tmp_path / "workers", optimizer) == 0
    check_same_run(load_run(tmp_path / "workers"), load_run(tmp_path / "mirrored"))
    assert load_run(tmp_path / "workers").environment["device"] == "CPU (2 workers)"


@pytest.mark.slow
def test_two_devices_have_the_losses_of_one(data, tmp_path, monkeypatch):
    for how in ("one", "mirrored"):
        run_in_processes(monkeypatch, how, data, tmp_path / how, noise=0)
    one, two = (load_run(tmp_path / how) for how in ("one", "mirrored"))
    for epoch, expected in zip(two.history, one.history, strict=True):
        for name in ("loss", "ctr", "val_log_loss"):
            assert epoch[name] == pytest.approx(expected[name], abs=2e-6)
        assert epoch["val_auc"] == pytest.approx(expected["val_auc"], abs=1e-4)  # a last bit can swap two ranks


# what is refused


def test_workers_need_to_know_each_other(data, tmp_path, monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(ConfigError, match="needs TF_CONFIG") as caught:
        train(data=data, out=tmp_path / "run", distribute="multi_worker")
    assert "--workers 2" in caught.value.fix
    result = tfctr_("train", "--data", data, "--out", tmp_path / "run", "--distribute", "multi_worker")
    assert (result.exit_code, "needs TF_CONFIG" in result.stderr) == (2, True)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "given",
    [
        "no JSON",
        "[]",
        json.dumps({"cluster": {"worker": ["a:1"]}}),
        json.dumps({"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}),
        json.dumps({"cluster": {"worker": ["a:1"], "ps": ["b:1"]}, "task": {"type": "worker", "index": 0}}),
    ],
)
def test_a_wrong_cluster_is_refused(given, data, tmp_path, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", given)
    with pytest.raises(ConfigError, match="TF_CONFIG does not name"):
        train(data=data, out=tmp_path / "run", distribute="multi_worker")


def test_the_chief_is_the_first(monkeypatch):
    def chief(kind, index, **cluster):
        monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}}))
        return is_named_chief()

    assert [chief("worker", index, worker=["a:1", "b:1"]) for index in range(2)] == [True, False]
    assert [chief(kind, 0, chief=["a:1"], worker=["b:1"]) for kind in ("chief", "worker")] == [True, False]


def test_other_words_are_refused(data, tmp_path):
    with pytest.raises(ConfigError, match="Unknown distribution 'mirored'"):
        train(data=data, out=tmp_path / "run", distribute="mirored")
    with tf.distribute.OneDeviceStrategy("CPU:0").scope(), pytest.raises(ConfigError, match="scope of a OneDeviceStrategy"):
        train(data=data, out=tmp_path / "run", distribute="mirrored")
    result = tfctr_("train", "--data", data, "--out", tmp_path / "run", "--distribute", "mirrored", "--workers", "2")
    assert (result.exit_code, "leave one of them out" in result.stderr) == (2, True)


# the launcher


@pytest.mark.parametrize("given", [["--workers", "2"], ["--workers=2"]])
def test_each_worker_runs_the_command_as_it_was_typed(given, monkeypatch):
    started = []
    typed = ["--import", "mine", "train", "--data", "data", *given, "--out", "run"]
    monkeypatch.setattr("sys.argv", ["tfctr", *typed])
    monkeypatch.setattr(launching, "launch", lambda *given: started.append(given) or 7)
    assert tfctr_("train", "--data", "data", *given, "--out", "run").exit_code == 7
    kept = [word for word in typed if word not in given]
    assert started == [([sys.executable, "-m", "tfctr", *kept, "--distribute=multi_worker"], 2, 0)]


def said_by(script, workers, folder):
    """The exit code of `launch`, and what each of the workers wrote."""
    code = f"import json, os, sys, time; index = json.loads(os.environ['TF_CONFIG'])['task']['index']; {script}"
    exit_code = launch([sys.executable, "-c", code, str(folder)], workers)
    return exit_code, {file.name: file.read_text() for file in folder.iterdir()}


def test_workers_are_told_of_each_other(tmp_path):
    code, written = said_by("open(f'{sys.argv[1]}/{index}', 'w').write(os.environ['TF_CONFIG'])", 3, tmp_path)
    clusters = [json.loads(written[str(index)])["cluster"]["worker"] for index in range(3)]
    assert code == 0
    assert clusters[0] == clusters[1] == clusters[2]
    assert len(set(clusters[0])) == 3


def test_the_first_error_ends_all(tmp_path, monkeypatch):
    monkeypatch.setattr("tfctr.training.launching._PATIENCE", 0.5)
    code, _ = said_by("time.sleep(60) if index else sys.exit(5)", 2, tmp_path)
    assert code == 5
    assert not _children()
    code, _ = said_by("os.kill(os.getpid(), 9) if index else time.sleep(60)", 2, tmp_path)
    assert code == 128 + signal.SIGKILL


def _children():
    """The processes that this one has started and that run."""
    with open(f"/proc/{os.getpid()}/task/{os.getpid()}/children", encoding="utf-8") as file:
        return [pid for pid in file.read().split() if "sleep(60)" in Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8")]
