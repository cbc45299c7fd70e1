"""How one column of any source becomes text or a number, and which of its values are bad.

| rule | takes | gives |
|---|---|---|
| text | text; numbers, as 60, 60.0 or 1.5; true and false | the text; "60", "1.5"; "true", "false" |
| list | as text, or a list of those, also one that was written as text | one text, joined by the separator |
| number | numbers; text that is a number; true and false, also as text in any case | a double; empty text is missing |

A float32 or float16 is everywhere the number that its shortest decimal text means: 0.3, as in a CSV file.

A rule is a function: source column -> (value, whether it is bad).
"""

import dataclasses
import fractions
import functools
import math
from collections.abc import Callable, Iterable
from typing import Any

import ibis

from tfctr.data.canonical import read_written_list, rewritten, rewritten_small
from tfctr.data.engine import Value
from tfctr.data.parts import Part
from tfctr.data.short_floats import widened
from tfctr.errors import DataError
from tfctr.features import Feature, Numeric, Sequence
from tfctr.schema import Label, Schema
from tfctr.token_text import FORMS, GREATEST_WEIGHT, SEVERAL_SHORT, SEVERAL_WHOLE, TRUTH, weighted_token

_GREATEST_WEIGHT = 2.0**128 - 2.0**103  # what float32 rounds to infinity begins here


@dataclasses.dataclass(frozen=True)
class Role:
    """What one column of the source is for.

    Args:
        column: its name in the source.
        staged: its name in the staged table.
        rule: source column -> (value, whether it is bad).
        what: the role, in words.
        expected: what a good value is, in words.
        fix: what to do about a bad one.
        takes_lists, takes_times: whether a value may be a list, or a date or time.
    """

    column: str
    staged: str
    rule: Callable[[Value], tuple[Value, Value]]
    what: str
    expected: str
    fix: str
    takes_lists: bool = False
    takes_times: bool = False

    def read(self, part: Part) -> tuple[Value, Value, Value]:
        """(value, whether it is bad, raw text) of this role's column in a `Part`. Raises `DataError` for its type."""
        raw = part.columns[self.column]
        kind = raw.type()
        is_list = self.takes_lists and kind.is_array() and is_readable(kind.value_type)
        is_time = self.takes_times and (kind.is_timestamp() or kind.is_date())
        if not is_readable(kind) and not is_list and not is_time:
            raise DataError(
                f"{part.name}: column {self.column!r} ({self.what}) is of type {type_name(kind)}.",
                fix=f"convert it to {self.expected}",
            )
        return *self.rule(raw), raw.cast("string")


# A decimal number as DuckDB writes it, such as .50 or -.00, as its shortest text.
_DECIMAL = ((r"^(-?)\.", r"\10."), (r"(\.[0-9]*[1-9])0+$|\.0*$", r"\1"))
_TEXT = "text or whole numbers"
_LISTS = "text, whole numbers, or lists of those"
_NUMBERS = "numbers"
_TAKES_FRACTIONS = (None, "text", "number")  # None: the form is still to be learnt


def feature_column(index: int) -> str:
    """The staged column of the feature at `index` of the schema."""
    return f"f{index}"


def feature_roles(schema: Schema) -> list[Role]:
    """One `Role` for each feature, in their order."""
    return [_feature_role(feature_column(index), feature) for index, feature in enumerate(schema.features)]


def other_roles(label: str | Label, group: str | None = None, weight: str | None = None) -> list[Role]:
    """The roles of the columns beside the features."""
    drop = "correct these rows, or drop them"
    roles = [_label_role(label, drop)]
    if group:
        roles.append(Role(group, "group", read_group, "the group", _TEXT, drop))
    if weight:
        roles.append(Role(weight, "weight", read_weight, "the weight", "a finite number from 0 to 3.4e38", drop))
    return roles


def _label_role(label: str | Label, drop: str) -> Role:
    if not isinstance(label, Label):
        return Role(label, "label", read_label, "the label", "0 or 1", drop)
    if label.threshold is not None:
        rule = functools.partial(read_threshold, label.threshold)
        return Role(label.column, "label", rule, "the label", "a number to compare with the threshold", drop)
    return Role(label.column, "label", functools.partial(read_positive, label.values), "the label", "a value", drop)


def _feature_role(staged: str, feature: Feature) -> Role:
    if isinstance(feature, Numeric):
        fix = "correct the value, leave it empty if it is missing, or make the feature categorical"
        return Role(feature.source, staged, read_number, "a numeric feature", _NUMBERS, fix)
    fix = "write it as text, or make the feature numeric"
    fractions = feature.token_type in _TAKES_FRACTIONS
    if isinstance(feature, Sequence):
        rule = functools.partial(read_list, feature.separator, fractions=fractions)
        fix = f"give lists, or text with {feature.separator!r} between the tokens"
        if feature.weight_separator is not None:
            rule = functools.partial(read_weighted_list, feature, fractions=fractions)
            mark = repr(feature.weight_separator)
            expected = f"tokens, each with a weight from 0 to 1e15 behind its last {mark}, or without one"
            fix = f"correct the weight; if {mark} belongs to the tokens, take another `weight_separator`"
            return Role(feature.source, staged, rule, "a sequence feature with weights", expected, fix, takes_lists=True)
        return Role(feature.source, staged, rule, "a sequence feature", _LISTS, fix, takes_lists=True)
    rule = functools.partial(read_text, fractions=fractions)
    return Role(feature.source, staged, rule, "a categorical feature", _TEXT, fix)


def type_name(kind: Any) -> str:
    """An Ibis type in words; of one that Ibis does not know what DuckDB calls it."""
    return kind.raw_type.sql(dialect="duckdb").lower() if kind.is_unknown() and kind.raw_type is not None else str(kind)


def is_readable(kind: Any) -> bool:
    """Whether an Ibis type is one that the rules take."""
    return kind.is_string() or kind.is_numeric() or kind.is_boolean() or kind.is_json() or kind.is_null()


def as_it_is(column: Value) -> Value:
    """A column with the values of its source; of JSON lines their text."""
    return ibis.coalesce(column.str, column.cast("string")) if column.type().is_json() else column


def read_text(column: Value, fractions: bool = False) -> tuple[Value, Value]:
    """NULL, NaN and "" are missing; infinity, and a floating number that may stand for several whole ones, is bad.

    A number with a fraction is its shortest decimal text, or bad unless `fractions`.
    """
    kind = column.type()
    if kind.is_json():
        text = _json_text(column, fractions)
        return text.nullif(""), text.isnull() & column.notnull()
    if kind.is_boolean():
        return ibis.cases((column, "true"), (~column, "false")), ibis.literal(False)
    if kind.is_floating() or kind.is_decimal():
        text = _number_text(column, fractions)
        return text, text.isnull() & _is_given(column)
    return column.cast("string").nullif(""), ibis.literal(False)


def read_list(separator: str, column: Value, fractions: bool = False) -> tuple[Value, Value]:
    """As text; a list is joined by the separator, and bad when one of its values is, or when it cannot be read from text."""
    kind = column.type()
    if kind.is_array():
        bad = column.map(lambda value: read_text(value, fractions)[1]).contains(True)
        joined = column.map(lambda value: read_text(value, fractions)[0]).join(separator)
        return read_written_list(separator, joined)[0], ibis.coalesce(bad, False)  # as the served graph reads joined tokens
    if kind.is_json():
        text, bad = read_text(column, fractions)
        text, bad_text = read_written_list(separator, text)
        joined, bad_list = read_list(separator, column.array, fractions)
        return ibis.coalesce(text, joined), ibis.ifelse(column.array.notnull(), bad_list, bad | bad_text)
    text, bad = read_text(column, fractions)
    if not kind.is_string():
        return text, bad
    return read_written_list(separator, text)


def read_weighted_list(feature: Sequence, column: Value, fractions: bool = False) -> tuple[Value, Value]:
    """As `read_list`; bad, too, with a token that has a weight separator, and no weight behind it."""
    text, bad = read_list(feature.separator, column, fractions)
    tokens = text.split(feature.separator).filter(lambda token: token.contains(feature.weight_separator))
    bad_tokens = tokens.filter(lambda token: ibis.coalesce(weight_of(feature, token) > GREATEST_WEIGHT, True))
    return text, bad | ibis.coalesce(bad_tokens.length() > 0, False)


def weight_of(feature: Sequence, token: Value) -> Value:
    """The weight behind a token, as a double; NULL where there is none."""
    assert feature.weight_separator is not None
    return token.re_extract(weighted_token(feature.weight_separator), 2).try_cast("float64")


def read_number(column: Value) -> tuple[Value, Value]:
    """A double. NULL, NaN and empty text are missing; any other text that is no number is bad."""
    kind = column.type()
    if kind.is_json():
        column = ibis.coalesce(column.str, column.bool.cast("int8").cast("string"), column.cast("string"))
    elif not kind.is_string():
        return widened(column).cast("float64"), ibis.literal(False)
    text = column.strip().nullif("")
    truth = ibis.cases((text.lower() == "true", 1.0), (text.lower() == "false", 0.0))
    number = ibis.coalesce(text.try_cast("float64"), truth)
    return number, text.notnull() & (number.isnull() | text.contains("("))  # DuckDB reads nan(1), too


def read_label(column: Value) -> tuple[Value, Value]:
    """0.0 or 1.0; anything else is bad."""
    label, bad = read_number(column)
    return label, bad | label.isnull() | label.notin([0.0, 1.0])


def read_threshold(threshold: float, column: Value) -> tuple[Value, Value]:
    """1.0 for numbers of at least `threshold`, else 0.0; missing ones and text are bad."""
    number, bad = read_number(column)
    return (number >= threshold).cast("float64"), bad | number.isnull() | number.isnan()


def read_positive(values: Iterable[str | float | bool], column: Value) -> tuple[Value, Value]:
    """1.0 for one of `values`, else 0.0; a missing value is bad. Numbers are compared as numbers, true being 1."""
    number = read_number(column)[0]
    text = label_text(column)
    is_number = number.notnull() & ~number.isnan()
    is_positive = [_equals(value, number, is_number, text) for value in values]
    is_click: Value = ibis.or_(*is_positive)
    return is_click.cast("float64"), ~is_number & text.isnull()


def _equals(value: Any, number: Value, is_number: Value, text: Value) -> Value:
    """Whether a label is `value`."""
    wanted = as_label_number(value)
    if wanted is None:
        return ibis.coalesce(text == value.strip(), False)
    equal = ibis.coalesce(is_number & (number == wanted), False)
    if not SEVERAL_WHOLE <= abs(wanted) < math.inf:
        return equal
    whole = FORMS["whole"]
    written = rewritten(text, whole.rewrites)  # one double is several of these whole numbers
    return equal & (~written.re_search(whole.canonical) | (written == str(fractions.Fraction(value))))


def as_label_number(value: str | float | bool) -> float | None:
    """The number that a value of a label is, None if it is another text."""
    if not isinstance(value, str):
        return float(value)
    text = value.strip().lower()
    if text in TRUTH:
        return TRUTH[text]
    try:
        return float(text) if text.isascii() and text != "nan" else None
    except ValueError:
        return None


def label_text(column: Value) -> Value:
    """A label as people read it, NULL where it is missing."""
    kind = column.type()
    text: Value = ibis.coalesce(column.str, column.cast("string")) if kind.is_json() else widened(column).cast("string")
    text = text.strip().nullif("")
    return text.lower().isin(["nan", "null"] if kind.is_json() else ["nan"]).ifelse(None, text)


def read_weight(column: Value) -> tuple[Value, Value]:
    """A double of at least 0 that float32, as weights are kept, does not make infinite; anything else is bad.

    What is below the least float32, 1e-45, is kept as 0.
    """
    weight, bad = read_number(column)
    return weight, bad | weight.isnull() | weight.isnan() | (weight >= _GREATEST_WEIGHT) | (weight < 0)


def read_group(column: Value) -> tuple[Value, Value]:
    """As text, but bad when missing."""
    text, bad = read_text(column)
    return text, bad | text.isnull()


def _number_text(column: Value, fractions: bool) -> Value:
    """The shortest text of a floating or decimal number, NULL for what has none."""
    if column.type().is_decimal():  # exact, whatever its size
        text = rewritten_small(rewritten(column.cast("string"), _DECIMAL))
        return text if fractions else text.re_search(r"[.e]").ifelse(None, text)
    number = widened(column)
    whole = number.try_cast("int64")
    is_whole = number == whole.cast("float64")
    is_one = number.abs() < (SEVERAL_SHORT if column.type().is_float32() else SEVERAL_WHOLE)
    text = is_whole.ifelse(whole.cast("string"), number.cast("string") if fractions else None)
    return is_one.ifelse(text, None)


def _is_given(column: Value) -> Value:
    return column.notnull() & ~column.cast("float64").isnan()


def _json_text(column: Value, fractions: bool) -> Value:
    raw = column.cast("string")
    is_whole = raw.re_search("^(0|-?[1-9][0-9]*)$")
    truth = read_text(column.bool)[0]
    return ibis.coalesce(column.str, truth, is_whole.ifelse(raw, None), _number_text(column.float, fractions))
