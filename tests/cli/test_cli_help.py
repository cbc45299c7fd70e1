"""The program itself: its help, what it loads, and what its output is."""

import os
import subprocess
import sys

import pytest
import yaml
from kit.places import ROOT
from typer.testing import CliRunner

import tfctr
from tfctr import cli
from tfctr.schema import Schema

COMMANDS = ("analyze", "compare", "doctor", "evaluate", "export", "import-fuxictr", "importance", "infer", "init", "label")
COMMANDS += ("models", "predict", "prepare", "publish", "report", "rollback", "serve", "server-config", "train", "tune")
COMMANDS += ("versions",)
OF_RETRIEVE = ("train", "evaluate", "export")


def done(*arguments):
    result = CliRunner().invoke(cli.app, arguments)
    assert result.exit_code == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_an_example(command):
    assert f"Example: tfctr {command} " in " ".join(done(command, "--help").split()) + " "


@pytest.mark.parametrize("command", OF_RETRIEVE)
def test_each_command_of_retrieve_has_an_example(command):
    assert f"Example: tfctr retrieve {command} " in " ".join(done("retrieve", command, "--help").split()) + " "


def test_help_lists_the_commands_and_version_prints_it():
    assert set(COMMANDS) <= set(done("--help").split())
    assert done("--version").strip() == tfctr.__version__


def test_help_loads_nothing_slow():
    program = """if True:
        import sys
        from tfctr.cli import main
        try:
            main()
        finally:
            assert not {"tensorflow", "keras", "numpy", "duckdb", "optuna", "matplotlib"} & set(sys.modules)
    """
    command = [sys.executable, "-c", program, "--help"]
    assert "evaluate" in subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", check=True).stdout


def test_a_wrong_configuration_is_reported_before_tensorflow_is_imported(tmp_path):
    program = "import sys; from tfctr.cli import main\ntry: main()\nfinally: assert 'tensorflow' not in sys.modules"
    (tmp_path / "run.yaml").write_text("model: {name: DNN}\n")
    arguments = ["train", "run.yaml", "--data", "data", "--out", "new", "--set", "training.epoch=3"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", program, *arguments]
    wrong = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, encoding="utf-8", check=False)
    assert wrong.returncode == 2
    assert "AssertionError" not in wrong.stderr
    assert "Did you mean 'epochs'" in wrong.stderr


def test_what_is_printed_is_utf_8_whatever_the_locale(tmp_path):
    (tmp_path / "table.csv").write_text("user,都市,click\n" + "a,東京,0\nb,café,1\n" * 9, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "latin-1"}
    command = [sys.executable, "-m", "tfctr", "infer", "table.csv", "--label", "click"]
    draft = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, encoding="utf-8", check=True).stdout
    assert [feature.source for feature in Schema.from_dict(yaml.safe_load(draft)).features] == ["user", "都市"]
