"""A training with parameter servers: `python -m kit.served WORKERS SERVERS DATA OUT KILL_AT [KEY=VALUE ...]`.

All in one process, which ends itself after KILL_AT steps, if that is not 0. With WORKERS 0, this is one of several processes,
as `TF_CONFIG` says, and its chief kills SERVERS, such as `worker-1`, after KILL_AT steps.

Run as a process of its own: a cluster can only be joined before TensorFlow starts.
"""

import json
import os
import signal
import sys
from pathlib import Path

import tensorflow as tf

from kit.killed_training import KillAt
from tfctr.config import Config
from tfctr.training import train
from tfctr.training.distribution import is_named_chief, serve
from tfctr.training.launching import _free_ports


class KillOther(KillAt):
    """SIGKILL another process, which has left its number."""

    def __init__(self, steps, victim):
        super().__init__(steps)
        self.victim = victim

    def kill(self):
        os.kill(int(self.victim.read_text()), signal.SIGKILL)


def start(workers, servers):
    """Workers and servers within this process, whose `TF_CONFIG` is then that of their chief."""
    kinds = {"chief": 1, "worker": workers, "ps": servers}
    ports = iter(_free_ports(sum(kinds.values())))
    addresses = {kind: [f"localhost:{next(ports)}" for _ in range(number)] for kind, number in kinds.items()}
    settings = tf.compat.v1.ConfigProto(inter_op_parallelism_threads=16)  # for all of them together
    for kind in ("worker", "ps"):
        for index in range(kinds[kind]):
            tf.distribute.Server(addresses, job_name=kind, task_index=index, protocol="grpc", config=settings)
    os.environ["TF_CONFIG"] = json.dumps({"cluster": addresses, "task": {"type": "chief", "index": 0}})


def config(*overrides):
    model = {"name": "DNN", "embedding_dim": 4, "hidden_units": [16]}
    training = {"optimizer": "lazy_adam", "batch_size": 256, "epochs": 3, "learning_rate": 0.01}
    return Config.from_dict({"model": model, "training": training}, overrides)


def main(workers, servers, data, out, kill_at, *overrides):
    callbacks = [KillAt(int(kill_at))] if int(kill_at) else []
    if int(workers):
        start(int(workers), int(servers))
    else:
        numbers = Path(f"{out}-numbers")
        numbers.mkdir(exist_ok=True)
        task = json.loads(os.environ["TF_CONFIG"])["task"]
        (numbers / f"{task['type']}-{task['index']}").write_text(str(os.getpid()))
        if not is_named_chief("parameter_server"):
            return serve()
        callbacks = [KillOther(int(kill_at), numbers / servers)] if int(kill_at) else []
    further = {"resume": True, "checkpoint_every": 4, "callbacks": callbacks}
    train(config(*overrides), data, out, distribute="parameter_server", **further)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
