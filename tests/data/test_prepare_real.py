"""`tfctr.prepare` on real data against the brute-force oracle."""

import ibis
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from kit.prepare_oracle import expected_ids

import tfctr
from tfctr.features import Categorical, Numeric, Sequence
from tfctr.schema import Schema


def head(folder, name, rows, out):
    """The first rows of a Parquet file, as a table and as a file in `out`: the oracle is slow."""
    table = pq.read_table(folder / f"{name}.parquet").slice(0, rows)
    pq.write_table(table, out / f"{name}.parquet")
    return table, out / f"{name}.parquet"


def check(dataset, schema, tables):
    """Compare every fifth row of each split with the oracle."""
    columns = {name: {f.name: table[f.name].to_pylist() for f in schema.features} for name, table in tables.items()}
    for name, table in tables.items():
        split = getattr(dataset, name)
        assert split.rows == len(table)
        some = {column: values[::5] for column, values in columns[name].items()}
        np.testing.assert_array_equal(split.ids[::5], expected_ids(schema, columns["train"], some))
        np.testing.assert_array_equal(split.labels, table["label"].to_numpy())


def test_frappe(real_data, tmp_path):
    heads = {name: head(real_data("frappe"), name, 10_000, tmp_path) for name in ("train", "valid", "test")}
    tables, files = ({name: pair[i] for name, pair in heads.items()} for i in (0, 1))
    names = ["user", "item", "daytime", "weekday", "isweekend", "homework", "cost", "weather", "country", "city"]
    schema = Schema([Categorical(name) for name in names], label="label", group="user")
    dataset = tfctr.prepare(schema, **files, out=tmp_path / "data")
    check(dataset, schema, tables)
    users = np.concatenate([table["user"].to_numpy() for table in tables.values()])
    codes = np.concatenate([getattr(dataset, name).groups for name in tables])
    assert len(set(zip(users, codes, strict=True))) == len(set(users)) == len(set(codes))


def test_criteo(real_data, tmp_path):
    heads = {name: head(real_data("criteo-80k"), name, 5_000, tmp_path) for name in ("train", "valid")}
    tables, files = ({name: pair[i] for name, pair in heads.items()} for i in (0, 1))
    counts = [Numeric(f"I{number}", min_count=1 + number % 3) for number in range(1, 14)]
    schema = Schema([*counts, *(Categorical(f"C{number}", min_count=2) for number in range(1, 27, 4))], label="label")
    check(tfctr.prepare(schema, **files, out=tmp_path / "data"), schema, tables)


def test_movielens_with_genres_joined_by_ibis(real_data, tmp_path):
    folder = real_data("ml-1m")
    movies = ibis.memtable(pq.read_table(folder / "movies.parquet"))
    tables = {name: pq.read_table(folder / f"{name}.parquet").slice(0, 20_000) for name in ("train", "test")}
    joined = {name: ibis.memtable(table).left_join(movies, "movie_id").order_by("row") for name, table in tables.items()}
    schema = Schema(
        [
            Categorical("movie_id", min_count=2),
            Categorical("user_id"),
            Sequence("genres", max_length=4),
            Numeric("age", "scaled"),
        ],
        label="label",
        group="user_id",
    )
    dataset = tfctr.prepare(schema, **joined, out=tmp_path / "data")
    genres = dict(pq.read_table(folder / "movies.parquet", columns=["movie_id", "genres"]).to_pandas().to_numpy())
    for name, table in tables.items():
        column = pa.array([genres[movie] for movie in table["movie_id"].to_pylist()])
        tables[name] = table.append_column("genres", column).sort_by("row")
    check(dataset, schema, tables)
