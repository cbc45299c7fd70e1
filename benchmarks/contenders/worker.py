"""What every contender of benchmarks/peers.py shares: the task, made clicks, and the turns it is given.

A contender is a process that lives through the whole comparison. It gets the task as JSON, says `ready` and how many parameters
it trains once its first epoch is done, and then trains another for each line of standard input, answering with seconds, CPU
seconds and peak memory.
"""

import dataclasses
import json
import math
import resource
import sys
import time

import numpy as np

answers, sys.stdout = sys.stdout, sys.stderr  # what libraries print is no answer


@dataclasses.dataclass
class Task:
    """A model and its data: `sizes` are the tokens of each field, `steps` those of an epoch; what follows is for some only."""

    model: str
    sizes: list
    batch_size: int
    steps: int
    embedding_dim: int
    optimizer: str = "adam"
    keep_freed_memory: bool = True
    compile_hidden: bool = True
    columns: bool = False
    zoo: str = ""

    @property
    def rows(self):
        return self.batch_size * self.steps

    def clicks(self):
        """Log-uniform ids of each field, from 0, int32 `(rows, fields)`, and labels by chance, float32 `(rows,)`."""
        rng = np.random.default_rng(0)
        ids = [np.floor(size ** rng.random(self.rows)).astype("int32") - 1 for size in self.sizes]
        return np.stack(ids, axis=1), rng.integers(0, 2, self.rows).astype("float32")


def task_given():
    return Task(**json.loads(sys.argv[1]))


def take_turns(prepare):
    """`prepare(task)` gives `train()`, an epoch that ends when its last step has, and the weights that it trains."""
    train, weights = prepare(task_given())
    train()
    print("ready", sum(math.prod(weight.shape) for weight in weights), file=answers, flush=True)
    for _ in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        train()
        usage = {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}
        usage["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps(usage), file=answers, flush=True)
