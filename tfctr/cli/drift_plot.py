"""The picture of `tfctr drift --plot`: each feature's PSI beside what chance makes of it, its unseen and its missing shares."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tfctr.cli.plots import COLOR, MOST_FEATURES, panels


def draw(found: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Write what `tfctr.drift` has found as a picture."""
    names = sorted(found, key=lambda name: found[name].get("psi") or 0)[-MOST_FEATURES:]
    with panels(path, names, widths=(2, 1, 1)) as (left, middle, right):
        _bars(left, names, found, "psi", "psi_by_chance", "population stability index", "by chance, once in a thousand")
        for bound in (0.1, 0.25):
            left.axvline(bound, color="grey", linewidth=0.8, linestyle=":")
        _bars(middle, names, found, "unseen", "expected", "share of unseen tokens", "expected")
        _bars(right, names, found, "missing", "missing_in_training", "share of missing rows", "in training")


def _bars(
    axes: Any, names: list[str], found: Mapping[str, Mapping[str, Any]], key: str, beside: str, title: str, mark: str
) -> None:
    """A bar for the figure `key` of each feature, with a mark where the figure `beside` is."""
    places = range(len(names))
    values, marks = ([found[name].get(figure) or 0 for name in names] for figure in (key, beside))
    axes.barh(places, values, color=COLOR)
    axes.plot(marks, places, "|", color="black", markersize=9)
    axes.set_xlim(0, 1.05 * max(*values, *marks, 0.01))
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(f"mark: {mark}", fontsize=8)
