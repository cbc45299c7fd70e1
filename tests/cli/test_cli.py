"""The command line: the whole chain, what goes to stdout and stderr, and the exit codes."""

import itertools
import json
import platform
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import yaml
from kit.commands import done, tables, tfctr_
from kit.places import ROOT
from kit.rest import ask
from pyarrow import parquet
from typer.testing import CliRunner

import tfctr
from tfctr import cli, malloc
from tfctr.data.synthetic import write_synthetic
from tfctr.serving.wire.rows import read_json_lines
from tfctr.storage import read_json
from tfctr.training import load_run
from tfctr.training.schedule import MONITORS


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small synthetic table as Parquet files, its schema, and a run configuration."""
    folder = tmp_path_factory.mktemp("cli")
    write_synthetic(folder, rows=1000)
    encoder = {"type": "MLP", "hidden_units": [8]}
    model = {"name": "TF4CTR", "embedding_dim": 4, "simple_encoder": encoder, "complex_encoder": encoder}
    run = {"model": model, "training": {"batch_size": 100, "epochs": 3}}
    (folder / "run.yaml").write_text(yaml.safe_dump(run))
    return folder


@pytest.fixture(scope="module")
def data(folder):
    done("prepare", folder / "schema.yaml", *tables(folder), "--out", folder / "data")
    return folder / "data"


@pytest.fixture(scope="module")
def run(folder, data):
    arguments = ["--data", data, "--out", folder / "run", "--set", "training.epochs=2", "--seed", 3]
    result = tfctr_("train", folder / "run.yaml", *arguments, "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout) == {"folder": str(folder / "run"), **read_json(folder / "run" / "metrics.json")}
    assert result.stderr.count("rows/s") == 2
    assert "next: tfctr evaluate" in result.stderr
    assert ("malloc keeps freed memory" in result.stderr) == (platform.libc_ver()[0] == "glibc")
    return folder / "run"


@pytest.fixture(scope="module")
def exported(folder, run):
    assert json.loads(done("export", run, folder / "serving", "--json")) == {"folder": str(folder / "serving" / "1")}
    return folder / "serving"


# the chain


def test_prepare_says_what_it_wrote(folder, data, tmp_path):
    printed = done("prepare", folder / "schema.yaml", *tables(folder), "--out", tmp_path / "data", "--memory-limit", "256MB")
    words = dict(line.split(maxsplit=1) for line in printed.splitlines())
    schema = tfctr.Dataset.load(data).schema
    assert words == {
        "folder": str(tmp_path / "data"),
        "train_rows": "800",
        "valid_rows": "100",
        "test_rows": "100",
        "columns": str(schema.width),
        "ids": str(schema.table_rows),
    }


def test_prepare_splits_one_table(folder, tmp_path):
    arguments = ["--train", folder / "train.parquet", "--valid", 0.2, "--test", 0.1, "--out", tmp_path / "data", "--json"]
    rows = json.loads(done("prepare", folder / "schema.yaml", *arguments))
    assert rows["train_rows"] + rows["valid_rows"] + rows["test_rows"] == 800
    assert rows["valid_rows"] > rows["test_rows"] > 0
    arguments[arguments.index(tmp_path / "data")] = tmp_path / "other"
    done("prepare", folder / "schema.yaml", *arguments, "--seed", 1, "--threads", 1)
    assert not np.array_equal(*(tfctr.Dataset.load(tmp_path / name).valid.ids for name in ("data", "other")))


def test_overrides_reach_the_run(run):
    training = load_run(run).config.training
    assert (training.epochs, training.seed, training.batch_size) == (2, 3, 100)


def test_evaluate_for_machines_and_for_people(run):
    values = json.loads(done("evaluate", run, "--split", "test", "--json"))
    assert values["rows"] == 100
    assert 0 < values["auc"] < 1
    assert values["undefined"] == {}
    printed = done("evaluate", run)
    assert ["auc", f"{values['auc']:.6g}"] in [line.split() for line in printed.splitlines()]


def test_what_is_not_defined_is_null(run, monkeypatch):
    undefined = {"auc": float("nan"), "rows": 2, "undefined": {"auc": "one class"}}
    monkeypatch.setattr("tfctr.evaluation.evaluate", lambda *_, **__: dict(undefined))
    assert json.loads(done("evaluate", run, "--json")) == {"auc": None, "rows": 2, "undefined": {"auc": "one class"}}
    result = tfctr_("evaluate", run)
    assert result.stdout.splitlines()[0].split() == ["auc", "not", "defined"]
    assert "auc is not defined: one class" in result.stderr


def test_models_are_listed_with_paper_and_idea():
    listed = json.loads(done("models", "--json"))
    assert set(listed) == set(tfctr.models.MODELS)
    assert listed["TF4CTR"]["year"] == 2024
    assert done("models").splitlines()[0].startswith("AFM       2017  Xiao et al. ")


@pytest.mark.slow
def test_the_served_probabilities_are_those_of_the_run(folder, run, exported, tmp_path):
    with socket.socket() as free, socket.socket() as other:
        free.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        port, rest_port = free.getsockname()[1], other.getsockname()[1]
    dataset = load_run(run).dataset()
    rows = tmp_path / "rows.jsonl"
    table = parquet.read_table(folder / "test.parquet").slice(0, 20).to_pylist()  # with the label
    # As an event log writes them: blank lines, lists of tokens, numbers as text.
    table = [{**row, "genres": row["genres"].split("|"), "price": str(row["price"])} for row in table]
    rows.write_text("\n".join(json.dumps(row) + "\n" for row in table))
    expected = load_run(run).model.predict(dataset.test.ids[:20], verbose=0)[:, 0]

    ports = ["--port", str(port), "--rest-port", str(rest_port)]
    with subprocess.Popen([sys.executable, "-m", "tfctr", "serve", exported, *ports], cwd=ROOT) as server:
        try:
            call = ["predict", f"127.0.0.1:{port}", rows, "--model", "serving", "--timeout", 60]
            deadline = time.monotonic() + 300
            while (result := tfctr_(*call, "--json")).exit_code == 6:
                assert time.monotonic() < deadline, result.stdout
                time.sleep(0.2)
            assert result.exit_code == 0, result.stdout
            served = np.array(json.loads(result.stdout)["probabilities"])
            np.testing.assert_array_equal(served, expected)
            printed = done(*call, "--separator", "|", "--version", 1)
            np.testing.assert_array_equal(np.float32(printed.split()), expected)
            rows.write_text("".join(json.dumps({"ids": row}) + "\n" for row in dataset.test.ids[:20].tolist()))
            served = json.loads(done(*call, "--signature", "ids", "--json"))["probabilities"]
            np.testing.assert_array_equal(served, expected)
            by_rest = {"signature_name": "ids", "instances": dataset.test.ids[:20].tolist()}
            status, answer = ask(f"http://127.0.0.1:{rest_port}/v1/models/serving:predict", by_rest)
            assert status == 200
            np.testing.assert_array_equal(np.float32(answer["predictions"]), expected)
            rows.write_text("\n".join(json.dumps({**row, "price": "cheap"}) for row in table))
            result = tfctr_(*call)
            assert result.exit_code == 3
            assert "rows.jsonl, line 1, column 'price': 'cheap' is not a number" in result.stderr
            assert tfctr_(*call, "--version", 7).exit_code == 6
        finally:
            server.send_signal(signal.SIGINT)
    assert server.returncode in (0, 130)


@pytest.mark.slow
def test_infer_leads_to_a_trained_model(tmp_path):
    clicks = [row * 7 % 10 // 3 % 2 for row in range(400)]
    rows = [f"{10**19 + row},a {row % 5},{row % 9 / 4},{'ab'[click]},{click}" for row, click in enumerate(clicks)]
    (tmp_path / "table.csv").write_text("\n".join(["row id,Web page,price,answer,click", *rows]))
    result = tfctr_("infer", tmp_path / "table.csv", "--label", "click", "--out", tmp_path / "schema.yaml")
    assert result.exit_code == 0, result.stderr
    commands = result.stderr.rpartition("then: ")[2].split()
    assert commands == [
        "tfctr",
        *"prepare {} --train {} --valid 0.1 --test 0.1 --out DIR".format(
            tmp_path / "schema.yaml", tmp_path / "table.csv"
        ).split(),
    ]
    text = (tmp_path / "schema.yaml").read_text()
    assert "# 'answer': left out, since it is the answer" in text
    assert "  - name: Web_page\n    type: categorical\n    column: Web page\n" in text
    done(*commands[1:-1], tmp_path / "data")
    config = {"model": {"name": "LR"}, "training": {"batch_size": 100, "epochs": 1}}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config))
    done("train", tmp_path / "run.yaml", "--data", tmp_path / "data", "--out", tmp_path / "run")
    printed = json.loads(done("infer", tmp_path / "table.csv", "--label", "click", "--json"))
    assert printed["notes"]["left_out"].keys() == {"row id", "answer"}
    assert printed["notes"]["seen"]["price"][0].startswith("numbers from 0 to 2; 9 distinct in 400 rows")


def test_infer_writes_a_schema_that_loads(tmp_path, caplog):
    table, file = tmp_path / "clicks.csv", tmp_path / "schema.yaml"
    table.write_text("user,visitor,source,importance,click\n60,a,web,1,0\n7,b,web,2,1\n60,b,web,1,1\n")
    arguments = ["infer", table, "--label", "click", "--group", "visitor", "--weight", "importance"]
    features = [{"name": "user", "type": "categorical"}, {"name": "visitor", "type": "categorical"}]
    schema = {"label": "click", "group": "visitor", "weight": "importance", "features": features}
    with caplog.at_level("INFO", "tfctr"):
        assert yaml.safe_load(done(*arguments)) == schema
    assert caplog.messages == ["left out: column 'source', since it is constant"]
    printed = json.loads(done(*arguments, "--json"))
    assert printed.pop("notes")["left_out"] == {"source": "it is constant"}
    assert printed == schema
    assert done(*arguments, "--out", file) == ""
    assert tfctr.Schema.load(file).to_dict() == schema
    result = tfctr_(*arguments, "--out", file)
    assert (result.exit_code, "already exists" in result.stderr) == (6, True)


# what goes wrong


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (["train", "run.yaml", "--data", "data", "--out", "new", "--set", "training.epoch=3"], 2, "Did you mean 'epochs'"),
        (["train", "run.yaml", "--data", "data", "--out", "new", "--set", "model.name=DMN"], 2, "Did you mean 'DNN'"),
        (["train", "run.yaml", "--data", "nowhere", "--out", "new"], 6, "nowhere"),
        (["train", "run.yaml", "--data", "data", "--out", "run"], 6, "already exists"),
        (["train", "none.yaml", "--data", "data", "--out", "new"], 6, "none.yaml"),
        (["evaluate", "run", "--split", "tset"], 2, "Did you mean 'test'"),
        (["evaluate", "data"], 6, "is not a run"),
        (["export", "nowhere", "new"], 6, "is not a run"),
        (["prepare", "run.yaml", "--train", "train.parquet", "--out", "new"], 2, "'model'"),
        (["prepare", "schema.yaml", "--train", "bad.csv", "--out", "new"], 3, "bad.csv"),
        (["prepare", "schema.yaml", "--train", "t.csv", "--valid", "10%", "--out", "new"], 2, "write the share as 0.1"),
        (["prepare", "schema.yaml", "--train", "train.parquet", "--threads", "0", "--out", "new"], 2, "`threads` is 0"),
        (["prepare", "schema.yaml", "--train", "train.parquet", "--out", "bad.csv/new"], 6, "cannot write bad.csv/new: "),
        (["infer", "bad.csv", "--label", "click"], 3, "column 'click', row 1: found '2'"),
        (["predict", "127.0.0.1:1", "bad.log", "--model", "m"], 3, "line 1 is not JSON"),
        (["predict", "127.0.0.1:1", "list.jsonl", "--model", "m"], 3, "line 2 is not a JSON object"),
        (["predict", "127.0.0.1:1", "empty.jsonl", "--model", "m"], 3, "holds no rows"),
        (["predict", "127.0.0.1:1", "none.jsonl", "--model", "m"], 6, "none.jsonl"),
        (["predict", "127.0.0.1:1", "list.jsonl", "--model", "m", "--separator", "genres"], 2, "`--separator` is 'genres'"),
        (["predict", "127.0.0.1:1", "list.jsonl", "--model", "m", "--separator", ""], 2, "`separator` is ''"),
        (["predict", "127.0.0.1:1", "list.jsonl", "--model", "m", "--timeout", "0"], 2, "`timeout` is 0.0"),
        (["predict", "127.0.0.1:1", "x", "--model", "m", "--label", "stable", "--version", "1"], 2, "`label` is 'stable'"),
        (["predict", "127.0.0.1:1", "x", "--model", "m", "--token", "secret"], 2, "`token` would be sent without encryption"),
        (["predict", "127.0.0.1:1", "x", "--model", "m", "--root-certificates", "none.pem"], 6, "cannot read none.pem"),
    ],
)
def test_expected_errors_are_text_and_a_code(arguments, code, expected, as_json, folder, run, monkeypatch):
    monkeypatch.chdir(folder)
    for name in ("bad.csv", "bad.log"):
        (folder / name).write_text("user,click\n1,2\n")
    (folder / "list.jsonl").write_text('{"user": "1"}\n[1]\n')
    (folder / "empty.jsonl").write_text("\n")
    result = tfctr_(*arguments, *(["--json"] if as_json else []))
    assert result.exit_code == code
    assert "Traceback" not in result.stderr
    assert not (folder / "new").exists()
    if as_json:
        error = json.loads(result.stdout)["error"]
        assert error["exit_code"] == code
        assert expected in error["problem"] + str(error["fix"])
        assert error["fix"]
    else:
        assert result.stdout == ""
        assert expected in result.stderr
        assert "fix:" in result.stderr


def test_training_that_becomes_non_finite_is_code_4(folder, data, tmp_path, monkeypatch):
    monkeypatch.setattr(malloc, "_returned", False)  # again, afterwards
    arguments = ["--data", data, "--out", tmp_path / "run", "--set", "training.learning_rate=1e38"]
    config = tmp_path / "run.yaml"
    config.write_text("model: {name: DNN, hidden_units: [8]}\ntraining: {batch_size: 100}\n")
    result = tfctr_("train", config, *arguments, "--return-freed-memory")
    assert "malloc" not in result.stderr
    assert result.exit_code == 4
    assert "step" in result.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (PermissionError(13, "Permission denied", "run/config.yaml"), "run/config.yaml: Permission denied."),
        (OSError("4096 requested and 12 written"), "the disk: 4096 requested and 12 written."),
    ],
)
def test_errors_of_the_system_are_code_6(error, text, monkeypatch):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("tfctr.training.load_run", fail)
    result = tfctr_("evaluate", "run")
    assert (result.exit_code, text in result.stderr) == (6, True)


def test_a_bug_is_code_70_with_its_traceback(run, monkeypatch):
    def broken(*_, **__):
        raise KeyError("surprise")

    monkeypatch.setattr("tfctr.training.load_run", broken)
    result = tfctr_("evaluate", run, "--json")
    assert result.exit_code == 70
    assert "Traceback" in result.stderr
    assert json.loads(result.stdout)["error"] == {"problem": "KeyError: 'surprise'", "fix": None, "exit_code": 70}
    assert "bug in tfctr" in tfctr_("evaluate", run).stderr


def test_control_c_is_code_130(run, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("tfctr.training.load_run", interrupted)
    assert tfctr_("evaluate", run).exit_code == 130


@pytest.mark.slow
@pytest.mark.parametrize(
    ("epoch", "said"), [(1, "{run} is removed"), (3, "stopped; {run} keeps epoch 2 and a checkpoint; --resume goes on from it")]
)
def test_control_c_says_what_training_leaves(epoch, said, folder, data, tmp_path, monkeypatch):
    def interrupt(self, now, logs=None):
        if now + 1 == epoch:
            raise KeyboardInterrupt

    monkeypatch.setattr("tfctr.training.recorder.RunRecorder.on_epoch_begin", interrupt)
    values = itertools.count()
    monkeypatch.setitem(MONITORS, "auc", lambda logs: next(values))  # every epoch is the best
    result = tfctr_("train", folder / "run.yaml", "--data", data, "--out", tmp_path / "run")
    assert result.exit_code == 130
    assert result.stderr.splitlines()[-1].endswith(said.format(run=tmp_path / "run"))
    assert (tmp_path / "run").exists() == (epoch > 1)


@pytest.mark.slow
def test_another_process_evaluates_what_training_measured(run):
    evaluate = [sys.executable, "-m", "tfctr", "evaluate", run, "--split", "valid", "--json"]
    printed = subprocess.run(evaluate, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    expected = read_json(run / "metrics.json")["valid"]
    found = json.loads(printed)
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-7)


def test_a_dataset_that_has_moved(run, data, tmp_path):
    data.rename(tmp_path / "data")
    try:
        result = tfctr_("evaluate", run)
        assert (result.exit_code, "--data DIR" in result.stderr) == (6, True)
        assert json.loads(done("evaluate", run, "--data", tmp_path / "data", "--json"))["rows"] == 100
    finally:
        (tmp_path / "data").rename(data)


@pytest.mark.parametrize("option", ["--port", "--rest-port"])
def test_a_port_that_is_none_is_code_2(option):
    for port in (-1, 65536):
        assert option in (result := tfctr_("serve", "serving", option, port)).stderr
        assert result.exit_code == 2


def test_rows_may_come_from_standard_input(monkeypatch):
    answer = "tfctr.serving.PredictionClient.predict_file"
    monkeypatch.setattr(answer, lambda client, path: np.float32([len(part) for part in read_json_lines(path)]))
    result = CliRunner().invoke(cli.app, ["predict", "127.0.0.1:1", "-", "--model", "m"], input='{"user": "a\u2028b"}\n')
    assert (result.exit_code, result.stdout) == (0, "1.0\n")


def test_misspelt_commands_and_options_are_code_2():
    assert tfctr_("trian").exit_code == 2
    assert tfctr_("evaluate", "run", "--splat", "test").exit_code == 2
    assert tfctr_("evaluate").exit_code == 2
