"""`tfctr.experiments.tune`: the best settings of a space by the validation split, each trial in a process of its own."""

import concurrent.futures
import contextlib
import hashlib
import importlib.util
import json
import logging
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import rich.console

from tfctr.config import Config
from tfctr.data.dataset import Dataset
from tfctr.errors import ConfigError, StorageError, require, require_count
from tfctr.evaluation.scoring import bar
from tfctr.experiments.files import RESULT
from tfctr.experiments.runs import Processes, folder_name, plan_of
from tfctr.experiments.space import Space, in_words, with_values
from tfctr.experiments.tuning import Tuning
from tfctr.storage import locked, read_json, read_object, remove_folder, sha256, write_json
from tfctr.training.schedule import MONITORS
from tfctr.types import StrPath

if TYPE_CHECKING:
    import optuna

_LOG = logging.getLogger(__name__)
_STUDY = "study.db"
_PRUNED = "pruned.json"
_AGAIN = "again"  # of a trial that stands for an earlier one, whose process died: that one's number
_CHOSEN = "chosen"  # of a trial: its values, all of them
_STATES = {"COMPLETE": "finished", "PRUNED": "pruned", "FAIL": "failed"}
_RUN = "run"  # of a trial that has ended: what is told of its run
_TRIALS_BEFORE_PRUNING = 5


def tune(
    spec: Space | StrPath | Mapping[str, Any],
    data: Dataset | StrPath,
    out: StrPath,
    trials: int | None = None,
    jobs: int = 1,
    console: rich.console.Console | None = None,
) -> Tuning:
    """Search the settings with which a model does best on the validation split. No other split is read, but train.

    The measure is what the runs monitor (`training.monitor`) at their best epoch: AUC, log loss, or AUC minus log loss. Optuna
    chooses: the settings given first, if they lie in the space, then ten at random, then by a tree-structured Parzen
    estimator (TPE). After each epoch a trial that is below the median of at least five others at that epoch ends as pruned.

    Each trial is a process of its own. What is there is not tried again: a call that was stopped, or killed, goes on with the
    same command, with the same trials, one at a time, as one that was not; one with more `trials` adds them. A study belongs
    to its space, seed and data: with others it is another one, in the same file.

    Args:
        spec: a `Space`, its file, or what such a file holds.
        data: a prepared `Dataset`, or its folder.
        out: the folder of the study. It gets `study.db`, which Optuna's own tools read, the runs, `tuning.json`, `tuning.csv`
            and `best.yaml`, a run for `tfctr train` and for `config` of a comparison.
        trials: in place of the spec's.
        jobs: trials at a time. The next one then knows less, and their order of ending decides what is tried.
        console: a `rich` console for the bar, which a terminal shows; stderr by default.

    Returns:
        The `Tuning`.

    Raises:
        ConfigError: a space that cannot be used, no valid split, or Optuna is missing. Settings that no model can have are a
            failed trial, unless nothing has come to its end before.
        StorageError: `data` is no prepared dataset, or another process works in `out`.
        TrainingError: a run ended in another way than with a result, or no trial came to its end. What is finished is kept.

    Example, not run here:

        space = {"model": {"name": "DNN"}, "vary": {"model.dropout": {"float": [0, 0.5]}}}
        tune(space, "data", "tuning", trials=30).best["settings"]
    """
    require(importlib.util.find_spec("optuna"), "`tune` needs optuna.", fix='pip install "tfctr[tune]"')
    require_count("jobs", jobs)
    if not isinstance(spec, Space):
        spec = Space.from_dict(dict(spec)) if isinstance(spec, Mapping) else Space.load(spec)
    trials = spec.trials if trials is None else trials
    require_count("trials", trials)
    dataset = data if isinstance(data, Dataset) else Dataset.load(data)
    require("valid" in dataset.splits, f"{dataset.folder} has no valid split.", fix="tfctr prepare ... --valid TABLE")
    base = spec.base(dataset)
    manifest, folder = sha256(dataset.folder / "manifest.json"), Path(out)
    with locked(folder / ".lock", f"another process works in {folder}."), _quiet_optuna(folder / _STUDY):
        search = _Search(_study(spec, base, manifest, folder), spec, base, dataset, manifest, folder)
        search.go_on(trials, jobs, console)
        tuning = Tuning(search.rows(), base, manifest, jobs)
        tuning.save(folder)
    return tuning


@contextlib.contextmanager
def _quiet_optuna(file: Path) -> Iterator[None]:
    """No talk of Optuna's; a `StorageError` where the file of its studies cannot be read or written."""
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        why = str(error.__cause__ or error).splitlines()[0]
        fix = "look at its disk; or remove it, and all trials begin anew: finished runs are found again"
        raise StorageError(f"{file} cannot be used: {why}", fix=fix) from error
    finally:
        optuna.logging.set_verbosity(before)


def _study(spec: Space, base: Config, manifest: str, folder: Path) -> "optuna.Study":
    """The study of a space in its file, new or with the trials so far; none of them is running."""
    import optuna
    from sqlalchemy import URL

    told = json.dumps([base.to_dict(), dict(spec.vary), spec.prune_from, manifest], sort_keys=True)
    url = URL.create("sqlite", database=str(folder.resolve() / _STUDY)).render_as_string()  # whatever letters it has
    pruner: Any = optuna.pruners.NopPruner()
    if spec.prune_from is not None:
        pruner = optuna.pruners.MedianPruner(_TRIALS_BEFORE_PRUNING, spec.prune_from)
    study = optuna.create_study(
        storage=optuna.storages.RDBStorage(url),
        study_name=f"{base.model.name}-{hashlib.sha256(told.encode()).hexdigest()[:16]}",
        direction="maximize",
        pruner=pruner,
        load_if_exists=True,
    )
    if not study.trials and (chosen := spec.chosen_by(base)) is not None:
        study.enqueue_trial(chosen, user_attrs={_CHOSEN: chosen})
    _begin_again(study)
    return study


def _begin_again(study: "optuna.Study") -> None:
    """Fail the trials whose process has died, and let the same settings be tried again."""
    from optuna.trial import TrialState

    again = {trial.user_attrs.get(_AGAIN) for trial in study.trials}
    for trial in study.trials:
        if trial.state is TrialState.RUNNING:
            if trial.number not in again:
                chosen = trial.user_attrs.get(_CHOSEN, {})  # none where it died while it was chosen
                study.enqueue_trial(chosen, user_attrs={_AGAIN: trial.number, _CHOSEN: chosen})
            study.tell(trial.number, state=TrialState.FAIL)


class _Search:
    """A study with its runs."""

    def __init__(self, study: "optuna.Study", spec: Space, base: Config, dataset: Dataset, manifest: str, folder: Path) -> None:
        self.study, self.spec, self.base, self.dataset = study, spec, base, dataset
        self.manifest, self.folder = manifest, folder
        self.distributions = spec.distributions()
        self.asking = threading.Lock()
        self.places: dict[str, threading.Lock] = {}  # of runs: two trials may have the same settings at a time

    def go_on(self, trials: int, jobs: int, console: rich.console.Console | None) -> None:
        """Try settings until there are so many trials; all processes end with this, however it ends."""
        ended = self._trials(ended=True)
        missing = max(trials - len(ended), 0)
        if ended:
            _LOG.info("%d of %d trials are there", len(ended), len(ended) + missing)
        with (
            bar("trials", missing, console) as advance,
            concurrent.futures.ThreadPoolExecutor(jobs) as pool,
            Processes() as processes,
        ):
            for done in concurrent.futures.as_completed([pool.submit(self._try, processes) for _ in range(missing)]):
                if said := done.result():
                    _LOG.info(said)
                advance(1)

    def _trials(self, ended: bool = False) -> list["optuna.trial.FrozenTrial"]:
        """The trials in their order, without those that another one stands for."""
        trials = self.study.get_trials(deepcopy=False)
        again = {trial.user_attrs.get(_AGAIN) for trial in trials}
        return [trial for trial in trials if trial.number not in again and (trial.state.is_finished() or not ended)]

    def _ask(self) -> "optuna.Trial":
        """The next trial. What is chosen follows from the seed and the trials before, not from how often the search stopped."""
        import optuna

        with self.asking:
            before = [trial for trial in self._trials() if trial.state is not optuna.trial.TrialState.WAITING]
            drawn = np.random.SeedSequence([self.spec.seed, len(before)]).generate_state(1)
            self.study.sampler = optuna.samplers.TPESampler(seed=int(drawn[0]))
            trial = self.study.ask(self.distributions)
            trial.set_user_attr(_CHOSEN, trial.params)
            return trial

    def _try(self, processes: Processes) -> str:
        """One trial, from its choice to its end. Returns what is to be said of it."""
        if processes.stopped:
            return ""
        try:
            return self._tried(self._ask(), processes)
        except BaseException:
            processes.stop()  # before this thread begins with the next trial
            raise

    def _tried(self, trial: "optuna.Trial", processes: Processes) -> str:
        from optuna.trial import TrialState

        settings, folder = self.spec.plain(trial.params), None
        try:
            config = with_values(self.base, settings)
            place = self.folder / "runs" / folder_name(config.model.name, config, self.manifest, "valid")
            place /= f"seed-{self.spec.seed}"
            folder = str(place.relative_to(self.folder))
            watch = _Watch(trial, place, config.training.monitor)
            with self.places.setdefault(folder, threading.Lock()):
                if watch.goes_on() and not (place / RESULT).exists():
                    processes.run(place, plan_of(config, self.spec.seed, self.dataset, "valid"), watch.goes_on)
                if processes.stopped:
                    return ""
                end = watch.end()
        except ConfigError as error:
            if not any(other.state is TrialState.COMPLETE for other in self._trials()):
                raise  # it is rather the space than this choice
            end = _End(TrialState.FAIL, failed=error.problem)
        run = {name: getattr(end, name) for name in ("auc", "log_loss", "epochs", "seconds", "failed")}
        trial.set_user_attr(_RUN, {**run, "folder": folder})
        self.study.tell(trial, end.value, end.state)
        return f"{in_words(settings)}: {end.said}"

    def rows(self) -> list[dict[str, Any]]:
        """Of each trial, in their order, what `Tuning` says of it."""
        found = []
        for number, trial in enumerate(self._trials(ended=True), 1):
            state = _STATES[trial.state.name]
            told = trial.user_attrs[_RUN]
            value = trial.value if state == "finished" else None
            settings = self.spec.plain(trial.params)
            found.append({"trial": number, "state": state, "value": value, **told, "settings": settings})
        return found


class _End(NamedTuple):
    """What a trial came to."""

    state: Any
    value: float | None = None
    auc: float | None = None
    log_loss: float | None = None
    epochs: int = 0
    seconds: float = 0.0
    failed: str | None = None

    @property
    def said(self) -> str:
        if self.failed is not None:
            return f"failed: {self.failed}"
        pruned = "" if self.value is not None else "; pruned"
        return f"valid AUC {self.auc:.5f}, log loss {self.log_loss:.5f} after {self.epochs} epochs{pruned}"


class _Watch:
    """Reports the epochs of a trial's run to Optuna as they appear, and says whether it goes on."""

    def __init__(self, trial: "optuna.Trial", place: Path, monitor: str) -> None:
        self.trial, self.place, self.value_of = trial, place, MONITORS[monitor]
        self.epochs: list[dict[str, Any]] = []
        self.pruned = False

    def goes_on(self) -> bool:
        for epoch in [] if self.pruned else self._history()[len(self.epochs) :]:
            self.epochs.append(epoch)
            if _is_measured(epoch):
                self.trial.report(self.value_of(epoch), epoch["epoch"])
                self.pruned = self.trial.should_prune()
            if self.pruned:
                break
        return not self.pruned

    def end(self) -> _End:
        """What the trial came to, once its process has ended."""
        from optuna.trial import TrialState

        self.goes_on()  # what a fast process has done since
        result = {} if self.pruned else read_object(self.place / RESULT)
        measured = [epoch for epoch in self.epochs if _is_measured(epoch)]
        best = max(measured, key=self.value_of, default={})
        if "metrics" in result:
            best = self.epochs[result["metrics"]["best_epoch"] - 1]  # an epoch that is better by less than a millionth is not
        figures = best.get("val_auc"), best.get("val_log_loss")
        cost = len(self.epochs), sum(epoch["seconds"] for epoch in self.epochs)
        if "failed" in result:
            return _End(TrialState.FAIL, None, *figures, *cost, result["failed"])
        if not self.pruned:
            return _End(TrialState.COMPLETE, self.value_of(best), *figures, *cost)
        write_json(self.place / _PRUNED, self.epochs)
        if (self.place / "run").exists():  # its history is enough, and models are large
            remove_folder(self.place / "run")
        return _End(TrialState.PRUNED, None, *figures, *cost)

    def _history(self) -> list[dict[str, Any]]:
        for file in (self.place / "run" / "history.json", self.place / _PRUNED):
            if file.exists():
                return read_json(file)
        return []


def _is_measured(epoch: Mapping[str, Any]) -> bool:
    return epoch["val_auc"] is not None and epoch["val_log_loss"] is not None
