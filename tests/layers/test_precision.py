"""Every public layer under every dtype policy: near float32, and finite with finite gradients over Keras' own embedding."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from kit.encoder_contract import ROUNDING, check_precision
from kit.public_layers import OF_IDS, OF_ONE_VIEW, PUBLIC, rows_for
from kit.public_layers import make as make_layer

from tfctr.layers import MLP, FactorizationMachine


@pytest.mark.sampled(12)
@pytest.mark.parametrize("name", PUBLIC)
def test_near_float32(name):
    layer, inputs = make_layer(name), rows_for(name)
    layer(*inputs)
    if name in OF_IDS:  # fresh tables are nearly 0
        layer.set_weights([weight * 1e4 if weight.shape in ((15, 4), (5, 4)) else weight for weight in layer.get_weights()])
    check_precision(layer, *inputs, policies=tuple(ROUNDING))


@pytest.mark.sampled(15)
@pytest.mark.parametrize("policy", ["mixed_float16", "float16"])
@pytest.mark.parametrize("name", sorted(set(OF_ONE_VIEW) - {"AttentiveScore"}))
def test_finite_over_a_stock_embedding(name, policy):
    keras.config.set_dtype_policy(policy)
    try:
        embedding, layer = keras.layers.Embedding(50, 8), make_layer(name)
    finally:
        keras.config.set_dtype_policy("float32")
    ids = np.random.default_rng(0).integers(0, 50, (16, 6))
    for training in (True, False):
        with tf.GradientTape() as tape:
            outputs = keras.tree.flatten(layer(embedding(ids), training=training))
            loss = sum(tf.reduce_mean(tf.cast(output, "float32")) for output in outputs)
        variables = [*embedding.trainable_variables, *layer.trainable_variables]
        for tensor in [*outputs, *tape.gradient(loss, [variable.value for variable in variables])]:
            if tensor is not None:
                assert np.isfinite(tf.cast(tf.convert_to_tensor(tensor), "float32")).all()


@pytest.mark.parametrize("make", [FactorizationMachine, lambda: MLP([2], dtype="mixed_float16")], ids=["no weights", "MLP"])
def test_an_overflow_in_the_gradient_is_seen(make):
    """A row of the table that is read twice, and overflows once: Keras takes its gradient for finite."""
    layer = make()
    embedding = keras.layers.Embedding(3, 2, dtype="float32" if isinstance(layer, MLP) else "mixed_float16")
    ids = np.array([[1, 1], [2, 2], [1, 2]])
    layer(embedding(ids))
    factors = tf.constant([[3e5], [1.0], [1.0]])
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(factors * tf.cast(layer(embedding(ids)), "float32") * 1e3)
    gradient = tape.gradient(loss, embedding.embeddings.value)
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD())
    before = embedding.get_weights()[0]
    optimizer.apply([gradient], embedding.trainable_variables)
    np.testing.assert_array_equal(embedding.get_weights()[0], before)  # the step is left out
    assert int(optimizer.iterations) == 0
