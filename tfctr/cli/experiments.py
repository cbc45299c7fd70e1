"""Commands about many runs."""

from pathlib import Path
from typing import Annotated

import typer

from tfctr.cli.console import Json, Moved, Prepared, print_json, say_next

_MOST_LINES = 10  # of trials; a file has all


def compare(
    spec: Annotated[Path, typer.Argument(metavar="SPEC", help="A YAML file: models, and with how many seeds.")],
    data: Prepared,
    out: Annotated[Path, typer.Option(help="The folder of the comparison; what is there is not trained again.")],
    jobs: Annotated[int, typer.Option(min=1, help="Runs at a time. Their seconds say less then.")] = 1,
    json: Json = False,
) -> None:
    """Train models with several seeds each, measure all on the same rows, and say which differences are noise.

    A SPEC is as short as: models: {DNN: {}, TF4CTR: {}}. Settings are those of `tfctr train` without CONFIG; the first model is
    the baseline; there are five seeds. A call that was stopped goes on.

    Example: tfctr compare models.yaml --data runs/data --out runs/comparison
    """
    from tfctr.experiments import compare
    from tfctr.experiments.page import table_cells

    comparison = compare(spec, data, out, jobs)
    if json:
        print_json(comparison.to_dict())
        return
    _show_table(table_cells(comparison))
    _show_table(table_cells(comparison, tests=True))
    typer.echo("\n".join(comparison.sentences()))
    typer.echo(f"{out / 'comparison.html'}: the same with pictures, and each run", err=True)


def tune(
    spec: Annotated[Path, typer.Argument(metavar="SPEC", help="A YAML file: a model, and what varies.")],
    data: Prepared,
    out: Annotated[Path, typer.Option(help="The folder of the study; what is there is not tried again.")],
    trials: Annotated[int | None, typer.Option(min=1, help="How many. [default: as the SPEC says, or 20]")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Trials at a time. The next one then knows less.")] = 1,
    json: Json = False,
) -> None:
    """Search the settings with which a model does best on the validation split, with Optuna; no test row is read.

    A SPEC is as short as: vary: {model.alpha: [0.1, 0.25], training.learning_rate: {float: [1e-4, 1e-2], log: true}}. The
    best is in OUT/best.yaml, for `tfctr train`. A call that was stopped goes on.

    Example: tfctr tune tuned.yaml --data runs/data --out runs/tuning --trials 50
    """
    from tfctr.experiments import tune

    tuning = tune(spec, data, out, trials, jobs)
    if json:
        print_json(tuning.to_dict())
        return
    _show_table(tuning.table_cells(_MOST_LINES))
    typer.echo("\n".join(tuning.sentences()))
    typer.echo(f"{out / 'tuning.csv'}: all trials", err=True)
    say_next(f"tfctr train {out / 'best.yaml'} --data {data} --out RUN")


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="The --out folders of `tfctr train`.")],
    out: Annotated[Path, typer.Option(help="The HTML file to write; one that is there is replaced.")],
    split: Annotated[str | None, typer.Option(help="train, valid or test. [default: test where all have it]")] = None,
    data: Moved = None,
    json: Json = False,
) -> None:
    """Write one page of runs with pictures: curves of training, ROC, lift, calibration, scores, fusion weights and gates.

    Example: tfctr report runs/dnn runs/tf4ctr --out report.html
    """
    from tfctr.experiments import report

    found = report(runs, out, split, data)
    if json:
        print_json({"file": str(out), **found})
        return
    lines = [["run", "AUC", "log loss", "predicted / observed", "calibration error"]]
    for name, values in found["runs"].items():
        lines.append([name, *(f"{values[figure]:.5f}" for figure in ("auc", "log_loss", "pcoc", "ece"))])
    _show_table(lines)
    typer.echo(f"{out}: {found['split']} rows, with pictures", err=True)


def analyze(
    name: Annotated[str, typer.Argument(metavar="NAME", help="focus, difficulty, gradients or spaces.")],
    out: Annotated[Path, typer.Option(help="The folder of the picture, the figures and the trainings.")],
    what: Annotated[
        Path | None,
        typer.Argument(metavar="[RUN|SPEC]", help="Models as of `tfctr compare`, or a run to repeat."),
    ] = None,
    data: Annotated[
        str | None, typer.Option(metavar="DATASET", help="What `tfctr prepare` wrote; a run knows its own.")
    ] = None,
    json: Json = False,
) -> None:
    """Draw what the papers measure beside their tables, of these models on these data: NAME.svg and NAME.csv.

    focus: the TF loss (TF4CTR, Fig. 4). difficulty: hard, challenging and easy rows after each epoch (Fig. 2 and 10).
    gradients: of the logits of both encoders (Fig. 5). spaces: CETN's, projected (CETN, Fig. 11).

    Example: tfctr analyze difficulty models.yaml --data runs/data --out runs/analyses
    """
    from tfctr.experiments import analyze

    found = analyze(name, what, out, data)
    if json:
        print_json(found)
        return
    typer.echo("\n".join([found["counterpart"], *found["sentences"]]))
    typer.echo(", ".join(found["files"]), err=True)


def reproduce(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", help="Of frappe, ml-1m, ml-tag, criteo, avazu, kkbox."),
    ] = None,
    files: Annotated[Path | None, typer.Option(help="Your own copy: the folder with train.csv, valid.csv, test.csv.")] = None,
    out: Annotated[Path | None, typer.Option(help="The folder to write; what is there is not made again.")] = None,
    table: Annotated[str | None, typer.Option(help="Such as tf4ctr-2 or cetn-5.")] = None,
    model: Annotated[
        list[str] | None, typer.Option(metavar="ROW", help="Only this row of the table. May be given several times.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="How many.")] = 5,
    jobs: Annotated[int, typer.Option(min=1, help="Runs at a time.")] = 1,
    json: Json = False,
) -> None:
    """Run a table of the papers TF4CTR or CETN on your own copy of its data, and show what the paper has beside it.

    Without --table the data sets, or that of NAME, are listed: where their files come from, and which rows each table has.

    Example: tfctr reproduce frappe --files downloads/Frappe_x1 --out frappe --table tf4ctr-4 --seeds 5
    """
    from tfctr.errors import ConfigError
    from tfctr.experiments.recipes import Recipe, recipes

    if name is None or table is None:
        shown = recipes().values() if name is None else [Recipe.named(name)]
        _list_recipes(shown, json)
        return
    if files is None or out is None:
        raise ConfigError("a table needs --files and --out.", fix=f"get {Recipe.named(name).source}, and name its folder")
    from tfctr.experiments.reproduce import reproduce

    found = reproduce(name, files, out, table, model or (), seeds, jobs)
    if json:
        print_json(found.to_dict())
        return
    _show_table(found.cells())
    typer.echo("\n".join(found.comparison.sentences()))
    typer.echo(f"{out / table / 'comparison.html'}: each run, and pictures", err=True)


def _list_recipes(shown, json):
    from tfctr.experiments.tables import table_names, table_rows

    if json:
        print_json({recipe.name: {"source": recipe.source, "tables": table_names(recipe)} for recipe in shown})
        return
    for recipe in shown:
        sizes = ", ".join(f"{split} {rows:,}" for split, rows in recipe.rows.items())
        typer.echo(f"{recipe.name}: {recipe.source}; {sizes} rows")
        for table in table_names(recipe):
            typer.echo(f"  {table}: {'; '.join(table_rows(recipe, table))}")


def _show_table(cells):
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for first, *others in cells:
        line = [f"{first:<{widths[0]}}", *(f"{text:>{width}}" for text, width in zip(others, widths[1:], strict=True))]
        typer.echo("  ".join(line))
    typer.echo()


COMMANDS = (compare, tune, report, analyze, reproduce)
