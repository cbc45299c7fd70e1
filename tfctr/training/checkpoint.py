"""Checkpoints of a `fit`, from which it goes on with the same bits after its process has ended."""

import contextlib
import logging
import math
import re
import signal
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

import tfctr
from tfctr.data.batches import Place
from tfctr.errors import ConfigError, StorageError, require_count
from tfctr.models._state import adds_losses, log_variables, restore_step_variables, settings_of, step_variables
from tfctr.optimizers import learning_rate_of
from tfctr.replicas import has_workers
from tfctr.storage import fsync_folder, locked, make_folder
from tfctr.training.resuming import differences
from tfctr.training.snapshot import Snapshot, files_in
from tfctr.types import StrPath

_LOG = logging.getLogger(__name__)
_LOCK = ".lock"
_FORMAT = 1
_PERIOD = re.compile(r"(\d+(?:\.\d+)?) ?(s|min|h)")
_SECONDS = {"s": 1, "min": 60, "h": 3600}
_FORGETFUL = (keras.callbacks.EarlyStopping, keras.callbacks.ReduceLROnPlateau, keras.callbacks.ModelCheckpoint)


class Checkpoint(keras.callbacks.Callback):
    """Keeps in a folder what a `fit` needs to go on after its process was killed: the same call then does so by itself.

    A checkpoint holds the weights, the optimizer's moments and steps, the states of random generators, the logs so far, the
    state of `paper_callbacks`, and the place in the shuffled order. It is written at the end of each epoch, `every` so often
    within one, and on SIGTERM, after which the process ends as that signal ends it. It appears under its name when it is whole,
    and the last two are kept. A `fit` that ends removes them.

    With batches of a `Split`, a `fit` that was killed at any moment and goes on has the bits of one that was not, on the same
    processor with as many threads. Other data have no place that can be found again: their checkpoints are those of epochs, and
    it is for them to give the same order after one.

    A checkpoint that cannot be written, on a full disk, is a logged warning, and training goes on. One that is damaged is told
    and left for the one before.

    Of several workers the chief writes, into a folder that all can read; `every` is in steps, and SIGTERM writes nothing.

    Args:
        folder: of the checkpoints of this one training; made if absent.
        every: steps, such as `1000`, or time, such as `"30s"`, `"10min"` or `"1h"`, from one checkpoint to the next within an
            epoch; None for none.

    Raises:
        ConfigError: `every` is neither of these, or is given beside data without a place; the checkpoint is of another model,
            fit, order of rows or callbacks; it does not stand last among the callbacks whose state it keeps; or
            `steps_per_epoch` is given.
        StorageError: another process trains with this folder, or none of its checkpoints is whole.

    >>> import tempfile
    >>> from tfctr import Categorical, Schema, models
    >>> from tfctr.data import Split
    >>> rows = Split.from_arrays([[3], [4], [3], [4]], [1, 0, 1, 0])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     model = models.LR(Schema(features=[Categorical("user", size=5)], label="click"))
    ...     model.compile()
    ...     history = model.fit(rows.batches(2), epochs=2, callbacks=[Checkpoint(folder, every="10min")], verbose=0)
    >>> len(history.history["loss"])
    2
    """

    async_safe = True  # Keras then does not wait for the device after each step; the steps are counted around them

    def __init__(self, folder: StrPath, every: int | str | None = None) -> None:
        super().__init__()
        self.folder = Path(folder)
        self.every = every
        self._steps_apart, self._seconds_apart = period(every)
        self._place: Place | None = None
        self._beside: Sequence[Any] = ()
        self._entered = False

    # around `fit`

    @contextlib.contextmanager
    def around_fit(self, model: keras.Model, given: Mapping[str, Any]) -> Iterator[None]:
        """Hold the folder and SIGTERM during a `fit`, which enters this by itself; `given` are its arguments."""
        place = getattr(given.get("x"), "place", None)
        if self.every is not None and place is None:
            problem = f"`every` is {self.every!r}, and within an epoch of these data no place can be found again."
            raise ConfigError(problem, fix="train on dataset.train.batches(...), or leave `every` out")
        self._place = place
        self._beside = self._before_this(given["callbacks"])
        self._alone = not has_workers(model.distribute_strategy)
        self._writes = model.distribute_strategy.extended.should_checkpoint
        if not self._alone and self._seconds_apart < math.inf:
            raise ConfigError(f"`every` is {self.every!r}, and clocks of workers differ.", fix="give it in steps, such as 1000")
        self._run: Any = None
        self._terminated = self._scoring = self._ended = False
        self._entered = True
        try:
            with self._holding_folder(), self._holding_sigterm():
                yield
        finally:
            self._entered = False
            if self._run is not None:
                model.train_function = self._run
            model._initial_epoch = None  # which would hold for the next `fit`, too
        if self._ended and self._writes:
            self._remove_all()
        if self._terminated:  # while the last callbacks were at work
            signal.raise_signal(signal.SIGTERM)

    def _holding_folder(self) -> contextlib.AbstractContextManager[None]:
        if not self._writes:
            return contextlib.nullcontext()
        make_folder(self.folder)
        return locked(self.folder / _LOCK, busy=f"another process trains with {self.folder}.")

    def _remove_all(self) -> None:
        for file in (*files_in(self.folder), self.folder / _LOCK):
            file.unlink(missing_ok=True)
        fsync_folder(self.folder)
        if not any(self.folder.iterdir()):
            self.folder.rmdir()
            fsync_folder(self.folder.parent)

    def _before_this(self, callbacks: Any) -> Sequence[Any]:
        callbacks = list(getattr(callbacks, "callbacks", callbacks if isinstance(callbacks, list | tuple) else [callbacks]))
        last = callbacks.index(self)
        if behind := [type(callback).__name__ for callback in callbacks[last + 1 :] if hasattr(callback, "get_state")]:
            problem = f"Checkpoint stands before {', '.join(behind)}, whose state of an epoch it would miss."
            raise ConfigError(problem, fix="put Checkpoint last among the callbacks")
        self._forgetful = [type(callback).__name__ for callback in callbacks if isinstance(callback, _FORGETFUL)]
        return [callback for callback in callbacks[:last] if hasattr(callback, "get_state")]

    @contextlib.contextmanager
    def _holding_sigterm(self) -> Iterator[None]:
        self._before: Any = signal.getsignal(signal.SIGTERM)
        in_main = threading.current_thread() is threading.main_thread()
        if not self._alone or not in_main or self._before in (signal.SIG_IGN, None):
            yield
            return
        signal.signal(signal.SIGTERM, self._on_sigterm)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, self._before)

    def _on_sigterm(self, *_: object) -> None:
        again = self._terminated
        self._terminated = True
        if again or self._scoring:  # somebody is in a hurry; or nothing moves, so that it can be written now
            self._terminate(write=self._scoring and not again)

    def _terminate(self, write: bool) -> None:
        """End as SIGTERM would have ended the process without this callback."""
        if write:
            self._write(self._epoch, self._step, self._epoch_of_data)
        signal.signal(signal.SIGTERM, self._before)
        signal.raise_signal(signal.SIGTERM)

    # of Keras

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        model = self._trained
        if not self._entered:
            raise ConfigError("Checkpoint is for models of tfctr.", fix="for others: keras.callbacks.BackupAndRestore")
        steps = (self.params or {}).get("steps")
        if self._place is not None and steps != self._place.number:
            problem = f"steps_per_epoch is {steps}, and an epoch of these batches has {self._place.number}."
            raise ConfigError(problem, fix="leave steps_per_epoch out")
        self._history: list[dict[str, Any]] = []
        self._learning_rate = learning_rate_of(model.optimizer)
        self._resumed: tuple[int, int] = (0, 0)
        self._found = Snapshot.last_in(self.folder)
        if self._found is not None:
            self._restore(self._found)
        self._run = model.train_function
        model.train_function = self._counted
        self._written_at = time.monotonic()
        self._since = 0

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._epoch = epoch
        self._step = self._skipped = 0
        self._epoch_of_data = self._place.epoch if self._place else 0
        self._to_skip = 0
        if self._resumed == (epoch, 0) or self._resumed[0] != epoch:
            return
        self._to_skip = self._step = self._resumed[1]
        assert self._found is not None
        number, sums = len(step_variables(self._trained)), log_variables(self._trained)
        for variable, value in zip(sums, self._found.arrays(_names(range(number - len(sums), number))), strict=True):
            variable.assign(value)  # again: Keras has set them back

    def _counted(self, iterator: Any) -> Any:
        """`train_function`; of the epoch that is resumed, the steps made before are passed over."""
        at_once = self._steps_at_once
        if self._skipped < self._to_skip:
            for _ in range(min(at_once, self._to_skip - self._skipped)):
                next(iterator)
                self._skipped += 1
            return self._trained.get_metrics_result()
        if self._terminated:
            self._terminate(write=self._place is not None)
        logs = self._run(iterator)
        self._step += at_once
        self._since += at_once
        if self._place is not None:
            self._step = min(self._step, self._place.number)
            if self._terminated or (self._is_due and self._step < self._place.number):
                self._write(self._epoch, self._step, self._epoch_of_data)
        if self._terminated:
            self._terminate(write=False)
        return logs

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        if not self._entered or self._place is None:
            return
        self._sums = [np.array(variable) for variable in log_variables(self._trained)]  # validation counts in them, too
        self._scoring = True
        if self._terminated:
            self._terminate(write=True)

    def on_test_end(self, logs: dict[str, Any] | None = None) -> None:
        self._scoring = False

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        assert logs is not None  # Keras gives them after every epoch
        self._history.append({name: _plain(value) for name, value in logs.items()})
        self._write(epoch + 1, 0, self._place.epoch if self._place else 0)
        if self._terminated:
            self._terminate(write=False)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self._trained.history.epoch = list(range(len(self._history)))
        self._ended = True

    # to disk and back

    def _write(self, epoch: int, step: int, epoch_of_data: int) -> None:
        # Each worker takes part in adding up the sums of all.
        sums = self._sums if self._scoring else [np.array(variable) for variable in log_variables(self._trained)]
        if self._writes:
            self._write_file(epoch, step, epoch_of_data, sums)
        self._written_at = time.monotonic()
        self._since = 0

    def _write_file(self, epoch: int, step: int, epoch_of_data: int, sums: Sequence[np.ndarray]) -> None:
        model = self._trained
        variables = step_variables(model)
        states = [callback.get_state() for callback in self._beside]
        arrays = [{name: value for name, value in state.items() if _are_arrays(value)} for state in states]
        state = {
            "format": _FORMAT,
            "tfctr": tfctr.__version__,
            "is_of": self._identity(variables),
            "epoch": epoch,
            "step": step,
            "epoch_of_data": epoch_of_data,
            "learning_rates": [self._learning_rate, learning_rate_of(model.optimizer)],
            "stopped": bool(model.stop_training),
            "adds": adds_losses(model),
            "history": self._history,
            "callbacks": [
                {name: len(value) if name in its_arrays else value for name, value in state.items()}
                for state, its_arrays in zip(states, arrays, strict=True)
            ],
            "arrays": [sorted(its_arrays) for its_arrays in arrays],
        }

        def named() -> Iterator[tuple[str, np.ndarray]]:
            values: list[Any] = [*variables]
            values[len(values) - len(sums) :] = sums
            yield from zip(_names(range(len(variables))), map(np.asarray, values), strict=True)
            for number, its_arrays in enumerate(arrays):
                for name, values in its_arrays.items():
                    for place, value in enumerate(values):
                        yield f"callbacks/{number}/{name}/{place}", value

        Snapshot.add_to(self.folder, epoch, step, state, named())

    def _restore(self, found: Snapshot) -> None:
        model = self._trained
        state = found.state
        self._require_same(state, found.path)
        restore_step_variables(model, found.arrays(_names(range(len(step_variables(model))))), state["adds"])
        for number, callback in enumerate(self._beside):
            its_state = dict(state["callbacks"][number])
            for name in state["arrays"][number]:
                its_state[name] = list(found.arrays(f"callbacks/{number}/{name}/{place}" for place in range(its_state[name])))
            callback.set_state(its_state)
        self._history = state["history"]
        for logs in self._history:
            for name, value in logs.items():
                model.history.history.setdefault(name, []).append(math.nan if value is None else value)
        self._resumed = state["epoch"], state["step"]
        model._initial_epoch = (self.params or {})["epochs"] if state["stopped"] else state["epoch"]
        if self._place is not None:
            self._place.epoch, self._place.passed = state["epoch_of_data"], state["step"]
        _LOG.info("goes on from %s: epoch %d, after %d of its steps", found.path, state["epoch"] + 1, state["step"])
        if self._forgetful:
            _LOG.warning("%s begins anew: its state is not kept; paper_callbacks() has one that is", ", ".join(self._forgetful))

    def _identity(self, variables: Sequence[keras.Variable]) -> dict[str, Any]:
        """What must be the same where a checkpoint is used."""
        model = self._trained
        return {
            "model": type(model).__name__,
            "fit": model.schema.digest,
            "settings": settings_of(model),
            "variables": [[list(variable.shape), str(variable.dtype)] for variable in variables],
            "order of the rows": None if self._place is None else self._place.order,
            "callbacks": [type(callback).__name__ for callback in self._beside],
        }

    def _require_same(self, state: Mapping[str, Any], path: Path) -> None:
        if state.get("format") != _FORMAT:
            fix = "let that version go on with it, or remove the folder, and train anew"
            raise StorageError(f"{path} was written by another version, tfctr {state.get('tfctr')}.", fix=fix)
        written, ours = state["is_of"], self._identity(step_variables(self._trained))
        differing = differences(written, ours)
        rates = state["learning_rates"]  # at the beginning, and now, to which a schedule may have lowered it
        if self._learning_rate not in rates:
            differing.append(f"the learning rate is {rates[0]:g} there and {self._learning_rate:g} here")
        self._learning_rate = rates[0]
        if differing:
            raise ConfigError(
                f"{path} is of another training: {differing[0]}.",
                fix="train as before, or take another folder for this training",
            )

    @property
    def _is_due(self) -> bool:
        return self._since >= self._steps_apart or time.monotonic() - self._written_at >= self._seconds_apart

    @property
    def _steps_at_once(self) -> int:
        return self._trained.steps_per_execution

    @property
    def _trained(self) -> Any:
        return self.model


def period(every: Any) -> tuple[float, float]:
    """Steps and seconds from one checkpoint to the next."""
    if every is None:
        return math.inf, math.inf
    if isinstance(every, str):
        found = _PERIOD.fullmatch(every.strip())
        if found is None or float(found[1]) == 0:
            raise ConfigError(f"`every` is {every!r}.", fix='use steps, such as 1000, or time, such as "30s", "10min" or "1h"')
        return math.inf, float(found[1]) * _SECONDS[found[2]]
    require_count("every", every)
    return every, math.inf


def _names(numbers: Iterable[int]) -> Iterator[str]:
    """Of the arrays of variables in a file."""
    return (f"variables/{number}" for number in numbers)


def _are_arrays(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(array, np.ndarray) for array in value)


def _plain(value: Any) -> Any:
    """A value of the logs as JSON has it: what is not finite is None."""
    values = np.asarray(value, "float64").tolist()
    return [_plain(each) for each in values] if isinstance(values, list) else values if math.isfinite(values) else None
