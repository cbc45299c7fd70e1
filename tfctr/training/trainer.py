"""From a configuration and a prepared dataset to a run folder."""

import contextlib
import logging
import os
import platform
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import rich.console
import tensorflow as tf

import tfctr
from tfctr import models
from tfctr.config import Config, Training
from tfctr.data.dataset import Dataset
from tfctr.data.split import Split
from tfctr.errors import ConfigError, DataError, StorageError, TfctrError
from tfctr.metrics import worse_than_constant
from tfctr.models import CTRModel
from tfctr.optimizers import optimizer_named, unwrap_loss_scaling, updated_by_rows
from tfctr.processor import this_processor
from tfctr.schema import Schema
from tfctr.storage import atomic_folder, locked, read_json, remove_folder, sha256, write_json
from tfctr.training.checkpoint import Checkpoint
from tfctr.training.progress import Progress
from tfctr.training.recorder import RunRecorder, Stopwatch
from tfctr.training.resuming import (
    CHECKPOINTS,
    LOCK,
    config_of,
    dataset_of,
    earlier_run,
    has_checkpoint,
    hold,
    is_abandoned,
    is_finished,
    is_run,
    make_way,
    require_data,
    say_other_environment,
)
from tfctr.training.run import Run, load_run
from tfctr.training.schedule import PlateauSchedule
from tfctr.training.suggestion import rate_of, suggest
from tfctr.training.suspects import suspicion
from tfctr.training.warm import NewRows, next_config, with_replay
from tfctr.training.warm import warm_start as carry
from tfctr.types import StrPath

_LOG = logging.getLogger(__name__)


def train(
    config: Config | None = None,
    data: Dataset | StrPath | None = None,
    out: StrPath | None = None,
    console: rich.console.Console | None = None,
    resume: bool = False,
    checkpoint_every: int | str | None = None,
    warm_start: Run | StrPath | None = None,
    warm_start_data: StrPath | None = None,
    new_rows: NewRows | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> Run:
    """Train a model on a prepared dataset and keep the run in a new folder.

    The folder gets `config.yaml` (resolved), `environment.json`, and after each epoch `history.json`, `metrics.json` and, when
    the epoch is the best so far, `model-<epoch>.keras`, which replaces the one before. A run that is killed keeps its best
    whole epoch, and its metrics are not `finished`; one that ends before its first whole epoch and its first checkpoint removes
    the folder, or, if it is killed, leaves one that the next run takes. The same configuration and data give bitwise the same
    weights on the same processor with as many threads: those sum in another order where there are more.

    Until a run is finished, `checkpoints/` in its folder holds what it needs to go on: see `Checkpoint`. With `resume` it does,
    and its bits are those of a run that was not stopped. The same call serves for both: it begins a run where there is none,
    goes on with one that was stopped, and returns one that is finished.

    With `warm_start` the model begins with what an earlier run has learnt, token by token: see `tfctr.training.warm_start`,
    whose report `environment.json` keeps. `training.replay` of the configuration adds rows of that run's training table.

    A validation log loss that is worse than a constant's is a logged warning, and so is an AUC that is too good to be true; and
    the `findings` of the training and validation splits are, before.

    Args:
        config: a `tfctr.config.Config`; by default `suggest(dataset)`, a TF4CTR that does well on most tables; with a warm
            start that of the earlier run, changed so that it does not undo what it has learnt: one epoch at a low learning
            rate, and an L2 term of the rows of a batch; of a run that goes on, its own, and any other is refused.
        data: a prepared `Dataset`, or its folder; of a run that goes on, by default its own.
        out: the run folder; must not exist, or be empty, or hold a run that was killed in its first epoch. Of two runs that
            begin in it at once, one is refused.
        console: a `rich` console for progress; stderr by default.
        resume: go on with the run in `out`, if there is one.
        checkpoint_every: steps, or time such as `"10min"`, from one checkpoint to the next within an epoch, at whose end there
            is always one.
        warm_start: an earlier run, or its folder. A run that goes on knows its own.
        warm_start_data: the dataset of the earlier run, where it has moved.
        new_rows: where rows of new tokens start, as in `tfctr.training.warm_start`, whose default it has.
        callbacks: further ones of Keras, such as `keras.callbacks.TensorBoard`. The logs of an epoch, which they get, are the
            loss and its terms, `val_auc`, `val_log_loss`, `learning_rate`, `seconds` and `rows_per_second`.

    Returns:
        The `Run`.

    Raises:
        ConfigError: a model or argument that does not exist, a dataset without a valid split, no `data` or no `out`; another
            configuration than that of the run that is to go on; a warm start from another architecture; `replay` without one.
        DataError: validation rows with one class only.
        StorageError: `data` is no prepared dataset, or not that of the run; `out` already holds something, or, with `resume`,
            a run without a whole checkpoint.
        TrainingError: a loss term became non-finite; the best whole epoch before it is in the folder.
    """
    if out is None or (data is None and not resume):
        raise ConfigError(f"`{'data' if data is None else 'out'}` is missing.", fix='train(data="data", out="run")')
    folder = Path(out)
    if data is None and (not is_run(folder) or is_abandoned(folder)):
        problem = f"`data` is missing, and {folder} holds no run to go on with, or none that came to its first checkpoint."
        raise ConfigError(problem, fix="name the data, and all else as for a new run")
    with contextlib.ExitStack() as training:
        goes_on = make_way(folder, resume)  # at the door too: to read the data may take minutes
        if goes_on:
            config = config_of(folder, config)
            if data is not None:
                require_data(folder, data.folder if isinstance(data, Dataset) else Path(data))
            if is_finished(folder) or not _held(folder, training):  # its data may be gone
                _LOG.info("%s is finished", folder)
                return load_run(folder)
            dataset = dataset_of(folder, data)
            earlier = earlier_run(folder)
        else:
            assert data is not None  # it was asked for
            dataset = data if isinstance(data, Dataset) else Dataset.load(data)
            for name, value in (("warm_start_data", warm_start_data), ("new_rows", new_rows)):
                if value is not None and warm_start is None:
                    option = name.replace("_", "-")
                    fix = f"name the earlier run: `warm_start` (--warm-start RUN); or leave out `{name}` (--{option})"
                    raise ConfigError(f"`{name}` is {value!r}, and there is no warm start.", fix=fix)
            earlier = warm_start if warm_start is None or isinstance(warm_start, Run) else load_run(warm_start)
            config = (config or (suggest(dataset) if earlier is None else next_config(earlier))).for_rows(dataset.train.rows)
        _require_two_classes(dataset.valid)
        for finding in dict.fromkeys((*dataset.train.findings, *dataset.valid.findings)):
            _LOG.warning(finding)
        before = None if earlier is None else _dataset_of(earlier, warm_start_data)
        train_split = _with_replay(config.training, dataset, before)
        checkpoint = Checkpoint(folder / CHECKPOINTS, checkpoint_every)
        keras.utils.set_random_seed(config.training.seed)
        training.enter_context(dtype_policy(config.training.precision))
        model = build_model(config, dataset.schema)
        environment = describe_environment(config.training, dataset)
        if goes_on:
            say_other_environment(folder, environment)
        else:
            if earlier is not None and before is not None:
                report = carry(model, earlier, new_rows or "out_of_vocabulary", before.folder)
                environment["warm_start"] = {**report, **_name_of(earlier)}
            _begin(model, config, dataset, folder, environment, training)
        _fit(model, config.training, dataset, train_split, folder, console, [*callbacks, checkpoint])
        (folder / LOCK).unlink(missing_ok=True)
    run = load_run(folder)
    if problem := worse_than_constant(run.metrics["valid"], dataset.valid.labels):
        _LOG.warning("worse than a constant on the valid split: %s", problem)
    return run


def _held(folder: Path, training: contextlib.ExitStack) -> bool:
    """Hold a run that is to go on while it is trained; False if another process has just finished it."""
    training.enter_context(hold(folder))
    if not is_finished(folder):
        return True
    (folder / LOCK).unlink()
    return False


def _dataset_of(earlier: Run, data: StrPath | None) -> Dataset:
    try:
        return earlier.dataset(data)
    except StorageError as error:
        raise StorageError(error.problem, fix="if it has moved: `warm_start_data` (--warm-start-data DIR)") from error


def _with_replay(settings: Training, dataset: Dataset, before: Dataset | None) -> Split:
    """The training rows, those that are replayed among them."""
    if not settings.replay:
        return dataset.train
    if before is None:
        raise ConfigError(
            f"training.replay is {settings.replay}, and there is no earlier run whose rows it means.",
            fix="give one: warm_start=RUN (--warm-start RUN); or set it to 0",
        )
    return with_replay(dataset.train, dataset.schema, before, settings.replay, settings.seed)


def _name_of(earlier: Run) -> dict[str, Any]:
    return {"folder": str(earlier.folder.resolve()), "model_sha256": earlier.metrics.get("model_sha256")}


def _begin(
    model: CTRModel,
    config: Config,
    dataset: Dataset,
    folder: Path,
    environment: dict[str, Any],
    training: contextlib.ExitStack,
) -> None:
    """Prepare a fresh model for its first step, make the folder of its run, and hold that while it is trained."""
    model.get_config()  # a model that no file can keep is refused now, and not after its first epoch
    if config.training.start == "click_rate" and "warm_start" not in environment:
        model.start_at(rate_of(dataset.train))
    with atomic_folder(folder) as new:
        config.save(new / "config.yaml")
        write_json(new / "environment.json", environment)
        training.enter_context(locked(new / LOCK))  # until this process ends, however it does


def _fit(
    model: CTRModel,
    settings: Training,
    dataset: Dataset,
    train: Split,
    folder: Path,
    console: rich.console.Console | None,
    further: Sequence[keras.callbacks.Callback],
) -> None:
    """Train the model, and keep each epoch in the folder of its run."""
    rows = train.rows
    batch_size = settings.batch_size
    assert isinstance(batch_size, int)  # `Config.for_rows` has chosen one
    schedule = PlateauSchedule(
        settings.monitor,
        settings.patience,
        settings.patience_from,
        settings.learning_rate_factor,
        settings.min_learning_rate,
    )
    progress = Progress(rows, batch_size, schedule, console)
    with _nothing_or_whole_epochs(folder, progress), progress:
        progress.say(_title(model, dataset, settings))
        model.fit(
            train.batches(batch_size, seed=settings.seed),
            validation_data=dataset.valid.batches(batch_size),
            epochs=settings.epochs,
            callbacks=[Stopwatch(rows), schedule, RunRecorder(folder, schedule, dataset.valid), progress, *further],
            verbose=0,
        )
        _say_if_too_good(folder, dataset, progress)


def _say_if_too_good(folder: Path, dataset: Dataset, progress: Progress) -> None:
    metrics = read_json(folder / "metrics.json")
    warning = suspicion(metrics["valid"]["auc"], dataset)
    if warning:
        progress.say(f"warning: {warning}")
        write_json(folder / "metrics.json", {**metrics, "warning": warning})


def build_model(config: Config, schema: Schema) -> CTRModel:
    """The compiled model of a configuration. Raises `ConfigError` for a model or argument that cannot be used."""
    settings = config.training
    try:
        model = models.build(config.model.name, schema, **config.model.arguments)
    except TfctrError:
        raise
    except (TypeError, ValueError) as error:  # from Keras: an argument of the wrong kind
        raise ConfigError(f"model {config.model.name}: {error}", fix="correct the arguments under `model`") from error
    model.compile(
        optimizer=optimizer_named(settings.optimizer, settings.learning_rate, table_l2=model.table_l2 > 0),
        loss=settings.loss,
        clip_norm=settings.clip_norm,
        steps_per_execution=settings.steps_per_execution,
    )
    return model


@contextlib.contextmanager
def dtype_policy(name: str) -> Iterator[None]:
    """Build layers under Keras' dtype policy `name`, and put back the one before."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def describe_environment(settings: Training, dataset: Dataset) -> dict[str, Any]:
    """What else decides a result: versions, machine, device, precision, seed, and the hash of the data."""
    data = Path(dataset.folder).resolve()
    processor = this_processor()
    return {
        "tfctr": tfctr.__version__,
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "processor": processor.name,
        "instruction_sets": processor.sets,
        "threads": _threads(),
        "device": device(),
        "precision": settings.precision,
        "seed": settings.seed,
        "data": {"folder": str(data), "manifest_sha256": sha256(data / "manifest.json")},
    }


def _threads() -> int | None:
    """How many threads share one of TensorFlow's operations: as set, else as many as this process may use processors."""
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return tf.config.threading.get_intra_op_parallelism_threads() or own


def device() -> str:
    """Where a model is trained: `"CPU"`, or on one GPU of those there are, or on as many as the `tf.distribute` strategy has.

    For example `"NVIDIA H200 (1 of 8 GPUs)"`.
    """
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return "CPU"
    name = tf.config.experimental.get_device_details(gpus[0]).get("device_name", gpus[0].name)
    return f"{name} ({tf.distribute.get_strategy().num_replicas_in_sync} of {len(gpus)} GPUs)"


def _title(model: CTRModel, dataset: Dataset, settings: Training) -> str:
    rows = f"{dataset.train.rows:,} training and {dataset.valid.rows:,} validation rows"
    title = f"{type(model).__name__}: {model.count_params():,} parameters, {rows}, on {device()} in {settings.precision}"
    return f"{title}, {_describe_optimizer(model)}"


def _describe_optimizer(model: CTRModel) -> str:
    by_rows = len(updated_by_rows(model.optimizer, model.tables))
    scope = f"by rows of {by_rows} of {len(model.tables)} tables" if by_rows else "over whole tables"
    return f"{unwrap_loss_scaling(model.optimizer).name} {scope}"


@contextlib.contextmanager
def _nothing_or_whole_epochs(folder: Path, progress: Progress) -> Iterator[None]:
    """When training breaks off, say which epoch the folder keeps, and how it goes on, or remove a folder that keeps nothing."""
    try:
        yield
    except BaseException:  # Ctrl-C too
        kept = [f"epoch {read_json(folder / 'metrics.json')['best_epoch']}"] if (folder / "metrics.json").exists() else []
        kept += ["a checkpoint; --resume goes on from it"] if has_checkpoint(folder) else []
        if kept:
            progress.say(f"stopped; {folder} keeps {' and '.join(kept)}")
        else:
            with contextlib.suppress(OSError):
                remove_folder(folder)
            progress.say(f"stopped before the end of the first epoch; {folder} is removed")
        raise


def _require_two_classes(split: Split) -> None:
    labels = np.unique(split.labels)
    if len(labels) < 2:
        raise DataError(
            f"all {split.rows:,} labels of the {split.name} split are {labels[0]:.0f}, so its AUC is not defined.",
            fix=f"prepare with {split.name} rows of both classes",
        )
