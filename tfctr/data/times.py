"""Which columns of a new table hold times, and how pandas reads them as they are written."""

import dataclasses
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tfctr.data.evidence import Evidence

_EPOCHS = {"s": (1e8, 4.2e9), "ms": (1e11, 4.2e12), "us": (1e14, 4.2e15), "ns": (1e17, 4.2e18)}
_OUR_SECONDS = (1e9, 2.2e9)  # 2001 to 2039
_UNITS = {"s": 1, "ms": 1e3, "us": 1e6, "ns": 1e9}
_PARTS = {"hour": "hour", "weekday": "day_of_week"}
_CLOCK = re.compile(r"(\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?)( ?[ap]m)?", re.IGNORECASE)
_ZONE = re.compile(r"(Z|[+-]\d{2}:?\d{2})$")
_ISO = re.compile(r"\d{4}([-/.])\d{1,2}\1\d{1,2}([T ]\d{1,2}(:\d{2}(:\d{2}(\.\d+)?)?)? ?(Z|[+-]\d{2}:?\d{2})?)?")
_DAY_OR_MONTH = re.compile(r"\d{1,2}([-/.])\d{1,2}\1(\d{4}|\d{2})(.*)")
_NAMED_MONTH = re.compile(r"\d{1,2}([- ])([A-Za-z]{3,9})\1(\d{4}|\d{2})(.*)")


@dataclasses.dataclass(frozen=True)
class Times:
    """How a column is read as times.

    Args:
        parts: what they tell: "hour", "weekday".
        arguments: further ones of `pandas.to_datetime`.
        width: of numbers whose digits are the time, such as 14102100: how many there are.
        doubt: what is not to be seen in the values.
    """

    parts: tuple[str, ...] = ("hour", "weekday")
    arguments: str = ""
    width: int | None = None
    doubt: str | None = None

    def recipe(self, column: str, name: str) -> str:
        """The lines of Python that add the parts to a pandas table, under names that begin with `name`."""
        digits = f".astype('Int64').astype('string').str.zfill({self.width})" if self.width else ""
        made = "; ".join(f"table['{name}_{part}'] = time.dt.{_PARTS[part]}" for part in self.parts)
        return f"time = pandas.to_datetime(table[{column!r}]{digits}{self.arguments}); {made}"


def find_times(seen: "Evidence", is_named: bool) -> Times | None:
    """The `Times` of a column, None if it holds none; `is_named`: whether its name says that it does."""
    if seen.is_list:
        return None
    if seen.times * 20 >= 19 * seen.given:
        return _written(seen)
    if seen.hours == seen.given and is_named:
        return _HOURS
    if seen.digit_times == seen.given and (is_named or seen.distinct >= 5):
        return _digits("%Y%m%d%H%M%S", len(seen.seen[0]))
    return _epoch(seen, _EPOCHS) if is_named else None


def suspect_times(seen: "Evidence") -> tuple[str | None, Times | None]:
    """(in words what values look like whose name does not say that they are times, the `Times`); None for both otherwise."""
    if seen.is_list or not seen.numbers == seen.given > 0:
        return None, None
    if seen.hours == seen.given and seen.distinct >= 5:
        return "times such as 14102100, the hour 00 of 2014-10-21", _HOURS
    found = _epoch(seen, {unit: tuple(bound * factor for bound in _OUR_SECONDS) for unit, factor in _UNITS.items()})
    return ("times, counted since 1970" if found else None), found


def _epoch(seen: "Evidence", bounds: Mapping[str, tuple[float, ...]]) -> Times | None:
    if seen.numbers != seen.given or seen.least is None:
        return None
    unit = next((unit for unit, (low, high) in bounds.items() if low <= seen.least and seen.most <= high), None)
    return Times(arguments=f", unit={unit!r}") if unit else None


def _digits(form: str, width: int) -> Times:
    return Times(("hour", "weekday") if width > 8 else ("weekday",), f", format={form[: width - 2]!r}", width)


_HOURS = Times(arguments=", format='%y%m%d%H'", width=8)


def _written(seen: "Evidence") -> Times:
    """Of texts: by one example of each form that they have."""
    examples = [text.strip() for text in seen.forms]
    coerce = ", errors='coerce'" if seen.times < seen.given else ""
    clocks = [found for found in map(_CLOCK.fullmatch, examples) if found]
    if len(clocks) == len(examples):
        return Times(("hour",), _formats(map(_clock_format, clocks)) + coerce)
    parts = ("hour", "weekday") if any(":" in text for text in examples) else ("weekday",)
    zone = ", utc=True" if any(":" in text and _ZONE.search(text) for text in examples) else ""
    if all(map(_ISO.fullmatch, examples)):
        return Times(parts, f", format='ISO8601'{zone}{coerce}")
    day_first = seen.days_first >= seen.days_second and (seen.days_first > 0 or any("." in text[:3] for text in examples))
    is_open = not (seen.days_first or seen.days_second or day_first) and any(map(_DAY_OR_MONTH.fullmatch, examples))
    forms = _formats([_format(text, day_first or is_open) for text in examples], f", dayfirst={day_first or is_open}")
    doubt = None
    if is_open:
        doubt = "whether its day or its month comes first is not to be seen: here it is the day; if not, exchange %d and %m"
    if seen.days_first and seen.days_second:
        doubt = "some of its values begin with the day, others with the month: write them alike first"
    return Times(parts, f"{forms}{zone}{coerce}", doubt=doubt)


def _formats(formats: Iterable[str | None], otherwise: str = "") -> str:
    """The arguments that read texts of these formats."""
    found = set(formats)
    return f", format={found.pop()!r}" if len(found) == 1 and None not in found else f", format='mixed'{otherwise}"


def _format(text: str, day_first: bool) -> str | None:
    """What `strptime` calls the form of a date, with a clock or without; None if there is no word for it."""
    if found := _DAY_OR_MONTH.fullmatch(text):
        mark, year, rest = found.groups()
        date = f"%d{mark}%m{mark}" if day_first else f"%m{mark}%d{mark}"
    elif found := _NAMED_MONTH.fullmatch(text):
        mark, month, year, rest = found.groups()
        date = f"%d{mark}{'%b' if len(month) == 3 else '%B'}{mark}"
    else:
        return None
    date += "%Y" if len(year) == 4 else "%y"
    if not rest:
        return date
    between = re.match("[T ,]+", rest)
    clock = _CLOCK.fullmatch(rest[between.end() :]) if between else None
    return f"{date}{between[0]}{_clock_format(clock)}" if between and clock else None


def _clock_format(found: re.Match[str]) -> str:
    """What `strptime` calls the form of a time that `_CLOCK` matches."""
    hour = "%I" if found[4] else "%H"
    form = f"{hour}:%M" + (":%S" if found[2] else "") + (".%f" if found[3] else "")
    return form + (found[4][:-2] + "%p" if found[4] else "")
