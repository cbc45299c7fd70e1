"""`tfctr.drift`: what a further table has of each feature beside training, and limits that end a pipeline."""

import json

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import tfctr
from tfctr import Categorical, Numeric, Schema
from tfctr.cli import app
from tfctr.errors import ConfigError, DataError, DriftError, StorageError

SCHEMA = Schema([Categorical("user"), Numeric("price", "scaled"), Numeric("age", "quantile", buckets=4)], label="click")


def clicks(rows, seed, users=60, shift=0.0, missing=0.1):
    rng = np.random.default_rng(seed)
    ages = np.where(rng.random(rows) < missing, np.nan, rng.integers(18, 90, rows))
    columns = {"user": rng.integers(0, users, rows).astype(str), "price": rng.normal(10 + shift, 1, rows), "age": ages}
    return {**columns, "click": rng.integers(0, 2, rows)}


@pytest.fixture(scope="module")
def monday(tmp_path_factory):
    return tfctr.prepare(SCHEMA, train=clicks(3_000, 0), out=tmp_path_factory.mktemp("monday") / "data")


def test_it_says_what_encode_says_and_writes_nothing(monday, tmp_path):
    tuesday = clicks(900, 1, users=80, shift=0.5)
    encoded = tfctr.encode(monday, tuesday, out=tmp_path / "tuesday").test
    before = sorted(monday.folder.rglob("*"))
    found = tfctr.drift(monday, {name: values for name, values in tuesday.items() if name != "click"})
    assert found == {name: {**encoded.shares[name], **encoded.profile[name]} for name in ("user", "price", "age")}
    assert sorted(monday.folder.rglob("*")) == before


def test_a_folder_of_encode_is_not_read_again(monday, tmp_path):
    raw = clicks(900, 1, users=80, shift=0.5)
    encoded = tfctr.encode(monday, raw, out=tmp_path / "tuesday")
    expected = tfctr.drift(monday, raw)
    for given in (encoded, encoded.folder, str(encoded.folder)):
        assert tfctr.drift(monday, given) == expected
    with pytest.raises(DriftError, match="'price': psi"):
        tfctr.drift(monday, encoded, max_psi=0.1)
    done = CliRunner().invoke(app, ["drift", str(monday.folder), str(encoded.folder), "--json"])
    assert json.loads(done.stdout)["features"]["user"]["unseen"] == expected["user"]["unseen"]


def test_a_folder_of_another_fit_is_refused(monday, tmp_path):
    other = tfctr.prepare(extend=monday, train=clicks(900, 1, users=80), out=tmp_path / "other")
    with pytest.raises(ConfigError, match=r"other is a dataset with a fit of its own.*\n  fix: give its raw table"):
        tfctr.drift(monday, other)
    encoded = tfctr.encode(other, clicks(100, 2), out=tmp_path / "encoded")
    with pytest.raises(ConfigError, match="encoded is of another fit"):
        tfctr.drift(monday, encoded.folder)


def test_a_table_like_training_exceeds_no_limit(monday):
    """However small: what chance explains is none, and of 3 features not one in a hundred tables has more."""
    found = tfctr.drift(monday, clicks(3_000, 1), max_psi=0, max_unseen=0.02, max_missing=0.05)
    assert all(0 <= one["psi"] < one["psi_by_chance"] < 0.05 for one in found.values())


@pytest.mark.parametrize(
    ("limit", "column", "table"),
    [
        ({"max_psi": 0.25}, "price", {"shift": 1.0}),
        ({"max_unseen": 0.3}, "user", {"users": 120}),
        ({"max_missing": 0.2}, "age", {"missing": 0.5}),
    ],
)
def test_each_limit_names_the_feature_that_exceeds_it(monday, limit, column, table):
    with pytest.raises(DriftError, match=rf"too far from training: '{column}': {next(iter(limit))[4:]} ") as caught:
        tfctr.drift(monday, clicks(900, 1, **table), **limit)
    assert "; '" not in caught.value.problem  # no other feature
    assert caught.value.found == tfctr.drift(monday, clicks(900, 1, **table), **dict.fromkeys(limit, 3))
    assert caught.value.exit_code == 5


def test_what_cannot_be_compared_is_refused(monday, tmp_path):
    with pytest.raises(ConfigError, match="`max_psi`"):
        tfctr.drift(monday, clicks(90, 1), max_psi=-1)
    with pytest.raises(DataError, match="column 'price', row 90: found 'x'"):
        tfctr.drift(monday, {**clicks(90, 1), "price": ["1"] * 89 + ["x"]})
    elsewhere = Schema.from_config({**monday.schema.get_config(), "folder": str(tmp_path)})
    with pytest.raises(ConfigError, match="nothing is known of the training table"):
        tfctr.drift(elsewhere, clicks(90, 1))
    with pytest.raises(StorageError, match="is not a prepared dataset"):
        tfctr.drift(tmp_path, clicks(90, 1))


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_the_command_line(monday, ending, tmp_path):
    pytest.importorskip("matplotlib")
    pd.DataFrame(clicks(900, 1, shift=1.0)).to_csv(tmp_path / "t.csv", index=False)
    command = ["drift", str(monday.folder), f"{tmp_path}/t.csv", "--plot", f"{tmp_path}/drift.{ending}"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()][:2] == ["feature", "price"]
    assert (tmp_path / f"drift.{ending}").stat().st_size > 4_000
    again = CliRunner().invoke(app, command)  # the picture is there
    assert again.exit_code == StorageError.exit_code
    strict = ["drift", str(monday.folder), f"{tmp_path}/t.csv", "--max-psi", "0.25", "--json"]
    refused = CliRunner().invoke(app, strict)
    assert refused.exit_code == 5
    assert json.loads(refused.stdout)["error"]["exit_code"] == 5
    wrong = CliRunner().invoke(app, [*command[:3], "--plot", f"{tmp_path}/drift.txt"])
    assert wrong.exit_code == ConfigError.exit_code
