import keras
import numpy as np
import pytest
import tensorflow as tf
from kit.encoder_contract import check_encoder
from kit.randomized import dense, draw, normalize, numbers, randomize

from tfctr.errors import ConfigError
from tfctr.layers import EulerInteraction
from tfctr.layers.euler import EulerStep

VIEW = draw(5, 4, 3)


@pytest.mark.parametrize(
    ("encoder", "units"),
    [
        (EulerInteraction(), 12),
        (EulerInteraction(num_layers=1, num_orders=2, dropout=0.5, layer_norm=False), 8),
        (EulerInteraction(explicit_dropout=0.1, implicit_dropout=0.2), 12),
    ],
)
def test_encoder_contract(encoder, units):
    check_encoder(encoder, units)


def euler_step(step, complex_fields):
    """One sample's products, each as the product of the complex powers of its factors."""
    fields, dim = complex_fields.shape
    exponents = numbers(step.exponents)
    outputs = []
    for k in range(step.orders):
        product = np.exp(numbers(step.log_bias)[k] + 1j * numbers(step.angle_bias)[k])
        for j in range(fields):
            product = product * complex_fields[j] ** exponents[j, k]  # the principal power: angle in (-pi, pi]
        outputs.append(product)
    explicit = np.array(outputs)
    implicit = [
        np.maximum(dense(step.implicit, part.reshape(1, fields * dim)), 0).reshape(step.orders, dim)
        for part in (complex_fields.real, complex_fields.imag)
    ]
    real, imaginary = explicit.real + implicit[0], explicit.imag + implicit[1]
    if step.layer_norm:
        real, imaginary = (normalize(x, norm) for x, norm in zip((real, imaginary), step.norms, strict=True))
    return real + 1j * imaginary


@pytest.mark.parametrize(("num_orders", "layer_norm"), [(None, True), (6, True), (3, False)])
def test_against_complex_powers(num_orders, layer_norm):
    layer = EulerInteraction(num_layers=2, num_orders=num_orders, layer_norm=layer_norm)
    layer.build(VIEW.shape)
    randomize(layer)
    expected = []
    for fields in VIEW.astype("float64"):
        values = numbers(layer.modulus) * np.exp(1j * fields)
        for step in layer.steps:
            values = euler_step(step, values)
        expected.append((values.real + values.imag).ravel())
    np.testing.assert_allclose(layer(VIEW), expected, rtol=2e-5, atol=2e-5)


def test_by_hand_the_product_of_two_fields():
    step = EulerStep(orders=1, dropout=0.0, layer_norm=False)
    step.build([(None, 2, 1)] * 2)
    step.set_weights([np.array([[1.0], [2.0]]), *(np.zeros(w.shape) for w in step.get_weights()[1:])])
    # i * (1 + i)^2 = i * 2i = -2
    real, imaginary = step([np.array([[[0.0], [1.0]]]), np.array([[[1.0], [1.0]]])])
    np.testing.assert_allclose(real, [[[-2.0]]], rtol=1e-5)
    np.testing.assert_allclose(imaginary, [[[0.0]]], atol=1e-6)


def test_fresh_layers_pass_the_fields_on():
    """As many products as fields: the exponents start as the identity, so that each product is one field."""
    step = EulerStep(orders=4, dropout=0.0, layer_norm=False)
    step.build([VIEW.shape] * 2)
    np.testing.assert_array_equal(step.exponents, np.eye(4))
    fewer = EulerStep(orders=2, dropout=0.0, layer_norm=False)
    fewer.build([VIEW.shape] * 2)
    np.testing.assert_allclose(numbers(fewer.exponents).sum(axis=0), 1, rtol=1e-5)


def test_gradients_are_finite_where_a_number_is_zero():
    step = EulerStep(orders=4, dropout=0.0, layer_norm=False)
    step.build([VIEW.shape] * 2)
    zero = tf.Variable(tf.zeros((2, 4, 3)))
    with tf.GradientTape() as tape:
        outputs = sum(tf.reduce_sum(output) for output in step([zero, zero]))
    assert np.isfinite(tape.gradient(outputs, zero)).all()


@pytest.mark.parametrize(("explicit", "implicit"), [(0.5, None), (None, 0.5), (0.5, 0.9), (0.0, 0.0)])
def test_each_part_has_its_own_dropout(explicit, implicit):
    """A part alone is what the other, switched off, leaves: zero weights make the implicit part 0, the explicit one 1."""
    keras.utils.set_random_seed(1)
    layer = EulerInteraction(1, 40, 0.2, layer_norm=False, explicit_dropout=explicit, implicit_dropout=implicit)
    fields = np.ones((50, 40, 3), "float32")  # r = cos 1, p = sin 1: modulus 1, angle 1
    layer.build(fields.shape)
    (step,) = layer.steps
    step.implicit.set_weights([np.zeros((120, 120)), np.zeros(120)])
    for bias in (step.log_bias, step.angle_bias):
        bias.assign(np.zeros((40, 3)))
    step.exponents.assign(np.eye(40))
    # A kept angle becomes 1 / (1 - rate), a dropped one 0, of which cos + sin is 1.
    dropped = np.isclose(numbers(layer(fields, training=True)), 1.0).mean()
    assert dropped == pytest.approx(0.2 if explicit is None else explicit, abs=0.03)  # of 6,000: 4 standard deviations

    step.implicit.set_weights([np.eye(120), np.zeros(120)])
    step.exponents.assign(np.zeros((40, 40)))  # the explicit part is exp(0), cos 0 + sin 0 = 1
    sums = numbers(layer(fields, training=True)) - 1
    rate = 0.2 if implicit is None else implicit
    kept = np.cos(1) / (1 - rate), np.sin(1) / (1 - rate)  # r and p fall each by itself
    for value, share in [
        (0, rate**2),
        (kept[0], rate * (1 - rate)),
        (kept[1], rate * (1 - rate)),
        (sum(kept), (1 - rate) ** 2),
    ]:
        assert np.isclose(sums, value, atol=1e-5).mean() == pytest.approx(share, abs=0.03)


def test_one_dropout_is_of_both_parts():
    layer = EulerInteraction(dropout=0.3)
    layer.build(VIEW.shape)
    assert {(step.drop.rate, step.drop_implicit.rate) for step in layer.steps} == {(0.3, 0.3)}
    assert (layer.explicit_dropout, layer.implicit_dropout) == (0.3, 0.3)


@pytest.mark.parametrize("name", ["dropout", "explicit_dropout", "implicit_dropout"])
def test_a_dropout_out_of_range_is_named(name):
    with pytest.raises(ConfigError, match=f"`{name}` is 1.5"):
        EulerInteraction(**{name: 1.5})


@pytest.mark.parametrize("arguments", [{"num_layers": 0}, {"num_orders": 0}])
def test_bad_arguments_are_refused(arguments):
    with pytest.raises(ConfigError, match="`num_layers` is"):
        EulerInteraction(**arguments)
