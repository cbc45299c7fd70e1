"""Models from outside of the package: `tfctr --import`, and names that are taken."""

import json
import sys

import pytest
from typer.testing import CliRunner

import tfctr
from tfctr.cli import app
from tfctr.errors import ConfigError
from tfctr.models import LR, MODELS, register

MINE = """
from tfctr.models import LR, register

@register
class MineOfTests(LR):
    \"\"\"Logistic regression under another name.\"\"\"
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "mine_of_tests.py").write_text(MINE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    MODELS.pop("MineOfTests", None)
    sys.modules.pop("mine_of_tests", None)


@pytest.mark.slow
def test_the_command_line_trains_and_exports_a_model_of_the_working_folder(folder):
    table = {"user": ["a", "b", "c", "d"] * 25, "click": [0, 1, 1, 0] * 25}
    tfctr.prepare(tfctr.Schema([tfctr.Categorical("user")], label="click"), train=table, valid=table, out=folder / "data")
    mine = ["--import", "mine_of_tests"]
    for arguments in (
        ["train", "--model", "MineOfTests", "--data", "data", "--out", "run", "--set", "training.epochs=1"],
        ["evaluate", "run", "--split", "valid"],
        ["export", "run", "served"],
    ):
        result = CliRunner().invoke(app, [*mine, *arguments, "--json"])
        assert result.exit_code == 0, result.output
        json.loads(result.stdout)
    result = CliRunner().invoke(app, [*mine, "models"])
    assert "MineOfTests" in result.stdout
    assert sys.path.count("") <= 1


def test_a_module_that_is_not_there_is_named():
    result = CliRunner().invoke(app, ["--import", "no_such_module_here", "models"])
    assert result.exit_code == 2
    assert "`--import no_such_module_here`: No module named" in result.stderr


def test_a_name_that_is_taken_is_refused(folder):
    with pytest.raises(ConfigError, match=r"'LR' is the name of tfctr\.models\.lr\.LR"):
        register(type("LR", (LR,), {}))
    assert MODELS["LR"] is LR


def test_a_model_may_be_defined_again(folder):
    """As a notebook does when its cell runs twice."""
    for _ in range(2):
        register(type("MineOfTests", (LR,), {"__module__": "notebook"}))
    assert MODELS["MineOfTests"].__module__ == "notebook"
