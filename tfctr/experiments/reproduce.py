"""`tfctr.experiments.reproduce`: a table of the two papers on the user's own copy of the data, beside what the paper found."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import rich.console

from tfctr.config import Config
from tfctr.errors import require_one_of
from tfctr.experiments.compare import compare
from tfctr.experiments.comparison import Comparison
from tfctr.experiments.recipes import Recipe
from tfctr.experiments.spec import Spec
from tfctr.experiments.tables import Row, paper_of, table_rows
from tfctr.metrics import without_nan
from tfctr.storage import make_folder, write_json
from tfctr.types import StrPath

_FIGURES = ("auc", "log_loss")


@dataclasses.dataclass(frozen=True)
class Reproduction:
    """A table, as it came out here and as it was published.

    Args:
        recipe: the data set.
        table: which table.
        comparison: what was measured, on the test split.
        published: `{model: {"auc", "log_loss"}}`, as far as the paper has them.
    """

    recipe: Recipe
    table: str
    comparison: Comparison
    published: Mapping[str, Mapping[str, float]]

    def rows(self) -> list[dict[str, Any]]:
        """Those of `Comparison.rows`, with `published_auc` and `published_log_loss`: None where the paper has none."""
        return [
            {**row, **{f"published_{name}": self.published[row["model"]].get(name) for name in _FIGURES}}
            for row in self.comparison.rows()
        ]

    def cells(self) -> list[list[str]]:
        """The table as text, the line of titles first: mean and standard deviation, and what the paper has."""
        titles = ["model", "seeds", "AUC", "published", "log loss", "published"]
        return [
            titles,
            *([row["model"], str(row["seeds"]), *_told(row, "auc"), *_told(row, "log_loss")] for row in self.rows()),
        ]

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain data."""
        return {"data": self.recipe.name, "table": self.table, "rows": self.rows(), "sentences": self.comparison.sentences()}


def _told(row: Mapping[str, Any], figure: str) -> tuple[str, str]:
    """What was measured, and what was published."""
    mean, spread, published = row[figure], row[f"{figure}_std"], row[f"published_{figure}"]
    spread_told = "" if math.isnan(spread) else f" ± {spread:.5f}"
    return f"{mean:.5f}{spread_told}", "" if published is None else f"{published:.6g}"


def reproduce(
    name: str,
    files: StrPath,
    out: StrPath,
    table: str,
    models: Sequence[str] = (),
    seeds: int | Sequence[int] = 5,
    jobs: int = 1,
    training: Mapping[str, Any] | None = None,
    console: rich.console.Console | None = None,
) -> Reproduction:
    """Run a table of TF4CTR or CETN on the user's own copy of its data.

    The data are prepared once, in a folder of `out`; then it is a comparison (`tfctr.experiments.compare`), which goes on where
    it was stopped. `tfctr.experiments.tables` says what each table compares, and with which settings.

    Args:
        name: `"frappe"`, `"ml-1m"`, `"ml-tag"`, `"criteo"`, `"avazu"` or `"kkbox"`.
        files: the folder with `train.csv`, `valid.csv` and `test.csv` (or `.csv.gz`, `.parquet`) as they are published; of
            MovieLens-1M also `ratings.dat` and `users.dat`, of which a tenth is drawn for valid and test each.
        out: the folder to write: `data`, and a folder a table with its comparison, `settings` and `reproduction.json`.
        table: `"tf4ctr-2"`, ..., `"cetn-8"`: those that the papers have of this data set.
        models: only these rows of the table, and its baselines among them; all if there is none.
        seeds: how many, from 1 on; or a list of them.
        jobs: runs at a time.
        training: of all models, above the paper's settings: `{"epochs": 1}`.
        console: a `rich` console for the bar; stderr by default.

    Raises:
        ConfigError: an unknown data set, table or model.
        StorageError: a file is not there: where it comes from, what it is called, and how many rows it has.

    Example, not run here:

        reproduce("frappe", "downloads/frappe", "frappe", table="tf4ctr-4").rows()
    """
    recipe = Recipe.named(name)
    rows = table_rows(recipe, table)
    for model in models:
        require_one_of(rows, model, f"model of {table}:")
    chosen = {model: row for model, row in rows.items() if model in models or not models}
    paper, folder = paper_of(table), Path(out)
    data = recipe.prepared(files, paper, folder / ("data" if paper not in recipe.min_count else f"data-{paper}"))
    values = _spec(chosen, recipe.run(paper), folder / table / "settings")
    values |= {"seeds": list(seeds) if isinstance(seeds, Sequence) else seeds, "training": dict(training or {})}
    comparison = compare(Spec.from_dict(values, folder / table / "settings"), data, folder / table, jobs, console)
    found = Reproduction(recipe, table, comparison, {model: row.published for model, row in chosen.items()})
    write_json(folder / table / "reproduction.json", without_nan(found.to_dict()))
    return found


def _spec(rows: Mapping[str, Row], run: Config, folder: Path) -> dict[str, Any]:
    """What is compared, with the settings of each model as a file that `tfctr train` takes, too."""
    make_folder(folder)
    own, entries = run.to_dict(), {}
    for number, (name, row) in enumerate(rows.items()):
        values = {"model": row.model, "training": {**own["training"], "loss": row.loss}}
        file = f"{number:02}-{row.model['name']}.yaml"
        Config.from_dict(values).save(folder / file)
        entries[name] = {"config": file}
    baselines = [name for name, row in rows.items() if row.is_baseline] or [*rows][:1]
    return {"models": entries, "baselines": baselines}
