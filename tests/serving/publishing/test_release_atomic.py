"""Whenever publishing is killed, the highest version loads, and the versions before it are untouched."""

import itertools
import multiprocessing
import os
import shutil
import signal
import sys
import time

import pytest
from kit.releases import GOOD, model, replay, tree

from tfctr.serving import prune, publish_model, rollback, versions
from tfctr.serving.store.manifest import verify

# Children start from a process that has imported TensorFlow once and never used it, not from a new one each.
FORKSERVER = multiprocessing.get_context("forkserver")
FORKSERVER.set_forkserver_preload(["tfctr.serving.exporting.exporter", "tfctr.serving.publishing.release", "tfctr.models"])
# What Python says before it changes a file system; `os.replace` calls itself a rename.
WRITES = {f"os.{name}" for name in ("rename", "link", "symlink", "mkdir", "rmdir", "remove", "truncate", "chmod", "utime")}


def publish_for_ever(schema, base):
    while True:
        publish_model(model(schema), base, metrics=GOOD, keep=3)


def roll_back_for_ever(base):
    while True:
        rollback(base, "a test", to=versions(base)[-2])
        prune(base, keep=3)


def hidden(base):
    return {entry.name for entry in base.glob(".tmp-*")}


def kill_while_writing(base, delay, target, *arguments):
    """Kill a process that publishes for ever, `delay` seconds after it has begun to write."""
    orphans = hidden(base)
    child = FORKSERVER.Process(target=target, args=arguments)
    child.start()
    try:
        deadline = time.monotonic() + 120
        while hidden(base) <= orphans:
            assert child.is_alive(), "the child ended by itself"
            assert time.monotonic() < deadline, "the child never began"
            time.sleep(0.001)
        time.sleep(delay)
    finally:
        os.kill(child.pid, signal.SIGKILL)
        child.join()


def kill_repeatedly(times, base, longest, target, *arguments):
    """Kill `times` such processes, at moments spread over `longest` seconds."""
    interrupted = advanced = 0
    for trial in range(times):
        before = {number: tree(base / str(number)) for number in versions(base)}
        kill_while_writing(base, longest * trial / times, target, *arguments)
        present = versions(base)
        assert len(present) >= 2
        assert present[-1] >= max(before)  # never a step back
        for number in present:
            verify(base / str(number))
            assert before.get(number) in (None, tree(base / str(number)))
        replay(base / str(present[-1]))
        interrupted += bool(hidden(base))
        advanced += present[-1] > max(before)
    assert interrupted > 0
    assert advanced > 0
    rollback(base, "a test", to=present[-2])
    assert hidden(base) == set()


def kill_publishers(times, schema, base):
    publish_model(model(schema), base, metrics=GOOD)  # the first one also starts TensorFlow
    start = time.monotonic()
    publish_model(model(schema), base, metrics=GOOD)
    kill_repeatedly(times, base, 3 * (time.monotonic() - start), publish_for_ever, schema, base)


def kill_rollbacks(times, schema, base):
    for seed in range(2):
        publish_model(model(schema, seed), base, metrics=GOOD, force="a test")
    kill_repeatedly(times, base, 1.0, roll_back_for_ever, base)


def roll_back_up_to(base, step):
    """Roll back and prune, and kill this process before it writes for the `step`th time."""
    writes = itertools.count(1)

    def kill(event, arguments):
        writing = event in WRITES or (event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        if writing and next(writes) == step:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(kill)
    rollback(base, "a test", to=2)
    prune(base, keep=2)


@pytest.mark.parametrize("stride", [pytest.param(12, marks=pytest.mark.slow), pytest.param(1, marks=pytest.mark.every)])
def test_a_rollback_killed_before_any_of_its_writes_leaves_whole_versions(stride, tiny_schema, tmp_path):
    pristine, base = tmp_path / "pristine" / "ctr", tmp_path / "ctr"
    for seed in range(3):
        publish_model(model(tiny_schema, seed), pristine, metrics=GOOD, force="a test")
    before, outcomes = {number: tree(pristine / str(number)) for number in (1, 2, 3)}, {}
    for step in itertools.count(1, stride):
        shutil.rmtree(base, ignore_errors=True)
        shutil.copytree(pristine, base)
        child = FORKSERVER.Process(target=roll_back_up_to, args=(base, step))
        child.start()
        child.join()
        outcomes[step] = versions(base)
        for number in versions(base):
            verify(base / str(number))
            assert tree(base / str(number)) == before.get(number, tree(base / str(number)))
        if child.exitcode == 0:
            break
        assert child.exitcode == -signal.SIGKILL
    replay(base / "4")
    reached = [outcome for outcome, _ in itertools.groupby(outcomes.values())]
    states = [[1, 2, 3], [1, 2, 3, 4], [2, 3, 4], [3, 4]]
    assert [state for state in states if state in reached] == reached
    assert reached[0] == states[0]
    assert reached[-1] == states[-1]
    assert len(outcomes) > 30 / stride
    assert stride > 1 or reached == states


TIMES = [pytest.param(8, marks=pytest.mark.slow), pytest.param(20, marks=pytest.mark.every)]


@pytest.mark.parametrize("times", TIMES)
def test_killed_publishers_leave_whole_versions(times, tiny_schema, tmp_path):
    kill_publishers(times, tiny_schema, tmp_path / "ctr")


@pytest.mark.parametrize("times", TIMES)
def test_killed_rollbacks_leave_whole_versions(times, tiny_schema, tmp_path):
    kill_rollbacks(times, tiny_schema, tmp_path / "ctr")
