"""Training throughput of tfctr beside FuxiCTR (PyTorch), DeepCTR and plain Keras, in one run in which they take turns.

    python benchmarks/peers.py [--models DNN TF4CTR] [--data frappe criteo-1m] [--optimizers adam lazy_adam] [--json FILE]

Every contender is a process of its own (`benchmarks/contenders/`) that lives through all rounds and trains a few steps in its
turn while the others wait, so that a busy machine disturbs all alike. Peers go into environments of their own:

    python -m venv fuxictr && fuxictr/bin/pip install torch "fuxictr" "ray[data]"
    python3.11 -m venv deepctr && deepctr/bin/pip install "tensorflow<2.16" "numpy<2" scikit-learn pandas requests
    deepctr/bin/pip install --no-deps deepctr

and are named by `--fuxictr fuxictr/bin/python --deepctr deepctr/bin/python`; without them, plain Keras is the only peer. Ratios
are medians over the rounds of our samples a second over theirs in the same round.

Where other programs run, too, PyTorch's threads wait for each other at full speed, and FuxiCTR trains several times slower than
it can. Use a machine that does nothing else, or set OMP_WAIT_POLICY=passive, which TensorFlow does not read.

Plain Keras and FuxiCTR's blocks have the five models of the default. `--fuxictr-zoo` names the folder model_zoo of a checkout
of FuxiCTR, whose own classes are one contender more in the 21 models that both have; `--models all` takes them all, with the
arguments of `benchmarks/contenders/matched.py`. A column counts the parameters that each contender trains: where FuxiCTR's are
more or fewer than ours, the line below says which.

    git clone https://github.com/reczoo/FuxiCTR
    python benchmarks/peers.py --fuxictr fuxictr/bin/python --fuxictr-zoo FuxiCTR/model_zoo --models all --batch-size 4096
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

from contenders.matched import MATCHES
from kit import results
from kit.made import FRAPPE_SIZES, criteo_sizes

HERE = Path(__file__).parent / "contenders"
DATA = {  # sizes of the fields, batch size
    "frappe": (FRAPPE_SIZES, 10_000),
    "criteo-1m": (criteo_sizes(1_000_000), 4_096),
    "criteo-5m": (criteo_sizes(5_500_000), 4_096),
    "criteo-20m": (criteo_sizes(20_000_000), 4_096),
}

BY_HAND = ["DNN", "DeepFM", "DCNv2", "TF4CTR", "CETN"]  # what plain_keras.py and fuxictr_torch.py have
ALL = [*MATCHES, "TF4CTR", "CETN"]
ZOO = "FuxiCTR zoo (torch)"

HEADER = "data       model     contender              parameters   samples/s      best   cpu ms     MiB  ours is   best    cpu"
LINE = (
    "{data:<11}{model:<10}{contender:<22}{parameters:>11,}{median:>12,.0f}{best:>10,.0f}{cpu_ms:>9,.0f}{peak_mib:>8,.0f}"
    "{ratio:>8.2f}x{ratio_best:>6.2f}x{ratio_cpu:>6.2f}x"
)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=["all", *ALL], default=BY_HAND, metavar="NAME")
    parser.add_argument("--data", nargs="+", choices=DATA, default=["frappe"])
    parser.add_argument("--optimizers", nargs="+", default=["adam"], help="ours, each a contender")
    parser.add_argument("--fuxictr", type=Path, help="a Python with torch and fuxictr")
    parser.add_argument("--fuxictr-zoo", type=Path, metavar="DIR", help="the folder model_zoo of a checkout of FuxiCTR")
    parser.add_argument("--deepctr", type=Path, help="a Python with deepctr: for DeepFM and DCNv2 only")
    parser.add_argument("--batch-size", type=int, help="for all data; by default 10,000 for frappe and 4,096 for criteo")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=5, help="of each contender in a round")
    results.add_option(parser)
    arguments = parser.parse_args()
    if arguments.fuxictr_zoo and not arguments.fuxictr:
        parser.error("--fuxictr-zoo needs --fuxictr, the Python to run it")
    models = ALL if "all" in arguments.models else arguments.models
    figures = []
    print(HEADER)
    for data in arguments.data:
        for model in models:
            for line in compare(data, model, arguments):
                figures.append(line)
                print(LINE.format(**line), flush=True)
                if line["difference"]:
                    print(" " * 21 + line["difference"])
    results.keep(figures, arguments)


def compare(data, model, arguments):
    """One line a contender: our first optimizer is what the ratios are of."""
    sizes, batch_size = DATA[data]
    batch_size = arguments.batch_size or batch_size
    task = {"model": model, "sizes": sizes, "batch_size": batch_size, "steps": arguments.steps}
    task["embedding_dim"] = 20 if model == "CETN" else 16
    commands = {f"tfctr {name}": [sys.executable, "ours.py", task | {"optimizer": name}] for name in arguments.optimizers}
    for columns in (False, True) if model in BY_HAND else ():
        name = f"plain Keras, {'columns' if columns else 'matrix'}"
        commands[name] = [sys.executable, "plain_keras.py", task | {"columns": columns}]
    if arguments.fuxictr and model in BY_HAND:
        commands["FuxiCTR (torch)"] = [arguments.fuxictr.absolute(), "fuxictr_torch.py", task]
    if arguments.fuxictr_zoo and model in MATCHES:
        zoo = {"zoo": str(arguments.fuxictr_zoo.absolute())}
        commands[ZOO] = [arguments.fuxictr.absolute(), "fuxictr_zoo.py", task | zoo]
    if arguments.deepctr and model in ("DeepFM", "DCNv2"):
        commands["DeepCTR (Keras 2)"] = [arguments.deepctr.absolute(), "deepctr_keras.py", task]
    contenders = {name: Contender(*command) for name, command in commands.items()}
    try:
        turns = [{name: contender.turn() for name, contender in contenders.items()} for _ in range(arguments.rounds)]
    finally:
        for contender in contenders.values():
            contender.process.kill()
    ours, samples = next(iter(contenders)), batch_size * arguments.steps
    counts = {name: contender.parameters for name, contender in contenders.items()}
    for name in contenders:
        seconds, cpu = ([turn[name][key] for turn in turns] for key in ("seconds", "cpu_seconds"))
        our_seconds, our_cpu = ([turn[ours][key] for turn in turns] for key in ("seconds", "cpu_seconds"))
        yield {
            "data": data,
            "model": model,
            "contender": name,
            "parameters": counts[name],
            "difference": difference(model, counts[name] - counts[ours]) if name == ZOO else "",
            "median": samples / statistics.median(seconds),
            "best": samples / min(seconds),
            "cpu_ms": 1e3 * statistics.median(cpu) / arguments.steps,
            "peak_mib": max(turn[name]["peak_mib"] for turn in turns),
            "ratio": statistics.median(theirs / our for theirs, our in zip(seconds, our_seconds, strict=True)),
            "ratio_best": min(seconds) / min(our_seconds),
            "ratio_cpu": statistics.median(cpu) / statistics.median(our_cpu),
        }


def difference(model, more):
    """Which trained parameters FuxiCTR's model has more than ours, of what it has `more`; empty where they are as many."""
    why = MATCHES[model].why if more == MATCHES[model].more else "and nothing says why"
    return f"{more:+,} parameters: {why}" if more else ""


class Contender:
    """A process that trains when it is told to."""

    def __init__(self, python, script, task):
        environment = {**os.environ, "PYTHONPATH": str(HERE.parents[1])}
        self.process = subprocess.Popen(
            [python, script, json.dumps(task)],
            cwd=HERE,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        lines = iter(self.process.stdout.readline, "")  # after what libraries print as they are imported
        ready = next((line for line in lines if line.startswith("ready ")), None)
        if ready is None:
            raise SystemExit(f"{script} did not start: run it by hand in {HERE} with {json.dumps(task)!r}")
        self.parameters = int(ready.split()[1])

    def turn(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


if __name__ == "__main__":
    main()
