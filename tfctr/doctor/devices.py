"""What TensorFlow sees: its threads, its GPUs, and if there are none, why."""

import contextlib
import ctypes.util
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf

from tfctr.doctor.findings import Finding
from tfctr.doctor.resources import control_groups, cores, cpu_quota

_GROUP = "devices"
_TENSOR_FLOAT_32 = (8, 0)  # from this compute capability on, float32 products are rounded to 10 bits by default


def device_findings() -> Iterator[Finding]:
    """Threads and GPUs. GPUs are told to take memory as they need it, so that a training beside them goes on."""
    yield from thread_findings(cores(), cpu_quota(control_groups("cpu")), os.environ)
    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        with contextlib.suppress(RuntimeError):  # TensorFlow has started already
            tf.config.experimental.set_memory_growth(gpu, True)
        yield gpu_finding(gpu.name.removeprefix("/physical_device:"), tf.config.experimental.get_device_details(gpu))
    if not gpus:
        yield why_no_gpu(tf.test.is_built_with_cuda(), has_driver(), os.environ)


def thread_findings(processors: int, quota: float | None, environment: Mapping[str, str]) -> Iterator[Finding]:
    """TensorFlow's threads; a warning where an operation has more of them than the processors that a quota grants."""
    within = tf.config.threading.get_intra_op_parallelism_threads() or environment.get("TF_NUM_INTRAOP_THREADS")
    beside = tf.config.threading.get_inter_op_parallelism_threads() or environment.get("TF_NUM_INTEROP_THREADS")
    default, fix = f"{processors}, one a processor", None
    if quota is not None and quota < int(within or processors):
        few = max(1, int(quota))
        fix = f"set TF_NUM_INTRAOP_THREADS={few}: more threads wait for each other within a quota of {quota:g} processors"
    yield Finding(_GROUP, "threads of an operation", str(within or default), fix=fix)
    yield Finding(_GROUP, "operations at once", str(beside or default))


def gpu_finding(name: str, details: Mapping[str, Any]) -> Finding:
    """One GPU: what it is, and which `training.precision` pays there."""
    capability = details.get("compute_capability")
    known = "compute capability unknown" if capability is None else "compute capability {}.{}".format(*capability)
    return Finding(_GROUP, name, f"{details.get('device_name', 'unknown')}, {known}: {gpu_precision(capability)}")


def gpu_precision(capability: tuple[int, int] | None) -> str:
    """Which precision pays, by NVIDIA's compute capability: tensor cores know float16 from 7.0 on, bfloat16 from 8.0 on.

    >>> gpu_precision((7, 5))
    'mixed_float16 may be faster than float32'
    """
    if capability is None:
        return "whether 16 bits are faster than float32 is not known"
    if capability >= _TENSOR_FLOAT_32:
        rounded = "float32 products are rounded to TF32 unless tf.config.experimental.enable_tensor_float_32_execution(False)"
        return f"mixed_bfloat16 and mixed_float16 may be faster than float32; {rounded}"
    return "mixed_float16 may be faster than float32" if capability >= (7, 0) else "float32"


def has_driver() -> bool:
    """Whether an NVIDIA driver is there: its kernel module, or its library."""
    return Path("/proc/driver/nvidia/version").exists() or ctypes.util.find_library("cuda") is not None


def why_no_gpu(with_cuda: bool, driver: bool, environment: Mapping[str, str]) -> Finding:
    """Why TensorFlow lists no GPU; a warning only where a driver says that there is one.

    >>> why_no_gpu(True, True, {"CUDA_VISIBLE_DEVICES": "-1"}).found
    "none: CUDA_VISIBLE_DEVICES is '-1', which hides them"
    """
    hidden = environment.get("CUDA_VISIBLE_DEVICES")
    if hidden is not None and hidden.strip() in ("", "-1"):
        return Finding(_GROUP, "GPU", f"none: CUDA_VISIBLE_DEVICES is {hidden!r}, which hides them")
    if not driver:
        built = "" if with_cuda else ", and TensorFlow is built without CUDA"
        return Finding(_GROUP, "GPU", f"none: no NVIDIA driver{built}")
    if not with_cuda:
        fix = 'for NVIDIA GPUs: pip install ".[gpu]"'
        return Finding(_GROUP, "GPU", "none: there is an NVIDIA driver, but TensorFlow is built without CUDA", fix=fix)
    fix = 'pip install ".[gpu]"; TF_CPP_MIN_LOG_LEVEL=0 shows what TensorFlow itself says'
    return Finding(
        _GROUP, "GPU", "none, though there is an NVIDIA driver: CUDA's libraries are missing, or too old a driver", fix=fix
    )
