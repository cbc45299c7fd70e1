"""The pictures of runs: how they were trained, and how they score rows that they have not been trained on."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tfctr.experiments.page import label_of
from tfctr.metrics import calibration_curve
from tfctr.serving.exporting.explanation import DIFFICULTY_CLASSES, DIFFICULTY_THRESHOLDS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NO_TERMS = ("epoch", "learning_rate", "seconds", "rows_per_second")
_BINS = 40
_POINTS = 400  # of a curve
_WIDTH = 11


class Scored(NamedTuple):
    """A run, and what it says of the rows of a split.

    Args:
        name: what the page calls it.
        run: the `tfctr.training.Run`.
        labels, weights: of the rows, `(rows,)`; `weights` may be None.
        probabilities: `(rows,)`.
        explained: of some rows, by `tfctr.serving.exporting.explanation.Explanation`.
        explained_labels: of these rows.
    """

    name: str
    run: Any
    labels: np.ndarray
    weights: np.ndarray | None
    probabilities: np.ndarray
    explained: Mapping[str, np.ndarray]
    explained_labels: np.ndarray


def panels(number: int, height: float = 4.2, columns: int = 2, sharey: bool = False) -> tuple["Figure", list[Any]]:
    """A figure, and its axes, so many in a line, with a grid."""
    from matplotlib.figure import Figure

    lines = -(-number // columns)
    figure = Figure(figsize=(_WIDTH, height * lines), layout="constrained")
    axes = [*figure.subplots(lines, columns, squeeze=False, sharey=sharey).flat]
    for unused in axes[number:]:
        unused.set_visible(False)
    for panel in axes:
        panel.grid(alpha=0.3)
    return figure, axes[:number]


def metrics_by_epoch(runs: Sequence[Scored]) -> "Figure":
    """AUC and log loss on the valid split after each epoch, and the learning rate, a line a run."""
    figure, axes = panels(3, height=3.8, columns=3)
    titles = {"val_auc": "AUC on valid", "val_log_loss": "log loss on valid", "learning_rate": "learning rate"}
    for panel, (name, title) in zip(axes, titles.items(), strict=True):
        for scored in runs:
            _line(panel, scored.run.history, name, label_of(scored.name))
        panel.set_title(title, fontsize=10)
        panel.set_xlabel("epoch")
    axes[-1].set_yscale("log")
    axes[0].legend(fontsize=8)
    return figure


def loss_terms(runs: Sequence[Scored]) -> "Figure":
    """Each term of the training loss after each epoch, a panel a run."""
    figure, axes = panels(len(runs), height=3.4)
    for panel, scored in zip(axes, runs, strict=True):
        history = scored.run.history
        for name in history[0]:
            if name not in _NO_TERMS and not name.startswith("val_"):
                _line(panel, history, name, name)
        panel.set_title(f"loss in training, {label_of(scored.name)}", fontsize=10)
        panel.set_xlabel("epoch")
        panel.legend(fontsize=8)
    return figure


def ranking(runs: Sequence[Scored], split: str) -> "Figure":
    """ROC and lift: how many of the clicks the best-scored rows have."""
    from sklearn.metrics import roc_curve

    figure, (roc, lift) = panels(2)
    for scored in runs:
        no_clicks, clicks, _ = roc_curve(scored.labels, scored.probabilities, sample_weight=scored.weights)
        roc.plot(*_thinned(no_clicks, clicks), linewidth=1.3, label=label_of(scored.name))
        rate = np.average(scored.labels, weights=scored.weights)
        taken = clicks * rate + no_clicks * (1 - rate)  # the share of the rows, to which the share of the clicks belongs
        shares = np.geomspace(0.005, 1, _POINTS)
        lift.plot(shares, np.interp(shares, taken, clicks) / shares, linewidth=1.3)
    roc.plot([0, 1], [0, 1], ":", color="grey", linewidth=1)
    roc.set(title=f"ROC on {split}", xlabel="share of the other rows", ylabel="share of the clicks")
    lift.axhline(1, linestyle=":", color="grey", linewidth=1)
    lift.set(title=f"lift on {split}", xlabel="share of the rows, the best-scored first", ylabel="clicks among them, of chance")
    lift.set_xscale("log")
    roc.legend(fontsize=8)
    return figure


def calibration(runs: Sequence[Scored], figures: Sequence[Mapping[str, Any]], split: str) -> "Figure":
    """Observed over predicted click rates, a dot for each twentieth of the rows, and the predictions' histogram."""
    figure, (rates, counts) = panels(2)
    top = 0.0
    for scored, found in zip(runs, figures, strict=True):
        curve = calibration_curve(scored.labels, scored.probabilities, scored.weights)
        top = max(top, curve["predicted"].max(), curve["observed"].max())
        told = f"{label_of(scored.name)}: predicted / observed {found['pcoc']:.3f}, ece {found['ece']:.4f}"
        rates.plot(curve["predicted"], curve["observed"], ".-", linewidth=1, label=told)
    rates.plot([0, top], [0, top], ":", color="grey", linewidth=1)
    rates.set(title=f"calibration on {split}", xlabel="predicted", ylabel="observed click rate")
    rates.legend(fontsize=8, loc="upper left", bbox_to_anchor=(0, -0.14))
    bins = np.linspace(0, max(scored.probabilities.max() for scored in runs), _BINS + 1)
    for number, scored in enumerate(runs):
        for clicks, style in ((True, "-"), (False, ":")):
            rows = (scored.labels == 1) == clicks
            weights = None if scored.weights is None else scored.weights[rows]
            kind = {"histtype": "step", "density": True, "color": f"C{number % 10}", "linestyle": style}
            counts.hist(scored.probabilities[rows], bins, weights=weights, **kind)
    counts.set(title="scores of clicks (solid) and of the other rows (dotted)", xlabel="predicted", ylabel="density")
    return figure


def heads_by_difficulty(scored: Scored) -> "Figure | None":
    """What each logit gives to the true class, by the class of the prediction: hard, challenging, easy; None of one logit."""
    heads = [name for name in ("logit", "simple", "complex") if name in scored.explained]
    if len(heads) < 2:
        return None
    clicks = scored.explained_labels == 1
    classes = difficulty_of(true_class(scored.explained["logit"], clicks))
    figure, axes = panels(len(DIFFICULTY_CLASSES), height=3.4, columns=3)
    for number, (panel, name) in enumerate(zip(axes, DIFFICULTY_CLASSES, strict=True)):
        rows = classes == number
        for head in heads if rows.any() else ():
            given = true_class(scored.explained[head][rows], clicks[rows])
            panel.hist(given, np.linspace(0, 1, _BINS + 1), histtype="step", density=True, label=head)
        panel.set_title(f"{name}: {rows.mean():.1%} of the rows, {rows[clicks].mean():.1%} of clicks", fontsize=9)
        panel.set_xlabel("probability given to the true class")
    axes[0].set_ylabel(f"density, {label_of(scored.name)}")
    axes[np.bincount(classes).argmax()].legend(fontsize=8)  # a class may have no rows
    return figure


def weights(scored: Scored) -> "Figure | None":
    """Of fusion weights and gates, the median, quartiles and the 5th to 95th percentile over the rows; None without any."""
    columns = {
        label: values
        for name in ("fusion_weights", "gate")
        if name in scored.explained
        for label, values in _columns(name, scored.explained)
    }
    if not columns:
        return None
    figure, (panel,) = panels(1, height=1.2 + 0.4 * len(columns), columns=1)
    places = range(len(columns), 0, -1)
    style = {"orientation": "horizontal", "whis": (5, 95), "showfliers": False, "tick_labels": [*columns]}
    panel.boxplot([*columns.values()], positions=[*places], **style)
    rows = f"{len(scored.explained_labels):,} rows"
    panel.set_title(f"fusion weights and gates over {rows}, {label_of(scored.name)}", fontsize=10)
    return figure


def true_class(logits: np.ndarray, clicks: np.ndarray) -> np.ndarray:
    """The probability that logits give to the label of each row.

    >>> true_class(np.array([0.0, 0.0, 100.0]), np.array([True, False, False])).round(3).tolist()
    [0.5, 0.5, 0.0]
    """
    signed = np.where(clicks, logits, -logits).astype(np.float64)
    return np.exp(-np.logaddexp(0, -signed))


def difficulty_of(given: np.ndarray) -> np.ndarray:
    """The number of the class in `DIFFICULTY_CLASSES` for a probability given to the true class, as `difficulty` has it.

    >>> difficulty_of(np.array([0.1, 0.3, 0.6])).tolist()
    [0, 1, 2]
    """
    return np.searchsorted(DIFFICULTY_THRESHOLDS, given.astype(np.float32), side="right")


def _columns(name: str, explained: Mapping[str, np.ndarray]) -> list[tuple[str, np.ndarray]]:
    values = explained[name].reshape(len(explained[name]), -1)
    number = values.shape[1]
    if name == "gate":
        experts = [f"{view} view, expert {n}" for view in ("simple", "complex") for n in (1, 2)]
        names = {1: ["gate of the simple view"], 4: experts}
        titles = names.get(number, [f"gate {n}" for n in range(1, number + 1)])
    else:
        twins = ["weight of simple", "weight of complex"] if "simple" in explained and number == 2 else None
        titles = twins or [f"fusion weight {n}" for n in range(1, number + 1)]
    return [*zip(titles, values.T, strict=True)]


def _line(panel: Any, history: Sequence[Mapping[str, Any]], name: str, label: str) -> None:
    values = [np.nan if epoch.get(name) is None else epoch[name] for epoch in history]
    panel.plot(range(1, len(values) + 1), values, ".-", linewidth=1, label=label)
    panel.xaxis.get_major_locator().set_params(integer=True)  # there is no half epoch


def _thinned(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most so many points of a curve, its ends among them."""
    kept = np.unique(np.linspace(0, len(x) - 1, _POINTS).astype(int))
    return x[kept], y[kept]
