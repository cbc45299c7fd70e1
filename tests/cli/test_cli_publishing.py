"""`tfctr publish`, `rollback`, `versions` and `label`: what they print, for people and for machines, and their exit codes."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from google.protobuf import text_format
from kit.commands import done, tables, tfctr_
from kit.places import ROOT

from tfctr.data.synthetic import write_synthetic
from tfctr.serving import LocalServer, PredictionClient, versions
from tfctr.serving.publishing.configuration import read_config
from tfctr.serving.runtime.flags import CAREFUL_FLAGS
from tfctr.serving.store.folders import HISTORY, add_version
from tfctr.serving.wire.protocol import BatchingParameters
from tfctr.storage import read_json, sha256


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A table, a run, another one that learned little, and one that learned not even the click rate."""
    folder = tmp_path_factory.mktemp("publishing")
    write_synthetic(folder, rows=4000)
    done("prepare", folder / "schema.yaml", *tables(folder), "--out", folder / "data")
    config = {"model": {"name": "LR"}, "training": {"batch_size": 100, "epochs": 2, "learning_rate": 0.1}}
    (folder / "run.yaml").write_text(yaml.safe_dump(config))
    train = ["train", folder / "run.yaml", "--data", folder / "data"]
    done(*train, "--out", folder / "run")
    short = [*train, "--set", "training.epochs=1"]
    done(*short, "--out", folder / "worse", "--set", "training.learning_rate=1e-3", "--set", "training.start=click_rate")
    done(*short, "--out", folder / "useless", "--set", "training.learning_rate=1e-6")
    return folder


@pytest.fixture(scope="module")
def base(folder):
    """Two versions of the run."""
    for _ in range(2):
        done("publish", folder / "run", folder / "clicks")
    return folder / "clicks"


@pytest.mark.slow
def test_publish_for_machines_and_for_people(folder, base):
    record = json.loads(done("publish", folder / "run", base, "--dry-run", "--json"))
    assert (record["action"], record["folder"], record["compared_with"], record["removed"]) == ("publish", None, 2, [])
    assert (record["comparison"]["rows"], record["comparison"]["measured_on"]) == (400, "400 rows of the valid split")
    assert (record["comparison"]["psi"], record["comparison"]["failures"]) == (0.0, [])
    assert set(record["comparison"]["metrics"]) == {"auc", "group_auc", "log_loss", "pcoc"}
    result = tfctr_("publish", folder / "run", base, "--dry-run", "--sample", 0, "--keep", 2)
    printed = dict(line.split(maxsplit=1) for line in result.stdout.splitlines())
    auc = read_json(base / "2" / "assets.extra" / "model_card.json")["metrics"]["valid_auc"]
    assert printed["valid_auc"] == f"{auc:.6g} live, {auc:.6g} new"
    assert (printed["folder"], printed["compared_with"], printed["scores_rows"]) == ("none", "2", "68")
    assert "next: the same without --dry-run" in result.stderr
    rows = folder / "valid.parquet"
    assert f" 400 rows of {rows}\n" in done("publish", folder / "run", base, "--dry-run", "--rows", rows, "--slice", "weekend")
    refused = tfctr_("publish", folder / "run", base, "--slice", "weekday")
    assert (refused.exit_code, "Unknown feature 'weekday'. Did you mean" in refused.stderr.replace("\n  fix: ", " ")) == (
        2,
        True,
    )
    assert versions(base) == [1, 2]


@pytest.mark.slow
def test_what_is_served_is_said_on_the_command_line(folder, tmp_path):
    served = ["--candidate", "item", "--candidate", "genres", "--optional", "price"]
    served += ["--calibrate", "platt", "--negatives-kept", 0.5, "--tables", "float16"]
    for command in ("export", "publish"):
        result = tfctr_(command, folder / "run", tmp_path / command, *served, "--json")
        version = Path(json.loads(result.stdout)["folder"])
        card = read_json(version / "assets.extra" / "model_card.json")
        assert (card["candidates"], card["optional"], card["negatives_kept"]) == (["item", "genres"], ["price"], 0.5)
        assert card["calibration"]["method"] == "platt"
        assert (tables := card["tables"])["form"] == "float16"
        loss = card["calibration"]["after"]["platt"]["log_loss"]
        assert f"platt calibration: on the valid split log loss {loss:.6g}, " in result.stderr
        assert f"float16: {tables['after']['bytes']:,} bytes, {tables['before']['bytes']:,} before" in result.stderr
        assert "valid_auc" in card["metrics"]
        origin, manifest = card["origin"], folder / "data" / "manifest.json"
        assert origin["environment"]["data"] == {"manifest_sha256": sha256(manifest)}
        assert (origin["environment"]["seed"], origin["config"]["model"]["name"]) == (1, "LR")
        (model,) = (folder / "run").glob("model-*.keras")
        assert origin["model_sha256"] == sha256(model)
        assert str(folder) not in json.dumps(card)
        assert "rank" in card["signatures"]


@pytest.mark.slow
def test_a_retriever_goes_live_with_the_run_and_is_compared(folder, tmp_path):
    done("retrieve", "train", "--data", folder / "data", "--out", tmp_path / "towers", "--item", "item", "--epochs", 1)
    added = ["--retriever", tmp_path / "towers", "--retrieved", 4, "--json"]
    exported = Path(json.loads(done("export", folder / "run", tmp_path / "export", *added))["folder"])
    records = [json.loads(done("publish", folder / "run", tmp_path / "publish", *added)) for _ in range(2)]
    assert (records[1]["compared_with"], records[1]["comparison"]["failures"]) == (1, [])
    for version in (exported, Path(records[1]["folder"])):
        card = read_json(version / "assets.extra" / "model_card.json")
        assert card["retrieved"] == 4
        assert {"retrieve", "recommend"} <= set(card["signatures"])
    user = pq.read_table(folder / "valid.parquet").drop_columns(["item", "click"]).slice(0, 1).to_pylist()
    with LocalServer(tmp_path / "publish", port=0) as server, PredictionClient(server.target, model="publish") as client:
        found = client.recommend(user, k=3)
    assert (len(found.items), found.version) == (3, 2)


@pytest.mark.parametrize("command", ["export", "publish"])
def test_a_folder_of_other_models_is_refused(command, folder, tmp_path):
    add_version(tmp_path / "serving" / "frappe", lambda folder: (folder / "model").write_text(""))
    before = sorted(tmp_path.rglob("*"))
    result = tfctr_(command, folder / "run", tmp_path / "serving")
    assert (result.exit_code, f"fix: give the new version's model a folder: {tmp_path}/serving/NAME" in result.stderr) == (
        6,
        True,
    )
    result = tfctr_(command, folder / "run", "")
    assert (result.exit_code, "name is empty" in result.stderr) == (2, True)
    for other in ("versions", "serve"):
        result = tfctr_(other, tmp_path / "serving")
        assert (result.exit_code, f"give the folder of one model: {tmp_path}/serving/frappe" in result.stderr) == (6, True)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(("option", "problem"), [("--calibrate", "calibration method ''"), ("--tables", "form of tables ''")])
def test_an_empty_name_is_no_silent_default(option, problem, folder, tmp_path):
    result = tfctr_("export", folder / "run", tmp_path / "clicks", option, "")
    assert (result.exit_code, f"Unknown {problem}" in result.stderr) == (2, True)
    assert not (tmp_path / "clicks").exists()


@pytest.mark.slow
def test_a_run_worse_than_a_constant_is_code_5_unless_forced(folder, base, tmp_path):
    """The first version, for which there is no other to compare with, and any later one."""
    labels = read_json(folder / "useless" / "metrics.json")["valid"]
    assert labels["log_loss"] == pytest.approx(0.6931, abs=1e-3)
    said = f"valid_log_loss: the log loss is {labels['log_loss']:.6g}, and {labels['log_loss_of_constant']:.6g} for a constant"
    for where in (tmp_path / "clicks", base):
        result = tfctr_("publish", folder / "useless", where)
        assert result.exit_code == 5
        assert said in result.stderr
        assert "--force REASON" in result.stderr
    assert versions(tmp_path / "clicks") == []
    printed = done("publish", folder / "useless", tmp_path / "clicks", "--force", "a fire drill")
    assert said in next(line for line in printed.splitlines() if line.startswith("despite "))
    assert "a fire drill" in done("versions", tmp_path / "clicks")


@pytest.mark.slow
def test_a_worse_run_is_code_5_unless_forced(folder, base, tmp_path):
    base = shutil.copytree(base, tmp_path / "clicks")
    result = tfctr_("publish", folder / "worse", base)
    assert result.exit_code == 5
    assert "clicks/2 is live: auc is 0." in result.stderr
    assert "--force REASON" in result.stderr
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"user": str(user), "price": user}) + "\n" for user in range(9)))
    result = tfctr_("publish", folder / "worse", base, "--rows", rows)
    assert (result.exit_code, "column 'item'" in result.stderr) == (3, True)
    options = ["--max-auc-drop", 1, "--max-log-loss-rise", 9, "--max-psi", 99, "--max-difference", 1]
    assert json.loads(done("publish", folder / "worse", base, *options, "--dry-run", "--json"))["comparison"]["failures"] == []
    printed = done("publish", folder / "worse", base, "--force", "a fire drill", "--keep", 2)
    assert "forced " in printed
    assert "removed " in printed
    assert "not_removed" not in printed
    assert "despite " in printed
    assert versions(base) == [2, 3]
    lines = done("versions", base, "--verify", "--removed").splitlines()
    assert [line.split()[0] for line in lines] == ["1", "2", "3"]
    assert lines[0].split()[1:3] == ["removed", "publish"]
    assert lines[2].split()[1:3] == ["live", "publish"]
    assert lines[2].endswith("  a fire drill")

    printed = json.loads(done("rollback", base, "--reason", "the drill is over", "--json"))
    assert (printed["of"], printed["instead_of"], printed["folder"]) == (2, 3, str(base / "4"))
    known = json.loads(done("versions", base, "--json"))["versions"]
    assert [(version["version"], version["live"], version["reason"]) for version in known] == [
        (2, False, None),
        (3, False, "a fire drill"),
        (4, True, "the drill is over"),
    ]
    (base / "3" / "saved_model.pb").write_bytes(b"")
    result = tfctr_("versions", base, "--verify")
    assert (result.exit_code, "saved_model.pb is not the file that was published" in result.stderr) == (6, True)
    assert ["DAMAGED" in line for line in result.stdout.splitlines()] == [False, True, False]
    result = tfctr_("versions", base, "--verify", "--json")
    damage = [version["damage"] for version in json.loads(result.stdout)["versions"]]
    assert (result.exit_code, damage[0], damage[2]) == (6, None, None)
    assert "saved_model.pb is not the file that was published" in damage[1]
    (tmp_path / "models.config").write_text("")
    done("label", tmp_path / "models.config", base, "stable=2", "--step", "load")
    config = tmp_path / "models.config"
    assert tfctr_("publish", folder / "run", base, "--config", tmp_path / "no.config").exit_code == 2
    result = tfctr_("publish", folder / "run", base, "--keep", 2, "--config", config, "--force", "the same again")
    assert versions(base) == [2, 4, 5]
    assert f"next: {config} stays at 2, 4 until: tfctr label {config} {base} LABEL=5\n" in result.stderr


def test_label_with_a_server_and_without(tmp_path, base):
    config = tmp_path / "models.config"
    with LocalServer(base, port=0) as server:
        printed = json.loads(done("label", config, base, "stable=2", "--server", server.target, "--json"))
        assert printed == {"loaded": [2], "labels": {"stable": 2}}
        result = tfctr_("label", config, base, "stable=1", "--server", server.target, "--timeout", 0.1)
    assert result.exit_code == 6
    assert f"waiting until {server.target} has read {config} and serves them all" in result.stderr
    result = tfctr_("label", config, base, "canary=1", "--step", "load", "--base-path", "/models/clicks")
    assert result.stdout.split() == ["loaded", "[1,", "2]"]
    assert "the same with --step label" in result.stderr
    assert json.loads(done("label", config, base, "canary=1", "--step", "label", "--json"))["labels"] == {
        "canary": 1,
        "stable": 2,
    }
    assert read_config(config).model_config_list.config[0].base_path == str(base)
    assert json.loads(done("label", config, base, "canary=none", "--step", "label", "--json")) == {"labels": {"stable": 2}}


@pytest.mark.slow
def test_serve_with_labels_and_tls(base, certificate):
    key, pem = certificate
    tls = ["--certificate", pem, "--key", key]
    command = [sys.executable, "-m", "tfctr", "serve", base, "--port", 0, "--stand-in", "--label", "stable=1", *tls]
    with subprocess.Popen(list(map(str, command)), cwd=ROOT, stderr=subprocess.PIPE, text=True) as server:
        try:
            target = next(re.search(r"127\.0\.0\.1:\d+", line)[0] for line in server.stderr if "stand-in" in line)
            status = PredictionClient(target, model="clicks", root_certificates=pem, label="stable").status()
        finally:
            server.terminate()
    assert [version["version"] for version in status] == [1]
    assert tfctr_("serve", base, "--label", "stable=9").exit_code == 6
    assert tfctr_("serve", base, "--certificate", pem, "--port", 0, "--stand-in").exit_code == 2


def test_server_config_prints_the_command(tmp_path, base):
    config = tmp_path / "config"
    printed = shlex.split(done("server-config", config, base, "--models-at", "/models").replace("\\\n", ""))
    assert printed == [
        *("tensorflow_model_server", "--port=8500", "--rest_api_port=8501", *CAREFUL_FLAGS),
        *("--model_config_file_poll_wait_seconds=10", "--allow_version_labels_for_unavailable_models=true"),
        *(f"--model_config_file={config}/models.config", f"--monitoring_config_file={config}/monitoring.config"),
    ]
    batching = ["--max-batch-size", 1000, "--allowed-batch-size", 8, "--allowed-batch-size", 1000, "--num-batch-threads", 2]
    flags = json.loads(done("server-config", config, base, "--models-at", "/models", *batching, "--json"))["flags"]
    assert {f"--batching_parameters_file={config}/batching.config", "--enable_batching=true"} < {*flags}
    parameters = text_format.Parse((config / "batching.config").read_text(), BatchingParameters())
    assert (parameters.num_batch_threads.value, list(parameters.allowed_batch_sizes)) == (2, [8, 1000])
    assert read_config(config / "models.config").model_config_list.config[0].base_path == "/models/clicks"


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (["server-config", "config", "clicks", "--num-batch-threads", "2"], 2, "no batch size is given"),
        (["server-config", "config", "clicks", "--max-batch-size", "8"], 2, "`max_batch_size` is 8"),
        (["server-config", "config", "clicks", "--key", "run.yaml"], 2, "`key`: run.yaml is no PEM file"),
        (["server-config", "config", "nowhere"], 6, "nowhere holds no published version"),
        (["publish", "nowhere", "clicks"], 6, "is not a run"),
        (["publish", "run", "007"], 2, "'007' cannot be the name of a served model"),
        (["publish", "run", "clicks/1"], 2, "'1' cannot be the name of a served model"),
        (["export", "run", "clicks", "--tables", ""], 2, "Unknown form of tables ''"),
        (["publish", "run", "clicks", "--max-psi", "-1"], 2, "`psi` is -1.0"),
        (["publish", "run", "clicks", "--force", ""], 2, "`force` is ''"),
        (["publish", "run", "clicks", "--rows", "none.jsonl"], 6, "none.jsonl"),
        (["publish", "run", "clicks", "--config", "run.yaml"], 2, "run.yaml is not a model configuration file"),
        (["rollback", "clicks", "--reason", "why", "--to", "../1"], 2, "'../1' is not a version's number"),
        (["rollback", "clicks", "--reason", "why", "--to", "9223372036854775808"], 2, "is not a version's number"),
        (["rollback", "clicks", "--reason", "why", "--to", "9"], 6, "has no version 9"),
        (["rollback", "clicks", "--reason", " "], 2, "`reason` is ' '"),
        (["rollback", "nowhere", "--reason", "why"], 6, "holds no published version"),
        (["versions", "nowhere"], 6, "holds no published version"),
        (["label", "new.config", "clicks", "stable", "--step", "load"], 2, "'stable' is not LABEL=VERSION"),
        (["label", "new.config", "clicks", "stable=1", "stable=2", "--step", "load"], 2, "'stable' is given twice"),
        (["label", "new.config", "clicks", "stable=007", "--step", "load"], 2, "'007' is not a version's number"),
        (["label", "new.config", "clicks", "a b=1", "--step", "load"], 2, "'a b' cannot be a label"),
        (["label", "new.config", "clicks", "stable=1"], 2, "give either --server or --step"),
        (["label", "new.config", "clicks", "stable=1", "--step", "lable"], 2, "Did you mean 'label'"),
        (["label", "new.config", "clicks", "stable=1", "--step", "label"], 2, "new.config has no model 'clicks'"),
    ],
)
def test_expected_errors_are_text_and_a_code(arguments, code, expected, as_json, folder, base, monkeypatch):
    monkeypatch.chdir(folder)
    result = tfctr_(*arguments, *(["--json"] if as_json else []))
    assert result.exit_code == code, result.stderr
    assert versions(base) == [1, 2]
    assert not (folder / "new.config").exists()
    if as_json:
        error = json.loads(result.stdout)["error"]
        assert expected in error["problem"] + str(error["fix"])
        assert error["fix"]
    else:
        assert expected in result.stderr
        assert "fix:" in result.stderr


def test_the_way_back_needs_no_tensorflow(tmp_path):
    add_version(tmp_path / "clicks", lambda folder: (folder / "model").write_text(""))
    program = "import sys; from tfctr.cli import main\ntry: main()\nfinally: assert 'tensorflow' not in sys.modules"
    for arguments in (["versions", "clicks"], ["rollback", "clicks", "--reason", "why"]):
        command = [sys.executable, "-c", program, *arguments]
        result = subprocess.run(
            command, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
        )
        assert "AssertionError" not in result.stderr
        assert result.returncode in (0, 6)


@pytest.mark.parametrize("command", [["publish", "RUN"], ["rollback"]])
def test_damaged_pins_stop_before_anything_is_live(command, folder, base, tmp_path):
    copy = shutil.copytree(base, tmp_path / "clicks")
    (copy / HISTORY).mkdir(exist_ok=True)
    (copy / HISTORY / "pinned.json").write_text("{")
    rest = ["--reason", "a test"] if command == ["rollback"] else []
    result = tfctr_(*[folder / "run" if part == "RUN" else part for part in command], copy, *rest)
    assert (result.exit_code, versions(copy)) == (6, versions(base))
    assert "pinned.json is not valid JSON" in result.stderr
    assert "fix: remove it, and repeat `tfctr label`" in result.stderr
