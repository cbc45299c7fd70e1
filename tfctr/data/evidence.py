"""What a column of a new table holds, and how much it tells of the label alone: what a draft is made from.

A column is grouped by its value once, with the rows and the clicks of each; everything is counted from those groups, on whole
tables and exactly. Three AUCs say what the column alone is worth, each as `max(AUC, 1 - AUC)`:

| AUC | rows are ordered by |
|---|---|
| `order` | the number, or the time, with missing ones below or above all |
| `token` | the click rate of their value among the other half of the rows, so that values seen once say nothing |
| `missing` | whether the value is missing |
"""

import dataclasses
import decimal
from collections.abc import Mapping
from typing import Any

import ibis
import numpy as np

from tfctr.data.columns import is_readable, read_list, read_number, read_text
from tfctr.data.engine import Engine, Table, Value
from tfctr.token_text import SEVERAL_WHOLE

MARKS = ("|", ";", "^", "~", "\t", ",", "/", " ")

MOST_ODD = 20
_MOST_FORMS = 50

_NUMBER = r"^\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?\s*$"  # 7e091613 is a hash, not a number
_NO_NUMBER = ("nan", "inf", "+inf", "-inf", "infinity", "+infinity", "-infinity")
_TIMES = (
    r"^\d{4}[-/.]\d{1,2}[-/.]\d{1,2}([T ].*)?$",
    r"^\d{1,2}[-/]\d{1,2}[-/](\d{4}|\d{2})([T ,].*)?$",
    r"^\d{1,2}\.\d{1,2}\.\d{4}([T ,].*)?$",
    r"^\d{1,2}[- ][A-Za-z]{3,9}[- ]\d{2,4}([T ,].*)?$",
    r"^\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?( ?[aApP][mM])?$",
)
_DATE = r"^\d{4}[-/.]\d{1,2}[-/.]\d|^\d{1,2}\.\d{1,2}\.\d{4}"
_DIGIT_TIMES = r"^(19|20)\d\d(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])(([01]\d|2[0-3])([0-5]\d){0,2})?$"  # 20240131, 2024013123
_HOURS = r"^\d\d(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])([01]\d|2[0-3])$"  # 14102100
_AMOUNT = (
    r"^\s*[+-]?\d+,\d+\s*$",  # 12,5
    r"^\s*[+-]?\d{1,3}([,.' ]\d{3})+([.,]\d+)?\s*$",  # 1,234.5
    r"^\s*[$€£¥]\s?[+-]?\d[\d.,]*\s*$|^\s*[+-]?\d[\d.,]*\s?[%$€£¥]\s*$",  # 12 %
)
_STOPWORDS = ("the", "a", "an", "of", "and", "in", "to", "is", "for", "with", "on", "der", "die", "und", "de", "la", "le", "et")


@dataclasses.dataclass(frozen=True)
class Split:
    """What the texts of a column are when they are cut at a mark; counts are of tokens, in all rows."""

    rows: int  # with the mark
    lengths: dict[int, int]  # how many rows have so many tokens, ascending; rows without any left out
    tokens: int
    distinct: int
    once: int  # distinct ones that one row has
    stripped: int  # distinct ones without the blanks, quotes and brackets around them
    characters: int
    words: int
    fractions: int
    stopwords: int

    @property
    def longest(self) -> int:
        return max(self.lengths, default=0)

    def quantile(self, percent: int) -> int:
        """The least length that is at least that of so many of 100 rows with tokens; 0 if there are none."""
        below = np.cumsum(list(self.lengths.values()))
        return list(self.lengths)[np.searchsorted(100 * below, percent * below[-1])] if self.lengths else 0

    def share_above(self, length: int) -> float:
        """How large a share of the rows with tokens has more than `length`."""
        above = sum(rows for each, rows in self.lengths.items() if each > length)
        return above / max(1, sum(self.lengths.values()))


@dataclasses.dataclass(frozen=True)
class Evidence:
    """One column; counts are of rows."""

    name: str
    is_list: bool
    rows: int
    clicks: int
    given: int
    distinct: int
    bad: int  # neither token nor number
    no_tokens: int  # with a fraction, or above 2**53 in a double
    numbers: int
    fractions: int
    zeros: int  # 007
    beyond: int  # whole numbers that a double does not hold
    brackets: int  # a list written as text: "['a', 'b']"
    times: int
    digit_times: int
    hours: int
    days_first: int  # 31/12/2024
    days_second: int  # 12/31/2024
    amounts: int  # 12,5 or 1,234 or 12 %
    least: Any  # this and the next two are numbers, None in a column without any
    median: Any
    most: Any
    seen: tuple[str, ...]  # the most frequent values
    odd: tuple[str, ...]  # the most frequent values that are no numbers, if most are
    odd_distinct: int
    forms: tuple[str, ...]  # of times: one value of each way to write them
    splits: dict[str, Split]
    order: float  # AUCs, see above; .5 where there is none
    order_of_given: float
    token: float
    missing: float

    @property
    def strongest(self) -> float:
        return max(self.order, self.token, self.missing)

    @property
    def order_deviations(self) -> float:
        """How many standard deviations the AUC of the order is away from chance, among what is given."""
        clicks = self.clicks * self.given / self.rows
        others = (self.rows - self.clicks) * self.given / self.rows
        return (self.order_of_given - 0.5) * np.sqrt(12 * clicks * others / (clicks + others + 1))


def as_judged(column: Value) -> Value:
    """A column of any type as `collect` takes it: a time as its seconds; what cannot be read as whether it is there."""
    kind = column.type()
    if kind.is_timestamp() or kind.is_date():
        return column.epoch_seconds().cast("float64")
    if kind.is_time():
        return (column.hour() * 3600 + column.minute() * 60 + column.second()).cast("float64")
    return column if is_readable(kind.value_type if kind.is_array() else kind) else column.notnull().ifelse(1, None)


def collect(engine: Engine, table: Table, column: str, name: str) -> Evidence:
    """The `Evidence` of one column of a table that also has the columns `row` and `label`."""
    kind = table[column].type()
    groups = engine.create(f"groups_{column}", _groups(table, column))
    found = _fetch(engine, groups.agg(**_summary(groups)))[0]
    given_clicks = found.pop("given_clicks")
    marks = {mark: found.pop(f"with {mark}") for mark in MARKS}
    n_missing = found["rows"] - found["given"] - found["bad"]
    clicks_missing = found["clicks"] - given_clicks
    given = groups.filter(groups.value.notnull())
    others = given.filter(~given.is_number)
    some_odd = 0 < found["numbers"] < found["given"]
    shown = given if found["given"] else groups.select("n", value=groups.raw).filter(lambda rows: rows.value.notnull())
    is_ordered = max(found["numbers"], found["times"]) * 2 > found["given"]
    order, order_of_given, median = _order(engine, groups) if is_ordered else (0.5, 0.5, None)
    is_list = kind.is_array() or (kind.is_json() and _holds_lists(engine, table[column]))
    return Evidence(
        name=name,
        is_list=is_list,
        **found,
        seen=_frequent(engine, shown),
        odd=_frequent(engine, others, MOST_ODD) if some_odd else (),
        odd_distinct=_fetch(engine, others.agg(n=others.count()))[0]["n"] if some_odd else 0,
        forms=_forms(engine, given) if found["times"] else (),
        splits=_splits(engine, given, marks, found, is_list),
        median=median,
        order=order,
        order_of_given=order_of_given,
        token=_token(engine, groups, found["rows"], found["clicks"]),
        missing=_auc(np.array([n_missing, found["rows"] - n_missing]), np.array([clicks_missing, given_clicks])),
    )


def _groups(table: Table, column: str) -> Table:
    """One row a value: how many rows and clicks it has, in all and in the first half of the table."""
    kind = table[column].type()
    text, is_bad = read_text(table[column]) if kind.is_string() else read_list("|", table[column])
    number: Value = read_number(table[column])[0] if kind.is_numeric() or kind.is_json() else ibis.null("float64")
    number = number.isnan().ifelse(None, number)
    is_first = (table.row * 2_654_435_761 // 65_536) % 2  # of row numbers, and not of neighbours
    chosen = table.select(
        value=ibis.coalesce(text, number.cast("string")),
        bad=is_bad & number.isnull(),
        no_token=is_bad,
        raw=(is_bad & number.isnull()).ifelse(table[column].cast("string"), None),
        click=table.label.cast("int64"),
        first=is_first.cast("int64"),
    )
    groups = chosen.group_by("value", "bad").agg(
        no_token=chosen.no_token.any(),
        n=chosen.count(),
        clicks=chosen.click.sum(),
        first=chosen["first"].sum(),
        first_clicks=(chosen["first"] * chosen.click).sum(),
        raw=chosen.raw.min(),
    )
    return groups.mutate(is_number=_is_number(groups.value), number=_number(groups.value))


def _holds_lists(engine: Engine, column: Value) -> bool:
    return bool(_fetch(engine, column.as_table().agg(some=column.array.notnull().any()))[0]["some"])


def _splits(engine: Engine, given: Table, marks: dict[str, int], found: Mapping[str, int], is_list: bool) -> dict[str, Split]:
    if not found["given"] or found["numbers"] == found["given"] or found["times"] * 2 > found["given"]:
        marks = {"|": marks["|"]} if is_list and found["given"] else {}
    likely = {mark: rows for mark, rows in marks.items() if rows * 20 >= found["given"] or (is_list and mark == "|")}
    return {mark: _split(engine, given, mark, rows) for mark, rows in likely.items() if rows or is_list}


def _fetch(engine: Engine, expression: Table) -> list[dict[str, Any]]:
    """A small result; DuckDB's sums of whole numbers, which Arrow calls decimals, as int."""
    return [
        {name: int(value) if isinstance(value, decimal.Decimal) else value for name, value in row.items()}
        for row in engine.fetch(expression)
    ]


def _is_number(text: Value) -> Value:
    return (text.re_search(_NUMBER) | text.strip().lower().isin(_NO_NUMBER)) & ~read_number(text)[1]


def _number(text: Value) -> Value:
    number = _is_number(text).ifelse(read_number(text)[0], None)
    is_none: Value = number.isnan() | number.isinf()
    return is_none.ifelse(None, number)


def _is_time(text: Value) -> Value:
    return ibis.or_(*[text.re_search(pattern) for pattern in _TIMES])


def _forms(engine: Engine, given: Table) -> tuple[str, ...]:
    """An example of each way in which the times of a column are written: of those with the same signs between their digits."""
    times = given.filter(_is_time(given.value))
    form = times.value.re_replace(r"\d{4}", "Y").re_replace(r"\d+", "0")
    forms = times.group_by(form=form).agg(example=times.value.min(), n=times.n.sum())
    rows = _fetch(engine, forms.order_by([ibis.desc("n"), "form"]).limit(_MOST_FORMS).select("example"))
    return tuple(row["example"] for row in rows)


def _moment(text: Value) -> Value:
    """The seconds of a time that is written with its year first, or as 31.12.2024."""
    text = text.re_search(_DATE).ifelse(text.re_replace(r"^(\d{1,2})\.(\d{1,2})\.(\d{4})", r"\3-\2-\1"), None)
    return text.try_cast("timestamp").epoch_seconds().cast("float64")


def _summary(groups: Table) -> dict[str, Value]:
    text = groups.value
    number = groups.number
    n = groups.n

    def rows(condition: Value) -> Value:
        holds: Value = ibis.coalesce(condition, False)
        return ibis.coalesce(holds.ifelse(n, 0).sum(), 0)

    is_given: Value = text.notnull() | groups.bad
    is_whole = text.re_search(r"^\s*[+-]?\d+\s*$")
    return {
        "rows": n.sum(),
        "clicks": groups.clicks.sum(),
        "given_clicks": ibis.coalesce(is_given.ifelse(groups.clicks, 0).sum(), 0),
        "given": rows(text.notnull()),
        "distinct": text.nunique(),
        "bad": rows(groups.bad),
        "no_tokens": rows(groups.no_token),
        "numbers": rows(groups.is_number),
        "fractions": rows(number % 1 != 0),
        "zeros": rows(text.re_search("^-?0[0-9]")),
        "beyond": rows(is_whole & (number.abs() >= SEVERAL_WHOLE)),
        "brackets": rows(text.re_search(r"^\s*\[.*\]\s*$")),
        "times": rows(_is_time(text)),
        "digit_times": rows(text.re_search(_DIGIT_TIMES)),
        "hours": rows(text.re_search(_HOURS)),
        "days_first": rows(text.re_search(r"^(1[3-9]|2\d|3[01])[-/.]\d{1,2}[-/.]\d")),
        "days_second": rows(text.re_search(r"^\d{1,2}[-/.](1[3-9]|2\d|3[01])[-/.]\d")),
        "amounts": rows(ibis.or_(*[text.re_search(pattern) for pattern in _AMOUNT]) & ~groups.is_number),
        "least": number.min(),
        "most": number.max(),
        **{f"with {mark}": rows(text.contains(mark)) for mark in MARKS},
    }


def _frequent(engine: Engine, groups: Table, count: int = 3) -> tuple[str, ...]:
    rows = _fetch(engine, groups.order_by([ibis.desc("n"), "value"]).limit(count).select("value"))
    return tuple(row["value"] for row in rows)


def _split(engine: Engine, given: Table, mark: str, rows: int) -> Split:
    cut = given.select("n", parts=given.value.split(mark).filter(lambda token: token != ""))
    of_length = cut.select("n", length=cut.parts.length()).filter(lambda row: row.length > 0).group_by("length")
    lengths = _fetch(engine, of_length.agg(rows=lambda alike: alike.n.sum()).order_by("length"))
    tokens = cut.select("n", token=cut.parts).unnest("token")
    token = tokens.token.re_replace(r"^\s*\[?\s*['\"]?|['\"]?\s*\]?\s*$", "")
    words = (token.length() - token.re_replace(r"\s+", "").length() + 1) * tokens.n
    found = _fetch(
        engine,
        tokens.agg(
            tokens=tokens.n.sum(),
            distinct=tokens.token.nunique(),
            stripped=token.nullif("").nunique(),
            characters=(token.length() * tokens.n).sum(),
            words=words.sum(),
            fractions=token.re_search(r"^\[?\s*[+-]?\d*\.\d+([eE][+-]?\d+)?\s*\]?$").ifelse(tokens.n, 0).sum(),
            stopwords=token.lower().isin(_STOPWORDS).ifelse(tokens.n, 0).sum(),
        ),
    )[0]
    counts = tokens.group_by("token").agg(n=tokens.n.sum())
    once = _fetch(engine, counts.filter(counts.n == 1).agg(once=lambda alone: alone.count()))[0]["once"]
    lengths = {row["length"]: row["rows"] for row in lengths}
    return Split(rows=rows, lengths=lengths, once=once, **{name: count or 0 for name, count in found.items()})


# what the column alone tells


def _order(engine: Engine, groups: Table) -> tuple[float, float, float | None]:
    """(the AUC with what is missing, the one without it, the median)."""
    groups = groups.mutate(number=ibis.coalesce(groups.number, _moment(groups.value)))
    numbers = groups.group_by("number").agg(n=groups.n.sum(), clicks=groups.clicks.sum())
    found = engine.stream(numbers.order_by("number")).read_all()  # NULL is the first or the last
    is_missing = found["number"].is_null().to_numpy()
    n = found["n"].to_numpy().astype(float)
    clicks = found["clicks"].to_numpy().astype(float)
    given = n[~is_missing], clicks[~is_missing]
    below = [np.append(values[is_missing], values[~is_missing]) for values in (n, clicks)]
    above = [np.append(values[~is_missing], values[is_missing]) for values in (n, clicks)]
    numbers = found["number"].drop_null().to_numpy()
    median = float(numbers[np.searchsorted(np.cumsum(given[0]), given[0].sum() / 2)]) if len(numbers) else None
    return max(_auc(*below), _auc(*above)), _auc(*given), median


def _token(engine: Engine, groups: Table, rows: int, clicks: int) -> float:
    prior = clicks / rows
    keys = {
        "n0": groups["first"],
        "clicks0": groups.first_clicks,
        "n1": groups.n - groups["first"],
        "clicks1": groups.clicks - groups.first_clicks,
    }
    alike = groups.select(**keys).group_by(*keys).agg(values=lambda table: table.count())
    found = {
        name: column.to_numpy().astype(float)
        for name, column in zip((*keys, "values"), engine.stream(alike.select(*keys, "values")).read_all().columns, strict=True)
    }
    halves = []
    for known, judged in (("0", "1"), ("1", "0")):
        rate = (found[f"clicks{known}"] + prior) / (found[f"n{known}"] + 1)
        order = np.argsort(rate)
        _, tie = np.unique(rate[order], return_inverse=True)
        n = np.bincount(tie, (found[f"n{judged}"] * found["values"])[order])
        halves.append(_auc_of(n, np.bincount(tie, (found[f"clicks{judged}"] * found["values"])[order])))
    return max(0.5, float(np.mean(halves)))  # below .5 is chance: rates were learnt with the right sign


def _auc(n: np.ndarray, clicks: np.ndarray) -> float:
    auc = _auc_of(n, clicks)
    return max(auc, 1 - auc)


def _auc_of(n: np.ndarray, clicks: np.ndarray) -> float:
    """The AUC of groups in ascending order, ties counted half; .5 where one class is absent."""
    others = n - clicks
    pairs = clicks.sum() * others.sum()
    return float((clicks * (np.cumsum(others) - others / 2)).sum() / pairs) if pairs else 0.5
