"""Every benchmark runs, small. What it measures here means nothing."""

import inspect
import os
import runpy
import subprocess
import sys

import pytest
from kit.places import BENCHMARKS, ROOT

import tfctr
from tfctr.data.synthetic import synthetic_schema, write_synthetic
from tfctr.models import MODELS
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
    "engines": "--engine duckdb --rows 2000 --folder {folder}",
    "scoring": "--rows 2000 --model LR --folder {folder}",
    "models": "--data {data} --models LR CETN --batch-size 500",
    "vocabulary": "--vocabularies 4000 --model LR --batch-size 100 --rounds 1 --steps 1",
    "out_of_core": "--rows 3000 --columns 5 --batch-size 1000 --folder {folder}",
    "first_tables": "--tables numbers rare --rows 8000 --seeds 1 --model LR",
    "week": "{data}/../schema.yaml {data}/../train.parquet --order price --out {folder}/week --days 3 --model LR --seeds 1",
    "workers": "--workers 1 2 --vocabularies 4000 --clip 10 --model LR --batch-size 100 --rounds 1 --steps 2",
    "histories": "--models DIN TF4CTR-attended --rows 3000 --epochs 1 --seeds 1",
    "retrieval": "--data {data} --item item --out {folder}/retrievers --epochs 1 --seeds 1 --sweeps 1",
    "peers": "--models TF4CTR EulerNet --batch-size 100 --rounds 1 --steps 1",
}
OFTEN = ("training", "models", "quality", "page")  # which the others are like; those run before a release
MATCHED = runpy.run_path(str(BENCHMARKS / "contenders" / "matched.py"))
MATCHES, given = MATCHED["MATCHES"], MATCHED["given"]
FUXICTR, FUXICTR_ZOO = (os.environ.get(name) for name in ("FUXICTR", "FUXICTR_ZOO"))  # as `make bench` has them


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    return tfctr.prepare(synthetic_schema(), **write_synthetic(folder, rows=2_000), out=folder / "data").folder


def benchmark(name, *arguments):
    run = subprocess.run(
        [sys.executable, str(BENCHMARKS / f"{name}.py"), *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert run.returncode == 0, run.stderr[-4000:]
    return run


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name in OFTEN else pytest.mark.every)
        for name in sorted(path.stem for path in BENCHMARKS.glob("*.py"))
    ],
)
def test_benchmark_runs(name, data, tmp_path):
    config = tmp_path / "run.yaml"
    config.write_text("model: {name: LR}\ntraining: {batch_size: 500, epochs: 1}\n")
    arguments = COMMANDS[name].format(data=data, folder=tmp_path, config=config).split()
    keep = [] if name == "page" else ["--json", str(tmp_path / "kept.json")]
    run = benchmark(name, *arguments, *keep)
    assert any(character.isdigit() for character in run.stdout)
    if name != "page":
        assert read_json(tmp_path / "kept.json").keys() == {"machine", "settings", "figures"}


@pytest.mark.parametrize("name", MATCHES)
def test_a_model_takes_the_arguments_that_are_matched(name):
    match = MATCHES[name]
    inspect.signature(MODELS[name].__init__).bind("self", "schema", **given(match.ours, fields=10))
    assert bool(match.more) == bool(match.why)


@pytest.mark.slow
@pytest.mark.skipif(not (FUXICTR and FUXICTR_ZOO), reason="no FuxiCTR here")
@pytest.mark.parametrize("name", MATCHES)
def test_fuxictr_has_the_parameters_of_ours_and_those_that_are_told(name, tmp_path):
    peers = ["--fuxictr", FUXICTR, "--fuxictr-zoo", FUXICTR_ZOO, "--models", name]
    benchmark("peers", *peers, "--batch-size", "100", "--rounds", "1", "--steps", "1", "--json", str(tmp_path / "kept.json"))
    counts = {line["contender"]: line["parameters"] for line in read_json(tmp_path / "kept.json")["figures"]}
    assert counts["FuxiCTR zoo (torch)"] - counts["tfctr adam"] == MATCHES[name].more
