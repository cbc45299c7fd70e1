"""The picture of `tfctr importance --plot`: what each feature's permutation costs, with the spread over the repeats."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tfctr.cli.plots import COLOR, MOST_FEATURES, panels


def draw(found: Mapping[str, Any], path: Path) -> None:
    """Write what `tfctr.evaluation.importance` has found as a picture."""
    features = found["features"]
    names = [*features][:MOST_FEATURES][::-1]  # from below, the largest on top
    titles = {"auc_fall": "fall of AUC", "log_loss_rise": "rise of log loss", "group_auc_fall": "fall of gAUC"}
    shown = [figure for figure in titles if not math.isnan(features[names[0]][figure])]
    with panels(path, names, widths=[1] * len(shown)) as axes:
        for panel, figure in zip(axes, shown, strict=True):
            values = [features[name][figure] for name in names]
            spreads = [features[name][f"{figure}_std"] for name in names]
            error = None if math.isnan(spreads[0]) else spreads
            panel.barh(range(len(names)), values, xerr=error, color=COLOR, error_kw={"elinewidth": 1, "capsize": 2})
            panel.axvline(0, color="grey", linewidth=0.8)
            panel.locator_params(axis="x", nbins=5)
            panel.set_title(titles[figure], fontsize=10)
            repeats = found["repeats"]
            panel.set_xlabel("one repeat" if error is None else f"line: standard deviation of {repeats} repeats", fontsize=8)
