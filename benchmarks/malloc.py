"""Training with and without `tfctr.memory.keep_freed_memory`, which `tfctr train` calls, in one run in which they take turns.

python benchmarks/malloc.py [--models DNN CETN] [--data frappe criteo-1m] [--optimizers adam lazy_adam] [--rounds 7]
"""

import argparse
import statistics
import sys

from peers import DATA, Contender


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["DNN", "TF4CTR", "CETN"])
    parser.add_argument("--data", nargs="+", choices=DATA, default=["frappe"])
    parser.add_argument("--optimizers", nargs="+", default=["adam"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=5, help="of each in a round")
    arguments = parser.parse_args()
    print(f"{'data':<11}{'model':<8}{'optimizer':<16}{'freed memory':<14}{'samples/s':>10}{'best':>10}{'cpu ms':>8}{'MiB':>7}")
    for data in arguments.data:
        for model in arguments.models:
            for optimizer in arguments.optimizers:
                compare(data, model, optimizer, arguments)


def compare(data, model, optimizer, arguments):
    sizes, batch_size = DATA[data]
    task = {"model": model, "sizes": sizes, "batch_size": batch_size, "steps": arguments.steps, "embedding_dim": 16}
    task["optimizer"] = optimizer
    contenders = {
        word: Contender(sys.executable, "ours.py", task | {"keep_freed_memory": keep})
        for word, keep in (("given back", False), ("kept", True))
    }
    turns = [{word: contender.turn() for word, contender in contenders.items()} for _ in range(arguments.rounds)]
    for word, contender in contenders.items():
        contender.process.kill()
        seconds, cpu = ([turn[word][key] / arguments.steps for turn in turns] for key in ("seconds", "cpu_seconds"))
        peak = max(turn[word]["peak_mib"] for turn in turns)
        median, best = batch_size / statistics.median(seconds), batch_size / min(seconds)
        line = f"{data:<11}{model:<8}{optimizer:<16}{word:<14}{median:>10,.0f}{best:>10,.0f}"
        print(f"{line}{1e3 * statistics.median(cpu):>8,.0f}{peak:>7,.0f}", flush=True)


if __name__ == "__main__":
    main()
