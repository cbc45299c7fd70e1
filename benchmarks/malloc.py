"""Training with and without `tfctr.malloc.keep_freed_memory`, and compiled hidden layers, in one run in which they take turns.

    python benchmarks/malloc.py [--models DNN CETN] [--data frappe criteo-1m] [--optimizers adam lazy_adam] [--json FILE]

The first saves the page faults of what a step frees and the next one allocates; the second most of those temporaries.
"""

import argparse
import itertools
import statistics
import sys

from kit import results
from peers import DATA, Contender

HEADER = "data       model   optimizer       freed memory     samples/s      best  cpu ms    MiB"
LINE = "{data:<11}{model:<8}{optimizer:<16}{freed_memory:<16}{median:>10,.0f}{best:>10,.0f}{cpu_ms:>8,.0f}{peak_mib:>7,.0f}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["DNN", "TF4CTR", "CETN"])
    parser.add_argument("--data", nargs="+", choices=DATA, default=["frappe"])
    parser.add_argument("--optimizers", nargs="+", default=["adam"])
    results.add_option(parser)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=5, help="of each in a round")
    arguments = parser.parse_args()
    print(HEADER)
    figures = []
    for data, model, optimizer in itertools.product(arguments.data, arguments.models, arguments.optimizers):
        for line in compare(data, model, optimizer, arguments):
            figures.append(line)
            print(LINE.format(**line), flush=True)
    results.keep(figures, arguments)


def compare(data, model, optimizer, arguments):
    sizes, batch_size = DATA[data]
    task = {"model": model, "sizes": sizes, "batch_size": batch_size, "steps": arguments.steps, "embedding_dim": 16}
    task["optimizer"] = optimizer
    contenders = {
        word: Contender(sys.executable, "ours.py", task | {"keep_freed_memory": keep, "compile_hidden": compiled})
        for word, keep, compiled in (("given back", False, False), ("kept", True, False), ("kept, compiled", True, True))
    }
    turns = [{word: contender.turn() for word, contender in contenders.items()} for _ in range(arguments.rounds)]
    for word, contender in contenders.items():
        contender.process.kill()
        seconds, cpu = ([turn[word][key] / arguments.steps for turn in turns] for key in ("seconds", "cpu_seconds"))
        yield {
            "data": data,
            "model": model,
            "optimizer": optimizer,
            "freed_memory": word,
            "median": batch_size / statistics.median(seconds),
            "best": batch_size / min(seconds),
            "cpu_ms": 1e3 * statistics.median(cpu),
            "peak_mib": max(turn[word]["peak_mib"] for turn in turns),
        }


if __name__ == "__main__":
    main()
