"""Commands about raw tables: a first schema of one, and ids of it on disk."""

import re
from pathlib import Path
from typing import Annotated

import typer

from tfctr.cli.console import (
    Columns,
    Encoding,
    Json,
    MissingTexts,
    Separator,
    layout,
    layout_options,
    print_json,
    say_next,
    say_profile,
    say_shares,
    show,
)
from tfctr.cli.starter import init
from tfctr.errors import ConfigError, StorageError


def infer(
    table: Annotated[str, typer.Argument(metavar="TABLE", help="CSV or other text cells, Parquet or JSON lines; or a glob.")],
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
    schema: Annotated[Path, typer.Argument(metavar="SCHEMA", help="A schema: `tfctr infer` or `tfctr init` writes one.")],
    train: Annotated[str, typer.Option(help="CSV or other text cells, Parquet or JSON lines; or a glob.")],
    out: Annotated[Path, typer.Option(help="The folder to write.")],
    valid: Annotated[str | None, typer.Option(help="A file, or the share of --train to split off, such as 0.1.")] = None,
    test: Annotated[str | None, typer.Option(help="A file, or the share of --train to split off, such as 0.1.")] = None,
    memory_limit: Annotated[str, typer.Option(help="What the engine may hold at a time.")] = "1GB",
    threads: Annotated[int | None, typer.Option(help="Threads of the engine; all if absent.")] = None,
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
    dataset = prepare(Schema.load(schema), **tables, out=out, **limits, **layout(separator, columns, missing, encoding))
    rows = {f"{name}_rows": split.rows for name, split in dataset.splits.items()}
    shares = {name: split.shares for name, split in dataset.splits.items()}
    profiles = {
        name: {"click_rate": split.click_rate, "copies": split.copies, "features": split.profile}
        for name, split in dataset.splits.items()
    }
    said = {"folder": str(out), **rows, "columns": dataset.schema.width, "ids": dataset.schema.table_rows}
    show({**said, "shares": shares, "profiles": profiles, "alone": dataset.alone} if json else said, json)
    for name, split in dataset.splits.items():
        say_profile(split)
        say_shares(name, shares[name])
    say_next(
        f"tfctr train --data {out} --out RUN" if "valid" in dataset.splits else "the same with --valid 0.1: training needs it"
    )


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


COMMANDS = (init, infer, prepare)
