"""How one column of any source becomes text or a number, and which of its values are bad.

| rule | takes | gives |
|---|---|---|
| text | text; whole numbers, as 60 or 60.0; true and false | the text; "60"; "true", "false" |
| list | as text, or a list of those | one text, joined by the separator |
| number | numbers; text that is a number; true and false, also as text in any case | a double; empty text is missing |

A rule is a function: source column -> (value, whether it is bad).
"""

import dataclasses
import functools
from collections.abc import Callable

import ibis

from tfctr.errors import DataError
from tfctr.features import Numeric, Sequence

_LARGEST_WHOLE = 2.0**53  # above it a double may stand for several whole numbers


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
                f"{part.name}: column {self.column!r} ({self.what}) is of type {kind}.", fix=f"convert it to {self.expected}"
            )
        return *self.rule(raw), raw.cast("string")


_TEXT, _LISTS, _NUMBERS = "text or whole numbers", "text, whole numbers, or lists of those", "numbers"


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
    roles = [Role(label, "label", read_label, "the label", "0 or 1", f"map the labels to 0 and 1, or {drop}")]
    if group:
        roles.append(Role(group, "group", read_group, "the group", _TEXT, drop))
    if weight:
        roles.append(Role(weight, "weight", read_weight, "the weight", "a finite number of at least 0", drop))
    return roles


def _feature_role(staged, feature):
    if isinstance(feature, Numeric):
        fix = "correct the value, leave it empty if it is missing, or make the feature categorical"
        return Role(feature.source, staged, read_number, "a numeric feature", _NUMBERS, fix)
    fix = "write it as text, or make the feature numeric"
    if isinstance(feature, Sequence):
        rule = functools.partial(read_list, feature.separator)
        return Role(feature.source, staged, rule, "a sequence feature", _LISTS, fix, takes_lists=True)
    return Role(feature.source, staged, read_text, "a categorical feature", _TEXT, fix)


def is_readable(kind):
    """Whether an Ibis type is one that the rules take."""
    return kind.is_string() or kind.is_numeric() or kind.is_boolean() or kind.is_json() or kind.is_null()


def read_text(column):
    """NULL, NaN and "" are missing; a floating number with a fraction is bad."""
    kind = column.type()
    if kind.is_json():
        text = _json_text(column)
        return text.nullif(""), text.isnull() & column.notnull()
    if kind.is_boolean():
        return ibis.cases((column, "true"), (~column, "false")), ibis.literal(False)
    if kind.is_floating() or kind.is_decimal():
        return _whole_text(column), _whole_text(column).isnull() & _is_given(column)
    return column.cast("string").nullif(""), ibis.literal(False)


def read_list(separator, column):
    """As text; a list is joined by the separator, and bad when one of its values is."""
    kind = column.type()
    if kind.is_array():
        bad = column.map(lambda value: read_text(value)[1]).contains(True)
        return column.map(lambda value: read_text(value)[0]).join(separator).nullif(""), ibis.coalesce(bad, False)
    if kind.is_json():
        text, bad = read_text(column)
        joined, bad_list = read_list(separator, column.array)
        return ibis.coalesce(text, joined), ibis.ifelse(column.array.notnull(), bad_list, bad)
    return read_text(column)


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


def read_weight(column):
    """A finite double of at least 0; anything else is bad."""
    weight, bad = read_number(column)
    return weight, bad | weight.isnull() | weight.isnan() | weight.isinf() | (weight < 0)


def read_group(column):
    """As text, but bad when missing."""
    text, bad = read_text(column)
    return text, bad | text.isnull()


def _whole_text(column):
    number = column.cast("float64")
    is_whole = (number.abs() <= _LARGEST_WHOLE) & (number == number.floor())
    return is_whole.ifelse(number.try_cast("int64").cast("string"), None)


def _is_given(column):
    return column.notnull() & ~column.cast("float64").isnan()


def _json_text(column):
    raw = column.cast("string")
    is_whole = raw.re_search("^(0|-?[1-9][0-9]*)$")
    truth = read_text(column.bool)[0]
    return ibis.coalesce(column.str, truth, is_whole.ifelse(raw, None), _whole_text(column.float))
