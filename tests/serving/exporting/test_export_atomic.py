"""An export that is killed, or that fails, leaves the versions as they were: each one whole, none half."""

import multiprocessing
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from kit.at_length import at_length

import tfctr
from tfctr.errors import ExportError, StorageError
from tfctr.models import LR
from tfctr.serving.exporting import exporter as exporting
from tfctr.serving.exporting.golden import read_golden
from tfctr.serving.runtime.saved_model import SavedModel
from tfctr.serving.store.folders import latest, versions
from tfctr.storage import sha256

# Children start from a process that has imported TensorFlow once and never used it, not from a new one each.
FORKSERVER = multiprocessing.get_context("forkserver")
FORKSERVER.set_forkserver_preload(["tfctr.serving.exporting.exporter", "tfctr.models"])


def export_forever(schema, folder):
    from tfctr.models import LR

    model = LR(schema)
    while True:
        tfctr.serving.export(model, folder)


def hidden(folder):
    return [entry.name for entry in folder.iterdir() if not entry.name.isdecimal()]


def kill_while_exporting(schema, folder, delay):
    """Kill an export `delay` seconds after it has begun to write."""
    orphans = hidden(folder)
    child = FORKSERVER.Process(target=export_forever, args=(schema, folder))
    child.start()
    try:
        deadline = time.monotonic() + 120
        while set(hidden(folder)) <= set(orphans):
            assert child.is_alive(), "the child ended by itself"
            assert time.monotonic() < deadline, "the child never began"
            time.sleep(0.001)
        time.sleep(delay)
    finally:
        os.kill(child.pid, signal.SIGKILL)
        child.join()


def digest(folder):
    return {str(file.relative_to(folder)): sha256(file) for file in sorted(folder.rglob("*")) if file.is_file()}


def replay(version):
    model = SavedModel(version)
    for batch in read_golden(version / "assets.extra" / "golden.json"):
        for name, answers in model.run(batch["signature"], batch["inputs"]).items():
            np.testing.assert_array_equal(answers, batch["outputs"][name])


def kill_repeatedly(times, schema, folder):
    """Kill `times` exports at moments spread over the time that one takes."""
    model = LR(schema)
    tfctr.serving.export(model, folder)  # the first one also starts TensorFlow
    start = time.monotonic()
    tfctr.serving.export(model, folder)
    duration, interrupted = time.monotonic() - start, 0
    for trial in range(times):
        before = {number: digest(folder / str(number)) for number in versions(folder)}
        kill_while_exporting(schema, folder, duration * trial / times)
        interrupted += bool(hidden(folder))
        after = {number: digest(folder / str(number)) for number in versions(folder)}
        assert {number: after[number] for number in before} == before
        assert {tuple(files) for files in after.values()} == {tuple(before[1])}
        replay(folder / str(latest(folder)))
    assert interrupted > 0
    tfctr.serving.export(model, folder)
    assert hidden(folder) == []


@pytest.mark.slow
def test_20_killed_exports_leave_whole_versions(tiny_schema, tmp_path):
    kill_repeatedly(20, tiny_schema, tmp_path / "ctr")


def refuse(*arguments):
    raise ExportError("row 0 differs.", fix="none")


@pytest.mark.parametrize(
    "step", at_length(["check_saved_model", "write_golden", "write_warmup", "_model_card"], "check_saved_model")
)
def test_a_failed_step_publishes_nothing(step, tiny_schema, tmp_path, monkeypatch):
    model = LR(tiny_schema)
    before = digest(tfctr.serving.export(model, tmp_path))
    monkeypatch.setattr(exporting, step, lambda *arguments, **options: refuse())
    with pytest.raises(ExportError, match="row 0 differs"):
        tfctr.serving.export(model, tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["1"]
    assert digest(tmp_path / "1") == before


def test_a_disk_that_fills_up_is_said_as_such(tiny_schema, tmp_path, monkeypatch):
    def fill(_, folder, **__):
        Path(folder, "saved_model.pb").write_bytes(b"half")
        raise tf.errors.ResourceExhaustedError(None, None, f"{folder}/saved_model.pb; No space left on device")

    monkeypatch.setattr(tf.saved_model, "save", fill)
    with pytest.raises(StorageError, match=r"cannot write .*: No space left on device\."):
        tfctr.serving.export(LR(tiny_schema), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_check_sees_a_wrong_answer_before_anyone_else(tiny_schema, tmp_path, monkeypatch):
    wrong = {"probability": tf.constant([0.5])}
    monkeypatch.setattr(exporting.ServedGraph, "_answer", lambda graph, ids: wrong)
    with pytest.raises(ExportError, match="output 'probability'"):
        tfctr.serving.export(LR(tiny_schema), tmp_path)
    assert list(tmp_path.iterdir()) == []
