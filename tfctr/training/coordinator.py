"""Training with parameter servers, the chief's side: they hold the variables, workers make the steps, the chief all else."""

import collections
import logging
import time
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import tfctr
from tfctr.config import Config, Training
from tfctr.errors import ConfigError
from tfctr.models import CTRModel
from tfctr.optimizers import learning_rate_of, stop_on_non_finite, unwrap_loss_scaling
from tfctr.replicas import cluster_of
from tfctr.storage import read_json
from tfctr.training.building import build_model
from tfctr.training.checkpoint import Checkpoint, period
from tfctr.training.recorder import RunRecorder
from tfctr.training.snapshot import Snapshot, files_in
from tfctr.training.wholes import Whole, moments_of, weights_of
from tfctr.types import Tensor

_LOG = logging.getLogger(__name__)
_OPTIMIZERS = ("lazy_adam", "adagrad", "ftrl")
_WHY_NOT = {
    "adam": "it writes every row at every step, so that whole tables would travel",
    "exact_lazy_adam": "it counts the steps that each row has missed, and steps of several workers have no order",
}
_STEPS_A_WORKER = 4  # that wait or are made, so that no worker waits for the chief
_FORMAT = "parameter_server 1"


def require_served(settings: Training) -> None:
    """Raise `ConfigError` for what does not train with parameter servers."""
    optimizer = settings.optimizer
    if optimizer not in _OPTIMIZERS:
        why = _WHY_NOT.get(optimizer, f"it stands for one of two others; of adam, {_WHY_NOT['adam']}")
        problem = f"training.optimizer is {optimizer!r}, which does not train with parameter servers: {why}."
        raise ConfigError(problem, fix=f"--set training.optimizer={' or '.join(_OPTIMIZERS)}")
    if settings.steps_per_execution != 1:
        problem = f"training.steps_per_execution is {settings.steps_per_execution}, and a worker makes one step at a time."
        raise ConfigError(problem, fix="leave it out")
    if settings.precision == "mixed_float16":
        problem = "training.precision is mixed_float16, whose loss scale follows from steps in order."
        raise ConfigError(problem, fix="use float32 or mixed_bfloat16")


class Coordinator:
    """Trains a model by workers, with its variables on parameter servers.

    Workers take steps as they get to them, each of rows that the chief sends, read what weights there are, and write what they
    find: no step waits for another. Each row is trained on once an epoch, in a step that is made again where a worker ended
    during it. After each epoch all weights come to the chief, which evaluates and saves an ordinary model.

    Args:
        strategy: a `ParameterServerStrategy`.
        config: of the run.
        model: the ordinary model, built and not trained; the chief's.
        checkpoint: where and how often what a training goes on from is kept.

    Raises:
        ConfigError: an L2 term over whole tables.
    """

    def __init__(self, strategy: Any, config: Config, model: CTRModel, checkpoint: Checkpoint) -> None:
        self.model = model
        self.folder = checkpoint.folder
        self._steps_apart, self._seconds_apart = period(checkpoint.every)
        with strategy.scope():
            self.served = build_model(config, model.schema)
        self._cluster = tf.distribute.coordinator.ClusterCoordinator(strategy)
        # Private to TensorFlow, and held by a test: it would wait at the end for a worker that has ended to come back.
        self._cluster._cluster.failure_handler.stop = lambda: None
        self._most = _STEPS_A_WORKER * cluster_of(strategy)["worker"]
        self._steps = 0
        self._sums: dict[str, float] = {}
        self._rows = 0

    def fit(self, batches: Any, validation_data: Any, epochs: int, callbacks: Sequence[Any], verbose: int) -> None:
        """Keras' `fit`, for callbacks of which a `RunRecorder` keeps the best model; they see the chief's, epoch by epoch."""
        model: Any = self.model
        model.ids_check.checked(batches)
        self._kept = [callback for callback in callbacks if hasattr(callback, "get_state")]
        (recorder,) = (callback for callback in callbacks if isinstance(callback, RunRecorder))
        recorder.schedule.keeps_best = False  # they are in the run's file
        told = keras.callbacks.CallbackList(callbacks, model=model, epochs=epochs, steps=batches.place.number, verbose=verbose)
        model.stop_training = False
        told.on_train_begin()
        first, passed = self._begin(batches)
        for epoch in range(first, epochs):
            told.on_epoch_begin(epoch)
            with stop_on_non_finite():
                self._train(epoch, batches, passed, told)
            passed = 0
            # Before the callbacks hear of the epoch, so that going on from here tells them again.
            self._write(epoch, batches.place.number, batches.place.epoch - 1)
            for whole, served in zip(weights_of(model), weights_of(self.served), strict=True):
                whole.write(served.read())
            scored = model.evaluate(validation_data, return_dict=True)
            told.on_epoch_end(epoch, self._means | {f"val_{name}": value for name, value in scored.items()})
            self._sums, self._rows = {}, 0
            self.served.optimizer.learning_rate = learning_rate_of(model.optimizer) + 0.0
            if model.stop_training:
                break
        if recorder.schedule.best_epoch:
            model.load_weights(recorder.folder / read_json(recorder.folder / "metrics.json")["model"])
        told.on_train_end()
        self._remove()

    def _train(self, epoch: int, batches: Any, passed: int, told: keras.callbacks.CallbackList) -> None:
        """Make the steps of an epoch but for those passed, and wait until all are made."""
        waiting: collections.deque[tuple[int, int, Any]] = collections.deque()
        epoch_of_data = batches.place.epoch
        last = batches.place.number - 1
        since, written_at = 0, time.monotonic()
        for number, batch in enumerate(batches):
            if number < passed:
                told.on_train_batch_end(number, self._means)
                continue
            made = self._cluster.schedule(self._step, args=(tf.constant(self._steps, tf.int64), batch))
            waiting.append((number, batch[0].shape[0], made))
            self._steps += 1
            since += 1
            due = since >= self._steps_apart or time.monotonic() - written_at >= self._seconds_apart
            while len(waiting) > (0 if due or number == last else self._most):
                self._count(*waiting.popleft(), told)
            if due and number < last:
                self._write(epoch, number + 1, epoch_of_data)
                since, written_at = 0, time.monotonic()

    def _count(self, number: int, rows: int, made: Any, told: keras.callbacks.CallbackList) -> None:
        """Wait for a step, and add its loss terms to the sums."""
        terms = made.fetch()
        self._rows += rows
        for name, term in {"loss": sum(terms.values()), **terms}.items():
            self._sums[name] = self._sums.get(name, 0.0) + float(term) * rows
        told.on_train_batch_end(number, self._means)

    @property
    def _means(self) -> dict[str, float]:
        """Of the loss terms of the epoch so far, over rows."""
        return {name: value / self._rows for name, value in self._sums.items()}

    @tf.function(autograph=False, reduce_retracing=True)
    def _step(self, number: Tensor, batch: tuple[Tensor, ...]) -> dict[str, Tensor]:
        """A step on a worker, of which the terms come back; the optimizer's count is the chief's, as workers' would collide."""

        def step(number: Tensor, batch: tuple[Tensor, ...]) -> dict[str, Tensor]:
            unwrap_loss_scaling(self.served.optimizer).iterations.assign(number)
            return self.served.descend(*batch)[0]

        return self._cluster.strategy.run(step, args=(number, batch))

    # to disk and back

    @property
    def _wholes(self) -> list[Whole]:
        return [*weights_of(self.served), *moments_of(self.served)]

    def _begin(self, batches: Any) -> tuple[int, int]:
        """Give the servers the weights, of the last checkpoint if there is one; the epoch, and its steps that are made."""
        found = Snapshot.last_in(self.folder)
        if found is None:
            for whole, served in zip(weights_of(self.model), weights_of(self.served), strict=True):
                served.write(whole.read())
            return 0, 0
        if found.state.get("format") != _FORMAT:
            problem = f"{found.path} is of another way to distribute a training, or of another version of tfctr."
            raise ConfigError(problem, fix="go on as it was begun, or train anew, into another folder")
        state = found.state
        for number, whole in enumerate(self._wholes):
            whole.write(found.arrays(_names(number, whole)))
        for callback, its_state in zip(self._kept, state["callbacks"], strict=True):
            callback.set_state(its_state)
        self._steps, self._sums, self._rows = state["steps"], state["sums"], state["rows"]
        for model in (self.model, self.served):
            model.optimizer.learning_rate = state["learning_rate"]
        batches.place.epoch, batches.place.passed = state["epoch_of_data"], state["step"]
        _LOG.info("goes on from %s: epoch %d, after %d of its steps", found.path, state["epoch"] + 1, state["step"])
        return state["epoch"], state["step"]

    def _write(self, epoch: int, step: int, epoch_of_data: int) -> None:
        """Keep what a training goes on from, when no step is being made; a full disk is a logged warning."""
        state = {
            "format": _FORMAT,
            "tfctr": tfctr.__version__,
            "epoch": epoch,
            "step": step,
            "epoch_of_data": epoch_of_data,
            "steps": self._steps,
            "learning_rate": learning_rate_of(self.model.optimizer),
            "sums": self._sums,
            "rows": self._rows,
            "callbacks": [callback.get_state() for callback in self._kept],
        }

        def arrays() -> Iterator[tuple[str, np.ndarray]]:
            for number, whole in enumerate(self._wholes):
                yield from zip(_names(number, whole), whole.read(), strict=True)

        Snapshot.add_to(self.folder, epoch, step, state, arrays())

    def _remove(self) -> None:
        for file in files_in(self.folder):
            file.unlink()
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()


def _names(number: int, whole: Whole) -> Iterator[str]:
    """Of the arrays of a variable in a file."""
    return (f"variables/{number}/{block}" for block in range(whole.blocks))
