"""`tfctr init`: a starter schema and run configuration, copied from the examples."""

from pathlib import Path
from typing import Annotated

import typer

from tfctr.bundled import examples
from tfctr.cli.console import Json, say_next, show
from tfctr.errors import choose
from tfctr.storage import atomic_file, require_free


def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where to write schema.yaml and run.yaml.")] = Path(),
    name: Annotated[str, typer.Option(help="An example schema, such as ml1m, or run, such as ml1m_cetn.")] = "frappe",
    json: Json = False,
) -> None:
    """Write a schema and a run to start from: an example's, to be read and changed. `tfctr infer` drafts a schema for a table.

    Example: tfctr init mine --name frappe
    """
    files = {folder / file: text for file, text in starter(name).items()}
    for file in files:
        require_free(file)
    for file, text in files.items():
        with atomic_file(file) as target:
            target.write(text)
    show({file.stem: str(file) for file in files}, json)
    schema, run = folder / "schema.yaml", folder / "run.yaml"
    say_next(f"let {schema} name your columns, then: tfctr prepare {schema} --train FILE --valid 0.1 --test 0.1 --out DATA")
    if run in files:
        say_next(f"tfctr train {run} --data DATA --out RUN")


def starter(name: str) -> dict[str, str]:
    """`{file name: text}` of an example: its schema, and its run, or that of TF4CTR if the schema alone is named."""
    known = examples()
    choose(known, name, "example")
    schema = name.partition("_")[0]
    run = name if name != schema else f"{schema}_tf4ctr"
    chosen = {"schema.yaml": schema, "run.yaml": run}
    return {file: known[example].read_text(encoding="utf-8") for file, example in chosen.items() if example in known}
