import keras
import numpy as np
import pytest
import tensorflow as tf
from kit.encoder_contract import round_trip

from tfctr import losses
from tfctr.errors import ConfigError
from tfctr.losses.self_supervision import FieldSignal, ViewDistance

LOGITS = np.array([[-6.0], [-1.5], [-0.2], [0.0], [0.7], [2.0], [5.0]], "float32")
LN2 = np.log(2)
# (c, gamma): the published range, its ends, and `c` above 1
SETTINGS = [(0.7, 0.0), (0.7, 1.0), (0.8, 2.0), (0.5, 1.5), (0.0, 0.0), (0.0, 0.5), (1.0, 1.0), (1.0, 0.5)]
SETTINGS += [(1.2, 1.0), (1.2, 2.0), (2.0, 3.0)]


def oracle_p(label, logits):
    """Probability of the true class, in float64."""
    p = 1 / (1 + np.exp(-np.asarray(logits, "float64")))
    return p if label else 1 - p


def gradient(loss, *logits):
    logits = [tf.constant(z) for z in logits]
    with tf.GradientTape() as tape:
        tape.watch(logits)
        value = loss(*logits)
    return [g.numpy() for g in tape.gradient(value, logits)]


def slope(factor, factor_slope, p, label):
    """d/dz of `-factor(p_t) * ln p_t`, where dp_t/dz is p(1-p), with the sign of the label."""
    return -(1 if label else -1) * (1 - p) * (factor + factor_slope * p * np.log(p))


@pytest.mark.parametrize("label", [0.0, 1.0])
@pytest.mark.parametrize(("c", "gamma"), SETTINGS)
class TestTwinFocus:
    def test_halves_against_numpy(self, label, c, gamma):
        p, labels = oracle_p(label, LOGITS), np.full_like(LOGITS, label)
        simple = losses.simple_focus(labels, LOGITS, c, gamma)
        complex_ = losses.complex_focus(labels, LOGITS, c, gamma)
        assert simple.shape == complex_.shape == LOGITS.shape
        np.testing.assert_allclose(simple, -np.log(p) * (c + p) ** gamma, rtol=1e-5)
        np.testing.assert_allclose(complex_, -np.log(p) * (2 - c - p) ** gamma, rtol=1e-5, atol=1e-7)

    def test_gradients_are_the_exact_form_of_eq_14(self, label, c, gamma):
        # The descent direction at y = 1, with m = 2 - c:
        # simple (1-p)(c+p)^(g-1)[(c+p) + g p ln p], complex (1-p)(m-p)^(g-1)[(m-p) - g p ln p]
        p, labels, m = oracle_p(label, LOGITS), np.full_like(LOGITS, label), 2 - c
        sign = -1 if label else 1
        simple = sign * (1 - p) * (c + p) ** (gamma - 1) * ((c + p) + gamma * p * np.log(p))
        complex_ = sign * (1 - p) * (m - p) ** (gamma - 1) * ((m - p) - gamma * p * np.log(p))
        (found,) = gradient(lambda z: losses.simple_focus(labels, z, c, gamma), LOGITS)
        np.testing.assert_allclose(found, simple, rtol=2e-5, atol=1e-7)
        (found,) = gradient(lambda z: losses.complex_focus(labels, z, c, gamma), LOGITS)
        np.testing.assert_allclose(found, complex_, rtol=2e-5, atol=1e-6)

    def test_whole_is_the_mixture_and_each_head_gets_its_share(self, label, c, gamma):
        labels, alpha = np.full_like(LOGITS, label), 0.3
        value = losses.twin_focus(labels, LOGITS, -LOGITS, alpha, c, gamma)
        halves = losses.simple_focus(labels, LOGITS, c, gamma), losses.complex_focus(labels, -LOGITS, c, gamma)
        np.testing.assert_allclose(value, 0.3 * halves[0] + 0.7 * halves[1], rtol=1e-6)
        simple, complex_ = gradient(lambda s, z: losses.twin_focus(labels, s, z, alpha, c, gamma), LOGITS, -LOGITS)
        (expected,) = gradient(lambda z: losses.simple_focus(labels, z, c, gamma), LOGITS)
        np.testing.assert_allclose(simple, 0.3 * expected, rtol=1e-5)
        (expected,) = gradient(lambda z: losses.complex_focus(labels, z, c, gamma), -LOGITS)
        np.testing.assert_allclose(complex_, 0.7 * expected, rtol=1e-5)

    def test_extreme_logits_stay_finite(self, label, c, gamma):
        extreme = np.array([[-100.0], [100.0]], "float32")
        labels = np.full_like(extreme, label)
        for half in (losses.simple_focus, losses.complex_focus):
            assert np.isfinite(half(labels, extreme, c, gamma)).all()
            assert np.isfinite(gradient(lambda z, half=half: half(labels, z, c, gamma), extreme)).all()


def test_twin_focus_by_hand():
    # p_s = p_c = 1/2: ln 2 * (0.25 * (0.7 + 0.5) + 0.75 * (1.3 - 0.5)) = ln 2 * 0.9, for both labels
    labels, zeros = np.array([[1.0], [0.0]]), np.zeros((2, 1), "float32")
    value = losses.twin_focus(labels, zeros, zeros, alpha=0.25, c=0.7, gamma=1.0)
    np.testing.assert_allclose(value, [[LN2 * 0.9]] * 2, rtol=1e-6)


def test_gamma_zero_is_deep_supervision():
    labels = np.array([[1.0], [0.0]], "float32")
    simple, complex_ = np.array([[2.0], [-1.0]], "float32"), np.array([[-3.0], [0.5]], "float32")
    expected = 0.2 * losses.log_loss(labels, simple) + 0.8 * losses.log_loss(labels, complex_)
    np.testing.assert_allclose(losses.twin_focus(labels, simple, complex_, alpha=0.2, c=0.8, gamma=0), expected, rtol=1e-6)


def test_both_factors_are_one_where_p_is_one_minus_c():
    logits = np.array([[np.log(0.3 / 0.7)]], "float32")  # p = 0.3
    for half in (losses.simple_focus, losses.complex_focus):
        np.testing.assert_allclose(half([[1.0]], logits, c=0.7, gamma=3.0), -np.log([[0.3]]), rtol=1e-5)


@pytest.mark.parametrize(("gamma", "factor"), [(1.0, -0.1), (2.0, 0.01)])
def test_c_above_one_has_the_signed_power(gamma, factor):
    logits = np.array([[np.log(9.0)]], "float32")  # p = 0.9, and 2 - 1.2 - 0.9 = -0.1
    np.testing.assert_allclose(losses.complex_focus([[1.0]], logits, c=1.2, gamma=gamma), [[factor * -np.log(0.9)]], rtol=1e-4)


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_focal_against_numpy(label):
    p, labels = oracle_p(label, LOGITS), np.full_like(LOGITS, label)
    np.testing.assert_allclose(losses.focal(labels, LOGITS, gamma=2.0), -np.log(p) * (1 - p) ** 2, rtol=1e-5)
    expected = slope((1 - p) ** 2, -2 * (1 - p), p, label)
    np.testing.assert_allclose(gradient(lambda z: losses.focal(labels, z, gamma=2.0), LOGITS)[0], expected, rtol=2e-5)


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_robust_cross_entropy_holds_its_weight_constant(label):
    p, labels = oracle_p(label, LOGITS), np.full_like(LOGITS, label)
    np.testing.assert_allclose(losses.robust_cross_entropy(labels, LOGITS), -np.log(p) * p**0.01, rtol=1e-5)
    found = gradient(lambda z: losses.robust_cross_entropy(labels, z, exponent=0.5), LOGITS)[0]
    np.testing.assert_allclose(found, slope(p**0.5, 0, p, label), rtol=1e-5)


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_log_loss_against_numpy(label):
    p, labels = oracle_p(label, LOGITS), np.full_like(LOGITS, label)
    np.testing.assert_allclose(losses.log_loss(labels, LOGITS), -np.log(p), rtol=1e-5)
    np.testing.assert_allclose(gradient(lambda z: losses.log_loss(labels, z), LOGITS)[0], slope(1, 0, p, label), rtol=1e-5)


@pytest.mark.parametrize("loss", [losses.log_loss, losses.focal, losses.robust_cross_entropy])
def test_extreme_logits(loss):
    extreme = np.array([[-100.0], [100.0], [100.0], [-100.0]], "float32")
    labels = np.array([[1.0], [0.0], [1.0], [0.0]], "float32")
    value = loss(labels, extreme).numpy()
    assert (value[:2] > 30).all(), "a wrong and certain prediction costs"
    assert (value[2:] < 1e-30).all()
    assert np.isfinite(gradient(lambda z: loss(labels, z), extreme)).all()


def test_whole_number_labels_are_labels():
    np.testing.assert_allclose(losses.log_loss(np.array([[1], [0]]), LOGITS[:2]), losses.log_loss([[1.0], [0.0]], LOGITS[:2]))


LOSS_OBJECTS = [
    losses.LogLoss(),
    losses.FocalLoss(gamma=1.5),
    losses.RobustCrossEntropy(exponent=0.3),
    losses.TwinFocusLoss(alpha=0.35, c=0.9, gamma=2.0),
]


@pytest.mark.parametrize("loss", LOSS_OBJECTS, ids=lambda loss: loss.name)
class TestLossClasses:
    labels = np.array([[1.0], [0.0], [1.0]], "float32")
    weights = np.array([[1.0], [2.0], [0.5]], "float32")

    def logits(self, loss):
        z = np.array([[0.3], [-0.4], [-2.0]], "float32")
        return {"simple": z, "complex": -z, "logit": z} if isinstance(loss, losses.TwinFocusLoss) else z

    def test_sample_weights_reach_their_examples(self, loss):
        values = loss.call(self.labels, self.logits(loss)).numpy()
        assert values.shape == (3, 1)
        np.testing.assert_allclose(loss(self.labels, self.logits(loss)), values.mean(), rtol=1e-6)
        for weights in (self.weights, self.weights[:, 0]):
            found = loss(self.labels, self.logits(loss), sample_weight=weights)
            np.testing.assert_allclose(found, (self.weights * values).sum() / 3, rtol=1e-6)

    def test_config_round_trip(self, loss):
        twin = round_trip(loss)
        assert type(twin) is type(loss)
        assert twin.get_config() == loss.get_config()
        np.testing.assert_array_equal(twin(self.labels, self.logits(loss)), loss(self.labels, self.logits(loss)))


def test_classes_use_their_arguments():
    labels, z = np.array([[1.0]], "float32"), np.array([[0.0]], "float32")
    np.testing.assert_allclose(losses.FocalLoss(gamma=3.0)(labels, z), LN2 / 8, rtol=1e-6)
    np.testing.assert_allclose(losses.RobustCrossEntropy(exponent=1.0)(labels, z), LN2 / 2, rtol=1e-6)
    twin = losses.TwinFocusLoss(alpha=0.5, c=0.9, gamma=2.0)
    np.testing.assert_allclose(twin(labels, {"simple": z, "complex": z}), LN2 * (1.4**2 + 0.6**2) / 2, rtol=1e-6)


@pytest.mark.parametrize(
    ("labels", "logits", "name"),
    [
        (np.ones((4, 1, 1)), np.ones((4, 1)), "labels"),
        (np.ones((4, 2)), np.ones((4, 2)), "labels"),
        (np.ones((4, 1)), np.ones((4, 2)), "logits"),
        (np.ones(4), np.float32(1), "logits"),
    ],
)
def test_other_shapes_are_refused(labels, logits, name):
    for loss in (losses.log_loss, losses.focal, losses.robust_cross_entropy):
        with pytest.raises(ConfigError, match=f"`{name}` has the shape"):
            loss(labels, logits)
    with pytest.raises(ConfigError, match=f"`{name}` has the shape"):
        losses.twin_focus(labels, logits, logits)


@pytest.mark.parametrize("loss", [*LOSS_OBJECTS, losses.log_loss, losses.focal, losses.robust_cross_entropy])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int64", "uint8", "bool"])
@pytest.mark.parametrize("labels_rank", [1, 2])
@pytest.mark.parametrize("logits_rank", [1, 2])
def test_every_rank_and_type_of_labels_gives_the_value_of_each_example(loss, dtype, labels_rank, logits_rank):
    column = np.array([[1.0], [0.0], [1.0]], "float32")
    z = np.array([[0.3], [-0.4], [-2.0]], "float32")
    labels = column.astype(dtype).reshape((3, 1)[:labels_rank])
    function = loss.call if isinstance(loss, keras.losses.Loss) else loss

    def outputs(z):
        return {"simple": z, "complex": -z} if isinstance(loss, losses.TwinFocusLoss) else z

    found = function(labels, outputs(z.reshape((3, 1)[:logits_rank])))
    assert found.shape == (3, 1)[:logits_rank]
    expected = np.ravel(function(column, outputs(z)))
    np.testing.assert_allclose(np.ravel(found), expected, rtol=1e-6)
    if isinstance(loss, keras.losses.Loss):
        weights = np.array([1.0, 2.0, 0.5], "float32")
        value = loss(labels, outputs(z.reshape((3, 1)[:logits_rank])), sample_weight=weights)
        np.testing.assert_allclose(value, (weights * expected).sum() / 3, rtol=1e-6)


@pytest.mark.parametrize("loss", [losses.LogLoss(), losses.FocalLoss(), losses.RobustCrossEntropy()])
def test_a_plain_keras_model_trains_on_labels_of_either_rank(loss):
    """Keras' `fit` forgets the rank of labels that come as (batch,) and as (batch, 1)."""
    x, y = np.random.default_rng(0).normal(size=(40, 3)).astype("float32"), np.arange(40) % 2
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("sgd", loss=loss)
    for labels in (y, y[:, None], y.astype("float32"), y.astype(bool)):
        expected = float(np.mean(loss.call(labels.reshape(-1, 1), model(x))))
        assert model.test_on_batch(x, labels) == pytest.approx(expected, rel=1e-5)
        model.fit(x, labels, epochs=1, verbose=0)


def twin_model(*outputs):
    x = keras.Input((3,))
    heads = {name: keras.layers.Dense(1, name=name)(x) for name in ("logit", "simple", "complex")}
    heads["twin"] = keras.layers.Concatenate(name="twin")([heads["simple"], heads["complex"]])  # (batch, 2)
    return keras.Model(x, {name: heads[name] for name in outputs})


def test_twin_focus_in_compile_of_a_plain_keras_model():
    x, y = np.random.default_rng(0).normal(size=(40, 3)).astype("float32"), np.arange(40) % 2
    model = twin_model("logit", "twin")
    loss = losses.TwinFocusLoss(alpha=0.35, c=0.9, gamma=2.0)
    model.compile("sgd", loss={"logit": losses.LogLoss(), "twin": loss})
    outputs = model(x)
    twin = losses.twin_focus(y, outputs["twin"][:, :1], outputs["twin"][:, 1:], 0.35, 0.9, 2.0)
    expected = np.mean(losses.log_loss(y, outputs["logit"])) + np.mean(twin)
    labels = {"logit": y, "twin": y}
    assert model.evaluate(x, labels, verbose=0, return_dict=True)["loss"] == pytest.approx(expected, rel=1e-5)
    model.fit(x, labels, epochs=1, verbose=0)


NAMED = [
    losses.TwinFocusLoss(),
    losses.ContrastLoss("a", "b"),
    losses.CosineLoss("a", "b"),
    losses.HeadLoss(["a", "b"]),
    ViewDistance("a", "b"),
    FieldSignal("a", 2, "alignment"),
]


@pytest.mark.parametrize("loss", NAMED, ids=lambda loss: loss.name)
def test_a_loss_of_named_outputs_says_where_it_works(loss):
    with pytest.raises(ConfigError, match=r"one output alone(?s:.*)CTRModel\(schema, ids, outputs, auxiliary="):
        loss(np.ones((4, 1)), np.ones((4, 1), "float32"))
    with pytest.raises(ConfigError, match=r"the outputs are \['logit'\], without"):
        loss(np.ones((4, 1)), {"logit": np.ones((4, 1), "float32")})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"alpha": -0.1}, "`alpha` is -0.1"),
        ({"alpha": 1.1}, "`alpha` is 1.1"),
        ({"gamma": -1.0}, "`gamma` is -1.0"),
        ({"gamma": float("nan")}, "`gamma` is nan"),
        ({"c": -0.1}, "`c` is -0.1"),
        ({"c": 2.1}, "`c` is 2.1"),
        ({"c": 1.2, "gamma": 1.5}, "can be negative"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        losses.TwinFocusLoss(**arguments)
    with pytest.raises(ConfigError, match=message):
        losses.twin_focus([[1.0]], [[0.0]], [[0.0]], **arguments)


def test_other_losses_refuse_their_arguments_too():
    with pytest.raises(ConfigError, match="`gamma` is -2"):
        losses.FocalLoss(gamma=-2)
    with pytest.raises(ConfigError, match="`exponent` is -1"):
        losses.RobustCrossEntropy(exponent=-1)
