"""`tfctr.prepare`: raw tables in, a folder of ids out, whole or not at all."""

import itertools
import logging
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

from tfctr.data.alone import auc_alone
from tfctr.data.coded import transferred
from tfctr.data.dataset import Dataset, load_split
from tfctr.data.engine import Engine, Table, quiet, refuse_storage_failures
from tfctr.data.extending import Extension
from tfctr.data.files import find_files, is_files
from tfctr.data.findings import findings
from tfctr.data.fitting import examples_of, fit, known_by_their_row
from tfctr.data.manifest import PROFILE, describe_folder
from tfctr.data.remote_datasets import new_dataset
from tfctr.data.separated import Layout, refuse_idle
from tfctr.data.shares import expected_unseen, has_vocabulary
from tfctr.data.splitting import Division
from tfctr.data.staging import Staged, count_copies, count_known_groups, stage, staged_split
from tfctr.data.token_types import choose_token_types
from tfctr.data.writing import Blocks, group_codes, write_split
from tfctr.errors import ConfigError, require
from tfctr.schema import RawTable, Schema
from tfctr.storage import write_json
from tfctr.types import StrPath

_LOG = logging.getLogger(__name__)


def prepare(
    schema: Schema | None = None,
    *,
    train: RawTable,
    out: StrPath,
    valid: RawTable | float | None = None,
    test: RawTable | float | None = None,
    extend: Dataset | StrPath | None = None,
    max_tokens: int | None = None,
    evict_after: int | None = None,
    split_by_time: str | None = None,
    split_by_group: str | None = None,
    transfer: str = "rows",
    memory_limit: str = "1GB",
    threads: int | None = None,
    seed: int = 0,
    separator: str | None = None,
    columns: Sequence[str] | None = None,
    missing: Sequence[str] = (),
    encoding: str | None = None,
) -> Dataset:
    """Fit a schema on the training table, or extend an earlier fit by it, and write every split as ids.

    A table is one of: a path, a glob, a URL or a list of those (`.csv`, `.tsv`, `.txt`, `.parquet`, `.jsonl`, and `.csv.gz` and
    the like: see `tfctr.data.files`); an Ibis table of any engine; a pandas, polars or pyarrow table, or a dictionary of lists.
    Only the columns that the schema names are read. Rows keep their order, and the same input gives the same bytes whatever the
    number of threads. Tables may be larger than memory; the disk of `out` must hold them up to three times.

    Args:
        schema: the `tfctr.Schema`; one that is fitted already is fitted again. None with `extend`.
        train: the training table, the only one that anything is learnt from.
        out: the new folder, or its URL (see `tfctr.data.remote_datasets`). It appears when all is written, and never in part.
        valid, test: further tables; or fractions of `train`, drawn by a seeded hash of each row's whole content, so that a row
            keeps its split when other rows come or go and when the schema changes.
        extend: instead of a schema, an earlier dataset or its folder. Its known tokens keep their ids, and new ones, of which
            `train` has `min_count`, get the next, the most frequent first; edges, means, forms of tokens and hash buckets stay.
        max_tokens: with `extend`, how many known tokens a feature may have; what new ones are left out is counted and logged. A
            vocabulary that is larger already stays so.
        evict_after: with `extend`, new tokens first take the rows of known ones that none of the last so many training tables
            has held, `train` included, the longest unseen first. None: no token is ever forgotten.
        split_by_time: the column, of numbers, dates or times, by which fractions are cut: the last rows are test, those before
            them valid. Rows of one time are never divided: all go where the middle one of them belongs.
        split_by_group: the column by whose values fractions are drawn, by a seeded hash of the value, so that all rows of one
            value are in one split; a fraction is of the values. Neither column need be one of the schema's.
        transfer: how tables of Ibis come from their engine: "rows", or "codes", the distinct values of each column once and
            rows of codes (see `tfctr.data.coded`). The result is the same.
        memory_limit: what DuckDB may hold at a time; the whole process takes up to about 1 GB more.
        threads: how many threads DuckDB may use; None for all.
        seed: of the draw of the fractions.
        separator: what stands between the cells of text files, such as ";"; else what their ending says, or, if that does not
            cut their first lines evenly, what does: the log says so.
        columns: the names of the columns of text files without a header line, in their order.
        missing: texts that mean a missing value in text files, such as ["NA", "?"]; empty cells always do.
        encoding: of text files that are neither UTF-8 nor marked UTF-16, such as "cp1252".

    Returns:
        The `Dataset` in `out`; its `schema` is fitted, and each split's `shares` say how much of each feature is unseen,
        missing or cut. A warning is logged where much more is unseen or missing than rows like training's have. With `extend`
        its `extension` is `{"digest": of the earlier fit, "tables": how many were learnt from, "features": {feature: {"known",
        "seen_again", "new", "evicted", "left_out"}}}`, in tokens.

    Raises:
        DataError: a table holds what it must not hold; the message names file, column, row and value.
        ConfigError: an argument cannot be used.
        StorageError: a file is missing or corrupt, `out` exists, or memory or disk do not suffice.

    >>> import tempfile, tfctr
    >>> schema = tfctr.Schema(features=[tfctr.Categorical("user"), tfctr.Numeric("price", "scaled")], label="click")
    >>> clicks = {"user": ["60", "7", "60"], "price": [1.5, 2.5, None], "click": [1, 0, 0]}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     dataset = prepare(schema, train=clicks, out=f"{folder}/data")
    ...     dataset.schema.features[0].size, dataset.train.ids[:, 0].tolist()
    (5, [3, 4, 3])

    The next day's table has a new user, who gets the next id:

    >>> with tempfile.TemporaryDirectory() as folder:
    ...     monday = prepare(schema, train=clicks, out=f"{folder}/monday")
    ...     clicks = {"user": ["8", "7", "8"], "price": [1.5, 2.5, None], "click": [1, 0, 0]}
    ...     tuesday = prepare(extend=monday, train=clicks, out=f"{folder}/tuesday")
    ...     tuesday.train.ids[:, 0].tolist(), tuesday.extension["features"]["user"]
    ([5, 4, 5], {'known': 2, 'seen_again': 1, 'new': 1, 'evicted': 0, 'left_out': 0})
    """
    tables = {"train": train, **{name: table for name, table in (("valid", valid), ("test", test)) if table is not None}}
    layout = Layout(separator, columns, missing, encoding)
    with refuse_storage_failures(out, memory_limit), quiet():
        _check_arguments(tables, seed, layout)
        tables = transferred(tables, transfer)
        division = Division(_fractions(tables), seed, split_by_time, split_by_group)
        to_fit = _to_fit(schema, extend, max_tokens, evict_after)
        _write(to_fit, tables, out, memory_limit, threads, division, layout)
    return Dataset.load(out, verify=False)


def _to_fit(
    schema: Schema | None, extend: Dataset | StrPath | None, max_tokens: int | None, evict_after: int | None
) -> Schema | Extension:
    """What the training table is for: to fit a schema, or to extend a dataset."""
    if extend is not None:
        fix = "leave it out: the schema is that of the dataset; or leave out `extend` (--extend) to fit anew"
        require(schema is None, "`schema` and `extend` are both given.", fix=fix)
        return Extension.of(extend, max_tokens, evict_after)
    for name, value in (("max_tokens", max_tokens), ("evict_after", evict_after)):
        option = name.replace("_", "-")
        fix = f"give the earlier dataset, too: `extend` (--extend DATASET); or leave out `{name}` (--{option})"
        require(value is None, f"`{name}` is {value!r}, and there is no `extend`.", fix=fix)
    if not isinstance(schema, Schema):
        fix = "pass a tfctr.Schema, such as tfctr.Schema.load('schema.yaml'), or an earlier dataset as `extend` (--extend)"
        raise ConfigError(f"`schema` is {schema!r}.", fix=fix)
    return schema


def _write(
    to_fit: Schema | Extension,
    tables: Mapping[str, Any],
    out: StrPath,
    memory_limit: str,
    threads: int | None,
    division: Division,
    layout: Layout,
) -> None:
    with new_dataset(out) as folder:
        work = folder / "work"
        work.mkdir()
        with Engine(work, memory_limit, threads) as engine:
            schema, splits = _stage_splits(engine, to_fit, tables, division, layout)
            train = splits["train"].table
            if isinstance(to_fit, Extension):
                fitted, extension = to_fit.fit(engine, train, folder)
            else:
                fitted, extension = fit(engine, schema, train, folder), None
            groups = group_codes(engine, splits.values()) if schema.group else None
            blocks = {name: Blocks(engine, fitted, split, groups) for name, split in splits.items()}
            entries = {name: write_split(blocks[name], folder / name) for name in splits}
            for name, copies in count_copies(engine, fitted, splits).items():
                training = blocks["train"].profile if name != "train" else None
                entries[name] |= {"copies": copies, "profile": blocks[name].profile.describe(fitted, training)}
            if schema.group:
                for name, known in count_known_groups(engine, splits).items():
                    entries[name] |= {"group": schema.group, "known_groups": known}
            fitted.save(folder / "schema.json")
            blocks["train"].profile.save(folder / PROFILE)
            manifest = describe_folder(fitted, folder, entries, tables)
            if division.fractions:
                manifest["division"] = division.describe(engine)
            if extension is not None:
                manifest["fit"]["extension"] = extension
            manifest["training"] = _training(engine, fitted, train, entries["train"]["counts"])
            manifest["alone"] = auc_alone(fitted, load_split(folder / "train", "train", entries["train"], fitted))
            found = [findings(name, manifest, examples_of(engine, fitted, split.table)) for name, split in splits.items()]
            warnings = dict.fromkeys(itertools.chain(*found))
        shutil.rmtree(work)
        write_json(folder / "manifest.json", manifest)
    for warning in warnings:
        _LOG.warning(warning)


def _training(
    engine: Engine, schema: Schema, train: Table, counts: Mapping[str, Mapping[str, int]]
) -> dict[str, dict[str, float | None]]:
    """`{feature: {"rows", "missing"[, "unseen"]}}`: the shares that new rows are expected to have, and of how many we know."""
    training: dict[str, dict[str, float | None]] = {
        name: {"rows": found["rows"], "missing": found["missing"] / found["rows"]} for name, found in counts.items()
    }
    for index, feature in enumerate(schema.features):
        if has_vocabulary(feature):
            by_row = known_by_their_row(engine, schema, train, index)
            training[feature.name]["unseen"] = expected_unseen(counts[feature.name], by_row)
    return training


def _check_arguments(tables: Mapping[str, Any], seed: int, layout: Layout) -> None:
    if not isinstance(seed, int):
        raise ConfigError(f"`seed` is {seed!r}.", fix="use a whole number")
    fractions = _fractions(tables)
    if "train" in fractions:
        raise ConfigError(f"`train` is {tables['train']!r}.", fix="give a file or a table")
    for name, fraction in fractions.items():
        if not 0 < fraction < 1:
            raise ConfigError(f"`{name}` is {fraction!r}.", fix="use a fraction between 0 and 1, or a file or table")
    if sum(fractions.values()) >= 1:
        raise ConfigError(f"`valid` and `test` leave nothing of `train`: {fractions}.", fix="use smaller fractions")
    for name, table in tables.items():
        if name not in fractions and is_files(table):
            find_files(table)
    refuse_idle(layout, [table for name, table in tables.items() if name not in fractions])


def _fractions(tables: Mapping[str, Any]) -> dict[str, float]:
    return {name: table for name, table in tables.items() if isinstance(table, int | float)}


def _stage_splits(
    engine: Engine, to_fit: Schema | Extension, tables: Mapping[str, Any], division: Division, layout: Layout
) -> tuple[Schema, dict[str, Staged]]:
    schema = to_fit.schema if isinstance(to_fit, Extension) else to_fit
    whats = {name: f"the {name} table" for name in tables}
    for name, table in tables.items():
        if name == "train" and division.fractions:
            stage(engine, schema, table, "source", whats[name], division.wanted, layout, is_train=True)
            division.divide(engine, engine.table("source"))
        elif name not in division.fractions:
            stage(engine, schema, table, name, whats[name], layout=layout, is_train=name == "train")
        if name == "train" and isinstance(to_fit, Schema):  # the first: the others are read by what it holds
            schema = choose_token_types(engine, schema, engine.table("train"))
    return schema, {name: staged_split(engine, name, _describe(name, tables)) for name in tables}


def _describe(name: str, tables: Mapping[str, Any]) -> str:
    table = tables[name]
    if isinstance(table, float):
        return f"{name} (a fraction of {table} of the train table)"
    return f"{name} ({', '.join(map(str, find_files(table)))})" if is_files(table) else f"the {name} table"
