"""Commands about models and runs."""

import importlib.util
import logging
import sys
from pathlib import Path
from typing import Annotated

import typer

from tfctr.cli.console import (
    Columns,
    Encoding,
    Json,
    MemoryLimit,
    MissingTexts,
    Moved,
    Plot,
    RunFolder,
    Separator,
    Threads,
    far_from_training,
    importance_lines,
    layout,
    print_json,
    say_next,
    say_shares,
    show,
)
from tfctr.errors import ConfigError


def train(
    out: Annotated[Path, typer.Option(help="The run folder to write.")],
    data: Annotated[
        str | None,
        typer.Option(
            metavar="DATASET", help="The --out of `tfctr prepare`, a folder or a URL; with --resume, the run knows it."
        ),
    ] = None,
    config: Annotated[Path | None, typer.Argument(metavar="[CONFIG]", help="A run: `tfctr init` writes one.")] = None,
    model: Annotated[
        str | None, typer.Option(help="Without CONFIG: a name that `tfctr models` lists. [default: TF4CTR]")
    ] = None,
    set: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="Replace one value; may be repeated.")] = None,
    seed: Annotated[int | None, typer.Option(help="The same as --set training.seed=N.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out, if one was stopped there.")] = False,
    checkpoint_every: Annotated[
        str | None, typer.Option(metavar="STEPS|TIME", help="Within an epoch, too: 1000, or 10min. [default: at its end]")
    ] = None,
    warm_start: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Begin where this run ended; by default one epoch by its settings.")
    ] = None,
    warm_start_data: Annotated[
        str | None, typer.Option(metavar="DATASET", help="The dataset of that run, if it has moved.")
    ] = None,
    new_rows: Annotated[
        str | None,
        typer.Option(help="With --warm-start: where new tokens start, at out_of_vocabulary or random. [default: the first]"),
    ] = None,
    learning_rate: Annotated[float | None, typer.Option(help="The same as --set training.learning_rate=X.")] = None,
    epochs: Annotated[int | None, typer.Option(help="The same as --set training.epochs=N.")] = None,
    replay: Annotated[
        float | None, typer.Option(help="The same as --set training.replay=X: rows of --warm-start's table, for each new one.")
    ] = None,
    tensorboard: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write the curves of each epoch there, for TensorBoard.")
    ] = None,
    distribute: Annotated[
        str | None,
        typer.Option(
            help="mirrored: all devices of this machine; multi_worker, parameter_server: as TF_CONFIG says of this process."
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Try multi_worker on this machine: start N processes of it.")
    ] = None,
    servers: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="With --workers: try parameter_server, with so many of them.")
    ] = None,
    keep_freed_memory: Annotated[
        bool, typer.Option("--keep-freed-memory/--return-freed-memory", help="What malloc does after each step, with glibc.")
    ] = True,
    json: Json = False,
) -> None:
    """Train a model: with settings that follow from the data, or with those of CONFIG, such as a paper's.

    Example: tfctr train --data runs/data --out runs/first

    Example: tfctr train examples/frappe_tf4ctr.yaml --data runs/data --out runs/tf4ctr --set training.epochs=5 --seed 2

    Example: tfctr train --data runs/data --out runs/first --resume --checkpoint-every 10min

    Example: tfctr train --data runs/tuesday --out runs/second --warm-start runs/first --epochs 1 --replay 0.2

    Example: tfctr train --data runs/data --out runs/first --workers 2

    Example: tfctr train --data runs/data --out runs/first --set training.pretrained.item=items.parquet
    """
    from tfctr import malloc
    from tfctr.config import Config

    if workers is not None or servers is not None:
        raise typer.Exit(_start_workers(workers, servers, distribute))
    if distribute == "parameter_server" and not _is_chief(distribute):
        return
    if config is not None and model is not None:
        raise ConfigError(f"{config} names a model, and `--model` does.", fix="leave one of them out")
    goes_on = resume and (out / "config.yaml").exists()
    if data is None and not goes_on:
        raise ConfigError("`--data` is missing.", fix="name the --out folder of `tfctr prepare`")
    every = int(checkpoint_every) if checkpoint_every and checkpoint_every.isdecimal() else checkpoint_every
    short = {"seed": seed, "learning_rate": learning_rate, "epochs": epochs, "replay": replay}
    overrides = [*(set or []), *(f"training.{key}={value}" for key, value in short.items() if value is not None)]
    named = _named(config, model, out if goes_on else None, overrides)  # before TensorFlow: a typing error shows at once
    if not keep_freed_memory:
        malloc.return_freed_memory()
    elif malloc.keep_freed_memory():
        typer.echo("malloc keeps freed memory for the next step (--return-freed-memory)", err=True)

    from tfctr import training
    from tfctr.data import Dataset
    from tfctr.training.distribution import is_named_chief
    from tfctr.training.warm import next_config

    speaks = distribute != "multi_worker" or is_named_chief(distribute)
    if not speaks:
        logging.getLogger("tfctr").setLevel(logging.ERROR)
    dataset: Dataset | str | None = data
    if data is not None and not goes_on:
        dataset = Dataset.load(data)
        if config is None and model is None and warm_start is not None:
            named = Config.from_dict(next_config(training.load_run(warm_start)).to_dict(), overrides)
        elif config is None:
            named = training.suggest(dataset, named.model.name, overrides)
    further = {"warm_start": warm_start, "warm_start_data": warm_start_data, "new_rows": new_rows, "distribute": distribute}
    curves = [] if tensorboard is None else [_curves(tensorboard)]
    run = training.train(named, dataset, out, resume=resume, checkpoint_every=every, callbacks=curves, **further)
    if not speaks:
        return
    show({"folder": str(out), **run.metrics}, json)
    has_test = "test" in dataset.splits if isinstance(dataset, Dataset) else (run.data / "test").is_dir()
    split = "test" if has_test else "valid"
    say_next(f"tfctr evaluate {out} --split {split}; then: tfctr publish {out} DIR")


def _named(config, model, run, overrides):
    """The configuration that a command names: in a file, by a model alone, or of a run that goes on, which may not change."""
    from tfctr.config import Config

    if config is not None:
        return Config.load(config, overrides)
    values = {"model": {"name": "TF4CTR"}} if run is None else Config.load(run / "config.yaml").to_dict()
    if model is not None:
        values["model"]["name"] = model
    return Config.from_dict(values, overrides)


def _start_workers(workers, servers, distribute):
    """Run this command, as it was typed, in so many processes that train together."""
    from tfctr.training.launching import launch

    kind = "parameter_server" if servers else "multi_worker"
    if distribute not in (None, kind):
        raise ConfigError(f"`--workers` is {workers}, and `--distribute` {distribute}.", fix="leave one of them out")
    if workers is None or (workers == 1 and not servers):
        raise ConfigError(f"`--workers` is {workers}.", fix="give 2 or more; with --servers, 1 or more")
    kept, typed = [], iter(sys.argv[1:])
    for word in typed:
        name, given, _ = word.partition("=")
        if name not in ("--workers", "--servers", "--distribute"):
            kept.append(word)
        elif not given:
            next(typed)
    return launch([sys.executable, "-m", "tfctr", *kept, f"--distribute={kind}"], workers, servers or 0)


def _is_chief(distribute):
    """Whether this process trains; if not, it is lent to the one that does until that has ended."""
    from tfctr.training.distribution import is_named_chief, serve

    if chief := is_named_chief(distribute):
        return chief
    serve()
    return chief


def _curves(folder):
    """The callback of Keras that writes for TensorBoard, without which TensorFlow writes nothing."""
    import keras

    if importlib.util.find_spec("tensorboard") is None:
        raise ConfigError("`--tensorboard` needs TensorBoard, which is not installed.", fix='pip install "tfctr[tensorboard]"')
    return keras.callbacks.TensorBoard(str(folder), write_graph=False)


def evaluate(
    run: RunFolder,
    split: Annotated[str | None, typer.Option(help="train, valid or test. [default: test]")] = None,
    table: Annotated[str | None, typer.Option(help="Instead of a split, a raw table with labels.")] = None,
    max_pcoc: Annotated[float | None, typer.Option(help="How far pcoc may be from 1, beyond chance: 0.05.")] = None,
    data: Moved = None,
    memory_limit: MemoryLimit = "1GB",
    threads: Threads = None,
    separator: Separator = None,
    columns: Columns = None,
    missing: MissingTexts = None,
    encoding: Encoding = None,
    json: Json = False,
) -> None:
    """Print exact AUC, gAUC and log loss of a run; and the log loss of a constant, predicted over observed clicks (pcoc).

    With --max-pcoc, exit code 5 where the probabilities are no longer those of the clicks.

    Example: tfctr evaluate runs/tf4ctr --split test --json

    Example: tfctr evaluate runs/tf4ctr --table tuesday.parquet --max-pcoc 0.05
    """
    from tfctr.errors import CalibrationError
    from tfctr.evaluation import evaluate
    from tfctr.training import load_run

    failure = None
    given = {"memory_limit": memory_limit, "threads": threads, **layout(separator, columns, missing, encoding)}
    try:
        values = evaluate(load_run(run), split, data=data, table=table, max_pcoc=max_pcoc, **given)
    except CalibrationError as error:
        failure, values = error, error.found
    undefined = values["undefined"]
    if not json:
        show({name: value for name, value in values.items() if name not in ("undefined", "shares")}, json)
    elif failure is None:  # else the error is the one value that is printed
        show(values, json)
    say_shares(split or ("table" if table else "test"), values.get("shares"))
    for name, reason in undefined.items():
        typer.echo(f"{name} is not defined: {reason}", err=True)
    if failure is not None:
        raise failure


def score(
    run: RunFolder,
    table: Annotated[
        str, typer.Argument(metavar="TABLE", help="CSV or other text cells, Parquet or JSON lines; a glob; a URL.")
    ],
    out: Annotated[Path, typer.Option(help="The .parquet file to write.")],
    keep: Annotated[list[str] | None, typer.Option(metavar="COLUMN", help="Write it beside. May be repeated.")] = None,
    keep_all: Annotated[bool, typer.Option("--keep-all", help="Write all columns of the table beside.")] = False,
    output: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A named logit to write, too: logit, simple; or all. May be repeated."),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Rows scored at a time.")] = 10_000,
    data: Moved = None,
    memory_limit: MemoryLimit = "1GB",
    threads: Threads = None,
    separator: Separator = None,
    columns: Columns = None,
    missing: MissingTexts = None,
    encoding: Encoding = None,
    json: Json = False,
) -> None:
    """Write the probability of a click of each row of a raw table, without a server and without labels.

    Example: tfctr score runs/tf4ctr tuesday.parquet --out scores.parquet --keep user --keep item
    """
    from tfctr.evaluation import score
    from tfctr.training import load_run

    if keep and keep_all:
        raise ConfigError("both `--keep` and `--keep-all` are given.", fix="leave one of them out")
    given = {"memory_limit": memory_limit, "threads": threads, **layout(separator, columns, missing, encoding)}
    kept = None if keep_all else keep or ()
    said = score(load_run(run), table, out=out, keep=kept, outputs=output or (), batch_size=batch_size, data=data, **given)
    plain = {"file": str(out), "rows": said["rows"], "mean_probability": said["mean_probability"]}
    show({**plain, **said} if json else plain, json)
    for text in far_from_training(said["profile"]):
        typer.echo(text, err=True)
    say_shares("table", said["shares"])


def importance(
    run: RunFolder,
    split: Annotated[str, typer.Option(help="train, valid or test.")] = "valid",
    repeats: Annotated[int, typer.Option(help="Permutations a feature; each is a pass over the rows.")] = 5,
    seed: Annotated[int, typer.Option(help="Of the permutations, and of the draw of --rows.")] = 0,
    rows: Annotated[int | None, typer.Option(help="At most so many rows, drawn. [default: all]")] = None,
    batch_size: Annotated[int, typer.Option(help="Rows scored at a time.")] = 10_000,
    plot: Plot = None,
    data: Moved = None,
    json: Json = False,
) -> None:
    """Print how much worse a run is when one feature's values are permuted: the fall of AUC and gAUC, the rise of log loss.

    Features that say the same share their importance, or hide it: see docs/training.md.

    Example: tfctr importance runs/tf4ctr --rows 100000 --plot importance.svg
    """
    from tfctr.cli.importance_plot import draw
    from tfctr.cli.plots import require_plot
    from tfctr.evaluation import importance
    from tfctr.training import load_run

    if plot is not None:
        require_plot(plot)
    given = {"repeats": repeats, "seed": seed, "rows": rows, "batch_size": batch_size}
    found = importance(load_run(run), split, data=data, **given)
    if plot is not None:
        draw(found, plot)
    if json:
        print_json(found)
    else:
        typer.echo("\n".join(importance_lines(found)))
    base = found["base"]
    drawn = "" if found["rows"] == found["of_rows"] else f" of {found['of_rows']:,}, drawn by the seed {seed}"
    typer.echo(f"{split}: {found['rows']:,} rows{drawn}; AUC {base['auc']:.6f}, log loss {base['log_loss']:.6f}", err=True)


def embeddings(
    run: RunFolder,
    feature: Annotated[str, typer.Option(help="A categorical feature, or a sequence.")],
    out: Annotated[Path, typer.Option(help="The .parquet file to write: kind, token, id, vector.")],
    table: Annotated[
        int | None, typer.Option(min=1, help="Which of the model's tables with the feature. [default: the widest, the first]")
    ] = None,
    data: Moved = None,
    json: Json = False,
) -> None:
    """Write the vectors that a run has learnt of a feature's tokens, for another program, or to begin another training with.

    Example: tfctr embeddings runs/tf4ctr --feature item --out items.parquet

    Example: tfctr train --data runs/new --out runs/next --set training.pretrained.item=items.parquet
    """
    from tfctr.evaluation import embeddings
    from tfctr.training import load_run

    show({"file": str(out), **embeddings(load_run(run), feature, out=out, table=table, data=data)}, json)


def models(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="One model: its arguments, defaults, meaning.")] = None,
    json: Json = False,
) -> None:
    """List the models: name, year, paper, idea; with --json the link and the encoders, too. With NAME, one model's arguments.

    Example: tfctr models DeepFM
    """
    from tfctr.models import MODELS, describe, describe_arguments

    if name is not None:
        model, arguments = describe(name), describe_arguments(name)
        if not json:
            typer.echo(f"{name}: {model['idea']} {model['paper'] or ''} {model['link'] or ''}".rstrip())
            arguments = {argument: _default_and_meaning(**found) for argument, found in arguments.items()}
        show({**model, "arguments": arguments} if json else arguments, json)
        return
    models = {name: describe(name) for name in sorted(MODELS)}
    if not json:
        models = {name: f"{model['year']}  {model['paper'] or '':<22}  {model['idea']}" for name, model in models.items()}
    show(models, json)


def _default_and_meaning(meaning, default=...):
    return f"{'required' if default is ... else repr(default):<16}  {meaning or ''}".rstrip()


COMMANDS = (train, evaluate, importance, score, embeddings, models)
