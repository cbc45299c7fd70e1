"""How one column of any source becomes text or a number, and which of its values are bad.

| rule | takes | gives |
|---|---|---|
| text | text; numbers, as 60, 60.0 or 1.5; true and false | the text; "60", "1.5"; "true", "false" |
| list | as text, or a list of those, also one that was written as text | one text, joined by the separator |
| number | numbers; text that is a number; true and false, also as text in any case | a double; empty text is missing |

A rule is a function: source column -> (value, whether it is bad).
"""

import dataclasses
import functools
from collections.abc import Callable

import ibis

from tfctr.data.canonical import read_written_list
from tfctr.errors import DataError
from tfctr.features import Numeric, Sequence
from tfctr.schema import Label

_TRUTH = {"true": 1.0, "false": 0.0}
_SEVERAL_WHOLE = 2.0**53  # from here on a double may stand for several whole numbers


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
        takes_lists: whether a value may be a list.
    """

    column: str
    staged: str
    rule: Callable
    what: str
    expected: str
    fix: str
    takes_lists: bool = False

    def read(self, part):
        """(value, whether it is bad, raw text) of this role's column in a `Part`. Raises `DataError` for its type."""
        raw = part.columns[self.column]
        kind = raw.type()
        if not is_readable(kind) and not (self.takes_lists and kind.is_array() and is_readable(kind.value_type)):
            raise DataError(
                f"{part.name}: column {self.column!r} ({self.what}) is of type {type_name(kind)}.",
                fix=f"convert it to {self.expected}",
            )
        return *self.rule(raw), raw.cast("string")


_TEXT, _LISTS, _NUMBERS = "text or whole numbers", "text, whole numbers, or lists of those", "numbers"
_TAKES_FRACTIONS = (None, "text", "number")  # None: the form is still to be learnt


def feature_column(index):
    """The staged column of the feature at `index` of the schema."""
    return f"f{index}"


def roles_of(schema):
    """One `Role` for each column that the schema names."""
    features = [_feature_role(feature_column(index), feature) for index, feature in enumerate(schema.features)]
    return features + other_roles(schema.label, schema.group, schema.weight)


def other_roles(label, group=None, weight=None):
    """The roles of the columns beside the features."""
    drop = "correct these rows, or drop them"
    roles = [_label_role(label, drop)]
    if group:
        roles.append(Role(group, "group", read_group, "the group", _TEXT, drop))
    if weight:
        roles.append(Role(weight, "weight", read_weight, "the weight", "a finite number of at least 0", drop))
    return roles


def _label_role(label, drop):
    if not isinstance(label, Label):
        return Role(label, "label", read_label, "the label", "0 or 1", drop)
    if label.threshold is not None:
        rule = functools.partial(read_threshold, label.threshold)
        return Role(label.column, "label", rule, "the label", "a number to compare with the threshold", drop)
    return Role(label.column, "label", functools.partial(read_positive, label.values), "the label", "a value", drop)


def _feature_role(staged, feature):
    if isinstance(feature, Numeric):
        fix = "correct the value, leave it empty if it is missing, or make the feature categorical"
        return Role(feature.source, staged, read_number, "a numeric feature", _NUMBERS, fix)
    fix = "write it as text, or make the feature numeric"
    fractions = feature.token_type in _TAKES_FRACTIONS
    if isinstance(feature, Sequence):
        rule = functools.partial(read_list, feature.separator, fractions=fractions)
        fix = f"give lists, or text with {feature.separator!r} between the tokens"
        return Role(feature.source, staged, rule, "a sequence feature", _LISTS, fix, takes_lists=True)
    rule = functools.partial(read_text, fractions=fractions)
    return Role(feature.source, staged, rule, "a categorical feature", _TEXT, fix)


def type_name(kind):
    """An Ibis type in words; of one that Ibis does not know what DuckDB calls it."""
    return kind.raw_type.sql(dialect="duckdb").lower() if kind.is_unknown() and kind.raw_type is not None else str(kind)


def is_readable(kind):
    """Whether an Ibis type is one that the rules take."""
    return kind.is_string() or kind.is_numeric() or kind.is_boolean() or kind.is_json() or kind.is_null()


def read_text(column, fractions=False):
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


def read_list(separator, column, fractions=False):
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


def read_number(column):
    """A double. NULL, NaN and empty text are missing; any other text that is no number is bad."""
    kind = column.type()
    if kind.is_json():
        column = ibis.coalesce(column.str, column.bool.cast("int8").cast("string"), column.cast("string"))
    elif not kind.is_string():
        return column.cast("float64"), ibis.literal(False)
    text = column.strip().nullif("")
    truth = ibis.cases((text.lower() == "true", 1.0), (text.lower() == "false", 0.0))
    number = ibis.coalesce(text.try_cast("float64"), truth)
    return number, text.notnull() & number.isnull()


def read_label(column):
    """0.0 or 1.0; anything else is bad."""
    label, bad = read_number(column)
    return label, bad | label.isnull() | label.notin([0.0, 1.0])


def read_threshold(threshold, column):
    """1.0 for numbers of at least `threshold`, else 0.0; missing ones and text are bad."""
    number, bad = read_number(column)
    return (number >= threshold).cast("float64"), bad | number.isnull() | number.isnan()


def read_positive(values, column):
    """1.0 for one of `values`, else 0.0; a missing value is bad. Numbers are compared as numbers, true being 1."""
    number, text = read_number(column)[0], label_text(column)
    is_number = number.notnull() & ~number.isnan()
    is_positive = [_equals(value, number, is_number, text) for value in values]
    return ibis.or_(*is_positive).cast("float64"), ~is_number & text.isnull()


def _equals(value, number, is_number, text):
    """Whether a label is `value`."""
    wanted = as_label_number(value)
    equal = text == value.strip() if wanted is None else number == wanted
    return ibis.coalesce(equal, False) if wanted is None else ibis.coalesce(is_number & equal, False)


def as_label_number(value):
    """The number that a value of a label is, None if it is another text."""
    if not isinstance(value, str):
        return float(value)
    text = value.strip().lower()
    if text in _TRUTH:
        return _TRUTH[text]
    try:
        return float(text) if text.isascii() and text != "nan" else None
    except ValueError:
        return None


def label_text(column):
    """A label as people read it, NULL where it is missing."""
    kind = column.type()
    text = ibis.coalesce(column.str, column.cast("string")) if kind.is_json() else column.cast("string")
    text = text.strip().nullif("")
    return text.lower().isin(["nan", "null"] if kind.is_json() else ["nan"]).ifelse(None, text)


def read_weight(column):
    """A finite double of at least 0; anything else is bad."""
    weight, bad = read_number(column)
    return weight, bad | weight.isnull() | weight.isnan() | weight.isinf() | (weight < 0)


def read_group(column):
    """As text, but bad when missing."""
    text, bad = read_text(column)
    return text, bad | text.isnull()


def _number_text(column, fractions):
    """The shortest text of a floating or decimal number, NULL for what has none."""
    number = column.cast("float64")
    if column.type().is_decimal():  # exact, whatever its size
        text = column.cast("string").re_replace(r"(\.[0-9]*[1-9])0+$|\.0*$", r"\1")
        return text if fractions else text.contains(".").ifelse(None, text)
    is_whole = (number.abs() < _SEVERAL_WHOLE) & (number == number.floor())
    whole = is_whole.ifelse(number.try_cast("int64").cast("string"), None)
    if not fractions:
        return whole
    is_fraction = number.notnull() & ~number.isnan() & ~number.isinf() & (number != number.floor())
    return is_fraction.ifelse(column.cast("string"), whole)


def _is_given(column):
    return column.notnull() & ~column.cast("float64").isnan()


def _json_text(column, fractions):
    raw = column.cast("string")
    is_whole = raw.re_search("^(0|-?[1-9][0-9]*)$")
    truth = read_text(column.bool)[0]
    return ibis.coalesce(column.str, truth, is_whole.ifelse(raw, None), _number_text(column.float, fractions))
