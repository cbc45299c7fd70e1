"""Parameter servers: with one worker the numbers of one device, on any number of servers; with several the quality."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from kit.at_length import at_length
from kit.commands import tfctr_
from kit.killed_training import prepare_clicks
from kit.places import ROOT, TESTS
from kit.served import config

from tfctr.errors import ConfigError
from tfctr.training import launching, load_run, train
from tfctr.training.launching import launch

ROWS = 4001
STEPS = 13  # an epoch


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return prepare_clicks(tmp_path_factory.mktemp("prepared") / "data", ROWS)


@pytest.fixture(autouse=True)
def paths(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, (ROOT, TESTS))))


def command(*arguments):
    return [sys.executable, "-W", "ignore", "-m", "kit.served", *map(str, arguments)]


def served(*arguments):
    return subprocess.run(command(*arguments), check=False).returncode


def check_near(run, other):
    """Losses and metrics of each epoch, and the weights of the best one, but for how sums are rounded."""
    assert run.metrics["finished"]
    assert [epoch["epoch"] for epoch in run.history] == [epoch["epoch"] for epoch in other.history]
    for epoch, expected in zip(run.history, other.history, strict=True):
        assert epoch.keys() == expected.keys()
        for name in ("loss", "ctr", "val_loss", "val_log_loss", "val_auc", "learning_rate"):
            assert epoch[name] == pytest.approx(expected[name], abs=2e-5)
    for ours, theirs in zip(run.model.get_weights(), other.model.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-3)
    assert sorted(file.name for file in run.folder.iterdir()) == sorted(file.name for file in other.folder.iterdir())


@pytest.mark.parametrize("optimizer", at_length(["lazy_adam", "adagrad", "ftrl"], "lazy_adam", then=["adagrad"]))
def test_one_worker_has_the_numbers_of_one_device(optimizer, data, tmp_path):
    """Where the chief was killed in between, and went on with another number of servers, too."""
    changed = [
        f"training.optimizer={optimizer}",
        "training.start=click_rate",
        "model.embedding_l2=0.01",
        "model.l2_scope=batch",
    ]
    one = train(config(*changed), data, tmp_path / "one")
    assert served(1, 2, data, tmp_path / "served", STEPS + 7, *changed) == -signal.SIGKILL
    assert any((tmp_path / "served" / "checkpoints").iterdir())
    assert served(1, 3, data, tmp_path / "served", 0, *changed) == 0
    check_near(load_run(tmp_path / "served"), one)


@pytest.mark.slow
def test_several_workers_train_on_all_rows(data, tmp_path):
    one = train(config("training.epochs=6"), data, tmp_path / "one")
    assert served(3, 2, data, tmp_path / "served", 0, "training.epochs=6") == 0
    run = load_run(tmp_path / "served")
    assert run.environment["device"] == "CPU (3 workers, 2 parameter servers)"
    assert run.metrics["valid"]["auc"] == pytest.approx(one.metrics["valid"]["auc"], abs=0.02)
    assert run.metrics["valid"]["log_loss"] == pytest.approx(one.metrics["valid"]["log_loss"], abs=0.03)


@pytest.mark.slow
def test_a_killed_worker_is_done_without(data, tmp_path):
    assert launch(command(0, "worker-1", data, tmp_path / "run", STEPS), 2, 2) == 0
    run = load_run(tmp_path / "run")
    assert len(run.history) == 3
    assert run.metrics["valid"]["auc"] > 0.75


@pytest.mark.slow
def test_a_killed_server_ends_all_and_they_go_on(data, tmp_path, capfd):
    assert launch(command(0, "ps-1", data, tmp_path / "run", STEPS + 6), 2, 2) == 128 + signal.SIGKILL
    assert "WorkerError: a parameter server, or all workers, have ended" in capfd.readouterr().err
    assert any((tmp_path / "run" / "checkpoints").iterdir())
    assert launch(command(0, "ps-1", data, tmp_path / "run", 0), 2, 2) == 0
    assert load_run(tmp_path / "run").metrics["finished"]


# what is refused


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ("training.optimizer=adam", "whole tables would travel"),
        ("training.optimizer=exact_lazy_adam", "steps of several workers have no order"),
        ("training.optimizer=auto", "stands for one of two others"),
        ("training.steps_per_execution=2", "one step at a time"),
        ("training.precision=mixed_float16", "loss scale"),
    ],
)
def test_what_does_not_train_with_servers_is_refused(changed, problem):
    from tfctr.training.coordinator import require_served

    with pytest.raises(ConfigError, match=problem):
        require_served(config(changed).training)
    require_served(config().training)


@pytest.mark.parametrize(
    "given",
    [
        {"cluster": {"worker": ["a:1"], "ps": ["b:1"]}, "task": {"type": "worker", "index": 0}},
        {"cluster": {"chief": ["c:1"], "worker": ["a:1"], "ps": []}, "task": {"type": "chief", "index": 0}},
        {"cluster": {"chief": ["c:1"], "worker": ["a:1"], "ps": ["b:1"]}, "task": {"type": "ps", "index": 1}},
        {"cluster": {"chief": ["c:1"], "worker": ["a"], "ps": ["b:1"]}, "task": {"type": "chief", "index": 0}},
        {"cluster": {"chief": ["c:1"], "worker": [1], "ps": ["b:1"]}, "task": {"type": "chief", "index": 0}},
    ],
)
def test_a_cluster_without_all_kinds_is_refused(given, data, tmp_path, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", json.dumps(given))
    with pytest.raises(ConfigError, match="does not name chief and worker and ps"):
        train(config(), data, tmp_path / "run", distribute="parameter_server")
    result = tfctr_("train", "--data", data, "--out", tmp_path / "run", "--distribute", "parameter_server")
    assert (result.exit_code, "does not name" in result.stderr) == (2, True)
    assert not (tmp_path / "run").exists()


def test_a_server_is_no_chief(data, tmp_path, monkeypatch):
    cluster = {"chief": ["c:1"], "worker": ["a:1"], "ps": ["b:1"]}
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster, "task": {"type": "ps", "index": 0}}))
    with pytest.raises(ConfigError, match="this process is ps 0"):
        train(config(), data, tmp_path / "run", distribute="parameter_server")


def test_the_launcher_starts_all_kinds(monkeypatch):
    started = []
    typed = ["train", "--data", "data", "--workers=2", "--servers", "3", "--distribute", "parameter_server", "--out", "run"]
    monkeypatch.setattr("sys.argv", ["tfctr", *typed])
    monkeypatch.setattr(launching, "launch", lambda *given: started.append(given) or 0)
    assert tfctr_(*typed).exit_code == 0
    kept = ["train", "--data", "data", "--out", "run", "--distribute=parameter_server"]
    assert started == [([sys.executable, "-m", "tfctr", *kept], 2, 3)]
    for wrong in (["--servers", "2"], ["--workers", "1"], ["--workers", "2", "--servers", "2", "--distribute", "mirrored"]):
        assert tfctr_("train", "--data", "data", "--out", "run", *wrong).exit_code == 2


def test_a_launched_training_ends_with_its_chief(tmp_path):
    """Workers are spare until all have failed."""
    code = "import json, os, sys, time; task = json.loads(os.environ['TF_CONFIG'])['task']; {}"
    ends = "sys.exit(3 if task == {'type': 'worker', 'index': 0} else 0)"
    assert launch([sys.executable, "-c", code.format(ends)], 2, 1) == 0
    assert launch([sys.executable, "-c", code.format("sys.exit(3 if task['type'] == 'worker' else 0)")], 2, 1) == 3
    assert launch([sys.executable, "-c", code.format("sys.exit(7 if task['type'] == 'chief' else 0)")], 2, 1) == 7
