"""From a configuration and a prepared dataset to a run folder."""

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
import rich.console

import tfctr
from tfctr.config import Config, Training
from tfctr.data.dataset import Dataset
from tfctr.data.remote_datasets import local_folder
from tfctr.data.split import Split
from tfctr.errors import ConfigError, DataError, StorageError
from tfctr.metrics import worse_than_constant
from tfctr.models import CTRModel
from tfctr.optimizers import unwrap_loss_scaling, updated_by_rows
from tfctr.replicas import has_workers
from tfctr.storage import atomic_folder, locked, read_json, remove_folder, write_json
from tfctr.training.building import build_model, dtype_policy
from tfctr.training.checkpoint import Checkpoint
from tfctr.training.coordinator import Coordinator, require_served
from tfctr.training.distribution import distributed, is_served, require_same, told_by_chief
from tfctr.training.environment import describe_environment, device
from tfctr.training.preflight import require_memory
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
    require_same_distribution,
    say_other_environment,
)
from tfctr.training.run import Run, load_run
from tfctr.training.schedule import PlateauSchedule
from tfctr.training.suggestion import rate_of, suggest
from tfctr.training.suspects import suspicion
from tfctr.training.vectors import start_with_vectors
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
    distribute: Literal["mirrored", "multi_worker", "parameter_server"] | None = None,
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

    With `training.pretrained` embeddings begin with vectors from files: see `tfctr.training.start_with_vectors`, whose report
    is kept beside it. The run does not need the files.

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
        distribute: `"mirrored"`, over all devices of this machine, or `"multi_worker"`, as one of the workers that `TF_CONFIG`
            names; or `"parameter_server"`, as their chief. None is as the `tf.distribute` strategy says in whose scope this is
            called. The batch size is that of all devices together; each has its part of every batch, and draws its own noise.
            Batches are normalized together.

    Of several workers each calls this in the same way, reads its own part of every batch, and returns the same `Run`. The first
    one, the chief, alone writes `out`, which all must be able to read. The bits are those of `"mirrored"` on as many devices.
    Other numbers of devices round sums otherwise: losses are within 2e-6 of one device's. Dropout and other noise is drawn
    anew by each device, and the variance of batch normalization is computed by another formula: they differ by more.

    With parameter servers, which is experimental, workers make steps of whole batches in no order, so that no two runs have the
    same bits: see `tfctr.training.coordinator`. Elsewhere `tfctr.training.distribution.serve` lends a process to the chief.

    Returns:
        The `Run`.

    Raises:
        ConfigError: a model or argument that does not exist, a dataset without a valid split, no `data` or no `out`; embedding
            tables that this machine's memory cannot hold; another configuration than that of the run that is to go on; a warm
            start from another architecture; `replay` without one.
        DataError: validation rows with one class only.
        StorageError: `data` is no prepared dataset, or not that of the run; `out` already holds something, or, with `resume`,
            a run without a whole checkpoint.
        TrainingError: a loss term became non-finite; the best whole epoch before it is in the folder.
        WorkerError: another worker, or a parameter server, has ended; with `resume`, all can go on from the last checkpoint.
    """
    if out is None or (data is None and not resume):
        raise ConfigError(f"`{'data' if data is None else 'out'}` is missing.", fix='train(data="data", out="run")')
    folder = Path(out)
    if data is None and (not is_run(folder) or is_abandoned(folder)):
        problem = f"`data` is missing, and {folder} holds no run to go on with, or none that came to its first checkpoint."
        raise ConfigError(problem, fix="name the data, and all else as for a new run")
    with contextlib.ExitStack() as training:
        strategy = training.enter_context(distributed(distribute))
        writes = strategy.extended.should_checkpoint
        # At the door too: to read the data may take minutes.
        goes_on = bool(told_by_chief(strategy, make_way(folder, resume) if writes else False))
        if goes_on:
            config = config_of(folder, config)
            _require_what_it_was(folder, distribute, data)
            if is_finished(folder) or (writes and not _held(folder, training)):  # its data may be gone
                return _finished(folder)
            dataset, earlier = dataset_of(folder, data), earlier_run(folder)
        else:
            assert data is not None  # it was asked for
            dataset = data if isinstance(data, Dataset) else Dataset.load(data)
            earlier = _earlier(warm_start, warm_start_data=warm_start_data, new_rows=new_rows)
            config = (config or (suggest(dataset) if earlier is None else next_config(earlier))).for_rows(dataset.train.rows)
        _require_two_classes(dataset.valid)
        for finding in dict.fromkeys((*dataset.train.findings, *dataset.valid.findings)):
            _LOG.warning(finding)
        before = None if earlier is None else _dataset_of(earlier, warm_start_data)
        train_split = _with_replay(config.training, dataset, before)
        checkpoint = Checkpoint(folder / CHECKPOINTS, checkpoint_every)
        model = _fresh_model(config, dataset, strategy, training)
        with strategy.scope():
            environment = describe_environment(config.training, dataset)
        coordinator = Coordinator(strategy, config, model, checkpoint) if is_served(strategy) else None
        data_hash = environment["data"]["manifest_sha256"]
        require_same(strategy, {"dataset": data_hash, "configuration": repr(config), "version": tfctr.__version__})
        if goes_on:
            say_other_environment(folder, environment)
        else:
            environment |= _start(model, config.training.pretrained, earlier, before, new_rows or "out_of_vocabulary")
            _begin(model, config, dataset, folder if writes else None, environment, training)
        further = [*callbacks, *([] if coordinator else [checkpoint])]
        _fit(coordinator or model, config.training, dataset, train_split, folder, console, further, writes)
        if writes:
            (folder / LOCK).unlink(missing_ok=True)
        told_by_chief(strategy, 0)  # that all is written
    run = load_run(folder)
    if problem := worse_than_constant(run.metrics["valid"], dataset.valid.labels):
        _LOG.warning("worse than a constant on the valid split: %s", problem)
    return run


def _require_what_it_was(folder: Path, distribute: str | None, data: Dataset | StrPath | None) -> None:
    """Raise `ConfigError` or `StorageError` where a run is to go on otherwise than it began."""
    require_same_distribution(folder, distribute)
    if data is not None:
        require_data(folder, data.folder if isinstance(data, Dataset) else local_folder(data))


def _finished(folder: Path) -> Run:
    _LOG.info("%s is finished", folder)
    with contextlib.suppress(OSError):  # none, or a folder that may only be read
        (folder / LOCK).unlink()  # a run that was killed behind its end leaves it
    return load_run(folder)


def _earlier(warm_start: Run | StrPath | None, **options: Any) -> Run | None:
    """The run that a warm start begins with. Raises `ConfigError` for options of one where there is none."""
    for name, value in options.items():
        if value is not None and warm_start is None:
            option = name.replace("_", "-")
            fix = f"name the earlier run: `warm_start` (--warm-start RUN); or leave out `{name}` (--{option})"
            raise ConfigError(f"`{name}` is {value!r}, and there is no warm start.", fix=fix)
    return warm_start if warm_start is None or isinstance(warm_start, Run) else load_run(warm_start)


def _fresh_model(config: Config, dataset: Dataset, strategy: Any, training: contextlib.ExitStack) -> CTRModel:
    """The model, whose tables memory holds, with the weights of the seed; in the precision that is set from here on."""
    served = is_served(strategy)
    if served:
        require_served(config.training)
    require_memory(config, dataset.schema, 1 if has_workers(strategy) else strategy.num_replicas_in_sync, not served)
    keras.utils.set_random_seed(config.training.seed)
    training.enter_context(dtype_policy(config.training.precision))
    with contextlib.nullcontext() if served else strategy.scope():
        return build_model(config, dataset.schema, is_trained=not served)


def _start(
    model: CTRModel, pretrained: Mapping[str, str], earlier: Run | None, before: Dataset | None, new_rows: NewRows
) -> dict[str, Any]:
    """Let a model begin with vectors from files, and with what an earlier run has learnt: what there is to tell of both."""
    told: dict[str, Any] = {"pretrained": start_with_vectors(model, pretrained)} if pretrained else {}
    if earlier is not None and before is not None:
        report = carry(model, earlier, new_rows, before.folder, begun=pretrained)
        told["warm_start"] = {**report, **_name_of(earlier)}
    return told


def _held(folder: Path, training: contextlib.ExitStack) -> bool:
    """Hold a run that is to go on while it is trained; False if another process has just finished it."""
    training.enter_context(hold(folder))
    return not is_finished(folder)


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
    folder: Path | None,
    environment: dict[str, Any],
    training: contextlib.ExitStack,
) -> None:
    """Prepare a fresh model for its first step, make the folder of its run, if any, and hold that while it is trained."""
    model.get_config()  # a model that no file can keep is refused now, and not after its first epoch
    if config.training.start == "click_rate" and "warm_start" not in environment:
        model.start_at(rate_of(dataset.train))
    if folder is None:
        return
    with atomic_folder(folder) as new:
        config.save(new / "config.yaml")
        write_json(new / "environment.json", environment)
        training.enter_context(locked(new / LOCK))  # until this process ends, however it does


def _fit(
    model: CTRModel | Coordinator,
    settings: Training,
    dataset: Dataset,
    train: Split,
    folder: Path,
    console: rich.console.Console | None,
    further: Sequence[keras.callbacks.Callback],
    writes: bool,
) -> None:
    """Train the model, and keep each epoch in the folder of its run, if this worker is the one that writes."""
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
    if not writes:
        console = rich.console.Console(quiet=True)
    progress = Progress(rows, batch_size, schedule, console)
    with _nothing_or_whole_epochs(folder, progress) if writes else contextlib.nullcontext(), progress:
        progress.say(_title(model.served if isinstance(model, Coordinator) else model, dataset, settings))
        model.fit(
            train.batches(batch_size, seed=settings.seed),
            validation_data=dataset.valid.batches(batch_size),
            epochs=settings.epochs,
            callbacks=[Stopwatch(rows), schedule, RunRecorder(folder, schedule, dataset.valid, writes), progress, *further],
            verbose=0,
        )
        if writes:
            _say_if_too_good(folder, dataset, progress)


def _say_if_too_good(folder: Path, dataset: Dataset, progress: Progress) -> None:
    metrics = read_json(folder / "metrics.json")
    warning = suspicion(metrics["valid"]["auc"], dataset)
    if warning:
        progress.say(f"warning: {warning}")
        write_json(folder / "metrics.json", {**metrics, "warning": warning})


def _title(model: CTRModel, dataset: Dataset, settings: Training) -> str:
    rows = f"{dataset.train.rows:,} training and {dataset.valid.rows:,} validation rows"
    with model.distribute_strategy.scope():
        where = device()
    title = f"{type(model).__name__}: {model.count_params():,} parameters, {rows}, on {where} in {settings.precision}"
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
