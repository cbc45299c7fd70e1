"""Versions published, broken and rolled back under load: what fails, what is answered wrongly, and how much slower it is.

    python benchmarks/hot_swap.py [--requests 100000] [--clients 16] [--processes 4] [--plan new broken rollback] [--json FILE]

The local stand-in runs in a process of its own, and so do the clients, some in each, one request after the other. Meanwhile
this process publishes what `--plan` says, spread over the requests. Each model answers with numbers of its own, so that every
answer is known to be of the version that it names. A swap lasts from the start of publishing until a moment after the server
knows the version; `steady` are the requests that overlap with none. Server, clients and publisher share the processors.
"""

import argparse
import contextlib
import dataclasses
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
from kit import made, results

from tfctr import serving
from tfctr.serving.exporting.golden import golden_rows
from tfctr.serving.runtime.saved_model import SavedModel
from tfctr.serving.store.folders import add_version

PLAN = ("new", "new", "broken", "rollback", "new", "new", "rollback", "new", "new", "new")
MODEL, ROWS = "clicks", 16
MARGIN = 0.5  # seconds after a swap that belong to it
LINE = (
    "{requests:,} requests in {seconds:.0f} s, {versions} versions: "
    "{failed} failed, {out_of_order} out of order, {wrong} wrong\n"
    "steady  p50 {steady_p50_ms:.2f} ms  p99 {steady_p99_ms:.2f} ms\n"
    "swaps   p50 {swap_p50_ms:.2f} ms  p99 {swap_p99_ms:.2f} ms  ({swap_requests:,} requests)\n"
    "p99 in swaps / steady: {ratio:.2f}"
)
SERVE = """
import sys
from tfctr.serving.runtime.stand_in import serve
serve(sys.argv[1], port=0, poll_seconds=0.1, stand_in=True, ready=lambda server: print(server.target, flush=True))
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=100_000, help="at least so many")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--processes", type=int, default=4, help="that the clients share")
    parser.add_argument("--plan", nargs="+", choices=sorted({*PLAN}), default=PLAN, help="what is published after version 1")
    results.add_option(parser)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        models, columns = export_models(Path(folder), 1 + arguments.plan.count("new"))
        answers = [SavedModel(model).run("serving_default", columns)["probability"].tobytes() for model in models]
        base = Path(folder) / MODEL
        copy(models[0], base)
        with served(base) as target, Load(target, columns, answers, arguments) as load:
            publisher = Publisher(target, base, models)
            for number, step in enumerate(arguments.plan, start=1):
                load.wait_for(arguments.requests * number / (len(arguments.plan) + 1))
                publisher.publish(step)
            calls = load.finish()
    figures = judge(calls, publisher)
    print(LINE.format(**figures))
    results.keep(figures, arguments)


def export_models(folder, count):
    """Exported models that answer with numbers of their own, and the columns of the request."""
    from tfctr.models import MODELS  # not above: the clients' processes import this file, and need no TensorFlow

    schema = made.dataset(folder / "data", rows=20_000).schema
    models = []
    for number in range(count):
        model = MODELS["DNN"](schema)
        for weight in model.trainable_weights:
            weight.assign(np.random.default_rng(number).normal(size=weight.shape, scale=0.05))
        models.append(serving.export(model, folder / "models", check=False))
    return models, {name: column[16 : 16 + ROWS] for name, column in golden_rows(schema, 2 * ROWS + 32).items()}


@contextlib.contextmanager
def served(base):
    """A server process: its target."""
    with subprocess.Popen([sys.executable, "-c", SERVE, str(base)], stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def copy(model, base, change=lambda folder: None):
    """Publish the files of `model` as the next version under `base`, changed; its number."""

    def build(folder):
        shutil.copytree(model, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("SHA256SUMS"))
        change(folder)

    return int(add_version(base, build).name)


def cut_variables(folder):
    """A damage that only loading shows."""
    file = next((folder / "variables").glob("variables.data-*"))
    os.truncate(file, file.stat().st_size // 2)


class Publisher:
    """Publishes versions.

    `model_of` has the number of each version's model, None if it is broken; `swaps` has when each began and ended.
    """

    def __init__(self, target, base, models):
        self.base, self.models, self.client = base, iter(enumerate(models)), serving.PredictionClient(target, model=MODEL)
        self.model_of, self.swaps = {1: next(self.models)[0]}, []

    def publish(self, step):
        start = time.perf_counter()
        if step == "new":
            number, model = next(self.models)
            version = copy(model, self.base)
        elif step == "broken":
            number, version = None, copy(self.base / "1", self.base, cut_variables)
        else:
            record = serving.rollback(self.base, "to see what it costs")
            number, version = self.model_of[record["of"]], int(Path(record["folder"]).name)
        self.model_of[version] = number
        while version not in {known["version"] for known in self.client.status()}:
            time.sleep(0.02)
        self.swaps.append((start, time.perf_counter() + MARGIN))
        time.sleep(2 * MARGIN)


@dataclasses.dataclass
class Call:
    client: int
    start: float
    seconds: float
    version: int | None
    answer: int | str  # the number of the model that answers so, -1 if none does; or an error


class Load:
    """The clients, for `with`, in processes of their own."""

    def __init__(self, target, columns, answers, arguments):
        spawn = multiprocessing.get_context("spawn")
        self.counts, self.done, self.calls = spawn.Array("q", arguments.clients, lock=False), spawn.Event(), spawn.Queue()
        quota = -(-arguments.requests // arguments.clients)
        self.processes = [
            spawn.Process(
                target=run_clients,
                args=(range(first, arguments.clients, arguments.processes), target, columns, answers, quota),
                kwargs={"counts": self.counts, "done": self.done, "calls": self.calls},
            )
            for first in range(min(arguments.processes, arguments.clients))
        ]

    def __enter__(self):
        for process in self.processes:
            process.start()
        return self

    def __exit__(self, *_):
        for process in self.processes:
            process.terminate()

    def wait_for(self, requests):
        """Wait until the clients have sent so many."""
        while sum(self.counts) < requests:
            if not all(process.is_alive() for process in self.processes):
                raise RuntimeError("a client's process has ended")
            time.sleep(0.02)

    def finish(self):
        """Let the clients end: all their calls."""
        self.done.set()
        return [call for _ in self.processes for call in self.calls.get()]


def run_clients(clients, target, columns, answers, quota, counts, done, calls):
    """Some clients, each in a thread: every one sends its quota, and goes on until all is published."""
    rows = {name: [value.decode() for value in column] for name, column in columns.items()}
    models, made_calls = {answer: number for number, answer in enumerate(answers)}, []

    def run(client_number):
        with serving.PredictionClient(target, model=MODEL, timeout=60) as client:
            while counts[client_number] < quota or not done.is_set():
                start, version = time.perf_counter(), None
                try:
                    answer = client.answer(rows)
                    version, found = answer.version, models.get(answer.outputs["probability"].tobytes(), -1)
                except Exception as error:
                    found = f"{type(error).__name__}: {error}"
                made_calls.append(Call(client_number, start, time.perf_counter() - start, version, found))
                counts[client_number] += 1

    threads = [threading.Thread(target=run, args=(number,)) for number in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    calls.put(made_calls)


def judge(calls, publisher):
    """What failed, went backwards or was wrong, and the latencies."""
    failed = [call for call in calls if isinstance(call.answer, str)]
    answered = sorted((call for call in calls if not isinstance(call.answer, str)), key=lambda call: call.start)
    latest, out_of_order = {}, 0
    for call in answered:
        out_of_order += call.version < latest.get(call.client, 0)
        latest[call.client] = call.version
    in_swap = np.array(
        [any(call.start < end and begin < call.start + call.seconds for begin, end in publisher.swaps) for call in answered]
    )
    seconds = np.array([call.seconds for call in answered])
    steady, swap = (1e3 * np.quantile(part, [0.5, 0.99]) for part in (seconds[~in_swap], seconds[in_swap]))
    return {
        "requests": len(calls),
        "seconds": answered[-1].start - answered[0].start,
        "versions": len(publisher.model_of),
        "served": sorted({call.version for call in answered}),
        "not_served": sorted(version for version, model in publisher.model_of.items() if model is None),
        "failed": len(failed),
        "first_failure": failed[0].answer if failed else None,
        "out_of_order": out_of_order,
        "wrong": sum(call.answer != publisher.model_of[call.version] for call in answered),
        "swap_requests": int(in_swap.sum()),
        **dict(zip(("steady_p50_ms", "steady_p99_ms"), steady.tolist(), strict=True)),
        **dict(zip(("swap_p50_ms", "swap_p99_ms"), swap.tolist(), strict=True)),
        "ratio": swap[1] / steady[1],
    }


if __name__ == "__main__":
    main()
