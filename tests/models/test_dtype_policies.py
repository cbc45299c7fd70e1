"""Models trained under the dtype policies whose weights are not float32, beside tables that are."""

import functools

import keras
import numpy as np
import pytest
from kit.at_length import at_length
from kit.every_model import OF_EACH_KIND, made

from tfctr.errors import ConfigError
from tfctr.layers import MLP, FeatureEmbedding
from tfctr.losses import CosineLoss
from tfctr.models import DNN, MODELS, CTRModel, ids_input
from tfctr.optimizers import global_norm, scale


@pytest.fixture(autouse=True)
def _float32_again():
    yield
    keras.config.set_dtype_policy("float32")


def trained(model, schema, ids, labels, policy, optimizer):
    keras.config.set_dtype_policy(policy)
    model = model(schema)
    model.compile(optimizer, metrics=["mse"])
    history = model.fit(ids(32), labels(32), validation_data=(ids(32), labels(32)), batch_size=16, verbose=0).history
    assert all(np.isfinite(values).all() for values in history.values())
    return model


@pytest.mark.parametrize("name", at_length(sorted(MODELS), "DNN", then=OF_EACH_KIND))
def test_float64(name, tiny_schema, tiny_ids, tiny_labels):
    trained(functools.partial(made, name), tiny_schema, tiny_ids, tiny_labels, "float64", "auto")


def apart(schema):
    ids = ids_input(schema)
    left, right = (MLP([2])(FeatureEmbedding(schema, 2)(ids)) for _ in range(2))
    outputs = {"logit": keras.layers.Dense(1, dtype="float32")(left), "left": left, "right": right}
    return CTRModel(schema, ids, outputs, auxiliary={"apart": CosineLoss("left", "right")})


def test_terms_of_several_types(tiny_schema, tiny_ids, tiny_labels):
    trained(apart, tiny_schema, tiny_ids, tiny_labels, "float64", "sgd")


@pytest.mark.parametrize("name", at_length(sorted(MODELS), "DNN", then=OF_EACH_KIND))
def test_float16(name, tiny_schema, tiny_ids, tiny_labels):
    trained(functools.partial(made, name), tiny_schema, tiny_ids, tiny_labels, "float16", "sgd")


@pytest.mark.parametrize("optimizer", at_length(["adam", "lazy_adam", "exact_lazy_adam", "adagrad", "ftrl", "rmsprop"], "ftrl"))
def test_every_optimizer_in_float64(optimizer, tiny_schema, tiny_ids, tiny_labels):
    model = trained(DNN, tiny_schema, tiny_ids, tiny_labels, "float64", optimizer)
    assert {variable.dtype for variable in model.trainable_variables} == {"float32", "float64"}


@pytest.mark.parametrize("policy", ["float16", "bfloat16"])
def test_adam_refuses_weights_in_which_it_cannot_count(policy, tiny_schema, tiny_ids, tiny_labels):
    with pytest.raises(ConfigError, match=rf"cannot train weights of {policy}(?s:.*)'mixed_{policy}'"):
        trained(DNN, tiny_schema, tiny_ids, tiny_labels, policy, "adam")


def test_gradients_of_several_types_have_one_norm():
    gradients = [keras.ops.array([3.0], "float32"), keras.ops.array([4e-20], "float64")]
    assert float(global_norm(gradients)) == 3.0
    assert float(global_norm([keras.ops.array([300.0] * 4, "float16")])) == 600.0  # the sum of squares is no float16
    assert [scale(gradient, keras.ops.array(0.5, "float64")).dtype.name for gradient in gradients] == ["float32", "float64"]
