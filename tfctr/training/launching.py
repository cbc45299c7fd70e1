"""Several workers on one machine, and parameter servers, to try what runs on several machines."""

import contextlib
import json
import os
import socket
import subprocess
import time
from collections.abc import Sequence

from tfctr.errors import require_count

_PATIENCE = 30.0  # seconds from the first worker's error to the end of all
_INTERVAL = 0.1  # seconds


def launch(command: Sequence[str], workers: int, servers: int = 0) -> int:
    """Run a command in so many processes, each with its `TF_CONFIG`: workers, of which the first writes; or a chief and others.

    Their output is this process's; of the first one all of it, of the others errors only. When one ends with an error, the
    others have half a minute to find that out for themselves, and are ended then. When this is interrupted, all are ended.
    With parameter servers, some workers may end: the chief goes on with the others.

    Args:
        command: the program and its arguments.
        workers: at least 1.
        servers: how many parameter servers there are; then there is a chief, too.

    Returns:
        The exit code of the worker that was the first to fail, or 0. Of one that was ended by a signal it is 128 and the
        signal's number, as in a shell.

    Raises:
        ConfigError: `workers` is below 1.

    >>> import sys
    >>> launch([sys.executable, "-c", "import os, sys; sys.exit(3 if '\\"index\\": 1' in os.environ['TF_CONFIG'] else 0)"], 2)
    3
    """
    require_count("workers", workers)
    require_count("servers", servers, least=0)
    kinds = {"chief": 1, "worker": workers, "ps": servers} if servers else {"worker": workers}
    ports = iter(_free_ports(sum(kinds.values())))
    cluster = {kind: [f"localhost:{next(ports)}" for _ in range(number)] for kind, number in kinds.items()}
    running: list[subprocess.Popen[bytes]] = []
    try:
        for kind, addresses in cluster.items():
            for index in range(len(addresses)):
                config = {"cluster": cluster, "task": {"type": kind, "index": index}}
                environment = {**os.environ, "TF_CONFIG": json.dumps(config)}
                running.append(subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL if running else None))
        return _first_failure(running, running[1 : 1 + workers] if servers else [])
    finally:
        for process in running:
            _end(process)


def _first_failure(processes: Sequence[subprocess.Popen[bytes]], spare: Sequence[subprocess.Popen[bytes]]) -> int:
    """Wait until all have ended, or `_PATIENCE` after the first that failed; spare ones fail when all of them have."""
    failed, deadline = 0, float("inf")
    while True:
        codes = {process: process.poll() for process in processes}
        spared = spare if not all(codes[process] for process in spare) else ()
        errors = [code for process, code in codes.items() if code and process not in spared]
        if errors and not failed:
            failed, deadline = errors[0], time.monotonic() + _PATIENCE
        if None not in codes.values() or time.monotonic() >= deadline:
            return 128 - failed if failed < 0 else failed
        time.sleep(_INTERVAL)


def _end(worker: subprocess.Popen[bytes]) -> None:
    if worker.poll() is None:
        worker.terminate()
        try:
            worker.wait(5)
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()


def _free_ports(number: int) -> list[int]:
    """Ports that nobody listens on now; they are held until all are found, so that they differ."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind(("localhost", 0))
        return [each.getsockname()[1] for each in sockets]
