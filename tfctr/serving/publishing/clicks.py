"""Raw rows whose clicks are known, and what a version makes of them. They are measured on, and kept nowhere."""

import dataclasses
import math
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from tfctr import metrics
from tfctr.errors import DataError, StorageError, choose
from tfctr.schema import Schema
from tfctr.serving.client.row_files import read_rows
from tfctr.serving.runtime.saved_model import SavedModel
from tfctr.serving.wire.token_rules import raw_columns
from tfctr.types import StrPath

_SIGNATURE, _OUTPUT = "serving_default", "probability"
_ROWS_AT_A_TIME = 1000
_MOST_VALUES, _LEAST_OF_A_CLASS = 20, 100  # of a slice: fewer clicks, or others, tell nothing


@dataclasses.dataclass(frozen=True)
class Clicks:
    """Labelled rows, to measure versions on.

    Args:
        columns: `{feature: (rows,) array}`, as a served model takes them: `object` arrays of `bytes`, or float64.
        labels: 0 or 1, `(rows,)`.
        weights: `(rows,)`, or None.
        groups: codes for gAUC, `(rows,)`, or None.
        name: what reports call them.
    """

    columns: Mapping[str, np.ndarray]
    labels: np.ndarray
    weights: np.ndarray | None = None
    groups: np.ndarray | None = None
    name: str = "the rows"

    def figures(self, probabilities: np.ndarray) -> dict[str, Any]:
        """AUC, gAUC, log loss and predicted over observed clicks, beside what a constant achieves; None where not defined."""
        found = {
            "auc": metrics.auc(self.labels, probabilities, self.weights),
            "log_loss": metrics.log_loss(self.labels, probabilities, self.weights),
            "pcoc": metrics.calibration(self.labels, probabilities, self.weights),
            **metrics.constant_figures(self.labels, self.weights),
        }
        if self.groups is not None:
            found["group_auc"] = metrics.group_auc(self.labels, probabilities, self.groups, self.weights)
        found = {name: value if math.isfinite(value) else None for name, value in found.items()}
        return {**found, "rows": len(self.labels), "clicks": int(np.count_nonzero(self.labels))}

    def slices(self, features: Iterable[str]) -> Iterator[tuple[str, tuple[np.ndarray, "Clicks"]]]:
        """`(name, rows)` for each frequent value of some features, where there are enough clicks and others to tell.

        Raises:
            ConfigError: one of them is no feature.
        """
        for feature in features:
            column = choose(self.columns, feature, "feature")
            values, codes, counts = np.unique(_as_text(column), return_inverse=True, return_counts=True)
            for code in np.argsort(-counts, kind="stable")[:_MOST_VALUES]:
                chosen = np.flatnonzero(codes == code)
                clicks = np.count_nonzero(self.labels[chosen])
                if min(clicks, len(chosen) - clicks) >= _LEAST_OF_A_CLASS:
                    yield f"{feature}={values[code]}", self._some(chosen)

    def _some(self, rows):
        columns = {name: column[rows] for name, column in self.columns.items()}
        weights, groups = (None if values is None else values[rows] for values in (self.weights, self.groups))
        return rows, Clicks(columns, self.labels[rows], weights, groups, self.name)


def signature_of_rows(model: SavedModel, folder: StrPath) -> Any:
    """The signature of a loaded version that answers raw rows. Raises `StorageError` where it has none."""
    if _SIGNATURE not in model.signatures:
        raise StorageError(f"{folder} has no signature {_SIGNATURE!r}.", fix="publish a model that tfctr exported")
    return model.signatures[_SIGNATURE]


def probabilities_of(model: SavedModel, folder: StrPath, columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """The probabilities that a loaded version gives to raw rows, float64, `(rows,)`.

    Raises:
        StorageError: it has no such signature, demands a column that the rows do not have, or gives no numbers.
    """
    definition = signature_of_rows(model, folder)
    for name in definition.inputs:
        if name not in columns and name not in definition.defaults:
            raise StorageError(f"{folder} demands the column {name!r}, which the rows do not have.", fix="give rows with it")
    taken = {name: column for name, column in columns.items() if name in definition.inputs}
    rows, found = len(next(iter(taken.values()))), []
    for start in range(0, rows, _ROWS_AT_A_TIME):
        part = {name: column[start : start + _ROWS_AT_A_TIME] for name, column in taken.items()}
        found.append(model.run(_SIGNATURE, part, [_OUTPUT])[_OUTPUT].reshape(-1))
    found = np.concatenate(found).astype(np.float64)
    wrong = int(np.sum(~np.isfinite(found)))
    if wrong:
        fix = "publish another model in its place"
        raise StorageError(f"{folder} answers {wrong} of {rows} rows with no finite number.", fix=fix)
    return found


def read_clicks(schema: Schema, source: Any, **layout: Any) -> Clicks:
    """`Clicks` of files of raw rows: features read as a client reads them, the others as `tfctr.prepare` does.

    Args:
        schema: the model's fitted `Schema`; it also says which columns are the label, the weight and the group.
        source: a path, a glob, or a list of those.
        layout: `separator`, `columns`, `missing` and `encoding` of text files, as in `tfctr.prepare`.

    Raises:
        DataError: a column that the schema names is missing, or holds what it may not.
        StorageError: a file is missing or corrupt.
    """
    parts = []
    for part in read_rows(source, **layout):
        with part.named():
            parts.append(raw_columns(schema, part.rows))
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    others = _read_others(schema, source, layout)
    rows = len(others["label"])
    if {len(column) for column in columns.values()} != {rows}:
        raise DataError(f"{source}: its rows cannot be told apart.", fix="give a CSV or Parquet file")
    groups = metrics.group_codes(others["group"]) if "group" in others else None
    return Clicks(columns, others["label"], others.get("weight"), groups, f"{rows:,} rows of {source}")


def _read_others(schema, source, layout):
    """The columns beside the features, `{"label": (rows,) array, ...}`."""
    # Imported late: whoever only answers rows needs none of it.
    from tfctr.data.columns import other_roles
    from tfctr.data.engine import Engine, quiet, refuse_storage_failures
    from tfctr.data.parts import refuse_corrupt
    from tfctr.data.reading import read_parts
    from tfctr.data.separated import Layout
    from tfctr.data.staging import refuse_bad_values, staged_columns

    layout = Layout(**{name: value for name, value in layout.items() if value})
    roles = other_roles(schema.label, schema.group, schema.weight)
    found = {role.staged: [] for role in roles}
    with tempfile.TemporaryDirectory() as folder, refuse_storage_failures(folder), quiet(), Engine(folder) as engine:
        needed = {role.column: role.what for role in roles}
        for number, part in enumerate(read_parts(engine, source, "the rows", needed, layout=layout)):
            with refuse_corrupt(part.name):
                engine.create(f"part{number}", part.table.select(**staged_columns(part, roles)))
            table = engine.table(f"part{number}")
            refuse_bad_values(engine, table, roles, [(0, part.name)])
            rows = engine.stream(table.order_by("row")).read_all()
            for name, columns in found.items():
                columns.append(rows[name].to_numpy())
    return {name: np.concatenate(columns) for name, columns in found.items()}


def _as_text(column):
    if column.dtype != object:
        return column.astype(str)
    return np.array([value.decode(errors="replace") for value in column], object).astype(str)
