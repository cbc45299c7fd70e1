"""The plots of docs/performance.md, from the figures that `make bench` keeps.

python benchmarks/page.py [--results benchmarks/results] [--out docs]
"""

import argparse
from pathlib import Path

import matplotlib
from matplotlib import pyplot as plt

from tfctr.storage import atomic_file, read_json

HERE = Path(__file__).parent
COLORS = {"tfctr": "#1f77b4", "plain Keras": "#ff7f0e", "FuxiCTR": "#d62728", "DeepCTR": "#9467bd"}
OPTIMIZERS = {"adam": "#1f77b4", "exact_lazy_adam": "#2ca02c", "lazy_adam": "#ff7f0e"}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--out", type=Path, default=HERE.parent / "docs", help="a folder")
    arguments = parser.parse_args()
    # Texts stay texts, and the same figures give the same file.
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "tfctr", "font.size": 9, "axes.titlesize": 10})
    kept = {path.stem: read_json(path) for path in arguments.results.glob("*.json")}
    for name, draw in {"benchmarks": draw_training, "serving": draw_serving}.items():
        write(arguments.out / f"{name}.svg", draw(kept))


def draw_training(kept):
    """Training, inference and memory, beside others."""
    figure, ((frappe, criteo), (vocabulary, inference), (memory, share)) = plt.subplots(
        3, 2, figsize=(11, 13), layout="constrained"
    )
    plot_rates(frappe, kept["peers"]["figures"], "Training on Frappe's shape, batch 10,000")
    plot_rates(criteo, kept["peers_1m"]["figures"] + kept["peers_5m"]["figures"], "Training on Criteo's shape, batch 4,096")
    plot_vocabulary(vocabulary, kept["vocabulary"]["figures"])
    plot_inference(inference, kept["inference"]["figures"])
    plot_memory(memory, kept["peers"]["figures"])
    plot_share(share, kept["models"]["figures"])
    figure.suptitle(title_of(kept["peers"]["machine"]))
    return figure


def draw_serving(kept):
    """What a request costs, and what versions cost that come and go."""
    figure, panels = plt.subplots(2, 3, figsize=(15, 6), layout="constrained")
    *calls, swaps = panels.flat
    measured = [(kept[name], batch) for name in ("serving", "serving_history") for batch in kept[name]["settings"]["batches"]]
    for axes, (lines, batch) in zip(calls, measured, strict=True):
        plot_call(axes, lines, batch)
    figure.legend(*calls[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    plot_swaps(swaps, kept["hot_swap"])
    figure.suptitle(title_of(kept["serving"]["machine"]))
    return figure


def title_of(machine):
    sets = machine.get("instruction_sets") or []
    processor = ", ".join([machine["processor"], *sets])
    return f"{machine['processors']} cores ({processor}), TensorFlow {machine['tensorflow']}, no GPU"


def write(path, figure):
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as file:
        figure.savefig(file, format="svg", metadata={"Date": None})
    print(f"{path}: {path.stat().st_size:,} bytes")


def plot_rates(axes, lines, title):
    """Bars of samples a second for each model and data, one a contender."""
    grouped_bars(axes, lines, lambda line: line["median"] / 1000, title, "thousand samples a second, median")


def plot_memory(axes, lines):
    grouped_bars(axes, lines, lambda line: line["peak_mib"], "Peak memory of the same on Frappe's shape", "MiB")


def grouped_bars(axes, lines, value, title, label):
    groups = list(dict.fromkeys(group_of(line, lines) for line in lines))
    contenders = list(dict.fromkeys(line["contender"] for line in lines))
    height, seen = 0.8 / len(contenders), set()
    for number, contender in enumerate(contenders):
        own = [line for line in lines if line["contender"] == contender]
        positions = [groups.index(group_of(line, lines)) + number * height for line in own]
        color = next(color for family, color in COLORS.items() if contender.startswith(family))
        alpha = 1.0 if color not in seen else 0.55  # the second of its family is paler
        seen.add(color)
        axes.barh(positions, [value(line) for line in own], height, label=contender, color=color, alpha=alpha)
    axes.set_yticks([index + 0.4 - height / 2 for index in range(len(groups))], groups)
    axes.invert_yaxis()
    axes.set(title=title, xlabel=label)
    axes.legend(fontsize=8)


def group_of(line, lines):
    several = len({line["data"] for line in lines}) > 1
    return f"{line['model']}\n{line['data']}" if several else line["model"]


def plot_vocabulary(axes, lines):
    for optimizer, color in OPTIMIZERS.items():
        own = [line for line in lines if line["optimizer"] == optimizer]
        x, y = [line["vocabulary"] for line in own], [line["median"] for line in own]
        axes.semilogx(x, y, "o-", label=optimizer, color=color)
    axes.set(
        title="A step of a DNN, 39 fields, batch 4,096",
        xlabel="rows of the embedding table",
        ylabel="ms, median",
        ylim=(0, None),
    )
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)


def plot_inference(axes, lines):
    for number, model in enumerate(dict.fromkeys(line["model"] for line in lines)):
        for signature, style in {"ids": "o-", "serving_default": "s--"}.items():
            own = [line for line in lines if (line["model"], line["signature"]) == (model, signature)]
            x, y = [line["batch"] for line in own], [line["median_ms"] for line in own]
            axes.loglog(x, y, style, label=f"{model}, {signature}", color=f"C{number}")
    axes.set(title="An exported model answers (no network)", xlabel="rows of a request", ylabel="ms, median")
    axes.set_xticks(sorted({line["batch"] for line in lines}))
    axes.set_yticks([0.1, 0.2, 0.5, 1, 2, 5, 10])
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter("")
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)


def plot_call(axes, kept, batch):
    """One bar for each kind of inputs: the client's encoding, the model, and all else of a call."""
    lines = [line for line in kept["figures"] if line["batch"] == batch]
    names, left = [line["inputs"] for line in lines], [0.0] * len(lines)
    parts = {"encoding": "encode_ms", "model": "compute_ms"}
    widths = {part: [line[key] for line in lines] for part, key in parts.items()}
    widths["gRPC and the stand-in"] = [line["call_ms"] - line["encode_ms"] - line["compute_ms"] for line in lines]
    for part, width in widths.items():
        axes.barh(names, width, left=left, label=part)
        left = [start + more for start, more in zip(left, width, strict=True)]
    axes.invert_yaxis()
    rows = f"{batch} row{'s' if batch > 1 else ''} of 10 texts"
    history = kept["settings"]["history"]
    axes.set(title=f"{rows} and a sequence of {history}" if history else rows, xlabel="ms a call, median")


def plot_swaps(axes, kept):
    figures = kept["figures"]
    for number, when in enumerate(("steady", "swap")):
        heights = [figures[f"{when}_{quantile}_ms"] for quantile in ("p50", "p99")]
        label = "in swaps" if when == "swap" else "steady"
        bars = axes.bar([position + 0.4 * number for position in (0, 1)], heights, 0.4, label=label)
        axes.bar_label(bars, fmt="{:.0f}")
    axes.set_xticks([0.2, 1.2], ["p50", "p99"])
    title = f"{figures['requests']:,} calls of {kept['settings']['clients']} clients while {figures['versions']} versions come"
    axes.set(title=title, ylabel="ms")
    axes.margins(y=0.12)
    axes.legend(fontsize=8)


def plot_share(axes, lines):
    lines = sorted(lines, key=lambda line: line["share"])
    axes.barh([line["model"] for line in lines], [100 * line["share"] for line in lines], color=COLORS["tfctr"])
    axes.tick_params(axis="y", labelsize=7)
    axes.set(title="Training: share of the rate of matrix multiplication", xlabel="%")


if __name__ == "__main__":
    main()
