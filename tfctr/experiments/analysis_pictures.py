"""The pictures of the papers' analyses, from the rows of their files."""

from typing import TYPE_CHECKING, Any

from tfctr.experiments.page import label_of
from tfctr.experiments.pictures import panels
from tfctr.serving.exporting.explanation import DIFFICULTY_CLASSES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLORS = dict(zip(DIFFICULTY_CLASSES, ("#c44e52", "#4c72b0", "#55a868"), strict=True))  # the paper's: red, blue, green


def focus(rows: list[dict[str, Any]]) -> "Figure":
    """Both halves of the TF loss over the probability given to the true class, a panel for each gamma."""
    gammas = sorted({row["gamma"] for row in rows})
    figure, axes = panels(len(gammas), columns=3, sharey=True)
    for panel, gamma in zip(axes, gammas, strict=True):
        curves = [row for row in rows if row["gamma"] == gamma]
        for number, c in enumerate(sorted({row["c"] for row in curves})):
            of = [row for row in curves if row["c"] == c]
            for half, style in (("simple", "-"), ("complex", "--")):
                values = [row[half] for row in of]
                panel.plot([row["probability"] for row in of], values, style, color=f"C{number}", label=f"{half}, c = {c:g}")
        points = {row["probability"]: row["cross_entropy"] for row in curves}
        panel.plot([*points], [*points.values()], ":", color="grey", label="cross-entropy")
        panel.set(title=f"gamma = {gamma:g}", xlabel="probability given to the true class", ylim=(0, 4))
    axes[0].set_ylabel("loss")
    axes[-1].legend(fontsize=8)
    return figure


def difficulty(rows: list[dict[str, Any]]) -> "Figure":
    """Shares of the classes after each epoch, a line of panels a model: clicks and other rows, of train and of valid."""
    models = [*dict.fromkeys(row["model"] for row in rows)]
    figure, axes = panels(4 * len(models), height=2.8, columns=4, sharey=True)
    parts = [(label, split) for label in (1, 0) for split in ("train", "valid")]
    for place, panel in enumerate(axes):
        model, (label, split) = models[place // 4], parts[place % 4]
        of = [row for row in rows if (row["model"], row["label"], row["split"]) == (model, label, split)]
        epochs, below = [row["epoch"] for row in of], [0.0] * len(of)
        for name, color in _COLORS.items():
            shares = [row[name] for row in of]
            panel.bar(epochs, shares, width=0.9, bottom=below, color=color, label=name)
            below = [low + share for low, share in zip(below, shares, strict=True)]
        panel.set_title(f"{'clicks' if label else 'other rows'}, {split}", fontsize=9)
        panel.xaxis.get_major_locator().set_params(integer=True)
        if place % 4 == 0:
            panel.set_ylabel(label_of(model), fontsize=9)
    for panel in axes[-4:]:
        panel.set_xlabel("epoch")
    axes[0].legend(fontsize=7)
    return figure


def gradients(rows: list[dict[str, Any]]) -> "Figure":
    """Norms of the loss' gradients by both logits over the steps, a panel a model: of all rows, and of hard and easy ones."""
    models = [*dict.fromkeys(row["model"] for row in rows)]
    figure, axes = panels(len(models), height=3.6, sharey=True)
    for panel, model in zip(axes, models, strict=True):
        of = [row for row in rows if row["model"] == model]
        for number, head in enumerate(("simple", "complex")):
            for part, style in (("", "-"), ("_hard", "--"), ("_easy", ":")):
                label = f"{head}{part.replace('_', ', ')}"
                values = [row[f"{head}{part}"] for row in of]
                panel.plot([row["step"] for row in of], values, style, color=f"C{number}", linewidth=1.2, label=label)
        panel.set_title(label_of(model), fontsize=10)
        panel.set_xlabel("step")
    axes[0].set_ylabel("norm of the gradient by the logit")
    axes[0].legend(fontsize=8)
    return figure


def spaces(rows: list[dict[str, Any]]) -> "Figure":
    """Rows in the first two principal components of all spaces, a colour a space, a panel a model."""
    models = [*dict.fromkeys(row["model"] for row in rows)]
    figure, axes = panels(len(models), height=4.6)
    for panel, model in zip(axes, models, strict=True):
        of = [row for row in rows if row["model"] == model]
        for number, space in enumerate(dict.fromkeys(row["space"] for row in of)):
            places = [(row["x"], row["y"]) for row in of if row["space"] == space]
            panel.scatter(*zip(*places, strict=True), s=5, alpha=0.5, color=f"C{number}", label=space, rasterized=True)
        panel.set(title=label_of(model), xlabel="first component", ylabel="second component", aspect="equal")
        panel.set_xlim(-1.5, 1.5)  # values have length 1, so that panels can be compared
        panel.set_ylim(-1.5, 1.5)
    axes[0].legend(fontsize=8)
    return figure
