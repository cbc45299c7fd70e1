"""`tfctr compare`: runs in processes of their own, none of them twice, whatever happens meanwhile."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from kit.at_length import at_length
from kit.experiments import prepared_synthetic, runs_in

import tfctr
from tfctr.errors import ConfigError, DataError, StorageError, TrainingError
from tfctr.evaluation import evaluate
from tfctr.experiments import Comparison, child, compare
from tfctr.storage import locked, sha256
from tfctr.training import load_run

SPEC = {
    "training": {"epochs": 2, "batch_size": 256},
    "models": {"LR": {}, "FM": {"model": {"embedding_dim": 4}}},
    "seeds": 1,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compared")
    return prepared_synthetic(folder, 2_000).folder


@pytest.fixture(scope="module")
def done(data, tmp_path_factory):
    """A finished comparison: what was returned, and its folder."""
    folder = tmp_path_factory.mktemp("comparison") / "out"
    return compare(SPEC, data, folder), folder


def results(folder):
    """`{place of a run: SHA-256 of its model}`."""
    return {str(file.relative_to(folder)): sha256(file) for file in sorted(folder.glob("runs/*/*/run/model-*.keras"))}


def test_each_run_is_that_of_train_and_is_measured_as_evaluate_does(done):
    comparison, folder = done
    assert [contender.name for contender in comparison.contenders] == ["LR", "FM"]
    for contender in comparison.contenders:
        result = contender.results[1]
        assert "RuntimeWarning" not in (result["folder"] / "log.txt").read_text(encoding="utf-8")
        run = load_run(result["folder"] / "run")
        assert run.config.training.seed == 1
        assert run.config.training.epochs == 2
        found = evaluate(run, "test")
        assert {name: result["figures"]["test"][name] for name in ("auc", "group_auc", "log_loss", "pcoc", "ece")} == {
            name: found[name] for name in ("auc", "group_auc", "log_loss", "pcoc", "ece")
        }
        auc, weight = result["groups"]
        used = auc == auc
        assert (auc[used] * weight[used]).sum() / weight[used].sum() == pytest.approx(found["group_auc"], rel=1e-12)
    assert {file.name for file in folder.iterdir()} >= {"comparison.json", "comparison.csv", "comparison.html"}


def test_what_is_there_is_not_trained_again(done, data, monkeypatch):
    comparison, folder = done
    monkeypatch.setattr(subprocess, "Popen", None)  # no process could be started
    assert compare(SPEC, data, folder).rows()[0] == comparison.rows()[0]


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("result.json", "{}", "result.json is damaged"),
        ("result.json", '{"failed": 1}', "result.json is damaged"),
        ("result.json", '{"figures"', "not valid JSON"),
        ("groups.npy", "", "groups.npy is not the file that was written"),
        ("groups.npy", None, "groups.npy is missing"),
    ],
)
def test_a_damaged_result_is_named(file, text, words, done, data, tmp_path):
    folder = shutil.copytree(done[1], tmp_path / "out")
    (damaged,) = folder.glob(f"runs/FM-*/seed-1/{file}")
    damaged.unlink() if text is None else damaged.write_text(text, encoding="utf-8")
    with pytest.raises(StorageError, match=words):
        compare(SPEC, data, folder)


def test_a_comparison_is_written_while_its_folder_is_held(done, data, monkeypatch):
    held = []

    def save(_, folder):
        with pytest.raises(StorageError, match="busy"), locked(folder / ".lock", "busy"):
            pass
        held.append(folder)

    monkeypatch.setattr(Comparison, "save", save)
    compare(SPEC, data, done[1])
    assert held == [done[1]]


START = subprocess.Popen


def python(code, *arguments, **options):
    """A process that stands for one of a run."""
    return START([sys.executable, "-c", code, *map(str, arguments)], **options)


def test_a_run_that_begins_while_the_others_are_stopped_ends_with_them(data, tmp_path, monkeypatch):
    processes = {}

    def start(command, **options):
        if "/LR-" in command[-1]:
            processes["LR"] = python("raise SystemExit(3)", **options)
            return processes["LR"]
        while "LR" not in processes or processes["LR"].poll() is None:
            time.sleep(0.01)
        time.sleep(0.5)
        processes["FM"] = python("import time; time.sleep(20)", **options)
        return processes["FM"]

    monkeypatch.setattr(subprocess, "Popen", start)
    with pytest.raises(DataError, match="the run ended with 3"):
        compare(SPEC, data, tmp_path / "out", jobs=2)
    assert processes["FM"].returncode == -signal.SIGKILL


def test_a_run_that_was_killed_says_by_what(data, tmp_path, monkeypatch):
    code = "import os; print('of before', flush=True); os.kill(os.getpid(), 9)"
    monkeypatch.setattr(subprocess, "Popen", lambda _, **options: python(code, **options))
    with pytest.raises(TrainingError, match=r"seed-1: SIGKILL ended the run\.\n  fix: look at the machine's memory"):
        compare(SPEC, data, tmp_path / "out")


def test_a_result_is_one_whatever_its_process_ended_with(done, data, tmp_path, monkeypatch):
    comparison, folder = done
    code = "import shutil, sys; shutil.copytree(*sys.argv[1:], dirs_exist_ok=True); sys.exit(1)"

    def start(command, **options):
        place = os.path.dirname(command[-1])
        return python(code, folder / os.path.relpath(place, tmp_path / "out"), place, **options)

    monkeypatch.setattr(subprocess, "Popen", start)
    assert compare(SPEC, data, tmp_path / "out").rows()[0] == comparison.rows()[0]


def test_a_full_disk_ends_a_run_as_it_ends_a_command(tmp_path, monkeypatch, capsys):
    def full(*_):
        raise OSError(28, "No space left on device")

    def end(code):
        raise SystemExit(code)

    (tmp_path / "plan.json").write_text('{"module": "tfctr"}', encoding="utf-8")
    monkeypatch.setattr(child, "run", full)
    monkeypatch.setattr(child, "_end_with_the_parent", int)
    monkeypatch.setattr(os, "_exit", end)
    with pytest.raises(SystemExit) as ended:
        child.main(str(tmp_path / "plan.json"))
    assert ended.value.code == StorageError.exit_code
    assert "No space left on device" in capsys.readouterr().err


@pytest.mark.slow
def test_seeds_and_models_are_added_and_other_settings_are_other_runs(done, data):
    _, folder = done
    before = results(folder)
    more = compare({**SPEC, "seeds": [1, 2], "models": {**SPEC["models"], "wide": {"model": {"name": "FM"}}}}, data, folder)
    after = results(folder)
    assert before.items() <= after.items()
    assert len(after) == 6
    assert [len(contender.finished) for contender in more.contenders] == [2, 2, 2]
    changed = compare({**SPEC, "training": {"epochs": 1, "batch_size": 256}}, data, folder)
    assert changed.contenders[0].results[1]["metrics"]["epochs"] == 1
    assert len(results(folder)) == 8


@pytest.mark.parametrize("moment", at_length(["first run", "second run", "end"], then=["first run", "end"]))
def test_killed_and_gone_on(moment, done, data, tmp_path):
    """SIGKILL while a run is trained, and when the last one has ended: no process stays, and the result is the same."""
    spec = tmp_path / "spec.yaml"
    spec.write_text(json.dumps(SPEC), encoding="utf-8")
    command = [sys.executable, "-m", "tfctr", "compare", str(spec), "--data", str(data), "--out", str(tmp_path / "out")]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    runs = {"first run": 0, "second run": 1, "end": 2}[moment]

    def reached():
        finished, begun = (len([*tmp_path.glob(f"out/runs/*/*/{name}")]) for name in ("result.json", "run/config.yaml"))
        return finished == runs and (begun > runs or runs == 2)

    while not reached():
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    while runs_in(tmp_path):
        time.sleep(0.05)
    assert not (tmp_path / "out" / "comparison.json").exists()
    again = compare(spec, data, tmp_path / "out")
    for contender, expected in zip(again.contenders, done[0].contenders, strict=True):
        assert contender.results[1]["figures"] == expected.results[1]["figures"]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_one_leaves_no_process(number, data, tmp_path):
    spec = tmp_path / "spec.yaml"
    spec.write_text(json.dumps(SPEC), encoding="utf-8")
    command = [sys.executable, "-m", "tfctr", "compare", str(spec), "--data", str(data), "--out", str(tmp_path / "out")]
    process = subprocess.Popen([*command, "--jobs", "2"], stderr=subprocess.PIPE, text=True)
    while len([*tmp_path.glob("out/runs/*/*/log.txt")]) < 2:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(number)
    _, said = process.communicate()
    assert process.returncode == {signal.SIGTERM: 143, signal.SIGINT: 130}[number], said
    assert "Traceback" not in said
    assert not runs_in(tmp_path)


@pytest.mark.slow
def test_a_loss_that_is_no_number_is_a_result_and_a_crash_is_none(data, tmp_path):
    """One seed whose loss overflows does not end the others; a process that dies does, and what is finished stays."""
    hot = {"model": {"name": "LR"}, "training": {"learning_rate": 1e38, "clip_norm": None}}
    comparison = compare({**SPEC, "models": {"LR": {}, "hot": hot}}, data, tmp_path / "out")
    hot_row = comparison.rows()[1]
    assert (hot_row["seeds"], hot_row["failed"]) == (0, 1)
    assert any(said.startswith("hot: 1 of 1 seeds failed") for said in comparison.sentences())
    wrong = {"model": {"name": "FM", "embedding_dim": -1}}
    with pytest.raises(ConfigError, match="embedding_dim"):
        compare({**SPEC, "models": {"LR": {}, "wrong": wrong}}, data, tmp_path / "out")


@pytest.mark.parametrize(
    ("spec", "error", "words"),
    [
        ({"models": {"DNN": {"model": {"hiden_units": [8]}}}}, ConfigError, "Did you mean 'hidden_units'"),
        ({"models": {"DMN": {}}}, ConfigError, "Did you mean 'DNN'"),
    ],
)
def test_what_cannot_be_is_refused_before_any_run(spec, error, words, data, tmp_path):
    with pytest.raises(error, match=words):
        compare(spec, data, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_split_that_is_not_there(data, tmp_path):
    table = {"item": ["a", "b"] * 40, "click": [0, 1, 1, 0] * 20}
    schema = tfctr.Schema([tfctr.Categorical("item")], label="click")
    tfctr.prepare(schema, train=table, valid=0.2, out=tmp_path / "data")
    with pytest.raises((ConfigError, DataError), match="no test split"):
        compare(SPEC, tmp_path / "data", tmp_path / "out")


def test_one_at_a_time(data, tmp_path):
    with locked(tmp_path / "out" / ".lock"), pytest.raises(StorageError, match="another process works"):
        compare(SPEC, data, tmp_path / "out")
