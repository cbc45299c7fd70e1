"""Killed at any moment, `tfctr.prepare` leaves a whole folder or none, and the next run removes what the killed one left."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest

import tfctr
from tfctr.schema import Categorical, Numeric, Schema

SCHEMA = Schema([Categorical("user"), Numeric("price", "scaled")], label="click")
ROWS = 3000
TABLE = {
    "user": [row % 100 for row in range(ROWS)],
    "price": [row / 7 for row in range(ROWS)],
    "click": [row % 2 for row in range(ROWS)],
}
CHILD = """
import sys, tfctr, tfctr.data.preparing
from test_prepare_atomic import SCHEMA, TABLE
print("ready", flush=True)
tfctr.prepare(SCHEMA, train=TABLE, valid=0.2, out=sys.argv[1])
print("done", flush=True)
"""


def start(out):
    """A process that is about to prepare `out`."""
    paths = os.pathsep.join([os.path.dirname(__file__), os.path.dirname(os.path.dirname(tfctr.__file__))])
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
    )
    assert child.stdout.readline() == "ready\n"
    return child


@pytest.mark.parametrize("kills", [5, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_at_a_random_moment(tmp_path, kills):
    with start(tmp_path / "whole") as child:
        began = time.monotonic()
        child.communicate()
    seconds = time.monotonic() - began
    whole = {file.relative_to(tmp_path / "whole"): file.read_bytes() for file in tmp_path.glob("whole/**/*") if file.is_file()}
    draw, killed_early = random.Random(kills), 0
    for kill in range(kills):
        out = tmp_path / f"data{kill}"
        with start(out) as child:
            if kill == 0:  # one that is certainly at work
                while not list(tmp_path.glob(".tmp-*")):
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


def test_two_processes_with_one_destination(tmp_path):
    children = [start(tmp_path / "data") for _ in range(2)]
    for child in children:
        child.communicate()
    assert sorted(child.returncode for child in children) in ([0, 0], [0, 1])
    assert tfctr.Dataset.load(tmp_path / "data").train.rows > ROWS / 2
    assert not list(tmp_path.glob(".tmp-*"))
