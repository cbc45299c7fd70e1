import numpy as np
import pytest
import tensorflow as tf
from kit.encoder_contract import check_encoder, round_trip
from kit.randomized import dense, draw, numbers, randomize, sigmoid

from tfctr.errors import ConfigError
from tfctr.layers import MLP, FinalBlock
from tfctr.losses.distillation import SelfDistillation, distillation
from tfctr.models import FinalNet

VIEW = draw(5, 4, 3)


@pytest.mark.parametrize("residual", ["sum", "concatenation"])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_encoder_contract(order, residual):
    check_encoder(FinalBlock([12, 6], order, "sigmoid", residual, "relu", dropout=0.5, batch_norm=True), 6)


@pytest.mark.parametrize("residual", ["sum", "concatenation"])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_against_numpy(order, residual):
    layer = FinalBlock([12, 6], order, gate_activation="sigmoid", residual=residual, activation="tanh", batch_norm=True)
    layer.build(VIEW.shape)
    randomize(layer)
    x = VIEW.reshape(5, 12).astype("float64")
    for units, projection, rest in zip((12, 6), layer.projections, layer.rests, strict=True):
        width = units // order if residual == "concatenation" else units
        parts = [dense(projection, x)[:, n * width : (n + 1) * width] for n in range(order)]
        terms = [parts[0]]
        for n in range(1, order):
            terms.append(terms[n - 1] * sigmoid(parts[n]))
        x = sum(terms) if residual == "sum" else np.concatenate(terms, axis=1)
        scale, shift, mean, variance = (numbers(weight) for weight in rest.layers[0].weights)
        x = np.tanh((x - mean) / np.sqrt(variance + 1e-5) * scale + shift)
    np.testing.assert_allclose(layer(VIEW), x, rtol=1e-5, atol=1e-5)


def test_by_hand():
    layer = FinalBlock([1])
    layer.build((None, 1, 2))
    layer.set_weights([np.array([[1.0, 3.0], [2.0, 0.0]]), np.array([0.5, -1.0])])
    # x = [2, 5]: h_1 = 12.5, its factor 5
    np.testing.assert_allclose(layer(np.array([[[2.0, 5.0]]])), [[12.5 + 12.5 * 5]])


def test_order_one_is_an_mlp():
    layer, mlp = FinalBlock([6, 5], order=1, activation="relu"), MLP([6, 5])
    for network in (layer, mlp):
        network.build(VIEW.shape)
    mlp.set_weights(randomize(layer).get_weights())
    np.testing.assert_allclose(layer(VIEW), mlp(VIEW), rtol=1e-6)


def test_the_paper_adds_and_the_released_settings_concatenate():
    """The sum of the paper has a weight matrix for each order; concatenation has those of an MLP."""
    sizes = {}
    for residual in ("sum", "concatenation"):
        layer = FinalBlock([6], residual=residual)
        layer.build(VIEW.shape)
        sizes[residual] = layer.count_params()
    assert sizes == {"sum": 2 * (12 * 6 + 6), "concatenation": 12 * 6 + 6}
    assert FinalBlock([6]).residual == "sum"


@pytest.mark.parametrize(
    "arguments",
    [{"hidden_units": []}, {"hidden_units": [4], "order": 0}, {"hidden_units": [5], "residual": "concatenation"}],
)
def test_bad_arguments_are_refused(arguments):
    with pytest.raises(ConfigError, match="`hidden_units` is"):
        FinalBlock(**arguments)


@pytest.mark.parametrize("arguments", [{"residual": "sun"}, {"activation": "rellu"}, {"gate_activation": "sigmoit"}])
def test_unknown_names_give_the_closest(arguments):
    with pytest.raises(ConfigError, match="Did you mean"):
        FinalBlock([4], **arguments)


# self-distillation


def test_distillation_by_hand():
    # the teacher says 3/4, the student 1/2: both answers cost ln 2; a student that agrees pays the entropy
    odds = np.log(3.0)
    np.testing.assert_allclose(distillation(np.array([[odds]]), np.array([[0.0]])), [[np.log(2)]], rtol=1e-6)
    entropy = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))
    np.testing.assert_allclose(distillation(np.array([[odds]]), np.array([[odds]])), [[entropy]], rtol=1e-6)


def test_no_gradient_flows_to_the_teacher():
    teacher, student = tf.Variable([[1.0]]), tf.Variable([[-1.0]])
    with tf.GradientTape() as tape:
        loss = SelfDistillation(["student"]).call(None, {"logit": teacher, "student": student})
    gradients = tape.gradient(loss, [teacher, student])
    assert gradients[0] is None
    np.testing.assert_allclose(gradients[1], [[sigmoid(-1.0) - sigmoid(1.0)]], rtol=1e-6)


def test_self_distillation_config():
    assert round_trip(SelfDistillation(["first", "second"])).students == ["first", "second"]


def test_final_net_learns_from_the_mean_of_its_two(tiny_schema, tiny_ids, tiny_labels):
    model = randomize(FinalNet(tiny_schema, embedding_dim=3, hidden_units=[6]))
    model.compile()
    ids, labels = tiny_ids(9), tiny_labels(9)[:, None]
    outputs = {name: numbers(logits) for name, logits in model(ids).items()}
    np.testing.assert_allclose(outputs["logit"], (outputs["first"] + outputs["second"]) / 2, rtol=1e-5, atol=1e-6)
    q = sigmoid(outputs["logit"])
    expected = sum(
        -(q * np.log(sigmoid(outputs[name])) + (1 - q) * np.log(1 - sigmoid(outputs[name]))) for name in ("first", "second")
    )
    terms = model.loss_terms(ids, labels, training=False)
    np.testing.assert_allclose(terms["distillation"], expected.mean(), rtol=1e-4)


def test_field_gate_widens_the_first_network_only(tiny_schema):
    gated, plain = (FinalNet(tiny_schema, embedding_dim=3, hidden_units=[6], field_gate=gate) for gate in (True, False))
    fields = len(tiny_schema.fields)
    assert gated.count_params() - plain.count_params() == fields * 3 * 12 + fields * (fields + 1)
