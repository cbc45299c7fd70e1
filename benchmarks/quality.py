"""Test AUC and log loss of one run under several optimizers, over several seeds.

    python benchmarks/quality.py examples/frappe_tf4ctr.yaml --data runs/frappe/data --out runs/quality/frappe
        [--optimizers adam lazy_adam exact_lazy_adam] [--seeds 1 2 3 4 5] [--set model.embedding_l2=0.01]
        [--options="--workers 2 --servers 2"] [--json FILE]

L2 is that of the distinct rows of a batch (`l2_scope: batch`) for all, since optimizers by rows know no other. Early stopping
reads valid; test is read once a run. Runs are kept in `--out`, and a second call trains those that are missing.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

from kit import results


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="a run, such as examples/frappe_tf4ctr.yaml")
    parser.add_argument("--data", type=Path, required=True, help="a folder that `tfctr prepare` wrote")
    parser.add_argument("--out", type=Path, required=True, help="where the runs are kept")
    parser.add_argument("--optimizers", nargs="+", default=["adam", "lazy_adam", "exact_lazy_adam"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="as of `tfctr train`")
    parser.add_argument("--options", type=str.split, default=[], help="further ones of `tfctr train`, in one word")
    parser.add_argument("--split", default="test", help="valid, to choose a setting")
    results.add_option(parser)
    arguments = parser.parse_args()
    figures = {}
    print(f"{'optimizer':<17}{'AUC':>9}{'sd':>9}{'log loss':>10}{'sd':>9}{'epochs':>8}")
    for optimizer in arguments.optimizers:
        runs = figures[optimizer] = [run(optimizer, seed, arguments) for seed in arguments.seeds]
        columns = {name: [values[name] for values in runs] for name in ("auc", "log_loss", "epochs")}
        means = {name: statistics.mean(column) for name, column in columns.items()}
        spreads = {name: statistics.stdev(column) if len(column) > 1 else float("nan") for name, column in columns.items()}
        line = f"{optimizer:<17}{means['auc']:>9.5f}{spreads['auc']:>9.5f}"
        print(f"{line}{means['log_loss']:>10.5f}{spreads['log_loss']:>9.5f}{means['epochs']:>8.1f}", flush=True)
    results.keep(figures, arguments)


def run(optimizer, seed, arguments):
    folder = arguments.out / f"{optimizer}-{seed}"
    if not folder.exists():
        changes = ["model.l2_scope=batch", f"training.optimizer={optimizer}", f"training.seed={seed}", *arguments.set]
        options = [option for change in changes for option in ("--set", change)]
        tfctr("train", arguments.config, "--data", arguments.data, "--out", folder, *options, *arguments.options)
    values = tfctr("evaluate", folder, "--data", arguments.data, "--split", arguments.split)
    epochs = len(json.loads((folder / "history.json").read_text()))
    return {"seed": seed, "auc": values["auc"], "log_loss": values["log_loss"], "epochs": epochs}


def tfctr(*command):
    """What a command of `tfctr` prints as JSON."""
    command = [sys.executable, "-m", "tfctr", *map(str, command), "--json"]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout)


if __name__ == "__main__":
    main()
