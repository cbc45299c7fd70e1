"""What a user did wrong, said in one form, and the exit code that goes with it.

Every error that tfctr raises on purpose is a `TfctrError`: one line that names the problem (file, column, row, value), and
one line with the fix. The command line prints that text and exits with the class's code; anything else is a bug of ours.

| exit code | class | meaning |
|---|---|---|
| 0 | | done |
| 2 | `ConfigError` | a schema, configuration or argument cannot be used |
| 3 | `DataError` | a table holds what it must not hold |
| 4 | `TrainingError` | training became non-finite, or computes wrongly on this machine (`tfctr doctor`) |
| 5 | `ExportError` | an exported model failed the check, or is worse than the live one, and was not published |
| 5 | `CalibrationError` | predicted clicks are too far from the observed ones |
| 5 | `DriftError` | a table is further from the training table than it may be |
| 6 | `StorageError` | a file or a server is missing, corrupt or not reachable |
| 7 | `WorkerError` | another worker of a training has ended, or this one cannot begin |
| 70 | any other exception | a bug in tfctr |
"""

import difflib
import math
import numbers
import reprlib
from collections.abc import Iterable, Mapping
from typing import Any


class TfctrError(Exception):
    """The base of all expected errors: what is wrong, and what to do about it.

    >>> print(DataError("column 'click', row 7: the label is 2.", fix="map labels to 0 and 1"))
    column 'click', row 7: the label is 2.
      fix: map labels to 0 and 1
    """

    exit_code = 70

    def __init__(self, problem: str, *, fix: str | None = None) -> None:
        super().__init__(problem if fix is None else f"{problem}\n  fix: {fix}")
        self.problem = problem
        self.fix = fix


class ConfigError(TfctrError, ValueError):
    """A schema, a configuration or an argument cannot be used."""

    exit_code = 2


class DataError(TfctrError, ValueError):
    """A table holds what it must not hold."""

    exit_code = 3


class TrainingError(TfctrError, ArithmeticError):
    """Training became non-finite."""

    exit_code = 4


class ExportError(TfctrError, RuntimeError):
    """An exported model failed the check, or is worse than the live one, and was not published."""

    exit_code = 5


class CalibrationError(TfctrError, ValueError):
    """Predicted clicks are further from the observed ones than they may be; `found` is what `evaluate` would have returned."""

    exit_code = 5

    def __init__(self, found: Mapping[str, Any], problem: str) -> None:
        fix = "train on new rows; or calibrate on a valid split of them: tfctr export --calibrate best"
        super().__init__(f"{problem}.", fix=fix)
        self.found = found


class DriftError(TfctrError, ValueError):
    """A table is further from the training table than it may be; `found` is what `tfctr.drift` would have returned."""

    exit_code = 5

    def __init__(self, found: Mapping[str, Mapping[str, Any]], excesses: Iterable[str]) -> None:
        fix = "look at these columns of the table; if the world has changed, train on new rows"
        super().__init__(f"the table is too far from training: {'; '.join(excesses)}.", fix=fix)
        self.found = found


class StorageError(TfctrError, OSError):
    """A file or a server is missing, corrupt or not reachable."""

    exit_code = 6


class WorkerError(TfctrError, RuntimeError):
    """Another worker of a training has ended, or this one cannot begin."""

    exit_code = 7


def require(condition: object, problem: str, *, fix: str, error: type[TfctrError] = ConfigError) -> None:
    """Raise `error`, which names the problem and the fix, unless the condition holds.

    >>> require(1 + 1 == 2, "Numbers are broken.", fix="use others")
    >>> require(False, "feature 'age': `buckets` is 1.", fix="use a whole number of at least 2")
    Traceback (most recent call last):
    tfctr.errors.ConfigError: feature 'age': `buckets` is 1.
      fix: use a whole number of at least 2
    """
    if not condition:
        raise error(problem, fix=fix)


def did_you_mean(name: object, options: Iterable[str]) -> str:
    """The sentence that ends an unknown-name error: the closest option, and all of them.

    >>> did_you_mean("pooing", ["name", "pooling"])
    "Did you mean 'pooling'? Expected one of: name, pooling."
    """
    options = sorted(options)
    folded = {option.casefold(): option for option in options}
    close = difflib.get_close_matches(str(name), options, n=1) or [
        folded[option] for option in difflib.get_close_matches(str(name).casefold(), folded, n=1)
    ]
    hint = f"Did you mean {close[0]!r}? " if close else ""
    return f"{hint}Expected one of: {', '.join(options)}."


def require_one_of(options: Iterable[str], name: object, what: str) -> None:
    """Raise `ConfigError`, which lists the names there are, unless `name` is one of them."""
    if name not in tuple(options):
        raise ConfigError(f"Unknown {what} {reprlib.repr(name)}.", fix=did_you_mean(name, options))


def choose(options: Mapping[str, Any], name: Any, what: str) -> Any:
    """`options[name]`, or a `ConfigError` that lists the names there are."""
    require_one_of(options, name, what)
    return options[name]


def require_number(argument: str, value: Any, least: float = -math.inf, most: float = math.inf) -> None:
    """Raise `ConfigError`, naming the argument, unless `value` is a finite number in [least, most].

    >>> require_number("alpha", "0.3", 0, 1)
    Traceback (most recent call last):
    tfctr.errors.ConfigError: `alpha` is '0.3'.
      fix: use a number in [0, 1]
    """
    if _is_a(numbers.Real, value) and math.isfinite(value) and least <= value <= most:
        return
    bounds = f"in [{least}, {most}]" if most < math.inf else f"of at least {least}" if least > -math.inf else ""
    raise ConfigError(f"`{argument}` is {reprlib.repr(value)}.", fix=f"use a number {bounds}".rstrip())


def require_positive(argument: str, value: Any) -> None:
    """Raise `ConfigError`, naming the argument, unless `value` is a finite number above 0."""
    if not _is_a(numbers.Real, value) or not 0 < value < math.inf:
        raise ConfigError(f"`{argument}` is {reprlib.repr(value)}.", fix="use a number above 0")


def require_count(argument: str, value: Any, least: float = 1, most: float = math.inf) -> None:
    """Raise `ConfigError`, naming the argument, unless `value` is a whole number in [least, most]."""
    if not _is_a(numbers.Integral, value) or not least <= value <= most:
        bounds = f"in [{least}, {most}]" if most < math.inf else f"of at least {least}"
        raise ConfigError(f"`{argument}` is {reprlib.repr(value)}.", fix=f"use a whole number {bounds}")


def _is_a(kind: type, value: object) -> bool:
    """Whether a value is a number of this kind; true and false are none."""
    return isinstance(value, kind) and not isinstance(value, bool)
