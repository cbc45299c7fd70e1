"""CETN, SimMHN and TriDNN against their formulas, and CETN's ablations."""

import numpy as np
import pytest
from kit.at_length import at_length
from kit.randomized import numbers, randomize

from tfctr import layers, losses, models
from tfctr.errors import ConfigError
from tfctr.models import CETN, SimMHN, TriDNN

SMALL = {"embedding_dim": 3, "hidden_units": [6, 4]}


def small(cls, schema, **arguments):
    return randomize(cls(schema, **{**SMALL, **({} if cls is TriDNN else {"weight_hidden_units": [5]}), **arguments}))


def weights_of(layer):
    return [numbers(weight) for weight in layer.weights]


def layers_of(model, cls):
    return [layer for layer in model.layers if isinstance(layer, cls)]


def activate(name, x):
    return {
        "relu": np.maximum(x, 0),
        "leaky_relu": np.where(x > 0, x, 0.01 * x),
        "tanh": np.tanh(x),
        "mish": x * np.tanh(np.log1p(np.exp(x))),
    }[name]


def dense(x, weights, activation):
    """Hidden layers out of `[kernel, bias, kernel, bias, ...]`."""
    for kernel, bias in zip(weights[::2], weights[1::2], strict=True):
        x = activate(activation, x @ kernel + bias)
    return x


def views_by_hand(model, ids):
    """The three views, from an embedding layer that has its own test."""
    fields = numbers(model.embeddings[0](ids))
    pairs = [(i, j) for i in range(fields.shape[1]) for j in range(i, fields.shape[1])]
    products = np.stack([fields[:, i] * fields[:, j] for i, j in pairs], axis=1)
    return [fields.reshape(len(ids), -1), products.reshape(len(ids), -1), products.sum(axis=-1)]


def outputs_by_hand(model, ids, activations, through):
    """Logit and values of a three-space model with a Key-Value Block a space."""
    blocks, (fusion,) = layers_of(model, layers.KeyValueBlock), layers_of(model, layers.SpaceFusion)
    heads = weights_of(fusion)
    values, logit = [], 0
    for i, (block, view, activation) in enumerate(zip(blocks, views_by_hand(model, ids), activations, strict=True)):
        value = dense(view, weights_of(block.value), activation)
        values.append(value + values[0] if through and i else value)
        *hidden, kernel, bias = weights_of(block.weight)
        weight = activate("leaky_relu", dense(view, hidden, "leaky_relu") @ kernel + bias)
        logit = logit + weight * (values[i] @ heads[2 * i] + heads[2 * i + 1])
    return logit, values


@pytest.mark.parametrize("through", [True, False])
def test_cetn_against_numpy(through, tiny_schema, tiny_ids):
    activations = ["tanh", "relu", "mish"]
    model = small(CETN, tiny_schema, activation=activations, through=through)
    logit, values = outputs_by_hand(model, tiny_ids(20), activations, through)
    found = model(tiny_ids(20))
    np.testing.assert_allclose(found["logit"], logit, rtol=1e-4, atol=1e-5)
    for i, value in enumerate(values):
        np.testing.assert_allclose(found[f"value_{i}"], value, rtol=1e-4, atol=1e-5)


def test_simmhn_against_numpy(tiny_schema, tiny_ids):
    model = small(SimMHN, tiny_schema)
    logit, _ = outputs_by_hand(model, tiny_ids(20), ["leaky_relu"] * 3, through=False)
    np.testing.assert_allclose(model(tiny_ids(20))["logit"], logit, rtol=1e-4, atol=1e-5)


def test_tri_dnn_against_numpy(tiny_schema, tiny_ids):
    model = small(TriDNN, tiny_schema)
    (fusion,) = layers_of(model, layers.SpaceFusion)
    heads = weights_of(fusion)
    logit = 0
    for i, (mlp, view) in enumerate(zip(layers_of(model, layers.MLP), views_by_hand(model, tiny_ids(20)), strict=True)):
        logit = logit + dense(view, weights_of(mlp), "relu") @ heads[2 * i] + heads[2 * i + 1]
    np.testing.assert_allclose(model(tiny_ids(20))["logit"], logit, rtol=1e-4, atol=1e-5)


def test_loss_terms_are_those_of_eq_19(tiny_schema, tiny_ids, tiny_labels):
    ids, labels = tiny_ids(40), tiny_labels(40)[:, None]
    model = small(CETN, tiny_schema, contrast_weight=0.25, temperature=0.4, cosine_weights=[0.1, 0.7], embedding_l2=0.1)
    model.compile()
    main, first, second = (numbers(model(ids)[f"value_{i}"]) for i in range(3))
    directions = [value / np.linalg.norm(value, axis=1, keepdims=True) for value in (main, first, second)]
    partition = np.exp(directions[1] @ directions[2].T / 0.4).sum(axis=1)
    terms = {name: float(value) for name, value in model.loss_terms(ids, labels, training=False).items()}
    assert list(terms) == ["ctr", "contrast", "cosine_1", "cosine_2", "l2"]
    assert terms["contrast"] == pytest.approx(0.25 * np.mean(np.log(partition) - 1 / 0.4), rel=1e-5)
    for i, weight in ((1, 0.1), (2, 0.7)):
        distance = 1 - (directions[0] * directions[i]).sum(axis=1)
        assert terms[f"cosine_{i}"] == pytest.approx(weight * distance.mean(), rel=1e-4)


@pytest.mark.parametrize("weight_hidden_units", [None, (4,)])
def test_without_bias_only_the_heads_have_one(weight_hidden_units, tiny_schema):
    model = CETN(tiny_schema, 4, hidden_units=(4,), weight_hidden_units=weight_hidden_units, batch_norm=True, use_bias=False)
    biases = [variable for variable in model.trainable_variables if variable.name == "bias"]
    assert {variable.shape for variable in biases} == {(1,)}


def test_fit_logs_each_term(tiny_schema, tiny_ids, tiny_labels):
    model = small(CETN, tiny_schema)
    model.compile()
    history = model.fit(tiny_ids(70), tiny_labels(70)[:, None], batch_size=32, epochs=1, verbose=0).history
    assert set(history) == {"loss", "ctr", "contrast", "cosine_1", "cosine_2"}


def test_products_are_computed_once(tiny_schema):
    assert len(layers_of(CETN(tiny_schema), layers.ElementwiseProducts)) == 1
    assert not layers_of(CETN(tiny_schema), layers.InnerProducts)
    assert len(layers_of(TriDNN(tiny_schema, spaces=["inner"]), layers.InnerProducts)) == 1


ABLATIONS = {
    "-A": {"activation": "relu"},
    "-CL": {"contrast": None},
    "-COS": {"cosine_weights": None},
    "-K": {"weight_hidden_units": None},
    "-P": {"spaces": ["fields"] * 3},
    "-T": {"through": False},
}


class TestAblations:
    """Section 4.3."""

    @pytest.mark.parametrize("name", at_length(sorted(ABLATIONS), "-CL", "-COS"))
    def test_each_trains(self, name, tiny_schema, tiny_ids, tiny_labels):
        model = small(CETN, tiny_schema, **ABLATIONS[name])
        model.compile()
        history = model.fit(tiny_ids(64), tiny_labels(64)[:, None], batch_size=64, epochs=1, verbose=0).history
        absent = {"-CL": {"contrast"}, "-COS": {"cosine_1", "cosine_2"}}.get(name, set())
        assert set(history) == {"loss", "ctr", "contrast", "cosine_1", "cosine_2"} - absent
        assert np.isfinite(history["loss"]).all()

    def test_without_weights_every_space_counts_once(self, tiny_schema, tiny_ids):
        model = small(CETN, tiny_schema, weight_hidden_units=None, through=False, activation="relu")
        other = small(TriDNN, tiny_schema)
        other.set_weights(model.get_weights())
        np.testing.assert_array_equal(model(tiny_ids(9))["logit"], other(tiny_ids(9))["logit"])

    def test_without_its_signals_it_is_simmhn(self, tiny_schema, tiny_ids):
        plain = {"through": False, "contrast": None, "cosine_weights": None, "activation": "leaky_relu"}
        model, other = small(CETN, tiny_schema, **plain), small(SimMHN, tiny_schema)
        other.set_weights(model.get_weights())
        np.testing.assert_array_equal(model(tiny_ids(9))["logit"], other(tiny_ids(9))["logit"])
        assert model.auxiliary == {}

    def test_info_nce_in_its_place(self, tiny_schema, tiny_ids, tiny_labels):
        ids, labels = tiny_ids(30), tiny_labels(30)[:, None]
        model = small(CETN, tiny_schema, contrast="info_nce", contrast_weight=1.0, temperature=0.5)
        model.compile()
        outputs = model(ids)
        expected = losses.info_nce(outputs["value_1"], outputs["value_2"], 0.5).numpy().mean()
        assert float(model.loss_terms(ids, labels, training=False)["contrast"]) == pytest.approx(expected, rel=1e-6)

    def test_perturbation_moves_the_products_in_training_only(self, tiny_schema, tiny_ids):
        model = small(CETN, tiny_schema, perturbation=0.1, through=False)
        calm, noisy = model(tiny_ids(9)), model(tiny_ids(9), training=True)
        np.testing.assert_array_equal(model(tiny_ids(9))["logit"], calm["logit"])
        np.testing.assert_array_equal(noisy["value_0"], calm["value_0"])
        for name in ("value_1", "value_2"):
            assert (np.abs(noisy[name] - calm[name]) > 1e-4).any()

    def test_shared_projection_has_one_w_and_b(self, tiny_schema):
        (fusion,) = layers_of(small(CETN, tiny_schema, shared_projection=True), layers.SpaceFusion)
        assert [tuple(w.shape) for w in fusion.weights] == [(4, 1), (1,)]


@pytest.mark.parametrize("space", ["fields", "elementwise", "inner"])
def test_single_spaces_of_table_8(space, tiny_schema, tiny_ids):
    model = small(TriDNN, tiny_schema, spaces=[space])
    (mlp,), (fusion,) = layers_of(model, layers.MLP), layers_of(model, layers.SpaceFusion)
    view = views_by_hand(model, tiny_ids(9))[["fields", "elementwise", "inner"].index(space)]
    kernel, bias = fusion.get_weights()
    expected = dense(view, weights_of(mlp), "relu") @ kernel + bias
    np.testing.assert_allclose(model(tiny_ids(9))["logit"], expected, rtol=1e-4, atol=1e-5)
    whole = small(CETN, tiny_schema, spaces=[space], activation="relu", contrast=None, cosine_weights=None)
    assert set(whole.output) == {"logit", "value_0"}


def test_two_spaces_have_a_cosine_and_no_contrast(tiny_schema):
    model = small(CETN, tiny_schema, spaces=["fields", "inner"], activation="relu", contrast=None, cosine_weights=0.5)
    assert list(model.auxiliary) == ["cosine_1"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"spaces": ["fields", "elementwse", "inner"]}, "Did you mean 'elementwise'"),
        ({"spaces": []}, "`spaces` is empty"),
        ({"activation": ["relu", "mish"]}, "`activation` is .*list of 3"),
        ({"cosine_weights": [0.1]}, "`cosine_weights` is .*list of 2"),
        ({"contrast": "infonce"}, "Did you mean 'info_nce'"),
        ({"temperature": 0.0}, "`temperature` is 0"),
        ({"spaces": ["fields"], "activation": "relu"}, "contrast of 0 auxiliary spaces"),
        ({"perturbation": -1.0}, "`scale` is -1"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, message, tiny_schema):
    with pytest.raises(ConfigError, match=f"(?s){message}"):
        models.build("CETN", tiny_schema, **arguments)
