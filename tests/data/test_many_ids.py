"""Columns of many ids: refused in words where no int32 counts them, and held in memory a few times over where one does."""

import json
import os
import subprocess
import sys

import pandas as pd
import pytest
from kit.commands import tfctr_
from kit.places import TESTS

import tfctr
from tfctr.data import fitting
from tfctr.features import FIRST_KNOWN

ROWS, DIM = 200_000, 16
SCHEMA = tfctr.Schema([tfctr.Categorical("session")], label="click")


def uuid(number):
    return f"{number:08x}-0000-4000-8000-{number * 2654435761 % 2**48:012x}"


def write_table(folder, rows, distinct):
    """Long ids, each in as many rows as the others."""
    SCHEMA.save(folder / "schema.yaml")
    frame = pd.DataFrame({"session": [uuid(row % distinct) for row in range(rows)], "click": [row % 2 for row in range(rows)]})
    frame.to_parquet(folder / "table.parquet")
    return folder / "schema.yaml", "--train", folder / "table.parquet", "--out", folder / "data"


def test_more_ids_than_can_be_counted_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(fitting, "_MOST_ROWS", 2_000)
    arguments = write_table(tmp_path, rows=4_000, distinct=1_998)  # and unknown, missing, padding
    result = tfctr_("prepare", *arguments)
    assert result.exit_code == 2
    assert "2001 ids together" in result.stderr
    assert "`hash_buckets`" in result.stderr
    assert {file.name for file in tmp_path.iterdir()} == {"schema.yaml", "table.parquet"}
    write_table(tmp_path, rows=4_000, distinct=1_997)
    assert tfctr_("prepare", *arguments).exit_code == 0


WORK = """
import json, sys
from kit.memory_of import peak
import tfctr

folder, peaks = sys.argv[1], []
schema = tfctr.Schema.load(f"{folder}/schema.yaml")
dataset = tfctr.prepare(schema, train=f"{folder}/table.parquet", out=f"{folder}/data", memory_limit="200MB", threads=1)
peaks.append(peak())
tfctr.serving.export(tfctr.models.DNN(dataset.schema, embedding_dim=int(sys.argv[2])), f"{folder}/served")
peaks.append(peak())
print(json.dumps({"size": dataset.schema.features[0].size, "peaks": peaks}))
"""


def peaks_of(folder, distinct):
    """MiB that a process has held at most once it has prepared `ROWS` rows, and once it has exported a model of them."""
    folder.mkdir()
    write_table(folder, ROWS, distinct)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path])}
    done = subprocess.run(
        [sys.executable, "-c", WORK, folder, str(DIM)], capture_output=True, text=True, check=True, env=environment
    )
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["size"] == distinct + FIRST_KNOWN
    return found["peaks"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_distinct_ids_are_held_a_few_times_over(tmp_path):
    few, many = (peaks_of(tmp_path / str(distinct), distinct) for distinct in (200, ROWS))
    # An id is a text of 36 bytes, about 100 with what holds it: an object of Python, a slot in a table of DuckDB or TensorFlow.
    texts, weights = 5 * 100 * ROWS / 2**20, 4 * 4 * DIM * ROWS / 2**20  # five texts, 95 MiB; four tables of float32, 49 MiB
    assert many[0] - few[0] < texts
    assert many[1] - few[1] < texts + weights
