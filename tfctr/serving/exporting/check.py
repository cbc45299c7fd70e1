"""The strict check of an exported model: run as TensorFlow Serving runs it, each signature gives its golden bits.

`check_saved_model` starts `python -m tfctr.serving.exporting.check FOLDER REPORT`, a process that never imports TensorFlow's
Python: no variable, table or Python function of the exporting process can help the model there, and a crash or a hang ends the
check, not the exporter. It replays the version's own warm-up records, as a server will, and compares what they should have been
answered.
"""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from tfctr.errors import ExportError, TfctrError, require
from tfctr.serving.runtime.saved_model import SavedModel, StatusError, disable_xla
from tfctr.serving.runtime.warmup import read_warmup
from tfctr.storage import read_json, write_json
from tfctr.types import StrPath

# What the child keeps of the environment: how to start, and what decides the order of floating-point sums.
_KEPT = ("PATH", "HOME", "TMPDIR", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
_KEPT_PREFIXES = ("OMP_", "KMP_", "DNNL_", "ONEDNN_", "TF_ENABLE_ONEDNN", "TF_NUM_INTEROP_THREADS", "TF_NUM_INTRAOP_THREADS")


def check_saved_model(folder: StrPath, *, timeout: float = 300.0) -> dict[str, int]:
    """Refuse a SavedModel that does not reproduce its warm-up records.

    Args:
        folder: one version's folder, the one with `saved_model.pb`. The answers in its warm-up records, made by `write_warmup`,
            must come from the model, computed on the CPU of this machine at the same batch size: only then are equal bits
            promised. Every signature needs at least one record.
        timeout: seconds until the check counts as failed.

    Returns:
        Signature -> rows compared.

    Raises:
        ExportError: the model does not load, a signature is missing, unchecked or fails, or an output differs.
    """
    with tempfile.TemporaryDirectory(prefix="tfctr-check-") as temporary:
        report_file = Path(temporary) / "report.json"
        command = [sys.executable, "-P", "-m", "tfctr.serving.exporting.check", str(Path(folder).resolve()), str(report_file)]
        try:
            child = subprocess.run(command, env=_environment(), stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout)
        except subprocess.TimeoutExpired as error:
            raise ExportError(
                f"the SavedModel did not answer its golden rows within {timeout:g} s.",
                fix="free the machine; or export with check=False, and call check_saved_model() with a longer `timeout`",
            ) from error
        if child.returncode not in (0, ExportError.exit_code):
            raise ExportError(
                f"the SavedModel crashed the process that loaded it ({_ending(child)}).",
                fix="the model cannot be served; export it with tfctr.serving.export only",
            )
        report = read_json(report_file)
    if child.returncode:
        raise ExportError(report["problem"], fix=report["fix"])
    return report


def _environment():
    kept = {name: value for name, value in os.environ.items() if name in _KEPT or name.startswith(_KEPT_PREFIXES)}
    search_path = os.pathsep.join(folder or os.getcwd() for folder in sys.path)
    return {**kept, "PYTHONPATH": search_path, "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "2"}


def _ending(child):
    code = signal.Signals(-child.returncode).name if child.returncode < 0 else f"exit code {child.returncode}"
    last_words = child.stderr.decode(errors="replace").strip().splitlines()[-1:]
    return ": ".join([code, *last_words])


# in the child


def _compare(folder):
    disable_xla()
    try:
        model = SavedModel(folder)
    except StatusError as error:
        raise ExportError(
            f"TensorFlow cannot load it: {error.problem}", fix="export through tfctr.serving.export, never tf.saved_model.save"
        ) from error
    rows = {}
    for record in read_warmup(folder):
        rows[record.signature] = rows.get(record.signature, 0) + _compare_record(model, record)
    for signature in model.signatures:
        problem = f"signature {signature!r} has no golden rows."
        require(signature in rows, problem, fix="give golden rows for every signature", error=ExportError)
    return rows


def _compare_record(model, record):
    signature, golden = record.signature, record.outputs
    try:
        served = record.answer(model)
    except StatusError as error:
        raise ExportError(
            f"signature {signature!r} cannot run: {error.problem}", fix="use only TensorFlow operations, without compilation"
        ) from error
    require(
        set(golden) == set(served),
        f"signature {signature!r} has the outputs {sorted(served)}, its golden rows have {sorted(golden)}.",
        fix="name them alike",
        error=ExportError,
    )
    for name in sorted(golden):
        _compare_output(f"signature {signature!r}, output {name!r}", golden[name], served[name])
    return record.rows


def _compare_output(where, golden, served):
    require(
        (golden.dtype, golden.shape) == (served.dtype, served.shape),
        f"{where}: {golden.dtype} {golden.shape} offline, {served.dtype} {served.shape} served.",
        fix="return the same type and shape on both faces",
        error=ExportError,
    )
    different = _different_rows(golden, served)
    if different.size:
        row = different[0]
        raise ExportError(
            f"{where}, row {row}: {_text(golden, row)} offline, {_text(served, row)} served "
            f"({different.size} of {len(np.atleast_1d(golden))} rows differ).",
            fix="the exported graph computes something else than the model; do not serve it",
        )


def _different_rows(golden, served):
    if golden.dtype != object:  # bits, so that NaN equals NaN and 0.0 differs from -0.0
        golden, served = (np.ascontiguousarray(array).view(f"V{array.itemsize}") for array in (golden, served))
    different = np.atleast_1d(golden != served)
    return np.flatnonzero(different.reshape(len(different), -1).any(axis=1)) if different.size else np.arange(0)


def _text(array, row):
    return str(np.atleast_1d(array)[row])


def _main(folder, report_file):
    try:
        report, exit_code = _compare(Path(folder)), 0
    except TfctrError as error:
        report, exit_code = {"problem": error.problem, "fix": error.fix}, ExportError.exit_code
    write_json(report_file, report)
    return exit_code


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))
