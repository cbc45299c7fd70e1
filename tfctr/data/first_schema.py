"""A first schema for a new table: a draft that a person reads and corrects. Its rules are those of `tfctr.data.drafting`."""

import dataclasses
import json
import keyword
import logging
import re
import tempfile
import textwrap
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tfctr.data.columns import Role, is_readable, other_roles, type_name
from tfctr.data.drafting import Proposal, propose, reason_against, time_proposal
from tfctr.data.engine import Engine, Table, Value, quiet, refuse_storage_failures
from tfctr.data.evidence import Evidence, as_judged, collect
from tfctr.data.labels import label_columns, refuse_absent_positives
from tfctr.data.parts import Part, refuse_corrupt
from tfctr.data.reading import read_parts
from tfctr.data.separated import Layout, refuse_idle
from tfctr.data.staging import refuse_bad_values, staged_columns
from tfctr.data.times import Times
from tfctr.errors import DataError
from tfctr.features import Feature, feature_to_dict
from tfctr.schema import Label, RawTable, Schema, input_name
from tfctr.storage import atomic_file, yaml_text
from tfctr.types import StrPath

_LOG = logging.getLogger(__name__)

_GROUPS = ("user", "userid", "uid", "visitor", "visitorid", "customer", "customerid", "member", "memberid")
_LONGEST_NAME = 100


@dataclasses.dataclass(frozen=True)
class Draft:
    """A schema, and the `Proposal` of each column of the table, those that are left out included.

    >>> clicks = {"user": ["a", "b", "a"], "Total price": [1.5, 2.0, None], "click": [0, 1, 0]}
    >>> print(draft(clicks, label="click").to_yaml())  # doctest: +ELLIPSIS
    label: click
    group: user
    features:
      # 'user': text such as 'a', 'b'; 2 distinct in 3 rows, 0.0% missing; AUC alone ...
      - name: user
        type: categorical
      # 'Total price': numbers from 1.5 to 2; 2 distinct in 3 rows, 33.3% missing; AUC alone ...
      # 5 buckets asked, 2 made: it has no more values
      - name: Total_price
        type: numeric
        transform: quantile
        buckets: 5
        column: Total price
    <BLANKLINE>
    """

    schema: Schema
    proposals: tuple[Proposal, ...]

    def to_yaml(self) -> str:
        """The schema as YAML, with what was seen of each column as comments, and what is left out commented out."""
        roles = self.schema.to_dict()
        del roles["features"]
        return yaml_text(roles) + "features:\n" + textwrap.indent("".join(map(_block, self.proposals)), "  ")

    def save(self, path: StrPath) -> None:
        """Write `to_yaml()` into a `.yaml` or `.yml` file, or `to_dict()` into a `.json` file, atomically."""
        is_json = Path(path).suffix == ".json"
        with atomic_file(path) as file:
            file.write(json.dumps(self.to_dict(), indent=2, ensure_ascii=False) if is_json else self.to_yaml())

    def to_dict(self) -> dict[str, Any]:
        """The schema as plain data, with `notes`: for each column what was seen, and `left_out`: the reasons."""
        notes = {proposal.column: list(_lines(proposal)) for proposal in self.proposals}
        left_out = {proposal.column: proposal.reason for proposal in self.proposals if proposal.feature is None}
        return {**self.schema.to_dict(), "notes": {"seen": notes, "left_out": left_out}}


def infer(table: RawTable, label: str | Label, group: str | None = None, weight: str | None = None, **layout: Any) -> Schema:
    """The schema of `draft`. Columns that are left out, and those that a person should look at, are logged.

    >>> clicks = {"user": ["a", "b", "a"], "tags": ["x|y", "x", ""], "price": [1.5, 2.0, None], "click": [0, 1, 0]}
    >>> schema = infer(clicks, label="click")
    >>> [(type(feature).__name__, feature.name) for feature in schema.features], schema.group
    ([('Categorical', 'user'), ('Sequence', 'tags'), ('Numeric', 'price')], 'user')
    """
    return draft(table, label, group, weight, **layout).schema


def draft(
    table: RawTable,
    label: str | Label,
    group: str | None = None,
    weight: str | None = None,
    *,
    separator: str | None = None,
    columns: Sequence[str] | None = None,
    missing: Sequence[str] = (),
    encoding: str | None = None,
) -> Draft:
    """The `Draft` for a table; of several files the first one is read, whole.

    Args:
        table: files or a table, as in `tfctr.prepare`.
        label: the column with 0 and 1, or a `tfctr.Label`.
        weight: the column of sample weights.
        group: the column that groups rows for gAUC; by default the first one that has no missing values and is called a user,
            visitor, customer or member, with an `id` behind it or not; which one is logged.
        separator, columns, missing, encoding: how text files are laid out, as in `tfctr.prepare`.

    Raises:
        DataError: there is no such column, there are no rows, no column can be a feature; or a label that is neither 0 nor 1,
            a group that is missing, a weight that is negative.
    """
    roles = other_roles(label, group, weight)
    layout = Layout(separator, columns, missing, encoding)
    refuse_idle(layout, [table])
    with tempfile.TemporaryDirectory() as folder, refuse_storage_failures(folder), quiet(), Engine(folder) as engine:
        parts = read_parts(engine, table, "the table", {role.column: role.what for role in roles}, whole=True, layout=layout)
        part = next(parts)  # readable as long as `parts` lives
        taken = {role.column for role in roles if role.staged != "group"}
        others = {name: column for name, column in part.columns.items() if name not in taken}
        seen = _collect(engine, part, others, roles, label)
    proposals = _proposals(part, list(others), seen, roles[0].column)
    features = [proposal.feature for proposal in proposals if proposal.feature is not None]
    _log(proposals)
    if not features:
        named = f"give each of the columns named {sorted(part.duplicates)[0]!r} a name of its own" if part.duplicates else None
        fix = named or "give it a column that is neither empty, constant, nor the answer"
        raise DataError(f"{part.name} has no column that can be a feature.", fix=fix)
    if group is None:
        group = next((name for name in seen if _means_user(name) and _is_group(part, name, seen[name])), None)
        if group is not None:
            _LOG.info("group: column %r, by its name, for gAUC (`group` takes another)", group)
    return Draft(Schema(features, label=label, group=group, weight=weight), tuple(proposals))


def _collect(
    engine: Engine, part: Part, others: Mapping[str, Value], roles: Sequence[Role], label: str | Label
) -> dict[str, Evidence]:
    """What those of the columns `others` hold that hold something, once the rows and their `roles` are checked."""
    copies = {f"c{i}": name for i, name in enumerate(others) if _holds_something(part, name)}
    chosen = {copy: as_judged(others[name]) for copy, name in copies.items()}
    with refuse_corrupt(part.name):
        engine.create("copied", part.table.select(**chosen, **staged_columns(part, roles), **label_columns(part, label)))
    copied = engine.table("copied")
    _refuse_no_rows(engine, copied, part.name)
    refuse_bad_values(engine, copied, roles, [(0, part.name)])
    refuse_absent_positives(engine, copied, label, part.name)
    return {name: collect(engine, copied, copy, name) for copy, name in copies.items()}


def _proposals(part: Part, others: Sequence[str], seen: Mapping[str, Evidence], label: str) -> list[Proposal]:
    """One for each column, in their order, and then for those that cannot be read."""
    served = served_names([name for name in others if name not in part.duplicates])
    proposals = [
        propose(seen[name], served[name], label, " " if name in part.sequences else None)
        if name in seen and _is_candidate(part, name)
        else _of_no_candidate(part, name, served.get(name), reason_against(seen.get(name), label))
        for name in others
    ]
    return proposals + [Proposal(name, None, f"it {reason}") for name, reason in part.unreadable.items()]


def _refuse_no_rows(engine: Engine, table: Table, what: str) -> None:
    if not engine.fetch(table.agg(rows=table.count()))[0]["rows"]:
        raise DataError(f"{what} has no rows.", fix="give a table with rows")


def _holds_something(part: Part, name: str) -> bool:
    kind = part.columns[name].type()
    return not (kind.is_null() or (kind.is_array() and kind.value_type.is_null())) and name not in part.duplicates


def _is_candidate(part: Part, name: str) -> bool:
    kind = part.columns[name].type()
    return _holds_something(part, name) and is_readable(kind.value_type if kind.is_array() else kind)


def _of_no_candidate(part: Part, name: str, served: str | None, reason: str | None) -> Proposal:
    kind = part.columns[name].type()
    if name in part.duplicates:
        return Proposal(name, None, "several columns have this name")
    if not _holds_something(part, name):
        return Proposal(name, None, "it is empty")
    if reason:
        return Proposal(name, None, reason, (f"it is of type {type_name(kind)}",), warning=reason)
    if served is not None and (kind.is_timestamp() or kind.is_date()):
        times = Times(("hour", "weekday") if kind.is_timestamp() else ("weekday",))
        return time_proposal(name, served, f"it is of type {kind}", times)
    return Proposal(name, None, f"it is of type {type_name(kind)}")


def _means_user(name: str) -> bool:
    return re.sub(r"[\s_-]+", "", name).lower() in _GROUPS


def _is_group(part: Part, name: str, seen: Evidence) -> bool:
    is_whole = seen.given == seen.rows and not seen.no_tokens and not seen.fractions
    return is_whole and not seen.is_list and _is_candidate(part, name)


def _log(proposals: Iterable[Proposal]) -> None:
    for proposal in proposals:
        if proposal.feature is None:
            level = logging.WARNING if proposal.warning else logging.INFO
            _LOG.log(level, "left out: column %r, since %s", proposal.column, proposal.warning or proposal.reason)
        elif proposal.warning:
            _LOG.warning("column %r: %s", proposal.column, proposal.warning)


# text


def _lines(proposal: Proposal) -> Iterator[str]:
    if proposal.warning and proposal.feature is not None:
        yield f"look here: {proposal.warning}"
    yield from proposal.notes


def _block(proposal: Proposal) -> str:
    """One column: its comments, and its feature or what could be one."""
    lines = list(_lines(proposal))
    if proposal.feature is None:
        lines = [f"left out, since {proposal.reason}", *lines]
    lines[0] = f"{proposal.column!r}: {lines[0]}"
    text = "".join(f"# {_printable(line)}\n" for line in lines)
    if proposal.feature is not None:
        return text + yaml_text([feature_to_dict(proposal.feature)])
    return text + "".join(f"# {line}\n" for instead in proposal.instead for line in _plain(instead))


def _plain(feature: Feature) -> Iterator[str]:
    return map(_printable, yaml_text([feature_to_dict(feature)]).splitlines())


def _printable(text: str) -> str:
    """Without line ends and control characters, which would end a comment, or the file."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


# names


def served_names(columns: Sequence[str]) -> dict[str, str]:
    """`{column: name}`, with names that a model can be served with: the column's own, or one like it.

    >>> served_names(["Marital status", "marital-status", "class", "Größe"])
    {'Marital status': 'Marital_status_2', 'marital-status': 'marital-status', 'class': 'class_', 'Größe': 'Gro_e'}
    """
    names: dict[str, str] = {}
    taken: set[str] = set()
    for column in sorted(columns, key=lambda column: _clean(column) != column):  # those that need no other name first
        name = _clean(column)
        number = 1
        while input_name(name) in taken:
            number += 1
            name = f"{_clean(column)}_{number}"
        taken.add(input_name(name))
        names[column] = name
    return {column: names[column] for column in columns}


def _clean(column: str) -> str:
    letters = "".join(letter for letter in unicodedata.normalize("NFKD", column) if not unicodedata.combining(letter))
    plain = re.sub(r"[^A-Za-z0-9_.\-/]+", "_", letters).lstrip("_.-/").rstrip("/")
    plain = plain if plain == column else plain.rstrip("_/")
    plain = plain if len(plain) <= _LONGEST_NAME else plain[:_LONGEST_NAME].rstrip("/")
    return f"{plain}_" if keyword.iskeyword(plain) or plain == "self" else plain or "column"
