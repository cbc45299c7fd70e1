"""Commands about the versions of a served model."""

import dataclasses
import shlex
from pathlib import Path
from typing import Annotated

import typer

from tfctr.cli.console import (
    Columns,
    Encoding,
    Json,
    MissingTexts,
    Moved,
    RunFolder,
    Separator,
    Versions,
    layout,
    parse_labels,
    print_json,
    say_next,
    say_shares,
    show,
)
from tfctr.errors import ConfigError, StorageError, require_one_of

Candidates = Annotated[
    list[str] | None,
    typer.Option(
        "--candidate", metavar="FEATURE", help="Differs among the candidates of a request: adds `rank`. May be repeated."
    ),
]
Absent = Annotated[
    list[str] | None, typer.Option("--optional", metavar="FEATURE", help="Requests may leave it out. May be repeated.")
]
Calibrate = Annotated[
    str | None,
    typer.Option(metavar="METHOD", help="Fit on the valid split: temperature, platt, isotonic or best of them and none."),
]
Kept = Annotated[float, typer.Option(help="The share of the non-clicks that the run's rows were left with.")]
Tables = Annotated[
    str | None,
    typer.Option(metavar="FORM", help="Store embedding tables as float16 or int8, unless the valid split suffers."),
]
Without = Annotated[
    list[str] | None,
    typer.Option("--without", metavar="SIGNATURE", help="Leave out explain or embedding. May be repeated."),
]
RetrieverFolder = Annotated[
    Path | None,
    typer.Option("--retriever", metavar="DIR", help="Of `tfctr retrieve train`, on the same dataset: adds `recommend`."),
]
Retrieved = Annotated[int, typer.Option(min=1, help="How many items --retriever finds for a user, to be ranked.")]
Rows = Annotated[Path | None, typer.Option(metavar="ROWS", help="A file of labelled raw rows to measure on.")]
Slices = Annotated[
    list[str] | None, typer.Option("--slice", metavar="FEATURE", help="Measure each frequent value, too. May be repeated.")
]
InUse = Annotated[Path | None, typer.Option(metavar="MODELS.config", exists=True, help="The versions in it are kept, too.")]


def export(
    run: RunFolder,
    folder: Versions,
    data: Moved = None,
    candidate: Candidates = None,
    optional: Absent = None,
    calibrate: Calibrate = None,
    negatives_kept: Kept = 1.0,
    tables: Tables = None,
    retriever: RetrieverFolder = None,
    retrieved: Retrieved = 100,
    without: Without = None,
    json: Json = False,
) -> None:
    """Export a run as the next SavedModel version, after a strict check.

    Example: tfctr export runs/tf4ctr serving/frappe --candidate item --candidate cost --calibrate best
    """
    from tfctr import serving
    from tfctr.training import load_run

    loaded = load_run(run)
    options = _options(loaded, data, candidate, optional, calibrate, negatives_kept, tables, without)
    options = _with_retriever(options, retriever, retrieved, data)
    show({"folder": str(serving.export(loaded.inference_model, folder, options))}, json)
    say_next(f"tfctr serve {folder}")


def publish(
    run: RunFolder,
    folder: Versions,
    data: Moved = None,
    candidate: Candidates = None,
    optional: Absent = None,
    calibrate: Calibrate = None,
    negatives_kept: Kept = 1.0,
    tables: Tables = None,
    retriever: RetrieverFolder = None,
    retrieved: Retrieved = 100,
    without: Without = None,
    rows: Rows = None,
    separator: Separator = None,
    columns: Columns = None,
    missing: MissingTexts = None,
    encoding: Encoding = None,
    sample: Annotated[int, typer.Option(min=0, help="Without --rows: so many rows of the valid split.")] = 100_000,
    store: Annotated[int, typer.Option(min=0, help="Put so many of these rows into the version, for all to read.")] = 0,
    slice_by: Slices = None,
    max_auc_drop: Annotated[float, typer.Option(help="How far an AUC may fall.")] = 0.002,
    max_log_loss_rise: Annotated[float, typer.Option(help="How far the log loss may rise.")] = 0.002,
    max_pcoc: Annotated[float, typer.Option(help="How far from 1 predicted over observed clicks, beyond chance.")] = 0.2,
    max_slice_auc_drop: Annotated[float, typer.Option(help="How far the AUC of a slice may fall.")] = 0.02,
    max_slice_log_loss_rise: Annotated[float, typer.Option(help="How far the log loss of a slice may rise.")] = 0.02,
    max_psi: Annotated[float, typer.Option(help="Of the scores: population stability index.")] = 0.2,
    max_difference: Annotated[float, typer.Option(help="Of the scores: mean absolute difference.")] = 0.1,
    force: Annotated[str | None, typer.Option(metavar="REASON", help="Publish such a model, and record why.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Do all but publish.")] = False,
    keep: Annotated[int | None, typer.Option(min=2, help="Remove older versions; all stay if absent.")] = None,
    config: InUse = None,
    json: Json = False,
) -> None:
    """Export a run and make it live, unless it is worse than the version that is live now, or than a constant.

    Example: tfctr publish runs/tf4ctr serving/frappe --keep 5
    """
    from tfctr import serving
    from tfctr.serving.publishing.labels import versions_in_use
    from tfctr.training import load_run

    slice_bounds = {"slice_auc_drop": max_slice_auc_drop, "slice_log_loss_rise": max_slice_log_loss_rise}
    bounds = serving.Bounds(max_auc_drop, max_log_loss_rise, max_psi, max_difference, max_pcoc, **slice_bounds)
    protected = versions_in_use(config, folder) if config else ()
    loaded = load_run(run)
    clicks = _clicks(loaded, data, rows, sample, negatives_kept, layout(separator, columns, missing, encoding))
    options = _options(loaded, data, candidate, optional, calibrate, negatives_kept, tables, without)
    options = _with_retriever(options, retriever, retrieved, data)
    if clicks is not None and store:
        options = dataclasses.replace(options, examples={name: column[:store] for name, column in clicks.columns.items()})
    gate = {"clicks": clicks, "slices": slice_by or (), "bounds": bounds, "force": force}
    kept = {"dry_run": dry_run, "keep": keep, "protected": protected}
    published = serving.publish_model(loaded.inference_model, folder, options, **gate, **kept)
    show(published if json else _short(published), json)
    _say_published(folder, published, dry_run)


def rollback(
    folder: Versions,
    reason: Annotated[str, typer.Option(help="Why; it is recorded.")],
    to: Annotated[
        str | None, typer.Option(metavar="VERSION", help="The version to go back to; the one before if absent.")
    ] = None,
    json: Json = False,
) -> None:
    """Make an older version live again: its files become the next version.

    Example: tfctr rollback serving/frappe --reason "click rate fell by a third"
    """
    from tfctr import serving

    published = serving.rollback(folder, reason, to=to)
    show(published, json)
    say_next(f"tfctr versions {folder}")
    _say_labels(folder, published)


def versions(
    folder: Versions,
    removed: Annotated[bool, typer.Option("--removed", help="Also those that are no longer there.")] = False,
    verify: Annotated[bool, typer.Option("--verify", help="Compare every file with its SHA-256.")] = False,
    json: Json = False,
) -> None:
    """List the versions: which is live, when and by whom each was published, and why.

    Example: tfctr versions serving/frappe --verify
    """
    from tfctr import serving
    from tfctr.serving.store import manifest

    serving.latest(folder)
    known = serving.history(folder, removed=removed)
    for version in known if verify else ():
        if not version["removed"]:
            try:
                manifest.verify(folder / str(version["version"]))
            except StorageError as error:
                version["damage"] = error.problem
    problems = [version["damage"] for version in known if version["damage"]]
    if json:
        print_json({"versions": known})
        raise typer.Exit(StorageError.exit_code if problems else 0)
    show({str(version["version"]): _line(version) for version in known}, json)
    if problems:
        raise StorageError("; ".join(problems), fix="publish under the next number, or roll back; then remove these folders")


def label(
    config: Annotated[Path, typer.Argument(metavar="MODELS.config", help="TensorFlow Serving's --model_config_file.")],
    folder: Versions,
    labels: Annotated[list[str], typer.Argument(metavar="LABEL=VERSION...", help="Such as stable=7; canary=none removes it.")],
    server: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Do both steps, and wait between them.")] = None,
    step: Annotated[str | None, typer.Option(help="Without --server: load, then label once all are AVAILABLE.")] = None,
    base_path: Annotated[str | None, typer.Option(help="Where the server finds DIR, for a model new to the file.")] = None,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for the server.")] = 300.0,
    json: Json = False,
) -> None:
    """Move labels of versions, such as stable and canary, in the two steps that TensorFlow Serving needs.

    Example: tfctr label serving/models.config serving/frappe stable=7 canary=8 --server localhost:8500
    """
    from tfctr.serving.publishing.labels import load_versions, move_labels, wait_until_available

    wanted = parse_labels(labels)
    if (server is None) == (step is None):
        raise ConfigError("give either --server or --step.", fix="--server HOST:PORT; or --step load, wait, then --step label")
    if step is not None:
        require_one_of(("load", "label"), step, "step")
    written = {}
    if step != "label":
        written["loaded"] = load_versions(config, folder, wanted, base_path)
    if server is not None:
        typer.echo(f"waiting until {server} has read {config} and serves them all (`tfctr serve` reads no such file)", err=True)
        wait_until_available(server, folder, wanted, timeout)
    if step != "load":
        written["labels"] = move_labels(config, folder, wanted)
    show(written, json)
    if step == "load":
        say_next("once these versions are AVAILABLE, the same with --step label")
    elif server is not None:
        say_next("the labels move when the server next reads the file")


def server_config(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder for the files.")],
    folders: Annotated[list[Path], typer.Argument(metavar="DIR...", help="For each model the folder of all versions.")],
    models_at: Annotated[str | None, typer.Option(metavar="PATH", help="Where the server finds them, such as /models.")] = None,
    max_batch_size: Annotated[int | None, typer.Option(help="Join requests that wait, up to so many rows.")] = None,
    batch_timeout_micros: Annotated[int, typer.Option(help="How long a request waits for others.")] = 0,
    num_batch_threads: Annotated[int | None, typer.Option(help="Batches at the same time; one a core if absent.")] = None,
    max_enqueued_batches: Annotated[int | None, typer.Option(help="How many batches may wait.")] = None,
    allowed_batch_size: Annotated[list[int] | None, typer.Option(help="Batches are padded to it. May be repeated.")] = None,
    certificate: Annotated[Path | None, typer.Option(metavar="FILE.pem", help="For TLS, with --key.")] = None,
    key: Annotated[Path | None, typer.Option(metavar="FILE.pem", help="Goes into ssl.config, which only you may read.")] = None,
    root_certificates: Annotated[
        Path | None, typer.Option(metavar="FILE.pem", help="Clients must show a certificate of these authorities.")
    ] = None,
    json: Json = False,
) -> None:
    """Write the configuration files of a TensorFlow Serving for these models, and print the command that reads them.

    Example: tfctr server-config config serving/frappe --models-at /models
    """
    from tfctr.serving import Batching, write_server_config

    batching = None
    if max_batch_size is not None:
        sizes = tuple(allowed_batch_size or ())
        batching = Batching(max_batch_size, batch_timeout_micros, num_batch_threads, max_enqueued_batches, sizes)
    elif batch_timeout_micros or num_batch_threads or max_enqueued_batches or allowed_batch_size:
        raise ConfigError("no batch size is given, but how to batch is.", fix="--max-batch-size ROWS")
    flags = write_server_config(
        out,
        folders,
        models_at=models_at,
        batching=batching,
        certificate=certificate,
        key=key,
        root_certificates=root_certificates,
    )
    if json:
        show({"flags": flags}, json)
    else:
        typer.echo(" \\\n    ".join(["tensorflow_model_server --port=8500 --rest_api_port=8501", *map(shlex.quote, flags)]))


COMMANDS = (publish, rollback, versions, label, server_config)


def _say_published(folder, published, dry_run):
    say_shares("the rows to compare on", published["unseen"])
    after = f"tfctr versions {folder}" if published["compared_with"] else f"tfctr serve {folder}"
    say_next("the same without --dry-run" if dry_run else after)
    _say_labels(folder, published)


def _say_labels(folder, published):
    """A file that pins versions is no longer served the highest one."""
    from tfctr.serving.store.folders import pinned_versions

    try:
        pinned = pinned_versions(folder)
    except StorageError as error:  # since the publishing began; the version is live
        typer.echo(f"warning: {error}", err=True)
        return
    for config, numbers in pinned.items() if published["folder"] else ():
        needed = ", ".join(map(str, numbers))
        say_next(f"{config} stays at {needed} until: tfctr label {config} {folder} LABEL={Path(published['folder']).name}")


def _options(run, data, candidates, optional, calibrate, negatives_kept, tables, without):
    """What `tfctr export` and `tfctr publish` put into a version."""
    from tfctr.serving import ExportOptions

    calibration = None if calibrate is None else _calibrated(run, data, calibrate)
    return ExportOptions(
        vocabularies=data,
        metrics={f"valid_{name}": value for name, value in run.metrics["valid"].items()},
        candidates=candidates or None,
        optional=optional or (),
        calibration=calibration,
        negatives_kept=negatives_kept,
        without=without or (),
        origin=run.origin,
        tables=None if tables is None else _compressed(run, data, tables, calibration, negatives_kept),
    )


def _with_retriever(options, folder, retrieved, data):
    """The same with a retriever, if there is one."""
    from tfctr.retrieval import load_retriever

    if folder is None:
        return options
    return dataclasses.replace(options, retriever=load_retriever(folder, data), retrieved=retrieved)


def _calibrated(run, data, method):
    """A calibration for the run; says which one, and what it does."""
    from tfctr.serving import fit_calibration

    calibration = fit_calibration(run.inference_model, run.dataset(data).valid, method)
    before, after = calibration.figures["before"], calibration.figures["after"][calibration.method]
    loss = f"log loss {after['log_loss']:.6g}, {before['log_loss']:.6g} before"
    clicks = f"predicted over observed clicks {after['pcoc']:.4g}, {before['pcoc']:.4g} before"
    what = "no" if calibration.method == "none" else calibration.method
    typer.echo(f"{what} calibration: on the valid split {loss}; {clicks}", err=True)
    return calibration


def _compressed(run, data, form, calibration, negatives_kept):
    """The run's tables in a smaller form; says what that saves and costs."""
    from tfctr.serving import compress_tables

    valid = run.dataset(data).valid
    tables = compress_tables(run.inference_model, valid, form, calibration=calibration, negatives_kept=negatives_kept)
    before, after = tables.figures["before"], tables.figures["after"]
    size = f"{after['bytes']:,} bytes, {before['bytes']:,} before"
    auc = f"AUC {after['auc']:.6f}, {before['auc']:.6f} before"
    worst = f"no probability moves by more than {tables.figures['max_difference']:.2g}"
    typer.echo(f"tables as {form}: {size}; on the valid split {auc}, {worst}", err=True)
    return tables


def _clicks(run, data, rows, sample, negatives_kept, layout):
    """Labelled raw rows of a file, or of the valid split; None of neither."""
    from tfctr.serving.publishing.clicks import read_clicks
    from tfctr.serving.publishing.samples import sample_clicks

    if rows is not None:
        return read_clicks(run.inference_model.schema, rows, **layout)
    dataset = run.dataset(data)
    return sample_clicks(dataset.valid, dataset.schema, sample, negatives_kept=negatives_kept) if sample else None


def _short(published):
    """What people read of a publication: the comparison in short lines."""
    comparison = published["comparison"] or {}
    metrics = {
        name: f"{values['live']:.6g} live, {'not defined' if values['new'] is None else format(values['new'], '.6g')} new"
        for name, values in comparison.get("metrics", {}).items()
    }
    scores = {f"scores_{name}": comparison[name] for name in ("rows", "psi", "difference") if name in comparison}
    outcome = {name: published[name] for name in ("folder", "compared_with")}
    if published["measured"]:
        outcome["measured_on"] = published["measured"]["on"]
    removed = {"removed": ", ".join(map(str, published["removed"])), "not_removed": published["not_removed"]}
    despite = "; ".join(published["failures"]) or None
    failures = {"forced": published["reason"], "despite": despite} if published["reason"] else {}
    return {**outcome, **metrics, **scores, **failures, **{name: text for name, text in removed.items() if text}}


def _line(version):
    state = "removed" if version["removed"] else "live" if version["live"] else ""
    action = version.get("action", "" if version["damage"] else "export") + (f" of {version['of']}" if "of" in version else "")
    who, why = version.get("by", ""), version.get("reason") or ""
    damage = "DAMAGED  " if version["damage"] else ""
    return f"{state:<7}  {damage}{action:<14}  {version.get('time', ''):<25}  {who}  {why}".rstrip()
