"""What else than its configuration decides the result of a run."""

import os
import platform
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import tfctr
from tfctr.config import Training
from tfctr.data.dataset import Dataset
from tfctr.processor import this_processor
from tfctr.replicas import cluster_of, has_workers
from tfctr.storage import sha256
from tfctr.training.distribution import is_served


def describe_environment(settings: Training, dataset: Dataset) -> dict[str, Any]:
    """What else decides a result: versions, machine, device, precision, seed, and the hash of the data."""
    data = Path(dataset.folder).resolve()
    processor = this_processor()
    return {
        "tfctr": tfctr.__version__,
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "processor": processor.name,
        "instruction_sets": processor.sets,
        "threads": _threads(),
        "device": device(),
        **({"distribution": "parameter_server"} if is_served(tf.distribute.get_strategy()) else {}),
        "precision": settings.precision,
        "seed": settings.seed,
        "data": {"folder": str(data), "manifest_sha256": sha256(data / "manifest.json")},
    }


def _threads() -> int | None:
    """How many threads share one of TensorFlow's operations: as set, else as many as this process may use processors."""
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    named = os.environ.get("TF_NUM_INTRAOP_THREADS", "")
    return tf.config.threading.get_intra_op_parallelism_threads() or (named.isdecimal() and int(named)) or own


def device() -> str:
    """Where a model is trained: `"CPU"`, or on one GPU of those there are, or on as many as the `tf.distribute` strategy has.

    For example `"NVIDIA H200 (1 of 8 GPUs)"`, `"NVIDIA H200 (16 workers)"`, `"CPU (2 workers)"`.
    """
    gpus = tf.config.list_physical_devices("GPU")
    strategy = tf.distribute.get_strategy()
    number = strategy.num_replicas_in_sync
    name = tf.config.experimental.get_device_details(gpus[0]).get("device_name", gpus[0].name) if gpus else "CPU"
    if is_served(strategy):
        return "{} ({worker} workers, {ps} parameter servers)".format(name, **cluster_of(strategy))
    if has_workers(strategy):
        return f"{name} ({number} workers)"
    return f"{name} ({number} of {len(gpus)} GPUs)" if gpus else name if number == 1 else f"{name} ({number} devices)"
