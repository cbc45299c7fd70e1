"""The product layer of IPNN and the pooling of NFM."""

import keras
import numpy as np
import pytest
from kit.encoder_contract import check_encoder

from tfctr.errors import ConfigError
from tfctr.layers import BiInteraction, FactorizationMachine, ProductLayer

VIEW = np.random.default_rng(0).normal(size=(5, 4, 3)).astype("float32")
PAIRS = [(i, j) for i in range(4) for j in range(i + 1, 4)]


@pytest.mark.parametrize(("encoder", "units"), [(ProductLayer(), 12 + 3), (BiInteraction(), 4)])
def test_encoder_contract(encoder, units):
    check_encoder(encoder, units)


def test_product_layer_against_loops():
    expected = []
    for fields in VIEW.astype("float64"):
        inner = [sum(fields[i][d] * fields[j][d] for d in range(3)) for i, j in PAIRS]
        expected.append([*fields.ravel(), *inner])
    np.testing.assert_allclose(ProductLayer()(VIEW), expected, rtol=1e-5, atol=1e-6)


def test_bi_interaction_against_loops():
    expected = [sum(fields[i] * fields[j] for i, j in PAIRS) for fields in VIEW.astype("float64")]
    np.testing.assert_allclose(BiInteraction()(VIEW), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(FactorizationMachine()(VIEW)[:, 0], np.sum(expected, axis=1), rtol=1e-5, atol=1e-6)


def test_bi_interaction_is_float32_under_a_mixed_policy():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        pooled = BiInteraction()(keras.ops.ones((2, 3, 4), dtype="bfloat16"))
    finally:
        keras.config.set_dtype_policy("float32")
    assert keras.backend.standardize_dtype(pooled.dtype) == "float32"


def test_one_field_is_refused():
    with pytest.raises(ConfigError, match="1 field has no pairs"):
        ProductLayer()(keras.Input((1, 4)))
