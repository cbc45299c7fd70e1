"""One run of a comparison, in a process of its own: `python -m tfctr.experiments.child PLAN`.

The plan is a JSON file beside which the run goes. What it came to appears as `result.json`, whole or not at all. The process
ends when its standard input does, so that it never outlives the one that started it.
"""

import contextlib
import importlib
import os
import sys
import threading
from pathlib import Path
from typing import Any

from tfctr.experiments.files import GROUPS, RESULT


def main(file: str) -> None:
    """Train and measure what a plan says."""
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    from tfctr.errors import StorageError, TfctrError
    from tfctr.storage import read_json

    plan = read_json(file)
    importlib.import_module(plan["module"])  # it registers the model
    try:
        run(Path(file).parent, plan)
    except (TfctrError, OSError) as error:  # a plain one is the disk's, which may have no room for this line either
        with contextlib.suppress(OSError):
            sys.stderr.write(f"error: {' '.join(str(error).split())}\n")  # Python holds no line of it back
        os._exit(getattr(error, "exit_code", StorageError.exit_code))


def run(folder: Path, plan: dict[str, Any]) -> None:
    """Train the run of a plan, or go on with it, and measure it."""
    import numpy as np

    from tfctr import metrics
    from tfctr.config import Config
    from tfctr.errors import TrainingError
    from tfctr.evaluation import figures
    from tfctr.storage import atomic_file, sha256, write_json
    from tfctr.training import train

    try:
        trained = train(Config.from_dict(plan["config"]), plan["data"], folder / "run", resume=True)
    except TrainingError as error:  # the same again would fail again
        write_json(folder / RESULT, {"failed": error.problem})
        return
    dataset = trained.dataset(plan["data"])
    measured, groups_sha256 = {}, None
    for name in {"valid", plan["split"]}:
        split = dataset.splits[name]
        probabilities = trained.inference_model.predict(split.batches(10_000, shuffle=False), verbose=0)
        measured[name] = figures(split.labels, probabilities, split.groups, split.weights)
        if name == plan["split"] and split.groups is not None:
            each = metrics.auc_by_group(split.labels, probabilities, split.groups, split.weights)
            with atomic_file(folder / GROUPS, "wb") as file:
                np.save(file, np.stack([each.auc, each.weight]), allow_pickle=False)
            groups_sha256 = sha256(folder / GROUPS)
    result = {"figures": measured, "metrics": trained.metrics, "environment": trained.environment, "history": trained.history}
    write_json(folder / RESULT, metrics.without_nan({**result, "groups_sha256": groups_sha256}))


def _end_with_the_parent() -> None:
    while os.read(0, 1):  # not `sys.stdin`, whose lock would be held when the process ends
        pass
    os._exit(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
