"""A first schema for a new table: a draft that a person reads and corrects.

| a column | becomes |
|---|---|
| lists, or text with `|` or `;` in at least one value of twenty | a sequence |
| numbers, some with a fraction | numeric, quantile |
| whole numbers: over 100 distinct, none below -10, the largest over 20 times the median: counts | numeric, log2_floor |
| everything else: text, codes, ids | categorical; from 10,000 distinct tokens on with `min_count` 2 |
| a constant; another token in each of 100 rows or more; a date or another type that `prepare` does not take | nothing |
"""

import logging
import tempfile

import ibis

from tfctr.data.columns import is_readable, other_roles, read_list, read_number, type_name
from tfctr.data.engine import Engine, quiet, refuse_storage_failures
from tfctr.data.labels import label_columns, refuse_absent_positives
from tfctr.data.parts import refuse_corrupt
from tfctr.data.reading import read_parts
from tfctr.data.separated import Layout, refuse_idle
from tfctr.data.staging import refuse_bad_values, staged_columns
from tfctr.errors import ConfigError, DataError
from tfctr.features import Categorical, Feature, Numeric, Sequence
from tfctr.schema import Schema

_LOG = logging.getLogger(__name__)

_SEPARATORS = ("|", ";")
_GROUPS = ("user", "user_id", "userid", "uid")
_LONGEST = 20  # tokens a row of a sequence
_QUANTILES = 20


def infer(table, label, group=None, weight=None, *, separator=None, columns=None, missing=(), encoding=None):
    """The draft for a table; of several files the first one is read, whole. Columns that are left out are logged.

    Args:
        table: files or a table, as in `tfctr.prepare`.
        label: the column with 0 and 1, or a `tfctr.Label`.
        weight: the column of sample weights.
        separator, columns, missing, encoding: how text files are laid out, as in `tfctr.prepare`.
        group: the column that groups rows for gAUC; by default the one called `user`, `user_id`, `userid` or `uid`, if any.

    Raises:
        DataError: there is no such column, there are no rows, no column can be a feature; or a label that is neither 0 nor 1,
            a group that is missing, a weight that is negative.

    >>> clicks = {"user": ["a", "b", "a"], "tags": ["x|y", "x", ""], "price": [1.5, 2.0, None], "click": [0, 1, 0]}
    >>> schema = infer(clicks, label="click")
    >>> [(type(feature).__name__, feature.name) for feature in schema.features], schema.group
    ([('Categorical', 'user'), ('Sequence', 'tags'), ('Numeric', 'price')], 'user')
    """
    roles = other_roles(label, group, weight)
    layout = Layout(separator, columns, missing, encoding)
    refuse_idle(layout, [table])
    with tempfile.TemporaryDirectory() as folder, refuse_storage_failures(folder), quiet(), Engine(folder) as engine:
        parts = read_parts(engine, table, "the table", {role.column: role.what for role in roles}, whole=True, layout=layout)
        part = next(parts)  # readable as long as `parts` lives
        others = {name: column for name, column in part.columns.items() if name not in (roles[0].column, weight)}
        names = [name for name, column in others.items() if _is_candidate(column.type())]
        copies = {f"c{i}": others[name] for i, name in enumerate(names)}
        with refuse_corrupt(part.name):
            engine.create("copied", part.table.select(**copies, **staged_columns(part, roles), **label_columns(part, label)))
        copied = engine.table("copied")
        refuse_bad_values(engine, copied, roles, [(0, part.name)])
        refuse_absent_positives(engine, copied, label, part.name)
        drafts = {name: f"it {reason}" for name, reason in part.unreadable.items()}
        drafts |= {name: f"it is of type {type_name(column.type())}" for name, column in others.items()}
        drafts |= {name: _feature(engine, copied, column, name) for name, column in zip(names, copies, strict=True)}
    features = [draft for draft in drafts.values() if isinstance(draft, Feature)]
    for name, reason in drafts.items():
        if isinstance(reason, str):
            _LOG.info("left out: column %r, since %s", name, reason)
    if not features:
        raise DataError(f"{part.name} has no column that can be a feature.", fix="write the schema by hand")
    if group is None:
        group = next((name for name in names if name.lower() in _GROUPS), None)
    return Schema(features, label=label, group=group, weight=weight)


def _is_candidate(kind):
    kind = kind.value_type if kind.is_array() else kind
    return is_readable(kind) and not kind.is_null()


def _feature(engine, table, column, name):
    """The draft of a column's feature; or, as text, why it is none."""
    is_list = table[column].type().is_array()
    seen = engine.fetch(table.agg(rows=table.count(), **_summary(table[column], is_list)))[0]
    if seen["distinct"] < 2:
        return "it is constant"
    if seen["distinct"] == seen["rows"] >= 100 and not seen["fractions"]:
        return "each row has another token"
    try:
        return _draft(name, seen, is_list)
    except ConfigError as error:
        return error.problem.rstrip(".")


def _draft(name, seen, is_list):
    min_count = 2 if seen["distinct"] >= 10_000 else 1
    for mark in _SEPARATORS:
        if is_list or seen[f"with {mark}"] * 20 >= seen["given"]:
            return Sequence(name, max_length=min(seen[f"longest {mark}"], _LONGEST), separator=mark, min_count=min_count)
    is_number = seen["numbers"] == seen["given"] and not seen["zeros"]
    if is_number and seen["fractions"]:
        return Numeric(name, "quantile", buckets=_QUANTILES)
    if is_number and seen["distinct"] > 100 and seen["least"] >= -10 and seen["most"] > 20 * seen["median"]:
        return Numeric(name, "log2_floor")
    return Categorical(name, min_count=min_count)


def _summary(column, is_list):
    text = read_list(_SEPARATORS[0], column)[0]
    number = read_number(text if is_list else column)[0]
    number = number.isnan().ifelse(None, number)
    value = ibis.coalesce(text, number.cast("string"))
    summary = {
        "given": value.count(),
        "distinct": value.nunique(),
        "numbers": number.count(),
        "fractions": (number != number.floor()).sum(),
        "zeros": text.re_search("^-?0[0-9]").sum(),  # 007 is a code
        "least": number.min(),
        "most": number.max(),
        "median": number.quantile(0.5),
    }
    for mark in _SEPARATORS:
        summary[f"with {mark}"] = text.contains(mark).sum()
        summary[f"longest {mark}"] = text.split(mark).length().max()
    return {name: ibis.coalesce(total, 0) for name, total in summary.items()}
