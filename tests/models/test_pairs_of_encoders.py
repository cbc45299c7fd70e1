"""`PAIRS`: the encoders of the parallel models, inside TF4CTR."""

import json

import keras
import numpy as np
import pytest

from tfctr.layers import ENCODERS
from tfctr.models import MODELS, PAIRS, build

EVERY_PAIR = pytest.mark.parametrize("name", PAIRS)


def test_the_parallel_models_of_the_paper_are_there():
    assert set(PAIRS) == {"WideDeep", "DeepFM", "XDeepFM", "DCN", "DCNv2", "AutoInt", "AFN"}


def description(layer):
    return type(layer), json.loads(json.dumps({**layer.get_config(), "name": None}))


@EVERY_PAIR
def test_the_pair_is_what_the_model_uses(name, tiny_schema):
    used = [description(layer) for layer in MODELS[name](tiny_schema).layers if type(layer) in ENCODERS.values()]
    for encoder in PAIRS[name].values():
        arguments = dict(encoder)
        assert description(ENCODERS[arguments.pop("type")](**arguments)) in used


@pytest.mark.sampled(2)
@EVERY_PAIR
def test_tf4ctr_trains_around_the_pair(name, tiny_schema, tiny_ids, tiny_labels):
    model = build("TF4CTR", tiny_schema, **PAIRS[name])
    before = [weight.numpy() for weight in model.trainable_variables]
    model.compile(run_eagerly=True)
    history = model.fit(tiny_ids(64), tiny_labels(64)[:, None], batch_size=64, epochs=1, verbose=0).history
    assert set(history) == {"loss", "ctr", "twin_focus"}
    assert np.isfinite([history[term] for term in history]).all()
    assert all(np.isfinite(weight).all() for weight in model.trainable_variables)
    moved = [np.any(old != new.numpy()) for old, new in zip(before, model.trainable_variables, strict=True)]
    assert sum(moved) > len(moved) / 2


@pytest.mark.parametrize("name", ["DCN", "DCNv2", "AutoInt"])
def test_shared_and_sum_around_the_pair_is_the_model(name, tiny_schema, tiny_ids):
    """The named model is the sentence of TF4CTR with other words."""
    model = MODELS[name](tiny_schema)
    twin = build("TF4CTR", tiny_schema, selection="shared", fusion="sum", **PAIRS[name])
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=weight.shape, scale=0.1) for weight in model.get_weights()]
    model.set_weights(weights)
    twin.set_weights(weights)
    ids = keras.ops.convert_to_tensor(tiny_ids(9))
    np.testing.assert_array_equal(twin(ids)["logit"], model(ids)["logit"])
