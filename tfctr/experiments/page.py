"""A comparison as one page: the table, what it says in words, pictures, and each run that a figure comes from."""

import html
import io
import json
import math
from typing import TYPE_CHECKING, Any

from tfctr.storage import yaml_text

if TYPE_CHECKING:
    from tfctr.experiments.comparison import Comparison, Contender

_COLUMNS = {  # title, and the digits behind the point
    "auc": ("AUC", 5),
    "group_auc": ("gAUC", 5),
    "log_loss": ("log loss", 5),
    "rela_impr": ("RelaImpr", 4),
    "pcoc": ("predicted / observed", 3),
    "ece": ("calibration error", 4),
    "parameters": ("parameters", 0),
    "epochs": ("epochs", 1),
    "seconds_per_epoch": ("s an epoch", 2),
    "rows_per_second": ("rows/s", 0),
}
_TESTS = {
    "auc_t": "AUC, seeds: t",
    "auc_wilcoxon": "AUC, seeds: Wilcoxon",
    "log_loss_t": "log loss, seeds: t",
    "log_loss_wilcoxon": "log loss, seeds: Wilcoxon",
    "group_auc_t": "AUC, groups: t",
    "group_auc_wilcoxon": "AUC, groups: Wilcoxon",
}
_LONGEST_LABEL = 60
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 76em; margin: 2em auto; padding: 0 1em; color: #222; }
table { border-collapse: collapse; margin: 1em 0; display: block; overflow-x: auto; }
th, td { padding: .25em .7em; border-bottom: 1px solid #ddd; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
td a { color: inherit; text-decoration-color: #aaa; }
pre { background: #f6f6f6; padding: .8em; overflow-x: auto; font-size: 13px; }
svg { max-width: 100%; height: auto; }
"""


def table_cells(comparison: "Comparison", tests: bool = False) -> list[list[str]]:
    """The table as text, the line of titles first; with `tests` that of the p-values. What nobody has is left out."""
    rows = comparison.rows()
    if tests:
        shown = [name for name in _TESTS if any(_is_number(row.get(name)) for row in rows)]
        titles = [_TESTS[name] for name in shown]
        lines = [[row["model"], *(_p(row.get(name)) for name in shown)] for row in rows if not row["baseline"]]
        return [["p-values, by Holm", *titles], *lines]
    shown = [name for name in _COLUMNS if any(_is_number(row.get(name)) for row in rows)]
    lines = [[row["model"], str(row["seeds"]), *(_figure(row, name) for name in shown)] for row in rows]
    return [["model", "seeds", *(_COLUMNS[name][0] for name in shown)], *lines]


def page(comparison: "Comparison") -> str:
    """The page, which needs nothing beside it."""
    parts = [
        f"<h1>{len(comparison.contenders)} models on the {comparison.split} split</h1>",
        list_of(comparison.sentences()),
        _table(table_cells(comparison), comparison),
        _table(table_cells(comparison, tests=True), comparison),
        picture(_dots(comparison)),
        picture(_curves(comparison)),
        *(_section(number, contender, comparison) for number, contender in enumerate(comparison.contenders)),
    ]
    return document("tfctr compare", parts)


def document(title: str, parts: list[str]) -> str:
    """A page of these parts, which needs nothing beside it."""
    head = f"<meta charset='utf-8'><title>{html.escape(title)}</title><style>{_STYLE}</style>"
    return f"<!doctype html><html lang='en'><head>{head}</head><body>{''.join(parts)}</body></html>\n"


def list_of(sentences: list[str]) -> str:
    """Sentences, one a line."""
    return f"<ul>{''.join(f'<li>{html.escape(sentence)}</li>' for sentence in sentences)}</ul>"


def details(title: str, text: str) -> str:
    """Text that a click shows."""
    return f"<details><summary>{html.escape(title)}</summary><pre>{html.escape(text)}</pre></details>"


def picture(figure: Any) -> str:
    """A figure of Matplotlib as inline SVG."""
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    text = file.getvalue()
    return text[text.index("<svg") :]


def label_of(name: str) -> str:
    """A name as Matplotlib draws it: the end of a long one, in which variants differ, and no formulas."""
    return (name if len(name) <= _LONGEST_LABEL else f"…{name[-_LONGEST_LABEL:]}").replace("$", r"\$")


def _is_number(value: Any) -> bool:
    return value is not None and not math.isnan(value)


def _figure(row: dict[str, Any], name: str) -> str:
    value, digits = row.get(name), _COLUMNS[name][1]
    if not _is_number(value):
        return "-"
    spread = row.get(f"{name}_std")
    return f"{value:,.{digits}f}" + (f" ± {spread:.{digits}f}" if spread is not None and not math.isnan(spread) else "")


def _p(value: float | None) -> str:
    return f"{value:.2g}" if value is not None and not math.isnan(value) else "-"


def _table(cells: list[list[str]], comparison: "Comparison") -> str:
    """Each cell of a contender's line leads to its runs."""
    titles, *lines = cells
    numbers = {contender.name: number for number, contender in enumerate(comparison.contenders)}
    head = "".join(f"<th>{html.escape(title)}</th>" for title in titles)
    body = ""
    for line in lines:
        link = f"<td><a href='#runs-{numbers[line[0]]}'>"
        body += f"<tr>{''.join(f'{link}{html.escape(text)}</a></td>' for text in line)}</tr>"
    return f"<table><tr>{head}</tr>{body}</table>"


def _section(number: int, contender: "Contender", comparison: "Comparison") -> str:
    lines = "".join(_run_line(seed, result, comparison) for seed, result in contender.results.items())
    titles = "".join(
        f"<th>{title}</th>" for title in ("seed", "AUC", "log loss", "valid AUC", "epochs", "model, SHA-256", "folder")
    )
    settings = yaml_text(contender.config.to_dict(), short=True)
    environment = json.dumps(next((result["environment"] for result in contender.finished.values()), {}), indent=2)
    return (
        f"<h2 id='runs-{number}'>{html.escape(contender.name)}</h2><table><tr>{titles}</tr>{lines}</table>"
        f"{details('settings', settings)}{details('environment of the first run', environment)}"
    )


def _run_line(seed: int, result: dict[str, Any], comparison: "Comparison") -> str:
    folder = html.escape("/".join(result["folder"].parts[-2:]))
    if "failed" in result:
        return f"<tr><td>{seed}</td><td colspan='5'>{html.escape(result['failed'])}</td><td>{folder}</td></tr>"
    figures, metrics = result["figures"], result["metrics"]
    found = figures[comparison.split]
    numbers = (found["auc"], found["log_loss"], figures["valid"]["auc"])
    texts = [
        str(seed),
        *(_p5(value) for value in numbers),
        str(metrics["epochs"]),
        metrics.get("model_sha256", "")[:16],
        folder,
    ]
    return f"<tr>{''.join(f'<td>{text}</td>' for text in texts)}</tr>"


def _p5(value: float | None) -> str:
    return "-" if value is None else f"{value:.5f}"


def _dots(comparison: "Comparison") -> Any:
    """AUC and log loss of each seed, and their mean, a line for each contender."""
    from matplotlib.figure import Figure

    contenders = [contender for contender in comparison.contenders if contender.finished][::-1]
    figure = Figure(figsize=(11, 1.2 + 0.35 * len(contenders)), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    panels[0].set_yticks(range(len(contenders)), [label_of(contender.name) for contender in contenders])
    panels[0].set_ylim(-0.6, len(contenders) - 0.4)
    for axes, metric, title in zip(panels, ("auc", "log_loss"), ("AUC", "log loss"), strict=True):
        for line, contender in enumerate(contenders):
            values = [*contender.values(metric, comparison.split).values()]
            axes.plot(values, [line] * len(values), "o", alpha=0.5, color="#4c72b0")
            axes.plot(sum(values) / len(values), line, "|", markersize=18, color="#222222")
        axes.set_title(f"{title} on {comparison.split}: a dot a seed, the line is their mean", fontsize=10)
        axes.grid(axis="x", alpha=0.3)
    return figure


def _curves(comparison: "Comparison") -> Any:
    """AUC on the valid split after each epoch, a line a run."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.5), layout="constrained")
    axes = figure.subplots()
    for number, contender in enumerate(comparison.contenders):
        for place, result in enumerate(contender.finished.values()):
            values = [epoch["val_auc"] for epoch in result["history"]]
            label = label_of(contender.name) if place == 0 else None
            axes.plot(range(1, len(values) + 1), values, ".-", color=f"C{number % 10}", alpha=0.7, linewidth=1, label=label)
    axes.set_title("AUC on valid after each epoch", fontsize=10)
    axes.set_xlabel("epoch")
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    return figure
