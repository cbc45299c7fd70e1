"""A step of several workers on this machine: time, and bytes over the wire, against the size of the vocabulary.

    python benchmarks/workers.py [--workers 1 2 4] [--vocabularies 100000 5000000] [--clip 0 10] [--json FILE]

39 fields (Criteo's) share the vocabulary; ids are log-uniform, as clicks are. `--batch-size` is that of all workers together:
each of N has batch size / N rows of a step. Before several workers comes one process with as many rows as each of them has;
what their step takes beyond its is communication. Where there are more workers than processors, they share these, and time
says little; bytes do not depend on it. They are what the loopback device carried, so nothing else may use it meanwhile: it is
one's own under `unshare --map-root-user --net sh -c "ip link set lo up; python benchmarks/workers.py"`.
"""

import argparse
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from kit import results
from kit.made import criteo_sizes

from tfctr.storage import read_json, write_json
from tfctr.training.launching import launch

LINE = "{workers:>7}{rows:>9,}{vocabulary:>12,}{clip_norm:>6g}{milliseconds:>10.1f}{cpu:>9.1f}{megabytes:>10.2f}"


def main():
    arguments = parse_arguments()
    if arguments.child:
        write_json(arguments.child, measure(arguments))
        return
    print(f"{'workers':>7}{'rows':>9}{'vocabulary':>12}{'clip':>6}{'ms/step':>10}{'cpu ms':>9}{'MB/step':>10}", flush=True)
    figures = []
    for vocabulary, clip, workers in itertools.product(arguments.vocabularies, arguments.clip, arguments.workers):
        rows = arguments.batch_size // workers
        figures += [run(arguments, vocabulary, clip, 1, rows)] if workers > 1 else []
        figures += [run(arguments, vocabulary, clip, workers, rows)]
    results.keep(figures, arguments)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--vocabularies", type=int, nargs="+", default=[100_000, 1_000_000, 5_000_000, 20_000_000])
    parser.add_argument("--clip", type=float, nargs="+", default=[0.0, 10.0], help="global norms; 0 is none")
    parser.add_argument("--model", default="DNN")
    parser.add_argument("--optimizer", default="lazy_adam")
    parser.add_argument("--batch-size", type=int, default=4_096, help="of all workers together")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    results.add_option(parser)
    return parser.parse_args()


def run(arguments, vocabulary, clip, workers, rows):
    """What the first of so many workers measured, each of which has so many rows of a batch."""
    with tempfile.TemporaryDirectory() as folder:
        child = Path(folder) / "figures.json"
        command = [sys.executable, "-W", "ignore", __file__, "--child", str(child), "--vocabularies", str(vocabulary)]
        command += ["--clip", str(clip), "--workers", str(workers), "--batch-size", str(rows * workers)]
        command += ["--model", arguments.model, "--optimizer", arguments.optimizer]
        command += ["--steps", str(arguments.steps), "--rounds", str(arguments.rounds)]
        code = launch(command, workers) if workers > 1 else subprocess.run(command, check=False).returncode
        if code:
            sys.exit(f"{' '.join(command)} ended with {code}")
        measured = read_json(child)
    figure = {"workers": workers, "rows": rows, "vocabulary": vocabulary, "clip_norm": clip, **measured}
    print(LINE.format(**figure), flush=True)
    return figure


def measure(arguments):
    import keras
    import numpy as np
    import tensorflow as tf

    (workers,), (vocabulary,), (clip,) = arguments.workers, arguments.vocabularies, arguments.clip
    strategy = tf.distribute.MultiWorkerMirroredStrategy() if workers > 1 else tf.distribute.get_strategy()

    import tfctr

    features = [tfctr.Categorical(f"f{number}", size=size) for number, size in enumerate(criteo_sizes(vocabulary))]
    schema = tfctr.Schema(features=features, label="click")
    rng, rows = np.random.default_rng(0), arguments.steps * arguments.batch_size
    columns = [field.offset + np.floor(field.feature.size ** rng.random(rows)) - 1 for field in schema.fields]
    labels = rng.integers(0, 2, rows).astype("float32")
    split = tfctr.data.Split.from_arrays(np.stack(columns, axis=1).astype("int32"), labels)
    with strategy.scope():
        model = tfctr.models.MODELS[arguments.model](schema)
        model.compile(arguments.optimizer, clip_norm=clip or None)
    readings = []
    callback = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: readings.append(now()), on_epoch_end=lambda epoch, logs: readings.append(now())
    )
    model.fit(split.batches(arguments.batch_size), epochs=1 + arguments.rounds, verbose=0, callbacks=[callback])
    epochs = [(readings[i], readings[i + 1]) for i in range(2, len(readings), 2)]  # the first traces
    return {name: statistics.median(end[name] - start[name] for start, end in epochs) / arguments.steps for name in now()}


def loopback_megabytes():
    """Sent over the loopback device by all, since it exists."""
    for line in Path("/proc/self/net/dev").read_text(encoding="utf-8").splitlines():
        name, _, counts = line.partition(":")
        if name.strip() == "lo":
            return int(counts.split()[8]) / 1e6
    sys.exit("this machine has no loopback device")


def now():
    return {"milliseconds": 1e3 * time.perf_counter(), "cpu": 1e3 * time.process_time(), "megabytes": loopback_megabytes()}


if __name__ == "__main__":
    main()
