"""Peak memory and time of CETN's training step, with the contrast in row blocks and with the full similarity matrix.

    python benchmarks/contrast_memory.py [--batch-size 10000] [--steps 5] [--json FILE]

Each form trains in a process of its own, on ids shaped like Frappe with the architecture of the authors' best run there, and
says its largest resident set. `none` is CETN without a contrast: what the rest of the step needs. The forms run one after the
other: on a busy machine, trust the CPU time.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from kit import results
from kit.made import FRAPPE_SIZES

FORMS = ("blocks", "full", "none")


def main():
    arguments = parse_arguments()
    if arguments.form:
        print(json.dumps(measure(arguments)))
        return
    figures = {form: measure_in_child(form, arguments) for form in FORMS}
    figures["memory_ratio"] = round(figures["blocks"]["peak_mib"] / figures["full"]["peak_mib"], 3)
    print(table(figures))
    results.keep(figures, arguments)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=10_000)
    parser.add_argument("--steps", type=int, default=5)
    results.add_option(parser)
    parser.add_argument("--form", choices=FORMS, help="measure one form in this process")
    return parser.parse_args()


def measure_in_child(form, arguments):
    command = [sys.executable, __file__, "--form", form]
    command += ["--batch-size", str(arguments.batch_size), "--steps", str(arguments.steps)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def measure(arguments):
    from training import frappe_like

    from tfctr.features import Categorical
    from tfctr.losses import contrast
    from tfctr.models import CETN
    from tfctr.schema import Schema

    if arguments.form == "full":
        contrast._log_partition = full_matrix
    schema = Schema(features=[Categorical(f"f{i}", size=size) for i, size in enumerate(FRAPPE_SIZES)], label="click")
    batches = frappe_like(schema, arguments.steps * arguments.batch_size).batches(arguments.batch_size)
    options = {"contrast": None} if arguments.form == "none" else {}
    model = CETN(schema, dropout=0.1, weight_dropout=0.1, batch_norm=True, embedding_l2=0.05, **options)
    model.compile()
    model.fit(batches, epochs=1, verbose=0)  # trace
    start, cpu_start = time.perf_counter(), time.process_time()
    model.fit(batches, epochs=1, verbose=0)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    milliseconds = {"ms_a_step": seconds, "cpu_ms_a_step": cpu_seconds}
    return {"peak_mib": round(peak), **{name: round(1000 * value / arguments.steps) for name, value in milliseconds.items()}}


def full_matrix(left, right, temperature):
    """What the row blocks replace, for autodiff."""
    from keras import ops

    return ops.logsumexp(ops.matmul(left, ops.transpose(right)) / temperature, axis=-1, keepdims=True)


def table(figures):
    columns = {"peak MiB": "peak_mib", "ms a step": "ms_a_step", "CPU ms": "cpu_ms_a_step"}
    lines = [f"{'contrast':<10}" + "".join(f"{title:>12}" for title in columns)]
    lines += [f"{form:<10}" + "".join(f"{figures[form][key]:>12,}" for key in columns.values()) for form in FORMS]
    return "\n".join([*lines, f"blocks / full: {figures['memory_ratio']:.0%} of the memory"])


if __name__ == "__main__":
    main()
