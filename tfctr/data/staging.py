"""A source as one checked table: tokens as text, numbers as doubles, rows in the order of the source.

Staged columns: `f0`, `f1`, ... (features in the order of the schema), `label`, `group`, `weight`, and `row`.
"""

import dataclasses
import re
import shlex
from collections.abc import Mapping, Sequence

import ibis

from tfctr.data.columns import Role, as_it_is, feature_column, feature_roles, other_roles, read_label, read_number
from tfctr.data.engine import Engine, Table, Value
from tfctr.data.files import MISSING_MARKS
from tfctr.data.labels import label_columns, label_fix, refuse_absent_positives
from tfctr.data.parts import Part, refuse_corrupt
from tfctr.data.reading import read_parts
from tfctr.data.separated import Layout
from tfctr.errors import DataError
from tfctr.schema import RawTable, Schema


@dataclasses.dataclass(frozen=True)
class Staged:
    """A checked table, ready to be encoded: an Ibis table with `row` = 0 .. rows - 1; without labels `positives` is None."""

    name: str
    table: Table
    rows: int
    positives: int | None

    def block(self, start: int, rows: int) -> Table:
        """So many rows from `start` on, with `row` = 0 .. rows - 1."""
        block = self.table.filter(self.table.row >= start, self.table.row < start + rows)
        return block.mutate(row=block.row - start)


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What `stage` reads of a source beside the features.

    Args:
        labels: whether label, group and weight must be there; None for where the first file has a label.
        kept: columns that are staged as they are; None for all.
        digest: add the column `digest`: the MD5 of all columns of the source, its row's whole content.
        roles: further columns that must be there, each with its rule.
    """

    labels: bool | None = True
    kept: Sequence[str] | None = ()
    digest: bool = False
    roles: Sequence[Role] = ()


TO_TRAIN = Wanted()
_KEPT = "a column to keep"


def kept_column(index: int) -> str:
    """The staged column of the kept column at `index`."""
    return f"k{index}"


def stage(
    engine: Engine,
    schema: Schema,
    source: RawTable,
    name: str,
    what: str,
    wanted: Wanted = TO_TRAIN,
    layout: Layout | None = None,
    is_train: bool = False,
) -> tuple[bool, list[str]]:
    """Read files or a table into the new table `name`, and check every value.

    Args:
        engine: the `Engine` that holds the table.
        schema: which columns are needed.
        source, layout: as in `read_parts`.
        name: the new table.
        what: how errors call the source when it is no file.
        wanted: what else is read.
        is_train: whether each value that the label counts as a click must be there.

    Returns:
        Whether the table has labels, and the names of the columns that are kept.

    Raises:
        DataError: there are no rows; or a value that its column may not hold, with file, column, first such row and value.
    """
    features, targets = [*feature_roles(schema), *wanted.roles], other_roles(schema.label, schema.group, schema.weight)
    labels = wanted.labels
    kept = None if wanted.kept is None else list(dict.fromkeys(wanted.kept))
    roles = features + (targets if labels else [])
    needed = dict.fromkeys(kept or (), _KEPT) | {role.column: role.what for role in reversed(roles)}
    optional = [role.column for role in targets] if labels is None else []
    starts: list[tuple[int, str]] = []
    rows = 0
    for part in read_parts(engine, source, what, needed, wanted.digest or kept is None, layout, optional):
        if labels is None:
            labels = schema.label_column in part.columns
        if labels:
            roles = features + targets
            part.require({role.column: role.what for role in targets})
        kept = list(part.all_names or part.columns) if kept is None else kept
        part.require(dict.fromkeys(kept, _KEPT))
        with refuse_corrupt(part.name):
            columns = {**staged_columns(part, roles, wanted.digest), **(label_columns(part, schema.label) if labels else {})}
            columns |= {kept_column(index): as_it_is(part.columns[column]) for index, column in enumerate(kept)}
            engine.append(name, part.table.select(**columns))
        starts.append((rows, part.name))
        rows = engine.fetch(engine.table(name).agg(rows=lambda table: table.count()))[0]["rows"]
    if rows == 0:
        raise DataError(f"{starts[0][1]} has no rows.", fix="give a table with rows")
    refuse_bad_values(engine, engine.table(name), roles, starts)
    if is_train:
        refuse_absent_positives(engine, engine.table(name), schema.label, what)
    return bool(labels), kept or []


def staged_table(engine: Engine, name: str, labels: bool) -> Staged:
    """The checked table `name`, of whatever labels."""
    table = engine.table(name)
    counts = {"rows": table.count(), **({"positives": table.label.sum()} if labels else {})}
    found = engine.fetch(table.agg(**counts))[0]
    return Staged(name, table, found["rows"], int(found["positives"] or 0) if labels else None)


def staged_split(engine: Engine, name: str, what: str) -> Staged:
    """The checked table `name` as a split. Raises `DataError` when it is empty, or its labels are all equal."""
    staged = staged_table(engine, name, labels=True)
    rows, positives = staged.rows, staged.positives
    if rows == 0:
        raise DataError(f"{what} has no rows.", fix="give more rows, or a larger fraction")
    if positives in (0, rows):
        raise DataError(
            f"{what} has one class only: the label is {int(positives > 0)} in all {rows} rows.",
            fix="give a split with both labels; training and AUC need them",
        )
    return staged


def count_copies(engine: Engine, schema: Schema, splits: Mapping[str, Staged]) -> dict[str, int]:
    """`{split: rows that equal a row of train, in all that the schema reads but the weight}`; of train itself: another one."""
    columns = [feature_column(index) for index in range(len(schema.features))] + ["label"] + ["group"] * bool(schema.group)

    def keys(table: Table) -> Table:
        return table.select(key=ibis.struct({column: table[column] for column in columns}).hash())

    train = keys(splits["train"].table)
    seen = engine.create("copies", train.group_by("key").agg(rows=train.count()))
    counts = {"train": seen.filter(seen.rows > 1).rows.sum()}
    counts |= {name: keys(split.table).semi_join(seen, "key").count() for name, split in splits.items() if name != "train"}
    return {name: int(engine.fetch(count.name("rows").as_table())[0]["rows"] or 0) for name, count in counts.items()}


def count_known_groups(engine: Engine, splits: Mapping[str, Staged]) -> dict[str, int]:
    """`{split: rows whose group has rows in train, too}`, of all splits but train."""
    train = splits["train"].table.select("group").distinct()
    counts = {name: split.table.semi_join(train, "group").count() for name, split in splits.items() if name != "train"}
    return {name: int(engine.fetch(count.name("rows").as_table())[0]["rows"]) for name, count in counts.items()}


def staged_columns(part: Part, roles: Sequence[Role], digest: bool = False) -> dict[str, Value]:
    """The columns of `part` as their roles read them, and for each row the first bad value and its role, -1 for none."""
    columns: dict[str, Value] = {}
    bad_roles = []
    bad_values = []
    for index, role in enumerate(roles):
        columns[role.staged], is_bad, raw = role.read(part)
        bad_roles.append((is_bad, index))
        bad_values.append((is_bad, raw))
    columns["bad_role"] = ibis.cases(*bad_roles, else_=-1).cast("int16")
    columns["bad_value"] = ibis.cases(*bad_values, else_=None)
    if digest:
        texts = [ibis.coalesce(part.columns[name].cast("string"), "\x02") for name in sorted(part.columns)]
        separator: Value = ibis.literal("\x1f")
        columns["digest"] = separator.join(texts).hexdigest("md5")
    return columns


def refuse_bad_values(engine: Engine, table: Table, roles: Sequence[Role], starts: Sequence[tuple[int, str]]) -> None:
    """Raise `DataError` for the first row with a bad value; `starts` are the first row and the name of each part."""
    first = engine.fetch(table.filter(table.bad_role >= 0).agg(row=lambda bad: bad.row.min()))[0]["row"]
    if first is None:
        return
    bad = engine.fetch(table.filter(table.row == first).select("bad_role", "bad_value"))[0]
    role = roles[bad["bad_role"]]
    alike = table.filter(table.bad_role == bad["bad_role"])
    count = engine.fetch(alike.agg(rows=alike.count()))[0]["rows"]
    start, part = max(start for start in starts if start[0] <= first)
    bad_value = bad["bad_value"]
    value = "null" if bad_value is None else repr(bad_value[:80])
    if role.rule is read_label:
        fix = label_fix(engine, table, role.column, bad["bad_role"])
    else:
        fix = _number_fix(bad_value) if role.rule is read_number and bad_value is not None else None
    raise DataError(
        f"{part}: column {role.column!r}, row {first - start + 1}: found {value}; {role.what} takes {role.expected} "
        f"({count} such row{'s' * (count > 1)}).",
        fix=fix or role.fix,
    )


def _number_fix(value: str) -> str | None:
    """What to do about a text in a column of numbers that stands for a missing one, or has a decimal comma; else None."""
    text = value.strip().strip('"')
    if text.lower() in MISSING_MARKS:
        mark = f"--missing {shlex.quote(text)} (in Python missing=[{text!r}])"
        return f"if it means that the value is missing: {mark} for text files, null in other tables; else correct it"
    if re.fullmatch(r"[-+]?[0-9.]*,[0-9]+", text):
        return "write numbers with a decimal point and without separators of thousands: 1.5, not 1,5"
    return None
