"""`tfctr.evaluation.score`: the probability of a click of each row of a raw table, without a server and out of core."""

import contextlib
import logging
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pyarrow as pa
import rich.console
import rich.progress
from pyarrow import parquet

from tfctr.data.encoding import Fit, OpenTable, Reading, open_table, require_table
from tfctr.data.engine import quiet, refuse_storage_failures
from tfctr.data.separated import Layout
from tfctr.data.shares import shares_of
from tfctr.data.split import SPLITS, Split
from tfctr.data.staging import Wanted
from tfctr.errors import ConfigError, DataError, choose, did_you_mean
from tfctr.models import CTRModel
from tfctr.schema import RawTable
from tfctr.storage import atomic_file, require_free, temporary_folder
from tfctr.training import Run
from tfctr.types import StrPath

_LOG = logging.getLogger(__name__)
_BLOCK_ROWS = 262_144  # of which a row group is made
PROBABILITY = "probability"


def score(
    model: Run | CTRModel,
    table: RawTable,
    *,
    out: StrPath,
    keep: Sequence[str] | None = (),
    outputs: Sequence[str] = (),
    batch_size: int = 10_000,
    data: StrPath | None = None,
    memory_limit: str = "1GB",
    threads: int | None = None,
    separator: str | None = None,
    columns: Sequence[str] | None = None,
    missing: Sequence[str] = (),
    encoding: str | None = None,
    console: rich.console.Console | None = None,
) -> dict[str, Any]:
    """Write a Parquet file with the probability of a click of each row of a raw table, in the order of its rows.

    The table needs no label, and may be larger than memory. Its values are read as `prepare` has read the training table's;
    nothing is learnt from them. The probabilities have the same bits as those of `model.predict`, and of a served model, for
    batches of the same size.

    Args:
        model: a `tfctr.training.Run`, or a model.
        table: as in `tfctr.prepare`.
        out: the new `.parquet` file. It appears when all rows are scored.
        keep: columns of the table that are written beside, before `probability`, as the table has them (those of text files and
            of JSON lines as text); None for all.
        outputs: named logits of the model that are written too, after it: `"logit"`, and of TF4CTR `"simple"` and `"complex"`;
            `["all"]` for all.
        batch_size: rows scored at a time.
        data: the folder of the dataset that the model was trained on, if that is no longer where it was.
        memory_limit, threads, separator, columns, missing, encoding: as in `tfctr.prepare`.
        console: a `rich` console for the bar, which a terminal shows; stderr by default.

    Returns:
        `rows`; `mean_probability`; `shares` and `profile`, what the table has of each feature, beside training: see
        `tfctr.data.Split`. What is too much of that is a logged warning.

    Raises:
        DataError: a value of the table that cannot be read, with column, row and value, before anything is scored.
        ConfigError: an argument that cannot be used, or a model of another fit than `data`.
        StorageError: a file is missing or corrupt, or `out` exists.
    """
    path = Path(out)
    require_run_or_model(model)
    layout = Layout(separator, columns, missing, encoding)
    require_out(path)
    _require_rows("batch_size", batch_size)
    require_table(table, layout)
    fit, model = fit_and_model(model, data)
    logits = _named_logits(model, outputs)
    names = [PROBABILITY, *logits]
    drawn: Any = model.output
    graph: Any = keras.Model(model.input, {name: drawn[name] for name in logits}) if logits else None
    total = 0.0
    with refuse_storage_failures(out, memory_limit), quiet(), temporary_folder(path) as work:
        reading = Reading(Wanted(False, keep), layout, memory_limit, threads)
        with open_table(fit, table, work, reading, "given") as rows, atomic_file(path, "wb") as file:
            schema = _file_schema(rows, names)
            blocks = rows.blocks(multiple_of=batch_size, at_most=_BLOCK_ROWS)
            with parquet.ParquetWriter(file, schema) as writer, bar("rows", rows.staged.rows, console) as advance:
                start = 0
                for arrays in blocks:
                    ids = arrays["ids"]
                    scored: dict[str, Any] = {PROBABILITY: model.predict(ids, batch_size=batch_size, verbose=0)}
                    if graph is not None:
                        scored |= graph.predict(ids, batch_size=batch_size, verbose=0)
                    total += float(scored[PROBABILITY].sum(dtype=np.float64))
                    kept = rows.kept_columns(start, len(ids)).columns if rows.kept else []
                    given = [pa.array(np.asarray(scored[name], np.float32)[:, 0]) for name in names]
                    writer.write_table(pa.table([*kept, *given], schema=schema))
                    start += len(ids)
                    advance(len(ids))
            entry = rows.describe(blocks)
            found = rows.findings(entry)
    for finding in found:
        _LOG.warning(finding)
    return {"rows": entry["rows"], "mean_probability": total / entry["rows"], **described(fit, entry)}


def scored_table(
    model: Run | CTRModel, table: RawTable, batch_size: int, data: StrPath | None, reading: Reading
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """`probabilities`, and as far as a raw table has them `labels`, `groups` and `weights`; its `shares` and `findings`."""
    fit, model = fit_and_model(model, data)
    require_table(table, reading.layout)
    with (
        tempfile.TemporaryDirectory(prefix="tfctr-score-") as work,
        quiet(),
        refuse_storage_failures(work, reading.memory_limit),
        open_table(fit, table, Path(work), reading, "given") as rows,
    ):
        scored, entry = _scored_rows(model, rows, batch_size)
        return scored, {**described(fit, entry), "findings": rows.findings(entry)}


def _scored_rows(model: CTRModel, rows: OpenTable, batch_size: int) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """`probabilities`, `labels`, `groups` and `weights` of an open table, as far as it has them; its entry of a manifest."""
    blocks = rows.blocks(multiple_of=batch_size, at_most=_BLOCK_ROWS)
    parts: dict[str, list[np.ndarray]] = {}
    for arrays in blocks:
        ids = arrays.pop("ids")
        arrays["probabilities"] = model.predict(ids, batch_size=batch_size, verbose=0)[:, 0]
        for name, values in arrays.items():
            parts.setdefault(name, []).append(values)
    return {name: np.concatenate(values) for name, values in parts.items()}, rows.describe(blocks)


def fit_and_model(model: Run | CTRModel, data: StrPath | None) -> tuple[Fit, CTRModel]:
    """The fit by which raw rows are encoded for a run or a model, and the model. Raises `ConfigError` for another fit."""
    if isinstance(model, Run):
        return Fit.of(model.dataset(data)), model.inference_model
    fit = Fit.of(model.schema if data is None else data)
    model.schema.require_fit(fit.schema.digest, f"the dataset in {data}")
    return fit, model


def model_and_split(
    model: Run | CTRModel, split: Split | str | None, data: StrPath | None, default: str
) -> tuple[CTRModel, Split]:
    """The model, and the split of a run by its name, or of a model the split itself."""
    require_run_or_model(model)
    if isinstance(model, Run):
        found = getattr(model.dataset(data), choose(SPLITS, default if split is None else split, "split"))
        return model.inference_model, found
    if isinstance(split, str) or split is None:
        raise ConfigError("there are no rows to evaluate.", fix=f"pass a split of a dataset, such as dataset.{default}")
    return model, split


def require_run_or_model(model: Any) -> None:
    """Raise `ConfigError` for anything else."""
    if not isinstance(model, Run | CTRModel):
        fix = "give tfctr.training.load_run(FOLDER), or tfctr.load_model(FILE); metrics of given probabilities are `figures`"
        raise ConfigError(f"`model` is {type(model).__name__}, neither a run nor a model.", fix=fix)


def described(fit: Fit, entry: dict[str, Any]) -> dict[str, Any]:
    """The `shares` and the `profile` of a table, whose entry of a manifest is `entry`."""
    training = fit.facts.get("training")
    return {"shares": None if training is None else shares_of(entry["counts"], training), "profile": entry["profile"]}


def _named_logits(model: CTRModel, outputs: Sequence[str]) -> list[str]:
    drawn: Any = model.output
    known = [name for name, output in drawn.items() if tuple(output.shape) == (None, 1)]
    if list(outputs) == ["all"]:
        return known
    for name in outputs:
        if name not in known:
            raise ConfigError(f"the model has no output {name!r}.", fix=did_you_mean(name, known))
    return list(dict.fromkeys(outputs))


def require_out(path: Path) -> None:
    """Raise unless a Parquet file can be written there."""
    if path.suffix != ".parquet":
        raise ConfigError(f"`out` is {str(path)!r}.", fix="give a file that ends in .parquet")
    require_free(path)


def _require_rows(argument: str, value: int) -> None:
    if not isinstance(value, int) or value < 1:
        raise ConfigError(f"`{argument}` is {value!r}.", fix="use a whole number of at least 1")


def _file_schema(rows: OpenTable, names: Sequence[str]) -> pa.Schema:
    """The columns of the file. Raises `DataError` for a kept one that Parquet cannot hold, or whose name is taken."""
    fields = list(rows.kept_columns(0, 1).schema) if rows.kept else []
    for field in fields:
        if field.name in names:
            problem = f"the table has a column {field.name!r}, which the scores have, too."
            raise DataError(problem, fix="rename it, or do not keep it")
        if pa.types.is_interval(field.type) or pa.types.is_null(field.type):
            raise DataError(
                f"column {field.name!r} is of type {field.type}, which no Parquet file holds.", fix="do not keep it"
            )
    return pa.schema([*fields, *(pa.field(name, pa.float32(), nullable=False) for name in names)])


@contextlib.contextmanager
def bar(what: str, total: int, console: rich.console.Console | None) -> Iterator[Any]:
    """A function that is told how many more of the total, such as rows, are done, and shows it on a terminal."""
    console = console or rich.console.Console(stderr=True)
    columns = (rich.progress.BarColumn(), rich.progress.MofNCompleteColumn(), rich.progress.TimeRemainingColumn())
    hidden = not console.is_interactive
    with rich.progress.Progress(what, *columns, console=console, transient=True, disable=hidden) as progress:
        task = progress.add_task("", total=total)
        yield lambda more: progress.advance(task, more)
