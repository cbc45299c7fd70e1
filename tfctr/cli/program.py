"""The program `tfctr`: its commands, in the groups of `tfctr --help`, and how each of them ends.

Data go to stdout, talk goes to stderr. `--json` prints one JSON value, an error included. Exit codes: those of `tfctr.errors`,
130 after Ctrl-C, and 143 after SIGTERM. TensorFlow is imported inside the commands that need it, so `--help` answers at once.
"""

import functools
import importlib
import io
import logging
import os
import signal
import sys
import threading
import traceback
from typing import Annotated

import typer

from tfctr import __version__
from tfctr.cli import data, doctor, experiments, importing, publishing, retrieval, serving, training
from tfctr.cli.console import print_json
from tfctr.errors import ConfigError, StorageError, TfctrError

app = typer.Typer(
    help="Click-through-rate prediction, from a raw table to a gRPC answer.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
_GROUPS = {
    "Data": (*data.COMMANDS, *importing.COMMANDS),
    "Training": (*training.COMMANDS, *experiments.COMMANDS),
    "Serving": (publishing.export, *serving.COMMANDS),
    "Operations": (*publishing.COMMANDS, *doctor.COMMANDS),
}
_TERMINATED = threading.Event()


def main() -> None:
    """The entry point of the `tfctr` program."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow's start-up notes are not ours
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")  # as the files are, whatever the locale
    talk = logging.StreamHandler(sys.stderr)
    logging.getLogger("tfctr").addHandler(talk)
    logging.getLogger("tfctr").setLevel(logging.INFO)
    logging.getLogger("tfctr.metrics").setLevel(logging.ERROR)  # `evaluate` says what is not defined
    signal.signal(signal.SIGTERM, _terminate)
    app()


def _terminate(*_):
    """End as after Ctrl-C, with what is kept and said then, but for the exit code."""
    _TERMINATED.set()
    raise KeyboardInterrupt


def _import(module):
    """Import a module by its name, also from the working folder."""
    sys.path.insert(0, "")
    try:
        importlib.import_module(module)
    except ImportError as error:
        typer.echo(f"error: `--import {module}`: {error}.\n  fix: name a module that Python finds from here", err=True)
        raise typer.Exit(ConfigError.exit_code) from error
    finally:
        sys.path.remove("")


def _guarded(function):
    """A command whose expected errors are printed as their text, without a traceback, and end with their exit code."""

    @functools.wraps(function)
    def guarded(**arguments):
        try:
            return function(**arguments)
        except (typer.Exit, BrokenPipeError):
            raise
        except KeyboardInterrupt as error:
            if _TERMINATED.is_set():
                raise typer.Exit(143) from error
            raise
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
def _options(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    modules: Annotated[
        list[str] | None,
        typer.Option("--import", metavar="MODULE", help="Import it first: it registers models of yours. May be repeated."),
    ] = None,
):
    for module in modules or ():
        _import(module)
    if version:
        typer.echo(__version__)
        raise typer.Exit


for _group, _commands in _GROUPS.items():
    for _command in _commands:
        app.command(rich_help_panel=_group)(_guarded(_command))

_retrieve = typer.Typer(no_args_is_help=True, help="A retriever, two towers that find candidates: train, evaluate, export.")
for _command in retrieval.COMMANDS:
    _retrieve.command()(_guarded(_command))
app.add_typer(_retrieve, name="retrieve", rich_help_panel="Training")
