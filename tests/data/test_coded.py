"""Tables of other engines by codes: the bytes that their rows give, and no query that lets a row out."""

import itertools
import logging
import re

import ibis
import numpy as np
import pyarrow as pa
import pytest
from kit.at_length import at_length
from kit.engines import contents, put, real_tables
from kit.prepare_oracle import SCHEMA, table

import tfctr
from tfctr.data import coded
from tfctr.errors import ConfigError, DataError, StorageError
from tfctr.features import Categorical, Numeric, Sequence
from tfctr.schema import Schema

CLICKS = Schema([Categorical("user")], label="click")


@pytest.fixture
def shop():
    """`shop(table)`: an Arrow table in SQLite, in the order of its column `place`; its connection is `shop.engine`."""
    engine = ibis.sqlite.connect()
    numbers = itertools.count()

    def make(rows, collation=""):
        name = f"clicks{next(numbers)}"
        rows = pa.table(rows)
        kinds = {pa.string(): f"TEXT {collation}", pa.float64(): "REAL", pa.null(): "TEXT"}
        columns = ", ".join(f'"{field.name}" {kinds.get(field.type, "BIGINT")}' for field in rows.schema)
        engine.con.execute(f"CREATE TABLE {name} ({columns}, place BIGINT)")
        values = ([*row.values(), place] for place, row in enumerate(rows.to_pylist()))
        engine.con.executemany(f"INSERT INTO {name} VALUES ({', '.join('?' * (rows.num_columns + 1))})", values)
        return engine.table(name).order_by("place")

    make.engine = engine
    yield make
    engine.disconnect()


def prepared(tmp_path, given, schema=SCHEMA, **arguments):
    return tfctr.prepare(schema, **given, **arguments, out=tmp_path / f"data{len(list(tmp_path.iterdir()))}")


@pytest.mark.parametrize("division", at_length([{"valid": 0.3}, {}, {"valid": 0.3, "split_by_group": "user"}], {"valid": 0.3}))
def test_the_bytes_of_the_rows(tmp_path, shop, caplog, division):
    given = {"train": shop(table(200)), "test": shop(table(100, seed=1))}
    rows = prepared(tmp_path, given, **division)
    with caplog.at_level(logging.INFO, "tfctr"):
        codes = prepared(tmp_path, given, **division, transfer="codes")
    assert contents(codes.folder) == contents(rows.folder)
    assert {path.name for path in tmp_path.iterdir()} == {"data0", "data1"}
    said = r"the test table: 100 rows of 10 columns \(.*\) from sqlite: \d+ bytes of Arrow as codes, and \d+ of distinct values"
    assert re.search(said, caplog.text)


def test_weights_of_tokens(tmp_path, shop):
    schema = Schema([Sequence("tags", 3, weight_separator=":")], label="click")
    tags = ["a:0.5|b:.3", "b", None, "c:2|a:1e-3|b:0|c", "a:0.5|b:.3"]
    given = {"train": shop({"tags": tags, "click": [1, 0, 0, 1, 1]})}
    of_rows, of_codes = (prepared(tmp_path, given, schema, transfer=how) for how in ("rows", "codes"))
    assert contents(of_codes.folder) == contents(of_rows.folder)
    assert of_codes.train.ids[:, 3:].view("float32")[3].tolist() == np.array([2, 1e-3, 0], "float32").tolist()
    with pytest.raises(DataError, match=r"column 'tags', row 2: found 'b:x'"):
        prepared(tmp_path, {"train": shop({"tags": ["a", "b:x"], "click": [1, 0]})}, schema, transfer="codes")


def test_joined_tables_of_duckdb(tmp_path):
    values = {"user": ["b", "a", None, "b"], "click": [1, 0, 0, 1]}
    views, towns = (ibis.memtable(pa.table({**values, name: ["x", "東京", "y", "x"]})) for name in ("page", "town"))
    joined = views.left_join(towns.distinct(), "user")
    schema = Schema([Categorical(name) for name in ("user", "town", "page")], label="click")
    for clicks in (
        joined,
        joined.select("page", "user", "town", click=1 - joined.click),
        views.mutate(town=views.page.upper()),
    ):
        rows, codes = (
            prepared(tmp_path, {"train": clicks.order_by("click", "user")}, schema, transfer=how) for how in ("rows", "codes")
        )
        assert contents(codes.folder) == contents(rows.folder)


def test_a_further_table(tmp_path, shop):
    clicks = shop({"user": ["b", "a", "b", None], "click": [0, 1, 0, 1]})
    fitted = prepared(tmp_path, {"train": clicks}, CLICKS, transfer="codes")
    further = shop({"user": ["x", None, "a"]})
    assert tfctr.encode(fitted, further, transfer="codes", out=tmp_path / "further").test.ids[:, 0].tolist() == [2, 1, 4]


def test_no_answer_has_two_raw_values_beside_each_other(tmp_path, shop):
    raw = {
        "user": [f"user {number}" for number in range(40)],
        "item": [number % 7 + 5000 for number in range(40)],
        "price": [None, *(number / 8 for number in range(39))],
        "click": [number % 2 for number in range(40)],
    }
    schema = Schema([Categorical("user"), Categorical("item"), Numeric("price", "scaled")], label="click")
    asked = []
    shop.engine.con.set_trace_callback(asked.append)
    try:
        prepared(tmp_path, {"train": shop(raw)}, schema, transfer="codes")
    finally:
        shop.engine.con.set_trace_callback(None)
    answers = [shop.engine.con.execute(query).fetchall() for query in asked if query.lstrip().startswith(("SELECT", "WITH"))]
    secrets = {*raw["user"], *raw["item"]}
    most = [max((len(secrets & set(row)) for row in answer), default=0) for answer in answers]
    assert set(most) == {0, 1}
    assert sorted(len(answer) for answer in answers if len(answer) >= 7) == [7, 40, 40]  # items; users; rows as codes


def test_nulls_empty_and_odd_texts_and_names(tmp_path, shop):
    texts = ["", None, "a", "A", "a ", "á", "a\u0301", "1.50", "nan", "a|b", "%_", "\\", "'", "\u0000x", "東京", "007", "7"]
    numbers = [None, -5, 2**40, *range(len(texts) - 3)]
    given = {
        "c0": texts,
        "code": numbers,
        "v1": texts[::-1],
        "rows": [None] * len(texts),
        "click": [0, *[1] * (len(texts) - 1)],
    }
    schema = Schema([Categorical("c0"), Categorical("code"), Categorical("v1"), Categorical("rows")], label="click")
    given = shop(given)
    rows, codes = (prepared(tmp_path, {"train": given}, schema, transfer=transfer) for transfer in ("rows", "codes"))
    assert contents(codes.folder) == contents(rows.folder)
    assert codes.schema.features[0].size == 3 + 15


def test_an_order_of_several_keys(tmp_path, shop):
    clicks = shop({"user": ["c", "a", "b", None], "day": [2, 1, 2, None], "click": [0, 1, 0, 1]})
    ordered = clicks.order_by(ibis.desc("day", nulls_first=True), clicks.user.upper())
    dataset = prepared(tmp_path, {"train": ordered}, CLICKS, transfer="codes")
    assert dataset.schema.vocabulary_file(dataset.schema.features[0]).read_text().split() == ["a", "b", "c"]
    assert dataset.train.ids[:, 0].tolist() == [1, 4, 5, 3]


def test_an_order_that_is_not_the_last_step_is_refused(tmp_path, shop):
    clicks = shop({"user": ["c", "a"], "click": [0, 1]})
    for late in (clicks.select("user", "click"), clicks.limit(2), clicks.filter(clicks.click >= 0).mutate(x=1)):
        with pytest.raises(ConfigError, match="`order_by` must be a table's last step"):
            prepared(tmp_path, {"train": late}, CLICKS, transfer="codes")
        assert prepared(tmp_path, {"train": late.order_by("user")}, CLICKS, transfer="codes").train.ids[:, 0].tolist() == [3, 4]


def test_a_table_that_changes_meanwhile(tmp_path, shop, monkeypatch):
    clicks = shop({"user": ["b", "a", "b", "c"], "click": [0, 1, 0, 1]})
    write = coded.write_batches
    for change in ("INSERT INTO clicks0 VALUES ('a', 1, 9)", "UPDATE clicks0 SET \"user\" = 'a' WHERE \"user\" = 'c'"):
        written = []

        def write_and_change(*arguments, change=change, written=written):
            found = write(*arguments)
            written.append(found)
            if len(written) == 2:  # the values of both columns
                shop.engine.con.execute(change)
            return found

        monkeypatch.setattr(coded, "write_batches", write_and_change)
        with pytest.raises(StorageError, match=r"the train table: column '(user|click)' changed while it was read"):
            prepared(tmp_path, {"train": clicks}, CLICKS, transfer="codes")
    assert not list(tmp_path.iterdir())


def test_text_that_the_engine_does_not_tell_apart_is_refused(tmp_path, shop):
    clicks = shop({"user": ["a", "b"], "town": ["x", "y"], "click": [0, 1]}, "COLLATE NOCASE")
    with pytest.raises(ConfigError, match=r"the train table: sqlite takes texts .* for one in column 'user'"):
        prepared(tmp_path, {"train": clicks}, CLICKS, transfer="codes")
    exact = clicks.mutate(user=clicks.user.concat("")).order_by("place")
    assert prepared(tmp_path, {"train": exact}, CLICKS, transfer="codes").train.rows == 2


def test_an_empty_table_and_one_without_a_column(tmp_path, shop):
    clicks = shop({"user": ["a", "b"], "click": [0, 1]})
    with pytest.raises(tfctr.errors.DataError, match="the train table has no rows"):
        prepared(tmp_path, {"train": clicks.filter(clicks.click > 7).order_by("place")}, CLICKS, transfer="codes")
    with pytest.raises(tfctr.errors.DataError, match="the train table has no column 'user'"):
        prepared(tmp_path, {"train": clicks.drop("user").order_by("place")}, CLICKS, transfer="codes")
    assert not list(tmp_path.iterdir())


def test_it_is_for_tables_of_ibis(tmp_path):
    given = {"train": {"user": ["a", "b"], "click": [0, 1]}}
    with pytest.raises(ConfigError, match="`transfer` is 'codes', which is for tables of Ibis"):
        prepared(tmp_path, given, CLICKS, transfer="codes")
    with pytest.raises(ConfigError, match="Unknown transfer 'code'"):
        prepared(tmp_path, given, CLICKS, transfer="code")


# engines that are not here


@pytest.mark.parametrize("dialect", ["bigquery", "clickhouse", "snowflake", "trino", "postgres", "duckdb"])
def test_what_is_asked_of_an_engine_compiles(dialect):
    kinds = {"user": "string", "id": "uuid", "tags": "array<string>", "at": "timestamp", "price": "float64", "click": "int64"}
    clicks = ibis.table(kinds, name="clicks").order_by(ibis.desc("at"))
    base, keys = coded.without_order(clicks)
    asked = coded.Queries.of(base, {name: base[name] for name in ("user", "at", "tags", "price", "click")}, keys)
    assert sorted(asked.values) == [0, 1, 4]
    assert all("GROUP BY" in ibis.to_sql(query, dialect) for query in asked.values.values())
    text = str(ibis.to_sql(asked.rows({0: 10, 1: 10_000, 4: 1_000_000}), dialect))
    assert text.count("JOIN") == 3
    assert text.rstrip().endswith(("DESC", "DESC NULLS LAST"))
    assert str(ibis.to_sql(asked.text, dialect)).count("UNION") == 5


# engines that run


@pytest.fixture(params=["postgres", "spark"])
def engine(request):
    return request.getfixturevalue(request.param)


@pytest.mark.slow
def test_the_bytes_of_the_rows_on_engines_that_run(tmp_path, engine):
    given = {
        name: put(engine, pa.table({"row": list(range(rows)), **table(rows, seed)}), tmp_path)
        for name, rows, seed in (("train", 500, 0), ("test", 200, 1))
    }
    made = [tfctr.prepare(SCHEMA, **given, valid=0.2, transfer=how, out=tmp_path / how) for how in ("rows", "codes")]
    assert contents(made[0].folder) == contents(made[1].folder)


@pytest.mark.slow
def test_real_data(tmp_path, real_data, engine):
    tables = real_tables(real_data, "frappe")
    columns = [column for column in tables["valid"].column_names if column not in ("row", "label")]
    given = {split: put(engine, rows, tmp_path) for split, rows in tables.items()}
    schema = Schema([Categorical(column, min_count=2) for column in columns], label="label")
    made = [tfctr.prepare(schema, **given, transfer=how, out=tmp_path / how) for how in ("rows", "codes")]
    assert contents(made[0].folder) == contents(made[1].folder)


@pytest.mark.slow
def test_text_that_postgres_does_not_tell_apart(tmp_path, postgres):
    postgres.raw_sql("CREATE COLLATION loose (provider = icu, locale = 'und-u-ks-level1', deterministic = false)").close()
    postgres.raw_sql("CREATE EXTENSION IF NOT EXISTS citext").close()
    for name, kind in (("loose", "text COLLATE loose"), ("padded", "char(3)"), ("caseless", "citext")):
        postgres.raw_sql(f"CREATE TABLE {name} AS SELECT 'a'::{kind} AS user, 1 AS click").close()
        with pytest.raises(ConfigError, match=r"postgres takes texts .* for one in column 'user'"):
            prepared(tmp_path, {"train": postgres.table(name)}, CLICKS, transfer="codes")
