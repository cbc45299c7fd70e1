"""FCN and QNN-alpha: their logits, and what their losses read."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from kit.randomized import dense, numbers, randomize, sigmoid

from tfctr import layers
from tfctr.errors import ConfigError
from tfctr.models import FCN, TF4CTR, QNNAlpha


def cross_entropy(target, logits):
    return -(target * np.log(sigmoid(logits)) + (1 - target) * np.log(1 - sigmoid(logits)))


def test_fcn_is_the_mean_of_two_cross_networks(tiny_schema, tiny_ids):
    options = {"num_heads": 2, "layer_norm": True, "batch_norm": True}
    model = randomize(FCN(tiny_schema, 8, 2, 1, 0.2, 0.1, **options), scale=0.3)
    selection, linear, exponential, fusion = model.layers[1:]
    for encoder, own in ((linear, {"num_layers": 2, "dropout": 0.2}), (exponential, {"num_layers": 1, "dropout": 0.1})):
        assert {name: encoder.get_config()[name] for name in own | options} == own | options
    assert [type(layer) for layer in (linear, exponential)] == [layers.LinearCrossNetwork, layers.ExponentialCrossNetwork]
    fields, _ = selection(tiny_ids(9))
    simple, complex_ = (
        dense(head, numbers(encoder(fields))) for head, encoder in zip(fusion.heads, (linear, exponential), strict=True)
    )
    expected = {"logit": (simple + complex_) / 2, "simple": simple, "complex": complex_}
    for name, logit in model(tiny_ids(9)).items():
        np.testing.assert_allclose(logit, expected[name], rtol=1e-4, atol=1e-5)


def test_heads_share_a_logit(tiny_schema, tiny_ids):
    """The authors take the mean of the logits of all heads: here it is the logit of their mean."""
    model = randomize(FCN(tiny_schema, 8, num_heads=2), scale=0.3)
    selection, linear, *_, fusion = model.layers[1:]
    fields, _ = selection(tiny_ids(9))
    x0 = x = numbers(linear.heads(fields))
    for step in range(linear.num_layers):
        c = x @ numbers(linear.crosses[step].kernel)
        mask = np.maximum(numbers(linear.layer_norms[step](c)), 0)
        x = x0 * (np.concatenate([c, c * mask], axis=-1) + numbers(linear.biases[step])) + x
    logits = dense(fusion.heads[0], x)  # (batch, heads, 1)
    np.testing.assert_allclose(model(tiny_ids(9))["simple"], logits.mean(axis=1), rtol=1e-4, atol=1e-4)


def test_fcn_is_the_sentence_of_tf4ctr(tiny_schema, tiny_ids):
    model = FCN(tiny_schema, 4)
    encoders = {"simple_encoder": layers.LinearCrossNetwork(4), "complex_encoder": layers.ExponentialCrossNetwork(3)}
    twin = TF4CTR(tiny_schema, 4, "shared", "mean", **encoders)
    twin.set_weights(randomize(model, scale=0.3).get_weights())
    np.testing.assert_array_equal(twin(tiny_ids(9))["logit"], model(tiny_ids(9))["logit"])


def test_fcn_adds_tri_bce(tiny_schema, tiny_ids, tiny_labels):
    model = randomize(FCN(tiny_schema, 4, embedding_l2=0.1), scale=0.3)
    model.compile()
    ids, labels = tiny_ids(30), tiny_labels(30)[:, None]
    outputs = {name: numbers(logit) for name, logit in model(ids).items()}
    means = {name: cross_entropy(labels, logit).mean() for name, logit in outputs.items()}
    terms = model.loss_terms(ids, labels, training=False)
    assert set(terms) == {"ctr", "tri_bce", "l2"}
    np.testing.assert_allclose(terms["ctr"], means["logit"], rtol=1e-4)
    behind = sum(max(0, means[head] - means["logit"]) * means[head] for head in ("simple", "complex"))
    np.testing.assert_allclose(terms["tri_bce"], behind, rtol=1e-3)
    assert behind > 0


def test_an_embedding_that_heads_cannot_halve_is_refused(tiny_schema):
    with pytest.raises(ConfigError, match="a multiple of 8"):
        FCN(tiny_schema, 4, num_heads=4)


def test_qnn_alpha_is_linear_in_its_network(tiny_schema, tiny_ids):
    options = {"num_layers": 2, "num_products": 3, "num_heads": 2, "dropout": 0.2, "batch_norm": True}
    model = randomize(QNNAlpha(tiny_schema, 4, **options), scale=0.3)
    network = next(layer for layer in model.layers if isinstance(layer, layers.QuadraticNetwork))
    head = next(layer for layer in model.layers if isinstance(layer, keras.layers.Dense))
    assert {name: network.get_config()[name] for name in options} == options
    expected = dense(head, numbers(network(model.embeddings[0](tiny_ids(9)))))
    for logit in model(tiny_ids(9)).values():
        np.testing.assert_allclose(logit, expected, rtol=1e-4, atol=1e-5)
    plain = QNNAlpha(tiny_schema, 4, **options, self_ensemble=False)
    assert (list(plain.output), plain.auxiliary) == (["logit"], {})
    assert [weight.shape for weight in plain.trainable_weights] == [weight.shape for weight in model.trainable_weights]


def test_qnn_alpha_learns_from_the_mean_of_two_draws(tiny_schema, tiny_ids, tiny_labels):
    model = randomize(QNNAlpha(tiny_schema, 4, dropout=0.5, num_layers=2, num_products=1), scale=0.3)
    model.compile()
    ids, labels = tiny_ids(30), tiny_labels(30)[:, None]
    outputs = {name: numbers(logit) for name, logit in model(ids, training=True).items()}
    assert np.abs(outputs["first"] - outputs["second"]).max() > 0.1
    mean = (sigmoid(outputs["first"]) + sigmoid(outputs["second"])) / 2
    np.testing.assert_allclose(sigmoid(outputs["logit"]), mean, rtol=1e-5)
    expected = sum(cross_entropy(mean, outputs[name]) for name in ("first", "second"))
    np.testing.assert_allclose(model.auxiliary["self_ensemble"].call(labels, outputs), expected, rtol=1e-4)
    assert set(model.loss_terms(ids, labels)) == {"ctr", "self_ensemble"}


def test_a_prediction_runs_the_network_once(tiny_schema):
    """What is exported computes no second draw: only the first reaches the logit."""
    model = QNNAlpha(tiny_schema, 4)
    signature = [tf.TensorSpec((None, tiny_schema.width), "int32")]
    serve = tf.function(lambda ids: model(ids, training=False)["logit"], input_signature=signature)
    graph = serve.get_concrete_function().graph
    needed = tf.compat.v1.graph_util.extract_sub_graph(graph.as_graph_def(), [graph.outputs[0].op.name])
    assert sum(node.op == "MatMul" for node in needed.node) == 4 + 1  # one a layer, and the head
