"""`tfctr tune`: trials in processes of their own, none of them twice, chosen by the seed, and by the validation split alone."""

import csv
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from kit.experiments import prepared_synthetic, runs_in

import tfctr
from tfctr.config import Config
from tfctr.data import Dataset
from tfctr.errors import ConfigError, DataError, StorageError, TrainingError
from tfctr.experiments import Spec, tune
from tfctr.experiments.files import RESULT
from tfctr.storage import locked, read_json, write_json
from tfctr.training import train

pytest.importorskip("optuna")
SPACE = {
    "model": {"name": "LR"},
    "training": {"epochs": 2, "batch_size": 256, "monitor": "auc"},
    "vary": {
        "training.learning_rate": {"float": [1e-3, 1e-1], "log": True},
        "model.embedding_l2": {"float": [0, 10]},
        "training.optimizer": ["auto", "adagrad"],
    },
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A prepared dataset whose test split nobody can read: its files hold something else than what their hash is of."""
    folder = tmp_path_factory.mktemp("searched")
    dataset = prepared_synthetic(folder, 2_000)
    for file in (folder / "data" / "test").iterdir():
        header = file.read_bytes()[:128]  # of NumPy, which is looked at when the dataset is opened
        file.write_bytes(header + b"\xff" * (file.stat().st_size - len(header)))
    with pytest.raises(StorageError):
        _ = tfctr.data.Dataset.load(dataset.folder).test.labels
    return folder / "data"


@pytest.fixture(scope="module")
def done(data, tmp_path_factory):
    """A finished search of one real run: what was returned, and its folder."""
    folder = tmp_path_factory.mktemp("tuning") / "what? 100%"
    return tune(SPACE, data, folder, trials=1), folder


def test_no_test_row_is_read_and_the_best_is_a_run_as_any_other(done, data, tmp_path):
    tuning, folder = done
    config = Config.load(folder / "best.yaml")
    assert config == tuning.best_config
    again = train(config, data, tmp_path / "run")
    assert (again.metrics["valid"]["auc"], again.metrics["valid"]["log_loss"]) == (tuning.best["auc"], tuning.best["log_loss"])
    assert again.metrics["epochs"] == tuning.best["epochs"]
    spec = {"models": {"tuned": {"config": str(folder / "best.yaml")}}}
    (entry,) = Spec.from_dict(spec).contenders(Dataset.load(data)).values()
    assert entry.config == config


def test_what_is_there_is_not_tried_again(done, data, monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", None)  # no process could be started
    assert tune(SPACE, data, done[1], trials=1).trials == done[0].trials


class Runs:
    """Stands for the processes of runs: writes what they would, by `curve(config)`, the AUC of each epoch."""

    def __init__(self, curve, slow=False):
        self.curve, self.slow, self.places, self.returncode = curve, slow, [], 0

    def __call__(self, command, **_):
        self.place = Path(command[-1]).parent
        plan = read_json(command[-1])
        assert plan["split"] == "valid"
        self.places.append(self.place)
        aucs = self.curve(Config.from_dict(plan["config"]))
        (self.place / "run").mkdir(exist_ok=True)
        epochs = [{"epoch": n, "val_auc": auc, "val_log_loss": 1 - auc, "seconds": 0.5} for n, auc in enumerate(aucs, 1)]
        if self.slow:
            self.steps = iter([epochs[:n] for n in range(1, len(epochs) + 1)])
        else:
            write_json(self.place / "run" / "history.json", epochs)
            self._end(epochs)
        return self

    def _end(self, epochs):
        best = max(epochs, key=lambda epoch: epoch["val_auc"])["epoch"]
        write_json(self.place / RESULT, {"metrics": {"best_epoch": best}})

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def wait(self, timeout):
        if self.slow:
            for epochs in self.steps:
                write_json(self.place / "run" / "history.json", epochs)
                self.last = epochs
                raise subprocess.TimeoutExpired("", timeout)
            self._end(self.last)
        return 0

    def kill(self):
        pass


def good(config):
    """Best at a learning rate of .01, without L2; three epochs."""
    rate, l2 = config.training.learning_rate, config.model.arguments["embedding_l2"]
    top = 0.9 - abs(rate - 0.01) - l2 / 100
    return [top - 0.1, top, top - 0.05]


@pytest.fixture
def start(monkeypatch):
    def start(curve=good, **options):
        runs = Runs(curve, **options)
        monkeypatch.setattr(subprocess, "Popen", runs)
        return runs

    return start


@pytest.fixture(autouse=True, scope="module")
def no_waiting_for_the_disk():
    """SQLite waits for the disk after each line that is written; a killed process loses nothing without it."""
    sqlalchemy = pytest.importorskip("sqlalchemy")

    def hurry(connection, _):
        connection.execute("PRAGMA synchronous = OFF")

    sqlalchemy.event.listen(sqlalchemy.Engine, "connect", hurry)
    yield
    sqlalchemy.event.remove(sqlalchemy.Engine, "connect", hurry)


NO_PRUNING = {**SPACE, "prune_from": None}


def told(tuning):
    return [(trial["trial"], trial["state"], trial["value"], trial["settings"]) for trial in tuning.trials]


def test_the_seed_decides_which_trials_there_are(start, whole, data, tmp_path):
    start()
    one, other = (tune({**NO_PRUNING, "seed": seed}, data, tmp_path / f"{seed}", 14) for seed in (1, 2))
    assert told(one) == told(whole)
    assert told(one)[0] == told(other)[0]  # the settings given
    assert not any(ours == theirs for ours, theirs in zip(told(one)[1:], told(other)[1:], strict=True))
    assert len({json.dumps(trial["settings"]) for trial in one.trials}) == 14
    assert one.best["value"] == max(trial["value"] for trial in one.trials)
    assert one.best_config.training.seed == 1
    assert other.best_config.training.seed == 2


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess, "Popen", Runs(good))
        return tune(NO_PRUNING, data, tmp_path_factory.mktemp("whole"), 14)


@pytest.mark.parametrize("at", [1, 12])  # the settings given, and one that TPE chooses
@pytest.mark.parametrize("before", ["it is chosen", "it runs", "it ends", "it ends, and before it begins again"])
def test_stopped_anywhere_it_goes_on_with_the_same_trials(at, before, start, whole, data, tmp_path, monkeypatch):
    import optuna

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    runs, set_attr, times = start(), optuna.Trial.set_user_attr, []
    if before == "it runs":
        start(lambda config: interrupt() if len([*tmp_path.glob("out/runs/*/*/plan.json")]) == at else good(config))

    def stop_at(self, name, value):
        times.extend([1] if name == ("chosen" if before == "it is chosen" else "run") else [])
        return interrupt() if len(times) == at and before != "it runs" else set_attr(self, name, value)

    monkeypatch.setattr(optuna.Trial, "set_user_attr", stop_at)
    with pytest.raises(KeyboardInterrupt):
        tune(NO_PRUNING, data, tmp_path / "out", 14)
    monkeypatch.setattr(optuna.Trial, "set_user_attr", set_attr)
    if before.endswith("again"):
        with monkeypatch.context() as patch:
            patch.setattr(optuna.Study, "tell", interrupt)
            with pytest.raises(KeyboardInterrupt):
                tune(NO_PRUNING, data, tmp_path / "out", 14)
    monkeypatch.setattr(subprocess, "Popen", runs)
    assert told(tune(NO_PRUNING, data, tmp_path / "out", 14)) == told(whole)
    assert len(runs.places) == len({*runs.places})


def test_files_hold_what_was_returned(start, data, tmp_path):
    start()
    tuning = tune(NO_PRUNING, data, tmp_path, 3)
    plain = read_json(tmp_path / "tuning.json")
    assert plain == json.loads(json.dumps(tuning.to_dict()))
    assert (plain["measure"], plain["split"], plain["best"]["trial"]) == ("auc", "valid", tuning.best["trial"])
    with open(tmp_path / "tuning.csv", encoding="utf-8") as file:
        lines = [*csv.DictReader(file)]
    assert [float(line["auc"]) for line in lines] == [trial["auc"] for trial in tuning.trials]
    chosen = [trial["settings"]["training.optimizer"] for trial in tuning.trials]
    assert [line["training.optimizer"] for line in lines] == chosen


def test_more_trials_are_added_and_another_space_is_another_study(start, data, tmp_path):
    runs = start()
    few = tune(NO_PRUNING, data, tmp_path, 3)
    more = tune(NO_PRUNING, data, tmp_path, 5)
    assert told(more)[:3] == told(few)
    assert len(runs.places) == 5
    other = tune({**NO_PRUNING, "vary": {"training.optimizer": ["auto", "adagrad"]}}, data, tmp_path, 6)
    assert [trial["trial"] for trial in other.trials] == [1, 2, 3, 4, 5, 6]
    assert len(runs.places) == 6  # one of two settings is a run of the study before, and none runs twice
    assert len({trial["folder"] for trial in other.trials}) == 2


def falling(config):
    """Each trial is worse than those before, but for the first."""
    falling.number += 1
    return [0.8 - falling.number / 100] * 3


@pytest.mark.parametrize("slow", [False, True])
def test_what_is_below_the_median_is_pruned(slow, start, data, tmp_path):
    falling.number = 0
    start(falling, slow=slow)
    tuning = tune(SPACE, data, tmp_path / "out", 7)
    assert [trial["state"] for trial in tuning.trials] == ["finished"] * 5 + ["pruned"] * 2
    assert [trial["epochs"] for trial in tuning.trials] == [3] * 5 + [1] * 2
    assert tuning.trials[-1]["value"] is None
    assert tuning.trials[-1]["auc"] == pytest.approx(0.73)
    assert not (tmp_path / "out" / tuning.trials[-1]["folder"] / "run").exists()
    assert tuning.budget() == {
        "trials": 7, "finished": 5, "pruned": 2, "failed": 0, "epochs": 17, "seconds": 8.5, "jobs": 1
    }  # fmt: skip
    assert "5 trials finished, 2 pruned, 0 failed; 17 epochs, 8.5 s" in tuning.sentences()[-1]
    falling.number = 0
    late = tune({**SPACE, "prune_from": 3}, data, tmp_path / "late", 7)
    assert [trial["epochs"] for trial in late.trials] == [3] * 7
    assert [trial["state"] for trial in late.trials] == ["finished"] * 5 + ["pruned"] * 2


def test_a_loss_that_is_no_number_and_settings_that_cannot_be_are_failed_trials(start, data, tmp_path):
    number = []

    def curve(config):
        number.append(0)
        if len(number) == 3:
            raise ConfigError("cannot be.", fix="no")
        return good(config)

    runs = start(curve)
    end = runs._end
    runs._end = lambda epochs: write_json(runs.place / RESULT, {"failed": "loss: nan"}) if len(number) == 2 else end(epochs)
    tuning = tune(NO_PRUNING, data, tmp_path, 4)
    assert [trial["state"] for trial in tuning.trials] == ["finished", "failed", "failed", "finished"]
    assert [trial["failed"] for trial in tuning.trials] == [None, "loss: nan", "cannot be.", None]
    assert "2 trials finished, 0 pruned, 2 failed" in tuning.sentences()[-1]
    assert tuning.table_cells()[-1][:2] == ["3", "failed"]


def test_a_space_of_which_nothing_can_be_ends_at_once(start, data, tmp_path):
    runs = start()
    runs._end = lambda _: write_json(runs.place / RESULT, {"failed": "loss: nan"})
    with pytest.raises(TrainingError, match="none of 2 trials came to its end: loss: nan"):
        tune(NO_PRUNING, data, tmp_path / "a", 2)
    start(lambda _: (_ for _ in ()).throw(ConfigError("cannot be.", fix="no")))
    with pytest.raises(ConfigError, match="cannot be"):
        tune(NO_PRUNING, data, tmp_path / "b", 2)


@pytest.mark.parametrize("monitor", ["auc", "log_loss", "auc_minus_log_loss"])
def test_trials_are_compared_by_what_the_runs_monitor(monitor, start, data, tmp_path):
    start()
    space = {**NO_PRUNING, "training": {**SPACE["training"], "monitor": monitor}}
    best = tune(space, data, tmp_path, 2).best
    expected = {"auc": best["auc"], "log_loss": -best["log_loss"], "auc_minus_log_loss": best["auc"] - best["log_loss"]}
    assert best["value"] == pytest.approx(expected[monitor])


def test_words_say_how_near_the_second_is(start, data, tmp_path):
    cases = {0.0004: "0.00040 behind, which a seed may make: 1 within 0.001.", 0.01: "0.01000 behind, of one seed each."}
    for better, words in cases.items():
        curves = [[0.7, 0.8], [0.7, 0.8 + better]]
        left = iter(curves)
        start(lambda _, left=left: next(left))
        said = tune(NO_PRUNING, data, tmp_path / words[:7], 2).sentences()
        assert said[0].startswith("Trial 2 of 2 is the best by AUC on valid: AUC 0.8")
        assert said[1] == f"Trial 1 is second, {words}"


def test_several_at_a_time(start, data, tmp_path, monkeypatch):
    def run(command, **_):
        return Runs(good)(command)

    monkeypatch.setattr(subprocess, "Popen", run)
    tuning = tune(NO_PRUNING, data, tmp_path, 6, jobs=3)
    assert sorted(trial["trial"] for trial in tuning.trials) == [1, 2, 3, 4, 5, 6]
    assert all(trial["state"] == "finished" for trial in tuning.trials)
    assert tuning.budget()["jobs"] == 3


def test_the_same_settings_are_not_trained_twice_at_a_time(data, tmp_path, monkeypatch):
    places = []

    class Busy(Runs):
        def wait(self, timeout):
            time.sleep(0.3)
            return super().wait(timeout)

    def run(command, **_):
        places.append(command[-1])
        return Busy(good)(command)

    monkeypatch.setattr(subprocess, "Popen", run)
    one = {**NO_PRUNING, "vary": {"training.optimizer": ["adagrad"]}}
    tuning = tune(one, data, tmp_path, 3, jobs=3)
    assert [trial["state"] for trial in tuning.trials] == ["finished"] * 3
    assert len(places) == 1


def test_a_file_of_studies_that_is_none_is_named(data, tmp_path):
    (tmp_path / "study.db").write_bytes(b"no database" * 99)
    with pytest.raises(StorageError, match=r"study\.db cannot be used: .*not a database"):
        tune(SPACE, data, tmp_path, 1)


def test_what_is_refused_before_any_trial(data, tmp_path, monkeypatch):
    with locked(tmp_path / "out" / ".lock"), pytest.raises(StorageError, match="another process works"):
        tune(SPACE, data, tmp_path / "out")
    with pytest.raises(ConfigError, match="`trials` is 0"):
        tune(SPACE, data, tmp_path / "out", trials=0)
    with pytest.raises(ConfigError, match="Did you mean 'embedding_l2'"):
        tune({**SPACE, "vary": {"model.embeding_l2": [0, 1]}}, data, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    table = {"item": ["a", "b"] * 40, "click": [0, 1, 1, 0] * 20}
    tfctr.prepare(tfctr.Schema([tfctr.Categorical("item")], label="click"), train=table, test=0.2, out=tmp_path / "data")
    with pytest.raises((ConfigError, DataError), match="no valid split"):
        tune(SPACE, tmp_path / "data", tmp_path / "new")
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="file"):
        tune(SPACE, data, tmp_path / "file")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"tfctr\[tune\]"):
        tune(SPACE, data, tmp_path / "new")


@pytest.mark.slow
@pytest.mark.parametrize("runs", [0, 1])
def test_killed_with_its_runs_it_goes_on(runs, data, tmp_path):
    """SIGKILL while a trial is trained: no process stays, and the trials are those of a search that was not killed."""
    whole = tune(SPACE, data, tmp_path / "whole", trials=2)
    (tmp_path / "space.yaml").write_text(json.dumps(SPACE), encoding="utf-8")
    command = [sys.executable, "-m", "tfctr", "tune", "space.yaml", "--data", str(data), "--out", "out", "--trials", "2"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    while len([*tmp_path.glob("out/runs/*/*/run/config.yaml")]) <= runs:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    while runs_in(tmp_path):
        time.sleep(0.05)
    assert not (tmp_path / "out" / "tuning.json").exists()
    finished = {file: file.stat().st_mtime_ns for file in tmp_path.glob("out/runs/*/*/result.json")}
    printed = subprocess.run([*command, "--json"], cwd=tmp_path, capture_output=True, check=True, encoding="utf-8").stdout
    assert [without_seconds(trial) for trial in json.loads(printed)["trials"]] == [
        without_seconds(trial) for trial in whole.trials
    ]
    assert all(file.stat().st_mtime_ns == written for file, written in finished.items())


def without_seconds(trial):
    return {name: value for name, value in trial.items() if name != "seconds"}
