"""The picture of `tfctr drift --plot`: each feature's PSI beside what chance makes of it, its unseen and its missing shares."""

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tfctr.errors import ConfigError
from tfctr.storage import atomic_file, require_free

_KINDS = (".png", ".svg", ".pdf")
_MOST = 40  # features; of more, those with the largest PSI


def require_plot(path: Path) -> None:
    """Raise before any work for a file that cannot be drawn."""
    if path.suffix not in _KINDS:
        raise ConfigError(f"`--plot` is {str(path)!r}.", fix=f"give a file that ends in {', '.join(_KINDS)}")
    require_free(path)
    if importlib.util.find_spec("matplotlib") is None:
        raise ConfigError("`--plot` needs matplotlib.", fix='pip install "tfctr[report]"')


def draw(found: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Write what `tfctr.drift` has found as a picture."""
    from matplotlib.figure import Figure

    names = sorted(found, key=lambda name: found[name].get("psi") or 0)[-_MOST:]
    figure = Figure(figsize=(11, 1.4 + 0.26 * len(names)), layout="constrained")
    left, middle, right = figure.subplots(1, 3, sharey=True, width_ratios=(2, 1, 1))
    _bars(left, names, found, "psi", "psi_by_chance", "population stability index", "by chance, once in a thousand")
    for bound in (0.1, 0.25):
        left.axvline(bound, color="grey", linewidth=0.8, linestyle=":")
    _bars(middle, names, found, "unseen", "expected", "share of unseen tokens", "expected")
    _bars(right, names, found, "missing", "missing_in_training", "share of missing rows", "in training")
    with atomic_file(path, "wb") as file:
        figure.savefig(file, format=path.suffix[1:], dpi=130)


def _bars(
    axes: Any, names: list[str], found: Mapping[str, Mapping[str, Any]], key: str, beside: str, title: str, mark: str
) -> None:
    """A bar for the figure `key` of each feature, with a mark where the figure `beside` is."""
    places = range(len(names))
    values, marks = ([found[name].get(figure) or 0 for name in names] for figure in (key, beside))
    axes.barh(places, values, color="#4c72b0")
    axes.plot(marks, places, "|", color="black", markersize=9)
    axes.set_yticks(places, names)
    axes.set_xlim(0, 1.05 * max(*values, *marks, 0.01))
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(f"mark: {mark}", fontsize=8)
