"""Loads good files, then hostile ones, which must be refused, and tells as JSON what these took.

    python tests/kit/hostile_loads.py GOOD... -- HOSTILE...

`grown` is by how many MiB the process was larger at most than after the good files; `seconds` has the processor's time a file,
which neighbours disturb least.
"""

import json
import sys
import time
from pathlib import Path

import tfctr
from kit.memory_of import peak, resident
from tfctr.config import Config
from tfctr.errors import TfctrError
from tfctr.schema import Schema
from tfctr.serving.publishing.configuration import read_config
from tfctr.serving.runtime.saved_model import SavedModel

LOADS = {"run.yaml": Config.load, "schema.yaml": Schema.load, "schema.json": Schema.load, "models.config": read_config}


def load(path):
    if path.is_dir():
        SavedModel(path)
    elif path.suffix == ".keras":
        tfctr.load_model(path)
    else:
        LOADS[path.name](path)


def main():
    files = sys.argv[1:]
    good, hostile = files[: files.index("--")], files[files.index("--") + 1 :]
    for file in good:
        load(Path(file))
    held, seconds = resident(), {}
    for file in hostile:
        start = time.process_time()
        try:
            load(Path(file))
        except TfctrError:
            seconds[file] = time.process_time() - start
    print(json.dumps({"grown": peak() - held, "seconds": seconds}))


if __name__ == "__main__":
    main()
