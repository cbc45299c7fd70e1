"""Every benchmark runs, small. What it measures here means nothing."""

import os
import subprocess
import sys

import pytest
from kit.places import BENCHMARKS, ROOT

import tfctr
from tfctr.data.synthetic import synthetic_schema, write_synthetic
from tfctr.storage import read_json

COMMANDS = {
    "training": "--models LR --rounds 1 --steps 1 --batch-size 100",
    "batches": "--rows 2000 --repeats 1",
    "metrics": "--rows 2000 --groups 10 --repeats 1",
    "contrast_memory": "--batch-size 600 --steps 1",
    "malloc": "--models DNN --rounds 1 --steps 1",
    "inference": "--data {data} --models LR --batches 1 16 --calls 2 --tables float32 int8",
    "serving": "--model LR --history 3 --batches 1 16 --calls 2",
    "hot_swap": "--requests 200 --clients 2 --processes 1 --plan new",
    "quality": "{config} --data {data} --out {folder}/runs --optimizers adam exact_lazy_adam --seeds 1 2",
    "page": "--out {folder}",
    "prepare": "--rows 2000 --folder {folder}",
    "models": "--data {data} --models LR CETN --batch-size 500",
    "vocabulary": "--vocabularies 4000 --model LR --batch-size 100 --rounds 1 --steps 1",
    "out_of_core": "--rows 3000 --columns 5 --batch-size 1000 --folder {folder}",
    "first_tables": "--tables numbers rare --rows 8000 --seeds 1 --model LR",
    "peers": "--models DNN TF4CTR CETN --rounds 1 --steps 1",
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    return tfctr.prepare(synthetic_schema(), **write_synthetic(folder, rows=2_000), out=folder / "data").folder


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(path.stem for path in BENCHMARKS.glob("*.py")))
def test_benchmark_runs(name, data, tmp_path):
    config = tmp_path / "run.yaml"
    config.write_text("model: {name: LR}\ntraining: {batch_size: 500, epochs: 1}\n")
    arguments = COMMANDS[name].format(data=data, folder=tmp_path, config=config).split()
    keep = [] if name == "page" else ["--json", str(tmp_path / "kept.json")]
    run = subprocess.run(
        [sys.executable, str(BENCHMARKS / f"{name}.py"), *arguments, *keep],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert run.returncode == 0, run.stderr[-4000:]
    assert any(character.isdigit() for character in run.stdout)
    if name != "page":
        assert read_json(tmp_path / "kept.json").keys() == {"machine", "settings", "figures"}
