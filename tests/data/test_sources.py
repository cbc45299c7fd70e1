"""Tables of other engines: the ids of the same rows in a Parquet file, streamed, and errors that leave nothing behind."""

import decimal
import ipaddress
import json
import logging
import types
import uuid

import ibis
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from kit.at_length import at_length
from kit.engines import contents, put, real_tables
from kit.prepare_oracle import SCHEMA, table

import tfctr
from tfctr.config import Config
from tfctr.data import sources
from tfctr.errors import StorageError
from tfctr.evaluation import evaluate, score
from tfctr.features import Categorical, Numeric, Sequence
from tfctr.schema import Schema
from tfctr.training import train

ENGINES = ["postgres", "spark"]
CLICKS = Schema([Categorical("user")], label="click")


def rows_of(rows=500, seed=0):
    return pa.table({"row": list(range(rows)), **table(rows, seed)})


# an engine of our own


@pytest.fixture
def other(monkeypatch):
    """`other(batches)`: a table of an engine that gives these Arrow batches; what it was asked for is in `asked`."""
    asked = []

    def make(batches, kinds):
        def stream(self, chunk_size):
            asked.append((self.columns, chunk_size))
            chosen = pa.schema([kinds.field(name) for name in self.columns])
            return pa.RecordBatchReader.from_batches(chosen, (batch.select(self.columns) for batch in batches))

        monkeypatch.setattr(ibis.Table, "get_backend", lambda self: types.SimpleNamespace(name="other"))
        monkeypatch.setattr(ibis.Table, "to_pyarrow_batches", stream)
        return ibis.table(ibis.Schema.from_pyarrow(kinds), name="clicks")

    make.asked = asked
    return make


def test_rows_stream_in_batches_and_the_log_says_how_many(tmp_path, other, monkeypatch, caplog):
    monkeypatch.setattr(sources, "_CELLS", 20)
    clicks = pa.table({"user": ["a", "b", "a"] * 20, "unused": ["x"] * 60, "click": [0, 1, 0] * 20})
    groups = []
    write = pq.ParquetWriter.write_table
    monkeypatch.setattr(pq.ParquetWriter, "write_table", lambda self, rows: (groups.append(len(rows)), write(self, rows)))
    with caplog.at_level(logging.INFO, "tfctr"):
        given = other(clicks.to_batches(max_chunksize=3), clicks.schema)
        dataset = tfctr.prepare(CLICKS, train=given, out=tmp_path / "data")
    assert dataset.train.ids[:, 0].tolist() == [3, 4, 3] * 20
    assert other.asked == [(("click", "user"), 10)]
    assert groups == [12] * 5  # 10 rows have 20 cells
    said = "the train table: 60 rows of 2 columns (click, user) streamed from other, "
    assert [message for message in caplog.messages if message.startswith(said)]
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_an_engine_that_fails_halfway_leaves_nothing(tmp_path, other):
    def batches():
        yield pa.record_batch({"user": ["a"], "click": [0]})
        raise RuntimeError(
            "An error occurred while calling o7.next.\n: failed\n\tat Java.java:7\nCaused by: the cluster has gone"
        )

    clicks = other(batches(), pa.schema({"user": pa.string(), "click": pa.int64()}))
    with pytest.raises(StorageError, match="the train table cannot be computed by other: the cluster has gone\n"):
        tfctr.prepare(CLICKS, train=clicks, out=tmp_path / "data")
    assert not list(tmp_path.iterdir())


def test_workers_without_pyarrow_are_told_apart(tmp_path, other):
    def batches():
        raise RuntimeError("Job aborted\nModuleNotFoundError: No module named 'pyarrow'\n\tat Java.java:7")
        yield

    clicks = other(batches(), pa.schema({"user": pa.string(), "click": pa.int64()}))
    with pytest.raises(StorageError, match=r"by other: No module named 'pyarrow'\n(.|\n)*PYSPARK_PYTHON"):
        tfctr.prepare(CLICKS, train=clicks, out=tmp_path / "data")


# engines that are not here


@pytest.mark.parametrize("dialect", ["bigquery", "clickhouse", "snowflake", "trino", "postgres", "duckdb"])
def test_what_is_asked_of_an_engine_compiles(dialect):
    kinds = {"user": "string", "id": "uuid", "tags": "array<string>", "at": "timestamp", "price": "float64", "click": "int64"}
    views, items = ibis.table(kinds, name="views"), ibis.table({"user": "string", "town": "string"}, name="items")
    clicks = views.filter(views.price > 1).left_join(items, "user").order_by("at")
    roles = {"user": "", "town": "", "id": "", "click": ""}
    asked = str(ibis.to_sql(clicks.select(**sources.needed(clicks, roles, False, ["tags"])), dialect))
    chosen = asked[: asked.index("FROM")]
    assert all(name in chosen for name in ("user", "town", "id", "click", "tags"))
    assert "price" not in chosen
    assert asked.count("ORDER BY") == 1


# engines that run


@pytest.fixture(params=ENGINES)
def engine(request):
    return request.getfixturevalue(request.param)


@pytest.mark.slow
def test_the_bytes_of_the_same_rows_in_a_file(tmp_path, engine):
    splits = {"train": rows_of(), "test": rows_of(200, seed=1)}
    for name, rows in splits.items():
        pq.write_table(rows, tmp_path / f"{name}.parquet")
    files = {name: tmp_path / f"{name}.parquet" for name in splits}
    tables = {name: put(engine, rows, tmp_path) for name, rows in splits.items()}
    for number, division in enumerate([{"valid": 0.2}, {"valid": 0.2, "split_by_group": "user"}]):
        made = [
            tfctr.prepare(SCHEMA, **given, **division, out=tmp_path / f"{kind}{number}")
            for kind, given in (("file", files), ("engine", tables))
        ]
        assert contents(made[0].folder) == contents(made[1].folder)
    assert tfctr.Schema.infer(files["train"], label="click") == tfctr.Schema.infer(tables["train"], label="click")
    fitted, further = made[0], (files["test"], tables["test"])
    encoded = [tfctr.encode(fitted, given, out=tmp_path / f"encoded{number}") for number, given in enumerate(further)]
    assert contents(encoded[0].folder) == contents(encoded[1].folder)
    assert tfctr.drift(fitted, further[0]) == tfctr.drift(fitted, further[1])
    config = {"model": {"name": "LR"}, "training": {"epochs": 1, "batch_size": 256}}
    run = train(Config.from_dict(config), fitted, tmp_path / "run")
    assert evaluate(run, table=further[0]) == evaluate(run, table=further[1])
    for number, given in enumerate(further):
        score(run, given, out=tmp_path / f"scores{number}.parquet", keep=["user", "score"])
    assert pq.read_table(tmp_path / "scores0.parquet").equals(pq.read_table(tmp_path / "scores1.parquet"))


@pytest.mark.parametrize("name", at_length(["frappe", "criteo-80k", "ml-1m"], then=["frappe"]))
def test_real_data(tmp_path, real_data, engine, name):
    tables = real_tables(real_data, name)
    columns = [column for column in tables["valid"].column_names if column not in ("row", "label")]
    numbers = [column for column in columns if name == "criteo-80k" and column.startswith("I")]
    features = [Numeric(column) if column in numbers else Categorical(column, min_count=2) for column in columns]
    files = {split: tmp_path / f"{split}.parquet" for split in tables}
    for split, rows in tables.items():
        pq.write_table(rows, files[split])
    given = {split: put(engine, rows, tmp_path) for split, rows in tables.items()}
    schema = Schema(features, label="label")
    made = [tfctr.prepare(schema, **some, out=tmp_path / f"data{i}") for i, some in enumerate((files, given))]
    assert contents(made[0].folder) == contents(made[1].folder)


@pytest.mark.slow
def test_types_that_only_postgres_has(tmp_path, postgres):
    name = ibis.util.gen_name("odd")
    columns = {
        "row": "integer",
        "id": "uuid",
        "address": "inet",
        "amount": "numeric",
        "body": "jsonb",
        "tags": "text[]",
        "place": "point",
        "span": "interval",
        "click": "integer",
    }
    with postgres.con.transaction(), postgres.con.cursor() as cursor:
        cursor.execute(f'CREATE TABLE "{name}" ({", ".join(f"{column} {kind}" for column, kind in columns.items())})')
        ids = [uuid.UUID(int=number) for number in (1, 2, 1)]
        for row, id in enumerate(ids):
            values = [row, id, ipaddress.ip_address(f"10.0.0.{row}"), decimal.Decimal("0.1") ** 12 * (row + 1)]
            values += [json.dumps({"a": row}), ["x", "y"][: row + 1], "(1,2)", "1 day", row % 2]
            cursor.execute(f'INSERT INTO "{name}" VALUES ({", ".join(["%s"] * len(values))})', values)
    odd = postgres.table(name).order_by("row")
    features = [Categorical("id"), Categorical("address"), Categorical("amount"), Sequence("tags", max_length=2)]
    dataset = tfctr.prepare(
        Schema([*features, Numeric("price", "scaled", column="amount")], label="click"), train=odd, out=tmp_path / "data"
    )
    files = [dataset.schema.vocabulary_file(feature) for feature in dataset.schema.features[:4]]
    assert [file.read_text().split() for file in files] == [
        [str(ids[0]), str(ids[1])],
        ["10.0.0.0/32", "10.0.0.1/32", "10.0.0.2/32"],
        ["1e-12", "2e-12", "3e-12"],
        ["x", "y"],
    ]
    assert dataset.schema.features[4].mean == pytest.approx(2e-12)
    shares = tfctr.prepare(CLICKS_OF_ID, train=ibis.union(odd, odd.filter(odd.click == 1)), valid=0.5, out=tmp_path / "shares")
    assert shares.train.rows + shares.valid.rows == 4


CLICKS_OF_ID = Schema([Categorical("id")], label="click")


@pytest.mark.slow
def test_a_query_that_fails_at_a_late_row(tmp_path, postgres):
    rows = "SELECT 100 / (700000 - i) AS user, i % 2 AS click FROM generate_series(1, 800000) AS i"
    postgres.raw_sql(f"CREATE VIEW late AS {rows}").close()
    with pytest.raises(StorageError, match="the train table cannot be computed by postgres: division by zero"):
        tfctr.prepare(CLICKS, train=postgres.table("late"), out=tmp_path / "data")
    assert not list(tmp_path.iterdir())
    assert postgres.table("late").limit(3).to_pyarrow().num_rows == 3  # the connection can go on


@pytest.mark.slow
def test_nothing_is_written_to_the_engine(tmp_path, postgres):
    clicks = put(postgres, pa.table({"row": [0, 1, 2], "user": ["b", "a", "b"], "click": [0, 1, 0]}), tmp_path)
    postgres.raw_sql("SET default_transaction_read_only = on").close()
    try:
        dataset = tfctr.prepare(CLICKS, train=clicks, out=tmp_path / "data")
    finally:
        postgres.raw_sql("SET default_transaction_read_only = off").close()
    assert dataset.train.ids[:, 0].tolist() == [3, 4, 3]


@pytest.mark.slow
def test_a_query_that_spark_cannot_compute(tmp_path, spark):
    late = spark.sql("SELECT assert_true(id < 900) AS user, id % 2 AS click FROM range(1000)")
    with pytest.raises(StorageError, match="the train table cannot be computed by pyspark: "):
        tfctr.prepare(CLICKS, train=late.mutate(user=late.user.cast("string")), out=tmp_path / "data")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_table_in_memory_joined_to_one_of_an_engine(tmp_path, engine):
    clicks = put(engine, pa.table({"row": [0, 1, 2], "user": ["b", "a", "b"], "click": [0, 1, 0]}), tmp_path)
    towns = ibis.memtable(pa.table({"user": ["a", "b"], "town": ["Paris", "東京"]}))
    joined = clicks.left_join(towns, "user").select("row", "town", "click").order_by("row")
    dataset = tfctr.prepare(Schema([Categorical("town")], label="click"), train=joined, out=tmp_path / "data")
    assert dataset.schema.vocabulary_file(dataset.schema.features[0]).read_text() == "東京\nParis\n"
    assert dataset.train.ids[:, 0].tolist() == [3, 4, 3]
