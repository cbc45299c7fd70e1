"""`tfctr.evaluation.score` and `evaluate(table=...)`: raw rows through a model without a server, the bits of all other ways."""

import datetime
import json
import logging

import ibis
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from kit.commands import tfctr_
from kit.saved_models import client_of
from pyarrow import parquet
from typer.testing import CliRunner

import tfctr
from tfctr import Categorical, Numeric, Schema, Sequence
from tfctr.cli import app
from tfctr.config import Config
from tfctr.errors import CalibrationError, ConfigError, DataError, StorageError
from tfctr.evaluation import evaluate, score
from tfctr.serving import LocalServer, export
from tfctr.training import load_run, train

SCHEMA = Schema(
    [Categorical("user"), Sequence("genres", 2), Numeric("price", "scaled"), Numeric("age", "quantile", buckets=5)],
    label="click",
    group="user",
)
BATCH = 64


def clicks(rows, seed, users=50):
    rng = np.random.default_rng(seed)
    user = rng.integers(0, users, rows)
    return pd.DataFrame(
        {
            "user": user.astype(str),
            "genres": ["|".join(map(str, rng.integers(0, 9, length))) for length in rng.integers(0, 4, rows)],
            "price": np.where(rng.random(rows) < 0.05, np.nan, rng.normal(10, 1, rows)),
            "age": rng.integers(18, 90, rows),
            "click": (rng.random(rows) < 0.2 + 0.6 * (user % 2)).astype(int),
        }
    )


TUESDAY = clicks(1_000, 5, users=55)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    dataset = tfctr.prepare(SCHEMA, train=clicks(3_000, 0), valid=clicks(500, 1), test=TUESDAY, out=folder / "data")
    config = Config.from_dict({"model": {"name": "TF4CTR", "embedding_dim": 4}, "training": {"epochs": 1, "batch_size": 256}})
    return train(config, dataset, folder / "run")


@pytest.fixture(scope="module")
def expected(run):
    """The probabilities of Tuesday's rows by `predict`, over the ids that `prepare` wrote."""
    return run.model.predict(run.dataset().test.batches(BATCH, shuffle=False), verbose=0)[:, 0]


def probabilities(file):
    return parquet.read_table(file)["probability"].to_numpy()


def test_a_run_is_scored_without_its_optimizer(run, expected, tmp_path):
    fresh = load_run(run.folder)
    score(fresh, TUESDAY, out=tmp_path / "scores.parquet", batch_size=BATCH)
    assert not fresh.inference_model.compiled
    assert "model" not in vars(fresh), "the moments were not read"
    np.testing.assert_array_equal(probabilities(tmp_path / "scores.parquet"), expected)
    assert fresh.model.compiled


def test_scores_have_the_bits_of_predict_whatever_holds_the_table(run, expected, tmp_path, monkeypatch):
    monkeypatch.setattr("tfctr.evaluation.scoring._BLOCK_ROWS", 3 * BATCH + 5)  # several blocks, each of whole batches
    TUESDAY.to_parquet(tmp_path / "t.parquet")
    TUESDAY.drop(columns="click").to_csv(tmp_path / "t.csv", index=False)
    TUESDAY.to_json(tmp_path / "t.jsonl", orient="records", lines=True)
    frames = [TUESDAY, pa.Table.from_pandas(TUESDAY), TUESDAY.to_dict("list"), ibis.memtable(pa.Table.from_pandas(TUESDAY))]
    tables = [tmp_path / "t.parquet", tmp_path / "t.csv", tmp_path / "t.jsonl", *frames]
    for number, table in enumerate(tables):
        said = score(run, table, out=tmp_path / f"{number}.parquet", batch_size=BATCH)
        np.testing.assert_array_equal(probabilities(tmp_path / f"{number}.parquet"), expected)
        assert parquet.read_schema(tmp_path / f"{number}.parquet").names == ["probability"]
        assert said["rows"] == 1_000
        assert said["mean_probability"] == pytest.approx(expected.mean(dtype=float), rel=1e-12)
    assert said["shares"] == run.dataset().test.shares
    assert said["profile"] == run.dataset().test.profile
    score(run.model, TUESDAY, out=tmp_path / "model.parquet", batch_size=BATCH, data=run.data)
    np.testing.assert_array_equal(probabilities(tmp_path / "model.parquet"), expected)
    assert len(list(tmp_path.iterdir())) == 3 + len(tables) + 1  # no temporary file is left


@pytest.mark.slow
def test_scores_have_the_bits_of_the_served_model(run, tmp_path):
    rows = TUESDAY.head(BATCH)
    score(run, rows, out=tmp_path / "scores.parquet", batch_size=BATCH)
    export(run.model, tmp_path / "served")
    with LocalServer(tmp_path / "served", port=0) as server, client_of(server) as client:
        served = client.predict({name: rows[name].tolist() for name in ("user", "genres", "price", "age")})
    np.testing.assert_array_equal(probabilities(tmp_path / "scores.parquet"), served)


def test_columns_are_kept_as_the_table_has_them(run, expected, tmp_path):
    table = TUESDAY.assign(at=datetime.datetime(2026, 1, 2, 3, 4, 5), bytes=b"\0\1", amount=[[1, 2]] * 1_000)
    score(run, table, out=tmp_path / "some.parquet", keep=["at", "age", "bytes", "amount", "age"], batch_size=BATCH)
    kept = parquet.read_table(tmp_path / "some.parquet")
    assert kept.schema.names == ["at", "age", "bytes", "amount", "probability"]
    assert kept.drop(["probability"]).to_pylist() == pa.Table.from_pandas(table[["at", "age", "bytes", "amount"]]).to_pylist()
    np.testing.assert_array_equal(kept["probability"], expected)
    score(run, table, out=tmp_path / "all.parquet", keep=None, batch_size=BATCH)
    assert parquet.read_schema(tmp_path / "all.parquet").names == [*table.columns, "probability"]
    table.drop(columns=["at", "bytes", "amount"]).to_json(tmp_path / "t.jsonl", orient="records", lines=True)
    score(run, tmp_path / "t.jsonl", out=tmp_path / "json.parquet", keep=["user", "age"], batch_size=BATCH)
    kept = parquet.read_table(tmp_path / "json.parquet")
    assert kept.select(["user", "age"]).to_pydict() == {"user": [*TUESDAY.user], "age": [*TUESDAY.age.astype(str)]}


def test_named_logits_are_written_on_request(run, expected, tmp_path):
    score(run, TUESDAY, out=tmp_path / "all.parquet", outputs=["all"], batch_size=BATCH)
    found = parquet.read_table(tmp_path / "all.parquet").to_pydict()
    assert [*found] == ["probability", "logit", "simple", "complex"]
    logits = run.model(run.dataset().test.ids)
    for name in ("logit", "simple", "complex"):
        np.testing.assert_allclose(found[name], logits[name][:, 0], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(found["probability"], expected)
    score(run, TUESDAY, out=tmp_path / "one.parquet", outputs=["simple"])
    assert parquet.read_schema(tmp_path / "one.parquet").names == ["probability", "simple"]


def test_what_cannot_be_scored_is_refused_before_anything_is(run, tmp_path):
    def refused(error, match, table=TUESDAY, **arguments):
        with pytest.raises(error, match=match):
            score(run, table, **{"out": tmp_path / "scores.parquet", **arguments})
        assert not list(tmp_path.iterdir())

    refused(DataError, "column 'price', row 1000: found 'x'", TUESDAY.assign(price=["1"] * 999 + ["x"]))
    refused(DataError, "has no column 'age'", TUESDAY.drop(columns="age"))
    refused(DataError, r"has no column 'key' \(a column to keep\)", keep=["key"])
    refused(DataError, "the table has a column 'probability'", TUESDAY.assign(probability=1), keep=None)
    refused(DataError, "column 'odd'", TUESDAY.assign(odd=[1 + 2j] * 1_000), keep=["odd"])
    refused(ConfigError, "the model has no output 'simpel'", outputs=["simpel"])
    refused(ConfigError, "`batch_size` is 0", batch_size=0)
    refused(ConfigError, r"give a file that ends in .parquet", out=tmp_path / "scores.csv")
    refused(StorageError, "does not exist", str(tmp_path / "none.csv"))
    with pytest.raises(ConfigError, match="neither a run nor a model"):
        score([0, 1], [0.2, 0.7], out=tmp_path / "scores.parquet")
    (tmp_path / "scores.parquet").write_text("mine")
    with pytest.raises(StorageError, match="already exists"):
        score(run, TUESDAY, out=tmp_path / "scores.parquet")


def test_a_model_of_another_fit_scores_nothing(run, tmp_path):
    other = tfctr.prepare(SCHEMA, train=clicks(500, 9, users=20), out=tmp_path / "other")
    with pytest.raises(ConfigError, match="is of another fit"):
        score(run.model, TUESDAY, out=tmp_path / "scores.parquet", data=tmp_path / "other")
    with pytest.raises(StorageError, match="is not the dataset that"):
        score(run, TUESDAY, out=tmp_path / "scores.parquet", data=tmp_path / "other")
    encoded = tfctr.encode(other, TUESDAY, out=tmp_path / "encoded")
    with pytest.raises(StorageError, match="is not the dataset that"):
        evaluate(run, data=tmp_path / "encoded")
    with pytest.raises(ConfigError, match="is of another fit"):
        evaluate(run.model, encoded.test)


def test_a_raw_table_is_evaluated_as_its_split(run, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        by_split = evaluate(run, "test", batch_size=BATCH)
        before = [record.getMessage().replace("test split", "given table") for record in caplog.records]
        caplog.clear()
        by_table = evaluate(run, table=TUESDAY, batch_size=BATCH)
    assert by_table == by_split
    assert [record.getMessage() for record in caplog.records] == before
    assert evaluate(run.model, table=TUESDAY, batch_size=BATCH, data=run.data) == by_split
    tfctr.encode(run.dataset(), TUESDAY, out=tmp_path / "encoded", split="valid")
    assert evaluate(run, "valid", batch_size=BATCH, data=tmp_path / "encoded") == by_split
    with pytest.raises(ConfigError, match="both a split and a table"):
        evaluate(run, "valid", table=TUESDAY)
    with pytest.raises(DataError, match=r"the given table has no column 'click' \(the label\)"):
        evaluate(run, table=TUESDAY.drop(columns="click"))


def test_the_command_line(run, expected, tmp_path):
    TUESDAY.to_csv(tmp_path / "t.csv", index=False, sep=";")
    command = CliRunner()
    out = tmp_path / "scores.parquet"
    options = ["--separator", ";", "--batch-size", str(BATCH), "--json"]
    done = command.invoke(
        app, ["score", str(run.folder), f"{tmp_path}/t.csv", "--out", str(out), "--keep", "user", "--output", "all", *options]
    )
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["rows"] == 1_000
    assert parquet.read_schema(out).names == ["user", "probability", "logit", "simple", "complex"]
    np.testing.assert_array_equal(probabilities(out), expected)
    done = command.invoke(app, ["score", str(run.folder), f"{tmp_path}/t.csv", "--out", str(out), *options])
    assert done.exit_code == StorageError.exit_code
    both = ["score", str(run.folder), f"{tmp_path}/t.csv", "--out", f"{tmp_path}/b.parquet", "--keep", "user", "--keep-all"]
    assert command.invoke(app, both).exit_code == ConfigError.exit_code
    done = command.invoke(app, ["evaluate", str(run.folder), "--table", f"{tmp_path}/t.csv", "--separator", ";", "--json"])
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["auc"] == pytest.approx(evaluate(load_run(run.folder))["auc"], abs=1e-6)


def test_a_click_rate_that_has_moved_is_told(run, tmp_path):
    """The labels are drawn from the model's own probabilities, and from those times 1.3."""
    table = clicks(20_000, 5)
    score(run, table, out=tmp_path / "scores.parquet")
    rng, p = np.random.default_rng(0), probabilities(tmp_path / "scores.parquet")
    same, risen = ({**table, "click": (rng.random(len(p)) < rate * p).astype(int)} for rate in (1.0, 1.3))
    values = evaluate(run, table=same, max_pcoc=0.0)
    assert values["pcoc"] == pytest.approx(1, abs=0.03)
    with pytest.raises(CalibrationError, match=r"predicted over observed clicks is 0\.7.* further from 1 than 0\.0") as caught:
        evaluate(run, table=risen, max_pcoc=0.01)
    assert caught.value.found["pcoc"] == evaluate(run, table=risen)["pcoc"]
    assert evaluate(run, table=risen, max_pcoc=0.5)["pcoc"] == caught.value.found["pcoc"]
    with pytest.raises(ConfigError, match="`max_pcoc` is -1"):
        evaluate(run, table=risen, max_pcoc=-1)
    pd.DataFrame(risen).to_parquet(tmp_path / "risen.parquet")
    command = ["evaluate", run.folder, "--table", tmp_path / "risen.parquet", "--max-pcoc", "0.01"]
    told = tfctr_(*command)
    assert told.exit_code == 5
    assert "pcoc" in told.stdout
    refused = tfctr_(*command, "--json")
    assert json.loads(refused.stdout)["error"]["exit_code"] == 5
