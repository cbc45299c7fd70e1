"""What the tests of experiments share: a prepared dataset, and whether a process of a run still works."""

import os

import tfctr
from tfctr.data.synthetic import write_synthetic


def prepared_synthetic(folder, rows):
    """The dataset, in `folder / "data"`, of so many made rows with a train, a valid and a test table."""
    files = {name: str(file) for name, file in write_synthetic(folder / "table", rows).items()}
    return tfctr.prepare(tfctr.Schema.load(folder / "table" / "schema.yaml"), **files, out=folder / "data")


def runs_in(folder):
    """The processes of runs of experiments in a folder, by their numbers."""
    return [pid for pid in filter(str.isdecimal, os.listdir("/proc")) if _works_in(pid, folder)]


def _works_in(pid, folder):
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return b"tfctr.experiments.child" in (line := file.read()) and os.fsencode(folder) in line
    except OSError:
        return False
