"""A run is a function of its configuration and data, the processor, and the number of threads, which it records."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from kit.at_length import at_length

import tfctr
from tfctr.processor import this_processor

CHILD = """
import hashlib, json, sys
import tensorflow as tf
from tfctr.config import Config
from tfctr.training import train
data, out, threads = sys.argv[1:]
if threads != "0":
    tf.config.threading.set_intra_op_parallelism_threads(int(threads))
encoder = {"type": "MLP", "hidden_units": [64, 64], "dropout": 0.1, "batch_norm": True}
model = {"name": "TF4CTR", "embedding_dim": 8, "simple_encoder": encoder, "complex_encoder": encoder}
run = train(Config.from_dict({"model": model, "training": {"batch_size": 1024, "epochs": 2}}), data, out)
digest = hashlib.sha256(b"".join(weight.tobytes() for weight in run.model.get_weights())).hexdigest()
print(json.dumps([digest, run.environment]))
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    draw = np.random.default_rng(0)
    table = {name: draw.integers(0, 200, 6000).astype(str) for name in ("user", "item")} | {"click": draw.integers(0, 2, 6000)}
    schema = tfctr.Schema([tfctr.Categorical("user"), tfctr.Categorical("item")], label="click")
    folder = tmp_path_factory.mktemp("determinism") / "data"
    tfctr.prepare(schema, train=table, valid=0.2, out=folder)
    return folder


def run_of(data, out, threads, hash_seed, **environment):
    child = subprocess.run(
        [sys.executable, "-c", CHILD, str(data), str(out), str(threads)],
        env={**os.environ, "PYTHONHASHSEED": str(hash_seed), "TF_CPP_MIN_LOG_LEVEL": "2", **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(child.stdout)


@pytest.mark.parametrize("threads", at_length([1, 2]))
def test_as_many_threads_give_the_same_bits_in_any_process(threads, data, tmp_path):
    first, environment = run_of(data, tmp_path / "set", threads, 1)
    again, further = run_of(data, tmp_path / "named", 0, 2, TF_NUM_INTRAOP_THREADS=str(threads))
    assert first == again
    assert environment["threads"] == further["threads"] == threads
    processor = this_processor()
    assert environment["processor"] == processor.name
    assert environment["instruction_sets"] == (processor.sets and list(processor.sets))


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="the system does not say")
def test_threads_that_nobody_sets_are_the_processors_that_the_run_may_use(data, tmp_path):
    (digest, environment), own = run_of(data, tmp_path / "own", 0, 1), len(os.sched_getaffinity(0))
    assert environment["threads"] == own
    assert digest == run_of(data, tmp_path / "set", own, 1)[0]
