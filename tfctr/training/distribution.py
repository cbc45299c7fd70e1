"""On which devices a run is trained: of one machine, or of several workers, of which one writes, with or without servers."""

import contextlib
import hashlib
import json
import logging
import os
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import tensorflow as tf

from tfctr.errors import ConfigError, WorkerError, choose, require
from tfctr.replicas import has_workers

_LOG = logging.getLogger(__name__)
_KINDS = {"multi_worker": ("chief", "worker"), "parameter_server": ("chief", "worker", "ps")}  # of processes
_INTERVAL = 0.5  # seconds
_LOST = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError, tf.errors.DeadlineExceededError)


@contextlib.contextmanager
def distributed(name: str | None) -> Iterator[tf.distribute.Strategy]:
    """The strategy of this name, for models to be built in its scope; for None, that of the scope around this.

    A worker that others leave alone raises `WorkerError` within.

    Raises:
        ConfigError: an unknown name, a strategy of workers or a second one around this, or no `TF_CONFIG` where one is needed.
    """
    strategy = tf.distribute.get_strategy()
    if has_workers(strategy) or (name is not None and tf.distribute.has_strategy()):
        # The chief alone saves, and what is then made in the scope, all workers would have to make.
        problem = f"`train` is called in the scope of a {type(strategy).__name__}."
        raise ConfigError(problem, fix='call it outside, as train(..., distribute="multi_worker") or "mirrored"')
    if name is not None:
        strategy = choose(DISTRIBUTIONS, name, "distribution")()
    try:
        yield strategy
    except _LOST as error:
        fix = "see what that one said; then start all of them again, with --resume (resume=True)"
        if is_served(strategy):
            raise WorkerError(f"a parameter server, or all workers, have ended: {_reason(error.message)}", fix=fix) from error
        if not has_workers(strategy):
            raise
        problem = f"another worker has ended, and this one cannot go on alone: {_reason(error.message)}"
        raise WorkerError(problem, fix=fix) from error


def _reason(message: str) -> str:
    """The line of an error of TensorFlow's that says what happened, which others stand around."""
    lines = [line for line in message.splitlines() if line and line != "Graph execution error:"]
    return next((line for line in lines if "Collective ops" in line), lines[0] if lines else "it does not answer")


def is_served(strategy: tf.distribute.Strategy) -> bool:
    """Whether parameter servers hold the variables."""
    return isinstance(strategy, tf.distribute.ParameterServerStrategy)


def is_named_chief(distribution: str = "multi_worker") -> bool:
    """Whether this process is the one that writes, by `TF_CONFIG`. Raises `ConfigError` where that does not say it."""
    cluster, task = _cluster_and_task(distribution)
    return task["index"] == 0 and ("chief" not in cluster or task["type"] == "chief")


def serve() -> None:
    """Lend this process to a training as the worker or parameter server that `TF_CONFIG` names, until its chief has ended.

    Raises:
        ConfigError: `TF_CONFIG` does not name a chief, workers and parameter servers, and which of them this process is.
        WorkerError: its port is not free.
    """
    cluster, task = _cluster_and_task("parameter_server")
    name = f"{task['type']} {task['index']}"
    # Each step of each worker holds threads while it waits for another process: with too few, all wait for ever.
    threads = max(os.cpu_count() or 1, 4 * (len(cluster["worker"]) + 1))
    settings = tf.compat.v1.ConfigProto(inter_op_parallelism_threads=threads)
    try:
        tf.distribute.Server(cluster, job_name=task["type"], task_index=task["index"], protocol="grpc", config=settings)
    except tf.errors.OpError as error:
        raise WorkerError(f"{name} cannot begin: {error.message}", fix="see whether its port is free") from error
    _LOG.info("%s waits for the chief", name)
    _wait_for(cluster["chief"])
    while _listens(cluster["chief"][0]):
        time.sleep(_INTERVAL)
    _LOG.info("%s ends, as the chief has", name)


def _wait_for(addresses: Iterable[str]) -> None:
    for address in addresses:
        while not _listens(address):
            time.sleep(_INTERVAL)


def _listens(address: str) -> bool:
    host, port = address.rsplit(":", 1)
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError:
        return False
    return True


def told_by_chief(strategy: tf.distribute.Strategy, number: int) -> int:
    """The number that the chief gives, on all workers, which wait here for each other."""
    if not has_workers(strategy):
        return number
    return int(strategy.gather(tf.constant([number], tf.int64), axis=0)[0])


def require_same(strategy: tf.distribute.Strategy, texts: Mapping[str, str]) -> None:
    """Raise `ConfigError` on all workers where one of the texts is not that of all; they wait here for each other."""
    if has_workers(strategy):
        digests = [[int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big") for text in texts.values()]]
        of_all = strategy.gather(tf.constant(digests, tf.int64), axis=0).numpy().T  # (texts, workers)
        differing = [name for name, of_each in zip(texts, of_all, strict=True) if len(set(of_each.tolist())) > 1]
        if differing:
            fix = "start all by the same command, with the same version, on copies of one dataset"
            raise ConfigError(f"not all workers have the same {' and '.join(differing)}.", fix=fix)


def _mirrored() -> tf.distribute.Strategy:
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    if len(devices) == 1:
        _LOG.warning("mirrored: this machine has one device, %s", devices[0].name)
    return tf.distribute.MirroredStrategy([device.name for device in devices])


def _multi_worker() -> tf.distribute.Strategy:
    cluster, task = _cluster_and_task("multi_worker")
    own = cluster[task["type"]][task["index"]]
    try:
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
    except RuntimeError as error:
        raise ConfigError(f"too late for workers: {error}", fix="begin with it, in a process of its own") from error
    except tf.errors.OpError as error:
        raise WorkerError(f"worker {own} cannot begin: {error.message}", fix="see whether its port is free") from error
    if len(strategy.extended.worker_devices) > 1:
        problem = f"worker {own} has {len(strategy.extended.worker_devices)} GPUs."
        raise ConfigError(problem, fix="start one worker for each, with CUDA_VISIBLE_DEVICES=0, 1, ...")
    return strategy


def _parameter_server() -> tf.distribute.Strategy:
    cluster, task = _cluster_and_task("parameter_server")
    if task["type"] != "chief":
        fix = "run `tfctr train --distribute parameter_server` there, or tfctr.training.distribution.serve()"
        raise ConfigError(f"this process is {task['type']} {task['index']}, and the chief trains.", fix=fix)
    os.environ.setdefault("GRPC_FAIL_FAST", "use_caller")  # else a worker that has ended is waited for
    _LOG.info("waits for %d workers and %d parameter servers", len(cluster["worker"]), len(cluster["ps"]))
    _wait_for([*cluster["ps"], *cluster["worker"]])
    try:
        return tf.distribute.ParameterServerStrategy(tf.distribute.cluster_resolver.TFConfigClusterResolver())
    except RuntimeError as error:
        raise ConfigError(f"too late for workers: {error}", fix="begin with it, in a process of its own") from error


def _cluster_and_task(distribution: str) -> tuple[dict[str, list[str]], dict[str, Any]]:
    kinds = _KINDS[distribution]
    fix = "let what starts the processes set it, such as Kubernetes; to try it on one machine: tfctr train --workers 2"
    fix += " --servers 2" if "ps" in kinds else ""
    if "TF_CONFIG" not in os.environ:
        problem = f"`{distribution}` needs TF_CONFIG, which names all processes, and which of them this one is."
        raise ConfigError(problem, fix=fix)
    try:
        given = json.loads(os.environ["TF_CONFIG"])
        cluster, task = given["cluster"], {"type": given["task"]["type"], "index": int(given["task"]["index"])}
        known = {*cluster} <= {*kinds} and ("ps" not in kinds or all(cluster[kind] for kind in kinds))
        known = known and all(address.rpartition(":")[2].isdecimal() for addresses in cluster.values() for address in addresses)
        require(known and task["index"] < len(cluster[task["type"]]), f"{given}", fix=fix)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        problem = f"TF_CONFIG does not name {' and '.join(kinds)}, and which of them this one is: {os.environ['TF_CONFIG']!r}."
        raise ConfigError(problem, fix=fix) from error
    return cluster, task


DISTRIBUTIONS = {"mirrored": _mirrored, "multi_worker": _multi_worker, "parameter_server": _parameter_server}
