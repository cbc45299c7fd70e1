"""Under a strategy a step reads rows and sends each gradient once; each device has its own noise, and all one normalization."""

import inspect
import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from kit.places import KIT, ROOT


@pytest.fixture(scope="module")
def found():
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "ignore", str(KIT / "mirrored_step.py")]
    said = subprocess.run(command, capture_output=True, check=True, text=True, env=environment).stdout
    return json.loads(said.splitlines()[-1])


@pytest.mark.parametrize("optimizer", ["lazy_adam", "exact_lazy_adam"])
def test_a_step_reads_rows_and_clipping_sends_nothing_more(optimizer, found):
    plain, clipped = (found["steps"][f"{optimizer}, {clip_norm}"] for clip_norm in (None, 1.0))
    assert plain["travels"]
    assert clipped["travels"] == plain["travels"]
    assert (plain["whole"], clipped["whole"]) == ([], [])


@pytest.mark.parametrize("layer", ["norm", "dice"])
def test_rows_of_all_devices_are_normalized_together(layer, found):
    one, two, (alone, shared) = found["norms"][layer]
    np.testing.assert_allclose(two, one, atol=1e-5)
    for ours, theirs in zip(shared, alone, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_rows_are_written_on_all_devices(found):
    assert found["written"] == [[0, 5, 0]] * 2


@pytest.mark.parametrize("layer", ["dropout", "noise_shape", "perturbation"])
def test_each_device_draws_noise_of_its_own(layer, found):
    left, right = found["noise"][layer]
    assert np.ptp(left) > 0
    assert left != right


def test_what_is_private_to_keras_is_there():
    """`Distributed` and `minimize` take the place of these."""
    assert "_maybe_symbolic_build" in inspect.getsource(keras.Model.fit)
    assert "_all_reduce_sum_gradients" in inspect.getsource(keras.optimizers.Optimizer._backend_update_step)


def test_several_steps_in_one_call_are_refused(found):
    assert found["refusal"] == "`steps_per_execution` is 4, and there are 2 devices."
