"""A selection by name: its networks are set as the encoders are; a layer keeps its own settings."""

import keras
import numpy as np
import pytest
from kit.randomized import dense, numbers, randomize, sigmoid

from tfctr.features import Categorical
from tfctr.layers import MLP, ExpertEmbedding, FactorizationMachine, GatedEmbedding, LogarithmicNetwork
from tfctr.models import TF4CTR, DualMLP, build
from tfctr.schema import Schema


def settings(model):
    """`(dropout, batch_norm, activation)` of each network in the model's selection."""
    selection = next(layer for layer in model.layers if isinstance(layer, GatedEmbedding | ExpertEmbedding))
    gates = [selection.easiness] if isinstance(selection, GatedEmbedding) else selection.gates
    mlps = [gate.layers[0] for gate in gates] + getattr(selection, "experts", [])
    for mlp in mlps:  # what is there, not what is said
        kinds = [type(step).__name__ for step in mlp.steps]
        assert kinds.count("BatchNormalization") == mlp.batch_norm * len(mlp.hidden_units)
        assert {step.rate for step in mlp.steps if isinstance(step, keras.layers.Dropout)} == {mlp.dropout}
    return {(mlp.dropout, mlp.batch_norm, mlp.activation) for mlp in mlps}


def mlp(dropout, batch_norm, activation="relu"):
    return MLP([5], dropout=dropout, batch_norm=batch_norm, activation=activation)


@pytest.mark.parametrize("selection", ["gated", "experts"])
@pytest.mark.parametrize(
    ("simple", "complex_", "expected"),
    [
        (mlp(0.2, True), mlp(0.2, True), (0.2, True)),  # one setting for all, as in the authors' code
        (mlp(0.1, False), mlp(0.3, True), (0.3, True)),  # else the complex encoder's
        (FactorizationMachine(), mlp(0.3, True), (0.3, True)),
        (mlp(0.3, True), FactorizationMachine(), (0.3, True)),
        (mlp(0.1, True, "tanh"), mlp(0.1, True, "tanh"), (0.1, True)),  # the authors' gates and experts keep ReLU
        (FactorizationMachine(), LogarithmicNetwork(3, [4], dropout=0.2), (0.0, False)),  # no MLP
        (None, None, (0.0, False)),  # the default encoders
    ],
)
def test_networks_follow_the_encoders(selection, simple, complex_, expected, tiny_schema):
    model = TF4CTR(tiny_schema, 4, selection, simple_encoder=simple, complex_encoder=complex_)
    assert settings(model) == {(*expected, "relu")}


@pytest.mark.parametrize("selection", ["gated", "experts"])
def test_networks_follow_the_arguments_of_dual_mlp(selection, tiny_schema):
    model = DualMLP(tiny_schema, 4, [5], [6], dropout=0.2, batch_norm=True, selection=selection)
    assert settings(model) == {(0.2, True, "relu")}


def test_a_layer_keeps_its_own(tiny_schema):
    encoders = {"simple_encoder": mlp(0.2, True), "complex_encoder": mlp(0.2, True)}
    model = TF4CTR(tiny_schema, 4, GatedEmbedding(tiny_schema, 4), **encoders)
    assert settings(model) == {(0.0, False, "relu")}
    plain = {"type": "MLP", "hidden_units": [5], "dropout": 0.2, "batch_norm": True}
    arguments = {"embedding_dim": 4, "simple_encoder": plain, "complex_encoder": plain}
    assert settings(build("TF4CTR", tiny_schema, selection="experts", **arguments)) == {(0.2, True, "relu")}
    own = {"type": "experts", "dropout": 0.4}
    assert settings(build("TF4CTR", tiny_schema, selection=own, **arguments)) == {(0.4, False, "relu")}


def test_the_gate_is_normalized(tiny_schema, tiny_ids):
    """`g = sigmoid(head(relu(norm(W e + b))))`, with batch normalization as it is at rest."""
    model = randomize(TF4CTR(tiny_schema, 4, "gated", "sum", simple_encoder=mlp(0.2, True), complex_encoder=mlp(0.2, True)))
    selection = next(layer for layer in model.layers if isinstance(layer, GatedEmbedding))
    ids = tiny_ids(9)
    hidden, head = selection.easiness.layers
    fields = numbers(selection.embeddings[0](ids)).reshape(9, -1)
    scale, shift, mean, variance = (weight.astype("float64") for weight in hidden.steps[2].get_weights())
    x = (dense(hidden.steps[1], fields) - mean) / np.sqrt(variance + 1e-5) * scale + shift
    gate = sigmoid(dense(head, np.maximum(x, 0)))
    for view, share in zip(selection(ids), (gate, 1 - gate), strict=True):
        np.testing.assert_allclose(numbers(view).reshape(9, -1), share * fields, rtol=1e-5, atol=1e-6)


def frappe(rows=5_383):
    sizes = [4] * 9 + [rows - 36]
    return Schema(features=[Categorical(f"f{i}", size=size) for i, size in enumerate(sizes)], label="click")


# Of the authors' logs of Frappe, with simple encoders [400] and complex ones [400, 400, 400], all with batch normalization.
@pytest.mark.parametrize(
    ("selection", "fusion", "logged"),
    [
        ("gated", "concatenation", 547_092),  # 004_22d0e023
        ("gated", "sum", 546_291),  # 004_3e5c72bd
        ("gated", "voting", 547_093),  # 004_840af976
        ("experts", "sum", 605_574),  # 002_e92deff9
        ("experts", "voting", 606_376),  # 003_44b7eed5
        ("experts", "concatenation", 606_375),  # 005_b6c6b6ad
        ("experts", "experts", 608_778),  # 005_d2fdb74b
        ("experts", "weighted_sum", 605_576),  # 006_24e4f829
    ],
)
def test_parameters_equal_the_released_logs(selection, fusion, logged):
    encoders = [MLP(units, dropout=0.2, batch_norm=True) for units in ([400], [400, 400, 400])]
    model = TF4CTR(frappe(), 16, selection, fusion, *encoders)
    assert sum(int(np.prod(weight.shape)) for weight in model.trainable_variables) == logged
