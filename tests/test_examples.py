"""The examples run as a reader would run them."""

import dataclasses
import math
import os
import re
import runpy
import subprocess
import sys

import pytest
from kit.places import EXAMPLES, ROOT

from tfctr.config import Config
from tfctr.models import build
from tfctr.schema import Schema
from tfctr.training.building import build_model


def run(script, *arguments):
    result = subprocess.run(
        [sys.executable, str(EXAMPLES / script), *arguments],
        capture_output=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"},
    )
    assert result.returncode == 0, result.stderr[-4000:]
    return result.stdout


def test_demo_serves_the_bits_it_predicted(tmp_path):
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / ".made-by-tfctr-demo").touch()
    (tmp_path / "demo" / "data").write_text("of the demo before")
    printed = run("demo.py", "--rows", "8000", "--out", str(tmp_path / "demo"))
    assert "0 bits differ" in printed
    aucs = {name: float(auc) for name, auc in re.findall(r"(LR|DNN|TF4CTR|best possible)\W+([01]\.\d{4})", printed)}
    assert set(aucs) == {"LR", "DNN", "TF4CTR", "best possible"}
    assert 0.5 < aucs["LR"] < aucs["best possible"]
    assert 0.5 < aucs["TF4CTR"] < aucs["best possible"]
    assert (tmp_path / "demo" / "serving" / "tf4ctr" / "1" / "saved_model.pb").is_file()


@pytest.mark.slow
def test_a_week_of_warm_starts_is_better_than_the_first_model(tmp_path):
    printed = run("daily.py", "--out", str(tmp_path))
    days = [list(map(float, line.split())) for line in printed.splitlines()[1:]]
    assert [(day, new) for day, new, *_ in days] == [(day, 200) for day in range(1, 6)]
    assert all(first < warm < best for _, _, warm, first, best in days)


@pytest.mark.slow
def test_a_model_from_outside_is_served_as_it_predicts():
    printed = run("add_your_own_model.py")
    served, offline = (re.findall(rf"{face}: +\[(.*)\]", printed) for face in ("served", "offline"))
    assert served == offline
    assert len(served) == 2


@pytest.mark.slow
def test_a_graph_of_plain_keras_is_served_as_it_predicts():
    printed = run("your_own_graph.py")
    served, offline = (re.findall(rf"{face} \[(.*?)\]", printed) for face in ("served", "offline"))
    assert served == offline
    assert len(served) == 2
    assert "explained by ['click', 'difficulty_if_click', 'difficulty_if_no_click', 'logit'" in printed


@pytest.mark.slow
def test_depth_study_compares_five_networks():
    printed = run("depth_study.py", "--epochs", "1", "--units", "16")
    aucs = [float(auc) for auc in re.findall(r"layers.*AUC ([01]\.\d{5})", printed)]
    assert len(aucs) == 5
    assert min(aucs) > 0.45
    assert "WARNING" not in printed


def test_demo_removes_only_what_it_made(tmp_path, monkeypatch, capsys):
    (tmp_path / "thesis.txt").write_text("mine")
    demo = runpy.run_path(str(EXAMPLES / "demo.py"))
    for taken in (tmp_path, tmp_path / "thesis.txt"):
        monkeypatch.setattr(sys, "argv", ["demo.py", "--rows", "100", "--out", str(taken)])
        with pytest.raises(SystemExit, match="2"):
            demo["main"]()
        assert f"{taken} holds something that this script did not make" in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("run", sorted(path.stem for path in EXAMPLES.glob("*_*.yaml")))
def test_example_files_are_valid(run, tiny_schema):
    schema = Schema.load(EXAMPLES / f"{run.split('_')[0]}.yaml")
    config = Config.load(EXAMPLES / f"{run}.yaml")
    assert schema.group in [None, *(feature.name for feature in schema.features)]
    built = build(config.model.name, tiny_schema, **config.model.arguments)
    assert built.embedding_l2 == config.model.arguments["embedding_l2"]


@pytest.mark.slow
def test_the_quickstart_serves_what_it_predicts():
    served, offline = run("quickstart.py").splitlines()[-2:]
    assert served.removeprefix("served: ") == offline.removeprefix("offline:")
    assert served.count("0.") == 5


LOGGED = {  # vocabulary sizes and parameters of the authors' logs; they reserve 2 ids a field where we reserve 3
    "frappe": ([942, 4084, 9, 9, 4, 5, 4, 11, 82, 233], 711_996),
    "ml1m": ([6042, 4, 9, 23, 3548], 604_628),
    "mltag": ([16362, 22575, 49659], 2_641_908),
    "kkbox": ([29506, 172297, 10, 22, 14, 23, 4, 7, 12, 483, 25369, 97, 9], 6_083_278),
}


@pytest.mark.parametrize("name", sorted(LOGGED))
def test_the_examples_have_the_parameters_of_the_released_runs(name):
    sizes, parameters = LOGGED[name]
    schema = Schema.load(EXAMPLES / f"{name}.yaml")
    features = [dataclasses.replace(feature, size=size + 1) for feature, size in zip(schema.features, sizes, strict=True)]
    assert all(feature.min_count == 2 for feature in features)
    model = build_model(Config.load(EXAMPLES / f"{name}_tf4ctr.yaml"), dataclasses.replace(schema, features=features))
    found = sum(int(math.prod(weight.shape)) for weight in model.trainable_variables)
    assert found == parameters + len(features) * (16 + 8)  # one more id a field, in tables 16 and 8 wide
