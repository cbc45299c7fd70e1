"""A real signal to a command at work: its exit code, and nothing half-made."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import yaml
from kit.at_length import at_length
from kit.commands import done, tables
from kit.releases import tree

import tfctr
from tfctr.data.synthetic import write_synthetic

# A parent that ignores Ctrl-C, as a shell does behind `&`, hands that on.
PROGRAM = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from tfctr.cli import main; main()"
ROWS = 300_000  # of which the engine has work for a second
PATIENCE = 600  # seconds


def signalled(number, is_at_work, folder, *arguments):
    """The exit code of a command in a folder, and what it said, where a signal comes once `is_at_work()`."""
    command = [sys.executable, "-c", PROGRAM, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True) as child:
        try:
            deadline = time.monotonic() + PATIENCE
            while not is_at_work():
                assert child.poll() is None, child.stderr.read()
                assert time.monotonic() < deadline, "it never came so far"
                time.sleep(0.001)
            child.send_signal(number)
            _, said = child.communicate(timeout=PATIENCE)
        finally:
            child.kill()
    return child.returncode, said


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A folder with a large table and its schema."""
    folder, draw = tmp_path_factory.mktemp("large"), np.random.default_rng(0)
    users = draw.integers(0, ROWS // 2, ROWS).tolist()
    (folder / "table.csv").write_text("\n".join(["user,click", *(f"user {user},{user % 2}" for user in users)]))
    tfctr.Schema([tfctr.Categorical("user")], label="click").save(folder / "schema.yaml")
    return folder


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_prepare(number, code, table, tmp_path):
    def is_in_a_query():
        return any(file.stat().st_size > 1_000_000 for file in tmp_path.glob(".tmp-*/work/tables.duckdb"))

    arguments = ["prepare", table / "schema.yaml", "--train", table / "table.csv", "--valid", 0.1, "--out", "data"]
    found, said = signalled(number, is_in_a_query, tmp_path, *arguments)
    assert (found, "bug" in said) == (code, False), said
    assert os.listdir(tmp_path) == []


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A folder with a run that is published."""
    folder = tmp_path_factory.mktemp("publishing")
    write_synthetic(folder, rows=2000)
    done("prepare", folder / "schema.yaml", *tables(folder), "--out", folder / "data")
    config = {"model": {"name": "LR"}, "training": {"batch_size": 100, "epochs": 1, "learning_rate": 0.1}}
    (folder / "run.yaml").write_text(yaml.safe_dump(config))
    done("train", folder / "run.yaml", "--data", folder / "data", "--out", folder / "run")
    done("publish", folder / "run", folder / "clicks")
    return folder


@pytest.mark.parametrize(
    "begun", at_length(["", "/*/.tmp-*", "/*/.tmp-*/saved_model.pb", "/*/.tmp-*/assets.extra/golden.json"], "/*/.tmp-*")
)
def test_publish(begun, published):
    before = tree(published)

    def is_at_work():
        return any((published / "clicks").glob(f".tmp-*{begun}"))

    code, said = signalled(signal.SIGTERM, is_at_work, published, "publish", "run", "clicks")
    assert (code, "bug" in said) == (143, False), said
    assert tree(published) == before
    assert sorted(os.listdir(published / "clicks")) == [".tfctr-lock", "1"]
