"""`tfctr init` writes files that load, from a checkout and from an installed package."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from kit.places import ROOT
from typer.testing import CliRunner

from tfctr import cli
from tfctr.bundled import examples
from tfctr.config import Config
from tfctr.schema import Schema


def init(*arguments):
    return CliRunner().invoke(cli.app, ["init", *map(str, arguments)])


@pytest.mark.parametrize("name", sorted(examples()))
def test_every_example_can_be_started_from(tmp_path, name):
    result = init(tmp_path / "mine", "--name", name, "--json")
    assert result.exit_code == 0, result.stderr
    written = json.loads(result.stdout)
    schema, _, run = name.partition("_")
    assert Schema.load(written["schema"]).to_dict() == Schema.load(ROOT / "examples" / f"{schema}.yaml").to_dict()
    expected = ROOT / "examples" / f"{schema}_{run or 'tf4ctr'}.yaml"
    assert ("run" in written) == expected.exists()
    if "run" in written:
        assert Config.load(written["run"]) == Config.load(expected)
        assert f"tfctr train {tmp_path / 'mine' / 'run.yaml'}" in result.stderr


def test_by_default_frappe_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert init().exit_code == 0
    assert Path("schema.yaml").read_bytes() == (ROOT / "examples" / "frappe.yaml").read_bytes()
    assert Path("run.yaml").read_bytes() == (ROOT / "examples" / "frappe_tf4ctr.yaml").read_bytes()


@pytest.mark.parametrize("name", ["schema.yaml", "run.yaml"])
def test_nothing_is_replaced(tmp_path, name):
    (tmp_path / name).write_text("mine")
    result = init(tmp_path)
    assert (result.exit_code, f"{tmp_path / name} already exists" in result.stderr) == (6, True)
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [(name, "mine")]


def test_an_unknown_example_is_code_2(tmp_path):
    result = init(tmp_path, "--name", "frape")
    assert (result.exit_code, "Did you mean 'frappe'?" in result.stderr) == (2, True)


def test_the_package_that_is_built_has_the_examples(tmp_path):
    build = [sys.executable, "setup.py", "-q", "build", "--build-base", tmp_path / "base", "--build-lib", tmp_path / "lib"]
    subprocess.run(build, cwd=ROOT, capture_output=True, check=True)
    built = {file.name: file.read_bytes() for file in (tmp_path / "lib" / "tfctr" / "examples").iterdir()}
    assert built == {file.name: file.read_bytes() for file in (ROOT / "examples").glob("*.yaml")}
    program = [sys.executable, "-m", "tfctr", "init", "mine", "--name", "ml1m"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "lib")}
    subprocess.run(program, cwd=tmp_path, env=environment, capture_output=True, check=True)
    assert (tmp_path / "mine" / "schema.yaml").read_bytes() == built["ml1m.yaml"]
