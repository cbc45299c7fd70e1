"""One run of an experiment: whether its settings can be used, its plan, and the process that it is."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from tfctr.config import Config
from tfctr.data.dataset import Dataset
from tfctr.errors import ConfigError, DataError, StorageError, TrainingError, choose, require, require_one_of
from tfctr.experiments.files import PLAN, RESULT
from tfctr.models import MODELS, describe_arguments
from tfctr.storage import write_json

_ERRORS = {error.exit_code: error for error in (ConfigError, DataError, StorageError)}
_MEMORY = "look at the machine's memory, which `jobs` runs share"
_NO_FILE_NAME = re.compile(r"[^\w.=-]+", re.ASCII)
_SECONDS_APART = 0.2  # of the questions whether a run goes on


def require_usable(name: str, config: Config) -> None:
    """Raise for a model or an argument that does not exist, before any run."""
    model = choose(MODELS, config.model.name, f"model of {name!r}:")
    known = describe_arguments(config.model.name)
    for argument in config.model.arguments:
        require_one_of(known, argument, f"argument of {name!r}:")
    problem = f"the model {config.model.name!r} was registered by a script, which another process cannot import."
    require(model.__module__ != "__main__", problem, fix="move it into a module, and import that one")


def folder_name(name: str, config: Config, manifest: str, split: str) -> str:
    """A name that is the same for the same settings, data and split, and else another; the seed is none of them."""
    training = {key: value for key, value in config.to_dict()["training"].items() if key != "seed"}
    told = json.dumps([config.to_dict()["model"], training, manifest, split], sort_keys=True)
    return f"{_NO_FILE_NAME.sub('-', name)[:60]}-{hashlib.sha256(told.encode()).hexdigest()[:16]}"


def plan_of(config: Config, seed: int, dataset: Dataset, split: str) -> dict[str, Any]:
    """What the process of a run reads: see `tfctr.experiments.child`."""
    values = config.to_dict()
    return {
        "config": {**values, "training": {**values["training"], "seed": seed}},
        "data": str(dataset.folder.resolve()),
        "split": split,
        "module": MODELS[config.model.name].__module__,
    }


class Processes:
    """The processes of runs. All that still work end with the block, however it ends."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen] = set()
        self._stopped = threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End those that work, and let no other begin."""
        self._stopped.set()
        for process in [*self._running]:
            process.kill()

    @property
    def stopped(self) -> bool:
        """Whether no other run may begin."""
        return self._stopped.is_set()

    def run(self, place: Path, plan: dict[str, Any], goes_on: Callable[[], bool] = lambda: True) -> None:
        """Train and measure by a plan, until there is a result or `goes_on`, asked a few times a second, says no.

        Raises what the process ended with, unless it has a result. Does nothing where all are stopped.
        """
        if self.stopped:
            return
        place.mkdir(parents=True, exist_ok=True)
        write_json(place / PLAN, plan)
        environment = {"TF_CPP_MIN_LOG_LEVEL": "2", **os.environ}
        command = [sys.executable, "-m", "tfctr.experiments.child", str(place.resolve() / PLAN)]
        log = place / "log.txt"
        with (
            open(log, "ab") as file,
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=file, stderr=file, env=environment) as process,
        ):
            self._running.add(process)
            if self.stopped:  # meanwhile, so that nobody else knows of this one
                process.kill()
            try:
                ended_early = _ends_early(process, goes_on)
            finally:
                self._running.discard(process)
        if not ended_early and not (place / RESULT).exists():
            _refuse(place, process.returncode, log)


def _ends_early(process: subprocess.Popen, goes_on: Callable[[], bool]) -> bool:
    """Wait for a process; whether it was ended since its run does not go on."""
    while True:
        try:
            process.wait(_SECONDS_APART)
            return False
        except subprocess.TimeoutExpired:
            if not goes_on():
                process.kill()
                return True


def _refuse(place: Path, code: int, log: Path) -> None:
    if code < 0:
        name = signal.Signals(-code).name
        raise TrainingError(f"{place}: {name} ended the run.", fix=f"{_MEMORY}; the same command goes on")
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    error, last = _ERRORS.get(code, TrainingError), lines[-1] if lines else "no word"
    fix = f"see {log}; when that is mended, the same command goes on"
    raise error(f"{place}: the run ended with {code}: {last}", fix=fix)
