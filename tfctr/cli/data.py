"""Commands about raw tables: a first schema of one, and ids of it on disk."""

import re
from pathlib import Path
from typing import Annotated

import typer

from tfctr.cli.console import (
    Columns,
    Encoding,
    Json,
    MemoryLimit,
    MissingTexts,
    NewDataset,
    Plot,
    PreparedFirst,
    Separator,
    Threads,
    drift_lines,
    layout,
    layout_options,
    print_json,
    say_extension,
    say_next,
    say_profile,
    say_shares,
    show,
)
from tfctr.cli.drift_plot import draw
from tfctr.cli.plots import require_plot
from tfctr.cli.starter import init
from tfctr.errors import ConfigError, StorageError


def infer(
    table: Annotated[
        str, typer.Argument(metavar="TABLE", help="CSV or other text cells, Parquet or JSON lines; a glob; a URL.")
    ],
    label: Annotated[str, typer.Option(help="The column with 0 and 1, or with --positive or --threshold any.")],
    group: Annotated[str | None, typer.Option(help="The column that groups rows for gAUC; a user column if absent.")] = None,
    weight: Annotated[str | None, typer.Option(help="The column of sample weights.")] = None,
    positive: Annotated[
        list[str] | None, typer.Option(metavar="VALUE", help="A label that counts as a click: >50K. May be repeated.")
    ] = None,
    threshold: Annotated[float | None, typer.Option(help="Labels of at least this count as clicks.")] = None,
    out: Annotated[Path | None, typer.Option(help="The YAML file to write; stdout if absent.")] = None,
    separator: Separator = None,
    columns: Columns = None,
    missing: MissingTexts = None,
    encoding: Encoding = None,
    json: Json = False,
) -> None:
    """Write a first schema for a new table, with what was seen of each column as comments; with --json under `notes`.

    Example: tfctr infer clicks.csv --label click --out schema.yaml
    """
    from tfctr.data.first_schema import draft

    if out is not None and out.exists():
        raise StorageError(f"{out} already exists.", fix="choose another --out, or remove this file first")
    given = layout(separator, columns, missing, encoding)
    drafted = draft(table, label=_label(label, positive, threshold), group=group, weight=weight, **given)
    if out is not None:
        drafted.save(out)
        shares = f"{layout_options(**given)} --valid 0.1 --test 0.1"
        say_next(f"read {out}, correct it, then: tfctr prepare {out} --train {table}{shares} --out DIR")
    if json:
        print_json(drafted.to_dict())
    elif out is None:
        typer.echo(drafted.to_yaml(), nl=False)


def prepare(
    train: Annotated[str, typer.Option(help="CSV or other text cells, Parquet or JSON lines; a glob; a URL.")],
    out: NewDataset,
    schema: Annotated[
        Path | None, typer.Argument(metavar="[SCHEMA]", help="A schema: `tfctr infer` or `tfctr init` writes one.")
    ] = None,
    valid: Annotated[str | None, typer.Option(help="A file, or the share of --train to split off, such as 0.1.")] = None,
    test: Annotated[str | None, typer.Option(help="A file, or the share of --train to split off, such as 0.1.")] = None,
    extend: Annotated[
        str | None, typer.Option(metavar="DATASET", help="Instead of a schema: an earlier dataset, whose ids are kept.")
    ] = None,
    split_by_time: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Of shares: the last rows by this column are test, then valid.")
    ] = None,
    split_by_group: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Of shares: all rows of one value of this column in one split.")
    ] = None,
    max_tokens: Annotated[int | None, typer.Option(help="With --extend: how many known tokens a feature may have.")] = None,
    evict_after: Annotated[
        int | None, typer.Option(metavar="N", help="With --extend: reuse ids of tokens that the last N tables lack.")
    ] = None,
    memory_limit: MemoryLimit = "1GB",
    threads: Threads = None,
    seed: Annotated[int, typer.Option(help="Of the draw of the shares.")] = 0,
    separator: Separator = None,
    columns: Columns = None,
    missing: MissingTexts = None,
    encoding: Encoding = None,
    json: Json = False,
) -> None:
    """Turn a raw table into ids on disk.

    Example: tfctr prepare examples/frappe.yaml --train train.parquet --valid valid.parquet --test test.parquet --out runs/data
    """
    from tfctr.data import prepare
    from tfctr.schema import Schema

    tables = {"train": train, "valid": _share("--valid", valid), "test": _share("--test", test)}
    limits = {"memory_limit": memory_limit, "threads": threads, "seed": seed}
    growth = {"extend": extend, "max_tokens": max_tokens, "evict_after": evict_after}
    division = {"split_by_time": split_by_time, "split_by_group": split_by_group}
    to_fit = None if schema is None else Schema.load(schema)
    given = {**tables, **growth, **division, **limits, **layout(separator, columns, missing, encoding)}
    dataset = prepare(to_fit, out=out, **given)
    rows = {f"{name}_rows": split.rows for name, split in dataset.splits.items()}
    shares = {name: split.shares for name, split in dataset.splits.items()}
    profiles = {
        name: {
            "click_rate": split.click_rate,
            "copies": split.copies,
            "known_groups": split.known_groups,
            "features": split.profile,
        }
        for name, split in dataset.splits.items()
    }
    said = {"folder": str(out), **rows, "columns": dataset.schema.width, "ids": dataset.schema.table_rows}
    more = {"shares": shares, "profiles": profiles, "alone": dataset.alone, "extension": dataset.extension}
    show({**said, **more} if json else said, json)
    say_extension(dataset.extension)
    for name, split in dataset.splits.items():
        say_profile(split)
        say_shares(name, shares[name])
    say_next(
        f"tfctr train --data {out} --out RUN" if "valid" in dataset.splits else "the same with --valid 0.1: training needs it"
    )


def encode(
    dataset: PreparedFirst,
    table: Annotated[
        str, typer.Argument(metavar="TABLE", help="CSV or other text cells, Parquet or JSON lines; a glob; a URL.")
    ],
    out: NewDataset,
    split: Annotated[str, typer.Option(help="What the table is in it: train, valid or test.")] = "test",
    labels: Annotated[
        bool | None, typer.Option("--labels/--no-labels", help="Whether it must have labels; where the first file has some.")
    ] = None,
    memory_limit: MemoryLimit = "1GB",
    threads: Threads = None,
    separator: Separator = None,
    columns: Columns = None,
    missing: MissingTexts = None,
    encoding: Encoding = None,
    json: Json = False,
) -> None:
    """Turn a further table into ids on disk, by the vocabularies, edges and means of an earlier `tfctr prepare`.

    Example: tfctr encode runs/data tuesday.parquet --out runs/tuesday
    """
    from tfctr.data import encode

    limits = {"memory_limit": memory_limit, "threads": threads}
    given = layout(separator, columns, missing, encoding)
    found = encode(dataset, table, out=out, split=split, labels=labels, **limits, **given).splits[split]
    said = {"folder": str(out), f"{split}_rows": found.rows, "labels": found.has_labels}
    rate = found.click_rate if found.has_labels else None
    profiles = {split: {"click_rate": rate, "copies": found.copies, "features": found.profile}}
    show({**said, "shares": {split: found.shares}, "profiles": profiles} if json else said, json)
    say_profile(found)
    say_shares(split, found.shares)
    evaluating = f"tfctr evaluate RUN --data {out} --split {split}"
    say_next(evaluating if found.has_labels else f"in Python, run.model.predict(dataset.{split}.batches(10_000))")


def drift(
    dataset: PreparedFirst,
    table: Annotated[
        str, typer.Argument(metavar="TABLE", help="Text cells, Parquet or JSON lines; or a folder of `tfctr encode`.")
    ],
    max_psi: Annotated[float | None, typer.Option(help="The most that a PSI may be, beyond chance: 0.25.")] = None,
    max_unseen: Annotated[float | None, typer.Option(help="The most unseen tokens beyond the expected share: 0.2.")] = None,
    max_missing: Annotated[float | None, typer.Option(help="The most missing rows beyond training's share: 0.1.")] = None,
    plot: Plot = None,
    memory_limit: MemoryLimit = "1GB",
    threads: Threads = None,
    separator: Separator = None,
    columns: Columns = None,
    missing: MissingTexts = None,
    encoding: Encoding = None,
    json: Json = False,
) -> None:
    """Compare each feature of a further table with training; with limits, exit code 5 where one is exceeded.

    Example: tfctr drift runs/data tuesday.parquet --max-psi 0.25 --plot drift.png
    """
    from tfctr.data import drift
    from tfctr.errors import DriftError

    if plot is not None:
        require_plot(plot)
    limits = {"max_psi": max_psi, "max_unseen": max_unseen, "max_missing": max_missing}
    given = {"memory_limit": memory_limit, "threads": threads, **layout(separator, columns, missing, encoding)}
    failure = None
    try:
        found = drift(dataset, table, **limits, **given)
    except DriftError as error:
        failure, found = error, error.found
    if plot is not None:
        draw(found, plot)
    if failure is None and json:
        print_json({"features": found})
    elif not json:
        typer.echo("\n".join(drift_lines(found)))
    if failure is not None:
        raise failure


def _label(column, positive, threshold):
    """The column, with what makes a label of it a click."""
    from tfctr.schema import Label

    if not positive and threshold is None:
        return column
    values = positive[0] if positive and len(positive) == 1 else positive
    if threshold is not None and threshold.is_integer():
        threshold = int(threshold)
    return Label(column, values or None, threshold)


def _share(option, text):
    """A number, if `text` is one, else `text`: a file, or none."""
    if re.fullmatch(r"\d+(\.\d+)?%", text or ""):
        raise ConfigError(f"`{option}` is {text!r}.", fix=f"write the share as {float(text[:-1]) / 100:g}")
    try:
        return None if text is None else float(text)
    except ValueError:
        return text


COMMANDS = (init, infer, prepare, encode, drift)
