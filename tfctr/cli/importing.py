"""Commands that translate the files of other libraries."""

import dataclasses
import shlex
from pathlib import Path
from typing import Annotated

import typer

from tfctr.cli.console import Json, say_next, show


def import_fuxictr(
    dataset: Annotated[Path, typer.Argument(metavar="DATASET", help="A dataset_config.yaml of FuxiCTR's, or its folder.")],
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A model_config.yaml of FuxiCTR's, or its folder.")],
    out: Annotated[Path, typer.Option(help="The folder to write: schema.yaml and run.yaml.")],
    dataset_id: Annotated[str | None, typer.Option(help="The dataset. [default: that of the experiment]")] = None,
    experiment_id: Annotated[str | None, typer.Option(help="The experiment, where MODEL has several.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Leave out what has no counterpart.")] = False,
    json: Json = False,
) -> None:
    """Translate an experiment of FuxiCTR's into a schema and a run, and say what is not the same; nothing is lost in silence.

    Example: tfctr import-fuxictr config config --experiment-id DeepFM_frappe --out mine
    """
    from tfctr.fuxictr import read

    found = read(dataset, model, dataset_id=dataset_id, experiment_id=experiment_id, force=force)
    found.save(out)
    plain = {
        "folder": str(out),
        "experiment_id": found.experiment_id,
        "dataset_id": found.dataset_id,
        "model": found.run["model"]["name"],
        "features": len(found.schema.features),
    }
    notes = {"tables": found.tables, "notes": [dataclasses.asdict(note) for note in found.notes]}
    show({**plain, **notes} if json else plain, json)
    for note in found.notes:
        typer.echo(str(note), err=True)
    given = {"train": "TABLE", "valid": "0.1", **found.tables}
    options = " ".join(f"--{name} {shlex.quote(str(value))}" for name, value in given.items())
    prepare = f"tfctr prepare {out / 'schema.yaml'} {options} --out DATA"
    say_next(f"{prepare}; then: tfctr train {out / 'run.yaml'} --data DATA --out RUN")


COMMANDS = (import_fuxictr,)
