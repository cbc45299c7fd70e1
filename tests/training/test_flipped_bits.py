"""A disk that flips a bit of what a run or a dataset says of itself: it is used as it reads, or refused as damaged."""

import random
import re

import pytest

import tfctr
from tfctr.config import Config
from tfctr.errors import TfctrError
from tfctr.training import load_run, train

ROWS = 8  # 0 with one bit flipped
FILES = {
    "data": ["manifest.json", "schema.json"],
    "run": ["config.yaml", "environment.json", "history.json", "metrics.json"],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a dataset, whose validation rows have unknown tokens, and a run."""
    folder = tmp_path_factory.mktemp("flipped")
    features = [
        tfctr.Categorical("user"),
        tfctr.Sequence("tags", max_length=3),
        tfctr.Numeric("price", "scaled"),
        tfctr.Numeric("age", "quantile", buckets=3),
    ]
    columns = {"tags": ["x|y", "y", "x", "z|x"] * 2, "price": [row / 7 for row in range(ROWS)], "age": list(range(ROWS))}
    train_table, valid = ({"user": list(users) * 4, **columns, "click": [0, 1, 1, 0] * 2} for users in ("ab", "ac"))
    tfctr.prepare(tfctr.Schema(features, label="click", group="user"), train=train_table, valid=valid, out=folder / "data")
    train(Config.from_dict({"model": {"name": "LR"}, "training": {"epochs": 2}}), folder / "data", folder / "run")
    return folder


def use_dataset(folder):
    for verify in (True, False):
        dataset = tfctr.Dataset.load(folder / "data", verify=verify)
        for name in dataset.splits:
            assert getattr(dataset, name).rows


def use_run(folder):
    run = load_run(folder / "run")
    assert run.dataset().valid.rows
    assert run.model.name
    assert run.origin["config"]


def refusals(folder, name, file, bits):
    """How many of these bits, flipped alone, make the dataset or the run one that is refused."""
    path, use = folder / name / file, {"data": use_dataset, "run": use_run}[name]
    whole, refused = path.read_bytes(), 0
    try:
        for bit in bits:
            content = bytearray(whole)
            content[bit // 8] ^= 1 << bit % 8
            path.write_bytes(content)
            try:
                use(folder)
            except TfctrError:
                refused += 1
    finally:
        path.write_bytes(whole)
    use(folder)
    return refused


@pytest.mark.parametrize(("name", "file"), [(name, file) for name, files in FILES.items() for file in files])
@pytest.mark.parametrize("flips", [40, pytest.param(200, marks=pytest.mark.slow)])
def test_any_bit(flips, name, file, folder):
    draw, size = random.Random(flips), (folder / name / file).stat().st_size
    assert refusals(folder, name, file, [draw.randrange(8 * size) for _ in range(flips)]) > 0


def test_the_bits_that_make_a_count_0_or_large(folder):
    numbers = re.finditer(rb'": \d', (folder / "data" / "manifest.json").read_bytes())
    assert refusals(folder, "data", "manifest.json", [8 * (number.end() - 1) + 3 for number in numbers]) > 0


def test_these_are_all_such_files(folder):
    for name, files in FILES.items():
        assert sorted(path.name for path in (folder / name).iterdir() if path.suffix in (".json", ".yaml")) == files
