"""A table of 3 GB, more than a message of Protocol Buffers holds, is exported, checked and answers."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from kit.large_run import BUCKETS, DIM
from kit.places import ROOT, TESTS

from tfctr.memory import of_meminfo, text_of
from tfctr.serving.runtime.saved_model import SavedModel


@pytest.mark.every
@pytest.mark.skipif((of_meminfo(text_of(Path("/proc/meminfo")), "MemAvailable") or 0) < 16, reason="it takes 16 GiB of memory")
def test_a_table_of_3_gb_is_exported(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, (ROOT, TESTS))))
    subprocess.run([sys.executable, "-m", "kit.large_run", str(tmp_path)], check=True)
    command = ["export", str(tmp_path / "run"), str(tmp_path / "served")]
    subprocess.run([sys.executable, "-m", "tfctr", *command], check=True)
    version = tmp_path / "served" / "1"
    assert (version / "saved_model.pb").stat().st_size < 2**20
    assert sum(file.stat().st_size for file in (version / "variables").iterdir()) > 4 * BUCKETS * DIM
    rows = {"user": np.array([b"u1", b"new"], object), "item": np.array([b"i1", b"i2"], object)}
    answers = SavedModel(version).run("serving_default", rows)
    assert ((answers["probability"] > 0) & (answers["probability"] < 1)).all()
