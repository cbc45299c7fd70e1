"""The data sets of the two papers: the files that a user brings, what becomes of them, and what the papers found on them."""

import dataclasses
import hashlib
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, Self, TypeAlias

import ibis

from tfctr.bundled import examples
from tfctr.config import Config
from tfctr.data.dataset import Dataset
from tfctr.data.engine import Table, quiet
from tfctr.data.preparing import prepare
from tfctr.errors import StorageError, choose, require
from tfctr.schema import RawTable, Schema
from tfctr.storage import read_yaml
from tfctr.types import StrPath

_LOG = logging.getLogger(__name__)
_RATINGS = ("user_id", "movie_id", "rating", "time")
_USERS = ("user_id", "gender", "age", "occupation", "zip")
_CLICKS = ("user_id", "gender", "age", "occupation", "movie_id")
_BLOCK = 1 << 20

Paper: TypeAlias = Literal["tf4ctr", "cetn"]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """One data set.

    Args:
        name: what `tfctr reproduce` calls it.
        source: where its files come from.
        rows: of each published split.
        md5: of each published CSV file, as its publisher tells.
        published: `{table: figures}` of the papers, see `recipes.yaml`.
        simmhn: the arguments of CETN's simMHN there.
        min_count: `{paper: count}` where it is not that of the example schema.
    """

    name: str
    source: str
    rows: Mapping[str, int]
    md5: Mapping[str, str]
    published: Mapping[str, Any]
    simmhn: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    min_count: Mapping[str, int] = dataclasses.field(default_factory=dict)

    @classmethod
    def named(cls, name: str) -> Self:
        """That of one data set. Raises `ConfigError` for an unknown name, with the closest one."""
        return cls(name, **choose(read_yaml(_FILE), name, "data set"))

    def schema(self, paper: Paper) -> Schema:
        """Its columns, as a paper reads them."""
        schema = Schema.load(examples()[self.name.replace("-", "")])
        if paper not in self.min_count:
            return schema
        features = [dataclasses.replace(feature, min_count=self.min_count[paper]) for feature in schema.features]
        return dataclasses.replace(schema, features=features)

    def run(self, paper: Paper) -> Config:
        """The settings of a paper's model on it, as the authors' logs have them."""
        return Config.load(examples()[f"{self.name.replace('-', '')}_{paper}"])

    def tables(self, folder: StrPath) -> dict[str, RawTable]:
        """The arguments of `prepare` that give the user's own copy in `folder`.

        Raises:
            StorageError: a file is not there, with what it is called, where it comes from, and how many rows it has.
        """
        folder = Path(folder)
        with quiet():
            if self.name == "ml-1m" and (folder / "ratings.dat").is_file():
                return {"train": _movielens(folder), "valid": 0.1, "test": 0.1}
            files = {split: self._file(folder, split) for split in self.rows}
            change = _CHANGES.get(self.name)
            return files if change is None else {split: change(_read(file)) for split, file in files.items()}

    def _file(self, folder: Path, split: str) -> Path:
        found = [folder / f"{split}{ending}" for ending in (".csv", ".csv.gz", ".parquet")]
        found = [file for file in found if file.is_file()]
        problem = f"{folder} has no {split}.csv, {split}.csv.gz or {split}.parquet."
        every = " or ".join(filter(None, [", ".join(f"{name}.csv" for name in self.rows), _ELSE.get(self.name)]))
        sizes = ", ".join(f"{rows:,}" for rows in self.rows.values())
        fix = f"get {self.source}, and put {every} there: {sizes} rows"
        require(found, problem, fix=fix, error=StorageError)
        names = " and ".join(file.name for file in found)
        require(len(found) == 1, f"{folder} has {names}.", fix="leave one of them there", error=StorageError)
        return found[0]

    def prepared(self, folder: StrPath, paper: Paper, out: StrPath) -> Dataset:
        """The dataset in `out`, or, where there is none yet, a new one from the user's own copy in `folder`.

        What differs from the published files is a logged warning: other rows, or another MD5 of a `.csv`.
        """
        out = Path(out)
        if (out / "manifest.json").is_file():
            dataset = Dataset.load(out)
        else:
            tables = self.tables(folder)
            for split, published in self.md5.items():
                if (file := self._file(Path(folder), split)).suffix == ".csv" and _md5(file) != published:
                    _LOG.warning("%s is not the published file: its MD5 is not %s", file, published)
            dataset = prepare(self.schema(paper), **tables, out=out)
        for split, rows in self.rows.items():
            if (found := dataset.splits[split].rows) != rows:
                _LOG.warning("%s has %d rows in %s, the papers' has %d", self.name, found, split, rows)
        return dataset


def recipes() -> dict[str, Recipe]:
    """All of them, by their names."""
    return {name: Recipe(name, **values) for name, values in read_yaml(_FILE).items()}


def _read(file: Path) -> Table:
    """A file as DuckDB sees it, every cell as text, so that "007" stays "007"."""
    connection = ibis.duckdb.connect()
    return connection.read_parquet(str(file)) if file.suffix == ".parquet" else connection.read_csv(str(file), all_varchar=True)


def _avazu(table: Table) -> Table:
    """`hour` is "14102100": the hour of the day, the weekday from Monday, 0, on, and whether that is Saturday or Sunday."""
    text = table.hour.cast("string")
    weekday = (ibis.literal("20") + text.substr(0, 6)).as_date("%Y%m%d").day_of_week.index()
    weekend = (weekday >= 5).ifelse("1", "0")
    return table.mutate(hour=text.substr(6, 2), weekday=weekday.cast("string"), weekend=weekend)


def _kkbox(table: Table) -> Table:
    """Of `isrc` the country; of the age, `bd`, seven decades, of which the last is all above 60; other ages are missing."""
    age = table.bd.cast("string").try_cast("int64")
    decade = ibis.least(((age + 9) / 10).floor().cast("int64"), ibis.literal(7))
    bd = age.between(1, 95).ifelse(decade.cast("string"), "")
    return table.mutate(isrc=table.isrc.substr(0, 2), bd=bd)


def _movielens(folder: Path) -> Table:
    """GroupLens' own files: a rating of 4 or 5 is a click; beside it stands what is known of its user."""
    connection, tables = ibis.duckdb.connect(), []
    for name, columns in (("ratings.dat", _RATINGS), ("users.dat", _USERS)):
        file, kinds = folder / name, dict.fromkeys(columns, "VARCHAR")
        require(file.is_file(), f"{file} is missing.", fix="put both files of MovieLens-1M there", error=StorageError)
        tables.append(connection.read_csv(str(file), delim="::", header=False, columns=kinds))
    ratings, users = tables
    joined = ratings.join(users, "user_id").order_by("user_id", "time", "movie_id")
    return joined.select(*_CLICKS, label=(joined.rating.cast("int64") >= 4).cast("int8"))


def _md5(file: Path) -> str:
    found = hashlib.md5(usedforsecurity=False)
    with open(file, "rb") as source:
        while block := source.read(_BLOCK):
            found.update(block)
    return found.hexdigest()


_FILE = Path(__file__).with_name("recipes.yaml")
_CHANGES: dict[str, Callable[[Table], Table]] = {"avazu": _avazu, "kkbox": _kkbox}
_ELSE = {"ml-1m": "ratings.dat and users.dat"}
