"""The command line: `tfctr init | prepare | infer | train | evaluate | export | publish | ... | serve | predict | models`.

Data go to stdout, talk goes to stderr. `--json` prints one JSON value, an error included. Exit codes: those of `tfctr.errors`,
130 after Ctrl-C, and 143 after SIGTERM. TensorFlow is imported inside the commands that need it, so `--help` answers at once.
"""

import contextlib
import functools
import logging
import os
import re
import signal
import sys
import traceback
from pathlib import Path
from typing import Annotated

import typer

from tfctr import __version__, cli_init, cli_publishing
from tfctr.console import (
    Columns,
    Encoding,
    Json,
    MissingTexts,
    Moved,
    RunFolder,
    Separator,
    Versions,
    layout,
    layout_options,
    parse_labels,
    print_json,
    say_profile,
    say_shares,
    show,
    suggest,
)
from tfctr.errors import ConfigError, StorageError, TfctrError

app = typer.Typer(
    help="Click-through-rate prediction, from a raw table to a gRPC answer.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def main():
    """The entry point of the `tfctr` program."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow's start-up notes are not ours
    sys.stdout.reconfigure(encoding="utf-8")  # as the files are, whatever the locale
    talk = logging.StreamHandler(sys.stderr)
    logging.getLogger("tfctr").addHandler(talk)
    logging.getLogger("tfctr").setLevel(logging.INFO)
    logging.getLogger("tfctr.metrics").setLevel(logging.ERROR)  # `evaluate` says what is not defined
    signal.signal(signal.SIGTERM, _terminate)
    app()


def _terminate(*_):
    """End as after Ctrl-C, with what is kept and said then, but for the exit code."""
    raise _Terminated


class _Terminated(KeyboardInterrupt):
    pass


def command(function):
    """A command whose expected errors are printed as their text, without a traceback, and end with their exit code."""

    @app.command()
    @functools.wraps(function)
    def guarded(**arguments):
        try:
            return function(**arguments)
        except (typer.Exit, BrokenPipeError):
            raise
        except _Terminated as error:
            raise typer.Exit(143) from error
        except (TfctrError, OSError) as error:
            if not isinstance(error, TfctrError):
                problem = f"{error.filename or 'the disk'}: {error.strerror or error}."
                error = StorageError(problem, fix="check space and permissions")
            failure, text, code = {"problem": error.problem, "fix": error.fix}, f"error: {error}", error.exit_code
        except Exception as error:
            traceback.print_exc()
            failure, code = {"problem": f"{type(error).__name__}: {error}", "fix": None}, 70
            text = "This is a bug in tfctr. Please report it with the lines above."
        if arguments.get("json"):
            print_json({"error": {**failure, "exit_code": code}})
        else:
            typer.echo(text, err=True)
        raise typer.Exit(code)

    return guarded


@app.callback(invoke_without_command=True)
def _options(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False):
    if version:
        typer.echo(__version__)
        raise typer.Exit


@command
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
):
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
    suggest(
        f"tfctr train --data {out} --out RUN" if "valid" in dataset.splits else "the same with --valid 0.1: training needs it"
    )


@command
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
):
    """Write a first schema for a new table, with what was seen of each column as comments; with --json under `notes`.

    Example: tfctr infer clicks.csv --label click --out schema.yaml
    """
    from tfctr.data.inference import draft
    from tfctr.schema import Label

    if out is not None and out.exists():
        raise StorageError(f"{out} already exists.", fix="choose another --out, or remove this file first")
    if positive or threshold is not None:
        values = positive[0] if positive and len(positive) == 1 else positive
        whole = threshold is not None and threshold.is_integer()
        label = Label(label, values or None, int(threshold) if whole else threshold)
    given = layout(separator, columns, missing, encoding)
    drafted = draft(table, label=label, group=group, weight=weight, **given)
    if out is not None:
        drafted.save(out)
        shares = f"{layout_options(**given)} --valid 0.1 --test 0.1"
        suggest(f"read {out}, correct it, then: tfctr prepare {out} --train {table}{shares} --out DIR")
    if json:
        print_json(drafted.to_dict())
    elif out is None:
        typer.echo(drafted.to_yaml(), nl=False)


@command
def train(
    data: Annotated[Path, typer.Option(help="The --out folder of `tfctr prepare`.")],
    out: Annotated[Path, typer.Option(help="The run folder to write.")],
    config: Annotated[Path | None, typer.Argument(metavar="[CONFIG]", help="A run: `tfctr init` writes one.")] = None,
    model: Annotated[
        str | None, typer.Option(help="Without CONFIG: a name that `tfctr models` lists. [default: TF4CTR]")
    ] = None,
    set: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="Replace one value; may be repeated.")] = None,
    seed: Annotated[int | None, typer.Option(help="The same as --set training.seed=N.")] = None,
    keep_freed_memory: Annotated[
        bool, typer.Option("--keep-freed-memory/--return-freed-memory", help="What malloc does after each step, with glibc.")
    ] = True,
    json: Json = False,
):
    """Train a model: with settings that follow from the data, or with those of CONFIG, such as a paper's.

    Example: tfctr train --data runs/data --out runs/first

    Example: tfctr train examples/frappe_tf4ctr.yaml --data runs/data --out runs/tf4ctr --set training.epochs=5 --seed 2
    """
    from tfctr import memory
    from tfctr.config import Config

    if config is not None and model is not None:
        raise ConfigError(f"{config} names a model, and `--model` does.", fix="leave one of them out")
    overrides = [*(set or []), *([] if seed is None else [f"training.seed={seed}"])]
    # Before TensorFlow is imported: a typing error shows at once.
    named = (
        Config.from_dict({"model": {"name": model or "TF4CTR"}}, overrides)
        if config is None
        else Config.load(config, overrides)
    )
    if keep_freed_memory and memory.keep_freed_memory():
        typer.echo("malloc keeps freed memory for the next step (--return-freed-memory)", err=True)

    from tfctr import training
    from tfctr.data import Dataset

    dataset = Dataset.load(data)
    run = training.train(named if config else training.suggest(dataset, named.model.name, overrides), dataset, out)
    show({"folder": str(out), **run.metrics}, json)
    suggest(f"tfctr evaluate {out} --split {'test' if 'test' in dataset.splits else 'valid'}; then: tfctr publish {out} DIR")


@command
def evaluate(
    run: RunFolder,
    split: Annotated[str, typer.Option(help="train, valid or test.")] = "test",
    data: Moved = None,
    json: Json = False,
):
    """Print exact AUC, gAUC and log loss of a run; and the log loss of a constant, predicted over observed clicks (pcoc).

    Example: tfctr evaluate runs/tf4ctr --split test --json
    """
    from tfctr.evaluation import evaluate
    from tfctr.training import load_run

    values = evaluate(load_run(run), split, data=data)
    undefined = values["undefined"]
    show(values if json else {name: value for name, value in values.items() if name not in ("undefined", "shares")}, json)
    say_shares(split, values.get("shares"))
    for name, reason in undefined.items():
        typer.echo(f"{name} is not defined: {reason}", err=True)


for _function in (*cli_publishing.COMMANDS, cli_init.init):
    command(_function)


@command
def serve(
    folder: Versions,
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port to listen on.")] = 8500,
    stand_in: Annotated[bool, typer.Option("--stand-in", help="Even if tensorflow_model_server is on PATH.")] = False,
    label: Annotated[
        list[str] | None,
        typer.Option(metavar="LABEL=VERSION", help="Serve this version under a name, not the highest. May be repeated."),
    ] = None,
    certificate: Annotated[Path | None, typer.Option(metavar="SERVER.pem", help="Answer over TLS only; with --key.")] = None,
    key: Annotated[Path | None, typer.Option(metavar="KEY.pem", help="The key of --certificate.")] = None,
    root_certificates: Annotated[
        Path | None, typer.Option(metavar="CA.pem", help="Clients must show a certificate of these authorities.")
    ] = None,
):
    """Answer gRPC requests on this machine, until Ctrl-C.

    A local stand-in, unless tensorflow_model_server is on PATH. Example: tfctr serve serving/frappe --port 8500
    """
    from tfctr import serving
    from tfctr.serving.publishing.labels import require_labels

    labels = require_labels(folder, parse_labels(label or ()))
    tls = {"certificate": certificate, "key": key, "root_certificates": root_certificates}
    serving.serve(folder, port=port, stand_in=stand_in, versions=sorted({*labels.values()}) or None, labels=labels, **tls)


@command
def predict(
    target: Annotated[str, typer.Argument(metavar="TARGET", help="host:port of the server.")],
    rows: Annotated[Path, typer.Argument(metavar="ROWS", help="JSON lines, CSV or Parquet, or a glob; - for stdin.")],
    model: Annotated[str, typer.Option(help="The model's name on the server.")],
    version: Annotated[int | None, typer.Option(min=1, help="One version, not the highest.")] = None,
    label: Annotated[str | None, typer.Option(help="A version by its label on the server, such as stable.")] = None,
    signature: Annotated[str, typer.Option(help="serving_default for raw values, ids for prepared ones.")] = "serving_default",
    separator: Annotated[
        list[str] | None,
        typer.Option(metavar="[COLUMN=]C", help="What joins the tokens of lists, if the model does not say; may be repeated."),
    ] = None,
    timeout: Annotated[float, typer.Option(help="Seconds for each request.")] = 5.0,
    tls: Annotated[bool, typer.Option("--tls", help="Encrypt the connection.")] = False,
    root_certificates: Annotated[
        Path | None, typer.Option(metavar="CA.pem", help="Certificate authorities to trust, with --tls or without.")
    ] = None,
    token: Annotated[str | None, typer.Option(envvar="TFCTR_TOKEN", help="A bearer token; only over TLS.")] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="The file to write, whole or not at all.")] = None,
    cell_separator: Annotated[
        str | None, typer.Option(metavar="C", help="Between the cells of text files, --separator of prepare.")
    ] = None,
    columns: Columns = None,
    missing: MissingTexts = None,
    encoding: Encoding = None,
    json: Json = False,
):
    """Print the click probability of each row, one a line. What the model does not take, such as the label, is left out.

    Example: tfctr predict localhost:8500 --model frappe rows.csv --out probabilities.txt
    """
    from tfctr.serving import PredictionClient
    from tfctr.storage import atomic_file, require_free

    which = {"version": version, "label": label, "signature": signature}
    connection = {"timeout": timeout, "tls": tls, "root_certificates": root_certificates, "token": token}
    given = layout(cell_separator, columns, missing, encoding)
    if out is not None:
        require_free(out)
    with PredictionClient(target, model=model, separator=_separator(separator), **which, **connection) as client:
        probabilities = client.predict_file(rows, **{name: value for name, value in given.items() if value})
        say_shares("the first rows", client.shares)
    with atomic_file(out) if out else contextlib.nullcontext(sys.stdout) as file:
        if json:
            print_json({"probabilities": probabilities.tolist()}, file)
        else:
            typer.echo("\n".join(map(str, probabilities)), file)


@command
def models(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="One model: its arguments, defaults, meaning.")] = None,
    json: Json = False,
):
    """List the models: name, year, paper, idea; with --json the link and the encoders, too. With NAME, one model's arguments.

    Example: tfctr models DeepFM
    """
    from tfctr.models import MODELS, describe, describe_arguments

    if name is not None:
        model, arguments = describe(name), describe_arguments(name)
        if not json:
            typer.echo(f"{name}: {model['idea']} {model['paper'] or ''} {model['link'] or ''}".rstrip())
            arguments = {argument: _default_and_meaning(**found) for argument, found in arguments.items()}
        return show({**model, "arguments": arguments} if json else arguments, json)
    models = {name: describe(name) for name in sorted(MODELS)}
    if not json:
        models = {name: f"{model['year']}  {model['paper'] or '':<22}  {model['idea']}" for name, model in models.items()}
    show(models, json)


def _default_and_meaning(meaning, default=...):
    return f"{'required' if default is ... else repr(default):<16}  {meaning or ''}".rstrip()


def _share(option, text):
    """A number, if `text` is one, else `text`: a file, or none."""
    if re.fullmatch(r"\d+(\.\d+)?%", text or ""):
        raise ConfigError(f"`{option}` is {text!r}.", fix=f"write the share as {float(text[:-1]) / 100:g}")
    try:
        return None if text is None else float(text)
    except ValueError:
        return text


def _separator(texts):
    """One character for all columns, or `{column: character}`."""
    if not texts or texts == [texts[0][:1]]:
        return texts[0] if texts else None
    for text in texts:
        if text[-2:-1] != "=":
            raise ConfigError(f"`--separator` is {text!r}.", fix="give one character, or COLUMN=CHARACTER")
    return {text[:-2]: text[-1] for text in texts}
