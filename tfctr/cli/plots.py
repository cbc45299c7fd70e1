"""Pictures with one bar a feature: what `--plot` refuses before any work, the panels side by side, and the file."""

import contextlib
import importlib.util
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tfctr.errors import ConfigError
from tfctr.storage import atomic_file, require_free

MOST_FEATURES = 40  # of more, a picture has those that matter most
COLOR = "#4c72b0"
_KINDS = (".png", ".svg", ".pdf")


def require_plot(path: Path) -> None:
    """Raise before any work for a file that cannot be drawn."""
    if path.suffix not in _KINDS:
        raise ConfigError(f"`--plot` is {str(path)!r}.", fix=f"give a file that ends in {', '.join(_KINDS)}")
    require_free(path)
    if importlib.util.find_spec("matplotlib") is None:
        raise ConfigError("`--plot` needs matplotlib.", fix='pip install "tfctr[report]"')


@contextlib.contextmanager
def panels(path: Path, names: Sequence[str], widths: Sequence[float]) -> Iterator[Sequence[Any]]:
    """Matplotlib's axes side by side, with a place for each name from below; then the picture is written."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 1.4 + 0.26 * len(names)), layout="constrained")
    axes = figure.subplots(1, len(widths), sharey=True, width_ratios=widths, squeeze=False)[0]
    axes[0].set_yticks(range(len(names)), names)
    yield axes
    with atomic_file(path, "wb") as file:
        figure.savefig(file, format=path.suffix[1:], dpi=130)
