"""Killed at any moment, `tfctr.prepare` leaves a whole folder or none, and the next run removes what the killed one left."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time

import pytest
from kit.killed_table import ROWS, SCHEMA, TABLE
from kit.places import TESTS

import tfctr

CHILD = """
import sys, tfctr, tfctr.data.preparing
from kit.killed_table import SCHEMA, TABLE
print("ready", flush=True)
tfctr.prepare(SCHEMA, train=TABLE, valid=0.2, out=sys.argv[1])
print("done", flush=True)
"""


@contextlib.contextmanager
def started(out):
    """A process that is about to prepare `out`; it is killed at the end, or at a deadline, so that no one waits for ever."""
    paths = os.pathsep.join([str(TESTS), os.path.dirname(os.path.dirname(tfctr.__file__))])
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
    ) as child:
        deadline = threading.Timer(120, child.kill)
        deadline.start()
        try:
            assert child.stdout.readline() == "ready\n"
            yield child
        finally:
            deadline.cancel()
            child.kill()


@pytest.mark.parametrize("kills", [5, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_at_a_random_moment(tmp_path, kills):
    with started(tmp_path / "whole") as child:
        began = time.monotonic()
        child.communicate()
    seconds = time.monotonic() - began
    whole = {file.relative_to(tmp_path / "whole"): file.read_bytes() for file in tmp_path.glob("whole/**/*") if file.is_file()}
    draw, killed_early = random.Random(kills), 0
    for kill in range(kills):
        out = tmp_path / f"data{kill}"
        with started(out) as child:
            if kill == 0:  # one that is certainly at work
                while not list(tmp_path.glob(".tmp-*")):
                    assert child.poll() is None
                    time.sleep(0.001)
            else:
                time.sleep(draw.uniform(0, 1.1) * seconds)
            child.send_signal(signal.SIGKILL)
        if out.exists():
            assert {file.relative_to(out): file.read_bytes() for file in out.rglob("*") if file.is_file()} == whole
            assert tfctr.Dataset.load(out).train.rows > ROWS / 2
        else:
            killed_early += 1
            tfctr.prepare(SCHEMA, train=TABLE, valid=0.2, out=out)
            assert tfctr.Dataset.load(out).valid.rows > ROWS / 10
        assert not list(tmp_path.glob(".tmp-*"))
    assert killed_early > 0  # else nothing was tested


def test_a_failure_and_an_interruption_leave_nothing(tmp_path, monkeypatch):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("tfctr.data.preparing.write_split", interrupt)
    with pytest.raises(KeyboardInterrupt):
        tfctr.prepare(SCHEMA, train=TABLE, out=tmp_path / "data")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_two_processes_with_one_destination(tmp_path):
    with started(tmp_path / "data") as first, started(tmp_path / "data") as second:
        children = [first, second]
        for child in children:
            child.communicate()
    assert sorted(child.returncode for child in children) in ([0, 0], [0, 1])
    assert tfctr.Dataset.load(tmp_path / "data").train.rows > ROWS / 2
    assert not list(tmp_path.glob(".tmp-*"))
