"""Shares of the training table as splits: drawn by each row's content, by the values of a column, or cut by time.

| by | which rows are the test split | a share is of |
|---|---|---|
| content | those that a seeded hash of the whole row draws | the rows |
| group | those of the values of a column that a seeded hash of the value draws: a value is in one split | the values |
| time | the last ones in the order of a column, those before them being the valid split | the rows |

Of a draw the shares are expected ones. Of time they are exact, but that rows of one time are never divided: all go where the
middle one of them belongs.
"""

import dataclasses
import logging
from collections.abc import Mapping
from typing import Any

import ibis
import numpy as np

from tfctr.data.columns import Role, as_it_is, read_group, read_number
from tfctr.data.engine import Engine, Table, Value
from tfctr.data.staging import Wanted
from tfctr.errors import DataError, require

_LOG = logging.getLogger(__name__)

_MOMENT = r"^(\d{4}[-/]\d{1,2}[-/]\d{1,2})(?:[T ](\d{1,2}:\d{2}(?::\d{2}(?:\.\d+)?)?) ?(?:Z|([+-])(\d{2}):?(\d{2})?)?)?$"
_DROP = "correct these rows, or drop them"


@dataclasses.dataclass(frozen=True)
class Division:
    """How the rows of the training table become splits.

    Args:
        fractions: `{split: its share}`; what they leave is the train split.
        seed: of a draw.
        by_time, by_group: the column by which rows are divided, at most one of the two; None for each row's whole content.

    Raises:
        ConfigError: both columns, one that is no name, or one without a share.
    """

    fractions: Mapping[str, float]
    seed: int = 0
    by_time: str | None = None
    by_group: str | None = None

    def __post_init__(self) -> None:
        columns = {"split_by_time": self.by_time, "split_by_group": self.by_group}
        given = {name: column for name, column in columns.items() if column is not None}
        require(len(given) < 2, "`split_by_time` and `split_by_group` are both given.", fix="give one of the two")
        for name, column in given.items():
            require(isinstance(column, str) and column, f"`{name}` is {column!r}.", fix="give the name of a column")
            fix = "give a share, such as valid=0.1 (--valid 0.1), or leave it out"
            require(self.fractions, f"`{name}` is {column!r}, but neither `valid` nor `test` is a share.", fix=fix)

    @property
    def wanted(self) -> Wanted:
        """What must be staged beside features and label."""
        if self.by_time is not None:
            expected = "a number, or a date or time as 2024-01-31 or 2024-01-31T10:00"
            what = "the time of the split"
            time = Role(self.by_time, "time", read_time, what, expected, _DROP, takes_times=True)
            is_date = Role(self.by_time, "is_date", read_is_date, what, expected, _DROP, takes_times=True)
            return Wanted(roles=(time, is_date))
        if self.by_group is not None:
            expected = "text or whole numbers"
            return Wanted(roles=(Role(self.by_group, "split_group", read_group, "the group of the split", expected, _DROP),))
        return Wanted(digest=True)

    def divide(self, engine: Engine, table: Table) -> None:
        """Write each row of a staged table, which has what is `wanted`, into the table of its split."""
        if self.by_time is not None:
            drawn = _cut_by_time(engine, table, self.by_time, self.fractions)
        elif self.by_group is not None:
            drawn = table.select("row", split=_draw(f"{self.seed}/" + table.split_group, self.fractions))
        else:
            drawn = _draw_by_content(table, self.fractions, self.seed)
        position = ibis.row_number().over(group_by=drawn.split, order_by=drawn.row)
        drawn = engine.create("drawn", drawn.select("row", "split", position=position))
        for name in ("train", *self.fractions):
            chosen = table.join(drawn.filter(drawn.split == name), "row").drop("row", "split")
            engine.create(name, chosen.drop(*(column for column in _OURS if column in chosen.columns)).rename(row="position"))

    def describe(self, engine: Engine) -> dict[str, Any]:
        """What the manifest says: `{"by", "column", "seed"}`; of time `{"by", "column", "from": {split: its first time}}`."""
        if self.by_time is None:
            by = {"by": "content"} if self.by_group is None else {"by": "group", "column": self.by_group}
            return {**by, "seed": self.seed}
        table, drawn = engine.table("source"), engine.table("drawn")
        both = table.join(drawn.select("row", "split"), "row")
        found = engine.fetch(both.group_by("split").agg(first=both.time.min(), is_date=both.is_date.any()))
        first = {row["split"]: _as_time(row["first"], row["is_date"]) for row in found}
        for name in self.fractions:
            _LOG.info("the %s split: rows from %s on, by the column %r", name, first[name], self.by_time)
        return {"by": "time", "column": self.by_time, "from": {name: first[name] for name in ("train", *self.fractions)}}


_OURS = ("digest", "split_group", "time", "is_date")  # columns that no split keeps


def _draw(text: Value, fractions: Mapping[str, float]) -> Value:
    """The split of each text: the first `fractions` of the range of its MD5 are the named ones, the rest is train."""
    draw = text.hexdigest("md5")
    split = []
    start = 0.0
    for name, fraction in fractions.items():
        start += fraction
        split.append((draw < f"{round(start * 2**32):08x}", name))
    return ibis.cases(*split, else_="train")


def _draw_by_content(table: Table, fractions: Mapping[str, float], seed: int) -> Table:
    """The split of each row, (row, split), by a seeded hash of its content.

    The draw is the MD5 of (seed, digest of the row, how many equal rows came before). So a row keeps its split when other rows
    are added, removed or moved, when the schema changes, and on any engine; equal rows are drawn independently.
    """
    copies = table.select("row", copy=ibis.row_number().over(group_by=table.digest, order_by=table.row), digest=table.digest)
    return copies.select("row", split=_draw(f"{seed}/" + copies.digest + "/" + copies.copy.cast("string"), fractions))


def _cut_by_time(engine: Engine, table: Table, column: str, fractions: Mapping[str, float]) -> Table:
    """The split of each row, (row, split): the last named one has the last rows."""
    _refuse_mixed(engine, table, column)
    rows = engine.fetch(table.agg(rows=table.count()))[0]["rows"]
    times = table.group_by("time").agg(here=table.count())
    until = times.here.sum().over(ibis.cumulative_window(order_by=times.time))
    times = times.select("time", middle=2 * until - times.here)  # twice: of rows n .. m it is n + m
    split = []
    first = rows
    for name in reversed(list(fractions)):
        first -= round(fractions[name] * rows)
        split.append((times.middle >= 2 * first, name))
    times = engine.create("times", times.select("time", split=ibis.cases(*split, else_="train")))
    return table.select("row", "time").join(times, "time").select("row", "split")


def _refuse_mixed(engine: Engine, table: Table, column: str) -> None:
    """Raise `DataError` for a column of numbers and dates, which have no common order."""
    dates, numbers = (table.filter(table.is_date), table.filter(~table.is_date))
    first_date, first_number = (engine.fetch(some.agg(row=some.row.min()))[0]["row"] for some in (dates, numbers))
    if None not in (first_date, first_number):
        raise DataError(
            f"column {column!r} (the time of the split) has a date in row {first_date + 1} and a number in row "
            f"{first_number + 1} of the train table.",
            fix="write all in one way",
        )


def read_time(column: Value) -> tuple[Value, Value]:
    """A number as it is; a date or time in seconds since 1970, in UTC where it has no offset; anything else is bad."""
    kind = column.type()
    if kind.is_timestamp() or kind.is_date():
        time = column.epoch_seconds().cast("float64")
        return time, time.isnull() | time.isinf()
    found, bad = read_number(column)
    number: Value = found
    if kind.is_string() or kind.is_json():
        number = ibis.coalesce(bad.ifelse(None, found), _seconds(as_it_is(column).strip()))
    return number, number.isnull() | number.isnan() | number.isinf()


def read_is_date(column: Value) -> tuple[Value, Value]:
    """Whether a value that `read_time` takes is a date or time."""
    kind = column.type()
    if kind.is_string() or kind.is_json():
        return ibis.coalesce(as_it_is(column).strip().re_search(_MOMENT), False), ibis.literal(False)
    return ibis.literal(kind.is_timestamp() or kind.is_date()), ibis.literal(False)


def _seconds(text: Value) -> Value:
    """The seconds of a date or time that is written with its year first, NULL for another text."""
    day, clock, sign, hours, minutes = (text.re_extract(_MOMENT, group).nullif("") for group in range(1, 6))
    time = (day + " " + ibis.coalesce(clock, "00:00")).try_cast("timestamp").epoch_seconds().cast("float64")
    of_hours: Value = ibis.coalesce(hours.cast("float64") * 3600, 0.0)
    of_minutes: Value = ibis.coalesce(minutes.cast("float64") * 60, 0.0)
    offset = of_hours + of_minutes
    return time + (sign == "-").ifelse(offset, -offset)


def _as_time(value: float, is_date: bool) -> float | str:
    """A number, or a time in UTC, as people read it.

    >>> _as_time(1706695200.25, True), _as_time(1706695200.0, True), _as_time(7.0, False)
    ('2024-01-31T10:00:00.250000', '2024-01-31T10:00:00', 7)
    """
    if is_date:
        return str(np.datetime64(round(value * 1e6), "us")).removesuffix(".000000")
    return int(value) if value.is_integer() else value
