"""What the commands share: their common arguments, and how they print. Data go to stdout, talk goes to stderr."""

import json as json_format
import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Annotated, Any

import typer

from tfctr.errors import ConfigError

Json = Annotated[bool, typer.Option("--json", help="Print one JSON value on stdout.")]
Moved = Annotated[
    str | None, typer.Option("--data", metavar="DATASET", help="Where the prepared dataset is now, if it has moved.")
]
Prepared = Annotated[
    str, typer.Option("--data", metavar="DATASET", help="What `tfctr prepare` wrote, its --out: a folder or a URL.")
]
PreparedFirst = Annotated[
    str, typer.Argument(metavar="DATASET", help="What `tfctr prepare` wrote, its --out: a folder or a URL.")
]
NewDataset = Annotated[str, typer.Option("--out", metavar="FOLDER", help="The folder to write, or its URL.")]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="The --out folder of `tfctr train`.")]
Separator = Annotated[
    str | None, typer.Option("--separator", metavar="C", help="Between the cells of text files; as their ending says, or seen.")
]
Columns = Annotated[
    str | None, typer.Option("--columns", metavar="A,B,C", help="The names of all columns of text files without a header line.")
]
MissingTexts = Annotated[
    list[str] | None,
    typer.Option("--missing", metavar="TEXT", help="Means a missing value in text files: NA. May be repeated."),
]
Plot = Annotated[Path | None, typer.Option("--plot", help="A .png, .svg or .pdf file to write.")]
MemoryLimit = Annotated[str, typer.Option("--memory-limit", help="What the engine may hold at a time.")]
Threads = Annotated[int | None, typer.Option("--threads", help="Threads of the engine; all if absent.")]
Encoding = Annotated[str | None, typer.Option("--encoding", help="Of text files that are not UTF-8: cp1252.")]


def _folder(text):
    if not str(text).strip():  # as a path it would be the working directory
        raise typer.BadParameter("the folder's name is empty.")
    return Path(text)


Versions = Annotated[Path, typer.Argument(metavar="DIR", parser=_folder, help="The folder of all versions.")]


def layout(separator: str | None, columns: str | None, missing: list[str] | None, encoding: str | None) -> dict[str, Any]:
    """How text files are laid out, as arguments of `tfctr.prepare`, `Schema.infer` and `predict_file`."""
    names = None if columns is None else [name.strip() for name in columns.split(",")]
    return {"separator": separator, "columns": names, "missing": missing or (), "encoding": encoding}


def layout_options(separator: str | None, columns: Sequence[str] | None, missing: Sequence[str], encoding: str | None) -> str:
    """The options that give such a layout, as the next command needs them; each with a space before it.

    >>> layout_options(None, ["user", "click"], ["NA", "?"], None)
    " --columns user,click --missing NA --missing '?'"
    """
    options = [("separator", separator), ("columns", columns and ",".join(columns)), *(("missing", text) for text in missing)]
    given = [(name, value) for name, value in (*options, ("encoding", encoding)) if value is not None]
    return "".join(f" --{name} {shlex.quote(value)}" for name, value in given)


def show(values: Mapping[str, Any], json: bool) -> None:
    """Print a mapping, one `name  value` a line, or as JSON."""
    if json:
        print_json(values)
        return
    lines = dict(_flat(values))
    width = max(map(len, lines), default=0)
    for name, value in lines.items():
        typer.echo(f"{name:<{width}}  {_text(value)}")


def _flat(values, prefix=""):
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}_")
        else:
            yield f"{prefix}{name}", value


def _text(value):
    if isinstance(value, float):
        return "not defined" if math.isnan(value) else f"{value:.6g}"
    return "none" if value is None else str(value)


def print_json(value: Any, file: IO[str] | None = None) -> None:
    """Print one JSON value, to stdout or a file; what is not defined (NaN) is null."""
    from tfctr.metrics import without_nan

    typer.echo(json_format.dumps(without_nan(value), ensure_ascii=False), file)


def say_shares(split: str, shares: Mapping[str, Any] | None) -> None:
    """Say on stderr how many tokens of a split the fit does not know, and how many rows were cut; no word of a share of 0."""
    for what, beside in (("unseen", "expected"), ("cut", None)):
        said = {name: share for name, share in (shares or {}).items() if share.get(what)}
        texts = [f"{name} {share[what]:.2%}{_beside(share.get(beside), beside)}" for name, share in said.items()]
        if texts:
            meaning = {"unseen": "tokens that the fit does not know", "cut": "rows with more tokens than are kept"}[what]
            typer.echo(f"{split}: {meaning}: {', '.join(texts)}", err=True)


def say_extension(extension: Mapping[str, Any] | None) -> None:
    """Say on stderr what each vocabulary has gained and lost; no word of one that is as it was.

    >>> import contextlib, sys
    >>> counts = {"known": 5, "seen_again": 3, "new": 2, "evicted": 1, "left_out": 0}
    >>> with contextlib.redirect_stderr(sys.stdout):
    ...     say_extension({"features": {"user": counts, "hour": dict.fromkeys(counts, 0)}})
    user: 5 known tokens, 3 of them seen again; 2 new, 1 evicted
    """
    for name, found in (extension or {"features": {}})["features"].items():
        changes = [f"{found[what]} {what.replace('_', ' ')}" for what in ("new", "evicted", "left_out") if found[what]]
        if changes:
            said = f"{name}: {found['known']} known tokens, {found['seen_again']} of them seen again; {', '.join(changes)}"
            typer.echo(said, err=True)


def say_profile(split: Any) -> None:
    """Say on stderr how many clicks a split has, what of it is in training, and how far it is from that."""
    said = [f"{split.click_rate:.2%} clicks" if split.has_labels else "no labels"]
    if split.copies and split.name != "train":
        said.append(f"{split.copies['share']:.2%} of the rows are also in training ({split.copies['expected']:.2%} expected)")
    if split.known_groups is not None:
        said.append(f"{split.known_groups:.2%} of the rows have a group that is also in training")
    typer.echo(f"{split.name}: {'; '.join([*said, *far_from_training(split.profile)])}", err=True)


def far_from_training(profile: Mapping[str, Any]) -> list[str]:
    """The features of a profile that have moved, in one text; none where none has."""
    from tfctr.data.profile import moved

    far = [f"{name} {found['distance']:.2f} (PSI {found['psi']:.2f})" for name, found in moved(profile).items()]
    return [f"distributed otherwise than in training: {', '.join(far)}"] if far else []


def _beside(share, name):
    return "" if share is None else f" ({share:.2%} {name})"


def drift_lines(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What `tfctr.drift` has found as a table, the largest PSI first.

    >>> for line in drift_lines({"hour": {"psi": 0.31, "psi_by_chance": 0.02, "missing": 0.5, "missing_in_training": 0.0}}):
    ...     print(line)
    feature     PSI  by chance  distance   unseen  expected  missing  in training
    hour     0.3100     0.0200         -        -         -   50.00%        0.00%
    """
    names = ("psi", "psi_by_chance", "distance", "unseen", "expected", "missing", "missing_in_training")
    titles = ("PSI", "by chance", "distance", "unseen", "expected", "missing", "in training")
    forms = ("{:.4f}", "{:.4f}", "{:.4f}", *("{:.2%}",) * 4)
    wide = max(map(len, ("feature", *found)))
    widths = (6, 9, 8, 7, 8, 7, 11)
    lines = ["  ".join([f"{'feature':<{wide}}", *(f"{title:>{width}}" for title, width in zip(titles, widths, strict=True))])]
    for name in sorted(found, key=lambda name: -(found[name].get("psi") or 0)):
        values = [found[name].get(key) for key in names]
        texts = ["-" if value is None else form.format(value) for form, value in zip(forms, values, strict=True)]
        lines.append("  ".join([f"{name:<{wide}}", *(f"{text:>{width}}" for text, width in zip(texts, widths, strict=True))]))
    return lines


def importance_lines(found: Mapping[str, Any]) -> list[str]:
    """What `tfctr.evaluation.importance` has found as a table, in its order; `+-` is the standard deviation over the repeats.

    >>> rise = {"log_loss_rise": 0.02, "log_loss_rise_std": 0.001}
    >>> for line in importance_lines({"features": {"user": {"auc_fall": 0.1234, "auc_fall_std": 0.002, **rise}}}):
    ...     print(line)
    feature  AUC falls by       +-  log loss rises by       +-  gAUC falls by       +-
    user          0.12340  0.00200            0.02000  0.00100              -        -
    """
    features = found["features"]
    titles = {"auc_fall": "AUC falls by", "log_loss_rise": "log loss rises by", "group_auc_fall": "gAUC falls by"}
    wide = max(map(len, ("feature", *features)))
    lines = ["  ".join([f"{'feature':<{wide}}", *(f"{title}  {'+-':>7}" for title in titles.values())])]
    for name, figures in features.items():
        texts = [f"{name:<{wide}}"]
        for figure, title in titles.items():
            for key, width in ((figure, len(title)), (f"{figure}_std", 7)):
                value = figures.get(key, math.nan)
                texts.append(f"{'-' if math.isnan(value) else f'{value:.5f}':>{width}}")
        lines.append("  ".join(texts))
    return lines


def say_next(text: str) -> None:
    """Say on stderr what to do next."""
    typer.echo(f"next: {text}", err=True)


def parse_labels(texts: Iterable[str]) -> dict[str, str | None]:
    """`{label: version}` of texts such as "stable=7"; None as the version of "stable=none".

    >>> parse_labels(["stable=7", "canary=none"])
    {'stable': '7', 'canary': None}
    """
    labels: dict[str, str | None] = {}
    for text in texts:
        label, equals, version = text.partition("=")
        if not equals:
            raise ConfigError(f"{text!r} is not LABEL=VERSION.", fix="write stable=7, or stable=none to take the label away")
        if label in labels:
            raise ConfigError(f"the label {label!r} is given twice.", fix="say for each label once where it goes")
        labels[label] = None if version == "none" else version
    return labels
