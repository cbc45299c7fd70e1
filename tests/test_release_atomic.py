"""Whenever publishing is killed, the highest version loads, and the versions before it are untouched."""

import multiprocessing
import os
import signal
import time

import pytest
from test_release import GOOD, model, replay, tree

from tfctr.serving import publish_model, rollback, versions
from tfctr.serving.manifest import verify

# Children start from a process that has imported TensorFlow once and never used it, not from a new one each.
FORKSERVER = multiprocessing.get_context("forkserver")
FORKSERVER.set_forkserver_preload(["tfctr.serving.exporting", "tfctr.serving.release", "tfctr.models"])


def publish_for_ever(schema, base):
    while True:
        publish_model(model(schema), base, metrics=GOOD, keep=3)
        rollback(base, "a test")


def hidden(base):
    return {entry.name for entry in base.glob(".tmp-*")}


def kill_while_publishing(schema, base, delay):
    """Kill a publisher `delay` seconds after it has begun to write."""
    orphans = hidden(base)
    child = FORKSERVER.Process(target=publish_for_ever, args=(schema, base))
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


def kill_repeatedly(times, schema, base):
    """Kill `times` publishers at moments spread over the time that publishing, pruning and a rollback take."""
    publish_model(model(schema), base, metrics=GOOD)  # the first one also starts TensorFlow
    start = time.monotonic()
    publish_model(model(schema), base, metrics=GOOD, keep=3)
    rollback(base, "a test")
    duration = time.monotonic() - start
    interrupted = 0
    for trial in range(times):
        before = {number: tree(base / str(number)) for number in versions(base)}
        kill_while_publishing(schema, base, duration * trial / times)
        interrupted += bool(hidden(base))
        present = versions(base)
        assert present[-1] >= max(before)  # never a step back
        assert len(present) >= 2
        for number in present:
            verify(base / str(number))
            assert before.get(number) in (None, tree(base / str(number)))
        replay(base / str(present[-1]))
    assert interrupted > times / 2
    publish_model(model(schema), base, metrics=GOOD, keep=3)
    assert hidden(base) == set()


def test_a_killed_publisher_leaves_whole_versions(tiny_schema, tmp_path):
    kill_repeatedly(5, tiny_schema, tmp_path / "ctr")


@pytest.mark.slow
def test_100_killed_publishers_leave_whole_versions(tiny_schema, tmp_path):
    kill_repeatedly(100, tiny_schema, tmp_path / "ctr")
