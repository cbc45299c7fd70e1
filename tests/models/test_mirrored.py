"""Two devices train as one device does: every loss, and what reads more than one row at a time."""

import inspect
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from kit.places import KIT, ROOT

from tfctr.models import MODELS


def one_and_two_devices(*runs):
    """The logged losses `(on one device, on two)` of each `(model, arguments, settings of compile)`."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(KIT / "mirrored_losses.py"), json.dumps(runs)]
    return json.loads(subprocess.run(command, capture_output=True, check=True, text=True, env=environment).stdout)


def assert_equal_losses(one, two):
    assert one["ctr"][0] != one["ctr"][-1]
    np.testing.assert_allclose(two.pop("val_auc"), one.pop("val_auc"), atol=5e-4)  # a last bit can swap two ranks
    for name in one:
        np.testing.assert_allclose(two[name], one[name], rtol=2e-5, atol=1e-7, err_msg=name)


@pytest.mark.slow
def test_two_devices_give_the_losses_of_one():
    encoders = {
        "simple_encoder": {"type": "MLP", "hidden_units": [8]},
        "complex_encoder": {"type": "MLP", "hidden_units": [8, 8]},
    }
    whole, rows = ({"embedding_dim": 4, **encoders, "embedding_l2": 0.5, "l2_scope": scope} for scope in ("table", "batch"))
    clip = {"clip_norm": 0.05}  # so small that it clips at every step: the norm must be that of the global batch
    runs = [(whole, clip), (rows, clip), (rows, {"optimizer": "lazy_adam"}), (rows, {**clip, "optimizer": "exact_lazy_adam"})]
    runs = [("TF4CTR", *run) for run in runs]
    # Metrics, and layers that Keras thinks not built, are what it tries a mean batch for.
    runs += [("LR", {}, {"metrics": ["BinaryAccuracy"]}), ("CL4CTR", {"mask_share": 0.0, "dropout": 0.0}, {})]
    for one, two in one_and_two_devices(*runs):
        assert_equal_losses(one, two)


# Each replica normalizes its own rows and draws its own noise, so that is left out. AFN cannot do without normalization.
WITHOUT = {"batch_norm": False, "dropout": 0.0, "mask_share": 0.0, "attention_activation": "relu"}
# One model of each loss, and of each kind of table; the others read their rows one by one, and have the loss of DNN.
EACH_LOSS = ["CETN", "CL4CTR", "DNN", "DualMLP", "FCN", "FM", "FinalNet", "QNNAlpha", "SimMHN", "TF4CTR", "WideDeep"]
OTHERS = sorted(set(MODELS) - {"AFN", *EACH_LOSS})


def of_models(names):
    arguments = [{key: WITHOUT[key] for key in WITHOUT.keys() & inspect.signature(MODELS[name]).parameters} for name in names]
    for name, given in zip(names, arguments, strict=True):
        given |= {"activation": "relu"} if name == "DIN" else {}  # Dice normalizes
        given |= {"num_products": 1} if name == "QNNAlpha" else {}  # five, of weights that large, explode
    return dict(zip(names, one_and_two_devices(*zip(names, arguments, [{}] * len(names), strict=True)), strict=True))


@pytest.fixture(scope="module")
def each_loss():
    return of_models(EACH_LOSS)


@pytest.fixture(scope="module")
def others():
    return of_models(OTHERS)


@pytest.mark.slow
@pytest.mark.parametrize("name", EACH_LOSS)
def test_two_devices_train_each_loss_as_one(name, each_loss):
    assert_equal_losses(*each_loss[name])


@pytest.mark.every
@pytest.mark.parametrize("name", OTHERS)
def test_two_devices_train_every_model_as_one(name, others):
    assert_equal_losses(*others[name])


@pytest.mark.slow
def test_two_devices_go_on_from_a_checkpoint(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(KIT / "mirrored_resume.py"), str(tmp_path / "checkpoints")]
    said = subprocess.run(command, capture_output=True, check=True, text=True, env=environment).stdout
    assert said.splitlines()[-1] == "the same bits"
