"""What is said of labels that are not what the schema says: which values there are, and which entry of a schema means them."""

import json
import shlex
from collections.abc import Mapping
from typing import Any, TypeGuard

from tfctr.data.columns import as_label_number, label_text, read_positive
from tfctr.data.engine import Engine, Table, Value
from tfctr.data.parts import Part
from tfctr.errors import DataError
from tfctr.schema import Label

_SHOWN = 8
_CLICKS = ("yes", "y", "t", "click", "clicked", "positive", "pos", "buy", "bought", "+")


def label_columns(part: Part, label: str | Label) -> dict[str, Value]:
    """The staged column `label_text`, from which `refuse_absent_positives` tells what there is; none for other labels."""
    return {"label_text": label_text(part.columns[label.column])} if _has_positives(label) else {}


def refuse_absent_positives(engine: Engine, table: Table, label: str | Label, what: str) -> None:
    """Raise `DataError` for a value that should count as a click, and that no row of a staged table has."""
    if not _has_positives(label):
        return
    for value in label.values:
        rows = engine.fetch(table.agg(rows=read_positive((value,), table.label_text)[0].sum()))[0]["rows"]
        if not rows:
            quoted = '; in YAML write positive: "yes" with its quotes, since a bare yes means true' if value is True else ""
            problem = f"{what}: column {label.column!r}, the label, nowhere is {value!r}, which should count as a click."
            raise DataError(problem, fix=f"the values are {_listed(_counted(engine, table, 'label_text'))}{quoted}")


def _has_positives(label: str | Label) -> TypeGuard[Label]:
    return isinstance(label, Label) and label.threshold is None


def label_fix(engine: Engine, table: Table, column: str, bad_role: int) -> str | None:
    """How to mend labels that are neither 0 nor 1: the entry of a schema that says which are clicks. None if all are missing.

    Args:
        engine: the `Engine` of `table`.
        table: a staged table.
        column: the label's name in the source.
        bad_role: what `bad_role` is in the rows with such labels.
    """
    is_bad = table.bad_role == bad_role
    counts = {_plain(value): rows for value, rows in _counted(engine, table.filter(is_bad), "bad_value").items() if value}
    if not counts:
        return None
    good = {f"{value:g}": rows for value, rows in _counted(engine, table.filter(~is_bad), "label").items()}
    if len(good) == 2 and (len(counts) == 1 or None in map(as_label_number, counts)):  # clicks, and some mistakes
        return None
    counts |= good
    key, value = _entry(counts)
    shown = value if isinstance(value, str) else f"{value:g}"
    literal = json.dumps(value, ensure_ascii=False) if isinstance(value, str) else shown
    return (
        f"correct these rows; or say what counts as a click among {_listed(counts)}, for example "
        f"label: {{column: {column}, {key}: {literal}}} in the schema, or --{key} {shlex.quote(shown)} with `tfctr infer`"
    )


def _entry(counts: Mapping[str, int]) -> tuple[str, str | float]:
    """(key, value) of the likely entry: of two values what says yes, is greater, or rarer; of many numbers a high one."""
    numbers = sorted(number for number in map(as_label_number, counts) if number is not None)
    if len(numbers) == len(counts) > 2:
        return "threshold", numbers[int(len(numbers) * 0.6)]
    if len(numbers) == len(counts):
        return "positive", numbers[-1]
    likely = [text for text in counts if text.lower() in _CLICKS or text.startswith(">")]
    return "positive", (likely or sorted(counts, key=lambda text: counts[text]))[0]


def _plain(text: str) -> str:
    """A raw value without the quotes that JSON gives it."""
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] == '"' else text.strip()


def _counted(engine: Engine, table: Table, column: str, most: int = 1000) -> dict[Any, int]:
    """{value: rows}, the frequent ones first."""
    counts = table.group_by(value=table[column]).agg(rows=lambda rows: rows.count())
    found = engine.fetch(counts.order_by(counts.rows.desc(), counts.value).limit(most))
    return {row["value"]: row["rows"] for row in found}


def _listed(counts: Mapping[str, int]) -> str:
    shown = [f"{value!r} ({rows} row{'s' * (rows > 1)})" for value, rows in list(counts.items())[:_SHOWN]]
    return ", ".join(shown) + (", ..." if len(counts) > _SHOWN else "")
