"""What every registered model must do, and what each model's own formula is."""

import inspect
import json
import re
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from kit.at_length import at_length
from kit.every_model import EVERY_MODEL, EVERY_MODEL_AT_LENGTH, OF_EACH_KIND, made

from tfctr import layers, models
from tfctr.errors import ConfigError
from tfctr.features import Categorical
from tfctr.models import DNN, FM, LR, MODELS, TF4CTR, DeepFM, DualMLP, WideDeep
from tfctr.schema import Schema


@pytest.fixture
def data(tiny_ids, tiny_labels):
    return tiny_ids(256), tiny_labels(256)[:, None]


def spread(model, seed=0):
    """Give every weight a size at which it matters; fresh embeddings are nearly zero."""
    rng = np.random.default_rng(seed)
    for variable in model.trainable_variables:
        variable.assign(rng.normal(size=variable.shape, scale=0.5))
    return model


def by_hand(schema, ids, tables):
    """Each sample's fields `(batch, fields, dim)` out of each table, by a layer that has its own test."""
    fields = []
    for table in tables:
        layer = layers.FeatureEmbedding(schema, table.embedding_dim)
        layer.build(ids.shape)
        layer.set_weights(table.get_weights())
        fields.append(layer(ids).numpy().astype("float64"))
    return fields


# what every model must do


@pytest.mark.sampled(9)
@EVERY_MODEL
def test_needs_nothing_but_a_schema(name, tiny_schema, tiny_ids):
    model = made(name, tiny_schema)
    outputs = model(tiny_ids(5))
    assert "logit" in outputs
    assert outputs["logit"].shape == (5, 1)
    assert {(len(output.shape), output.shape[0]) for output in outputs.values()} == {(2, 5)}
    assert {keras.backend.standardize_dtype(output.dtype) for output in outputs.values()} == {"float32"}
    assert model.inputs[0].name == "ids"
    assert model.inputs[0].dtype == "int32"


@pytest.mark.sampled(3)
@EVERY_MODEL_AT_LENGTH
def test_loss_falls_and_predictions_are_probabilities(name, tiny_schema, data):
    keras.utils.set_random_seed(1)
    model = made(name, tiny_schema)
    model.compile(optimizer=keras.optimizers.Adam(0.01))
    history = model.fit(*data, batch_size=64, epochs=8, verbose=0).history
    assert history["ctr"][-1] < 0.98 * history["ctr"][0]
    probabilities = model.predict(data[0], verbose=0)
    assert probabilities.shape == (256, 1)
    assert ((probabilities >= 0) & (probabilities <= 1)).all()


@pytest.mark.sampled(3)
@EVERY_MODEL_AT_LENGTH
def test_keras_file_round_trip(name, tiny_schema, data, tmp_path):
    model = spread(made(name, tiny_schema))
    model.save(tmp_path / "model.keras")
    restored = keras.saving.load_model(tmp_path / "model.keras")
    assert type(restored) is type(model)
    np.testing.assert_array_equal(restored.predict(data[0], verbose=0), model.predict(data[0], verbose=0))


@pytest.mark.sampled(9)
@EVERY_MODEL
def test_config_is_json_and_rebuilds_the_model(name, tiny_schema):
    model = made(name, tiny_schema, embedding_l2=0.5)
    twin = type(model).from_config(json.loads(json.dumps(model.get_config())))
    assert [weight.shape for weight in twin.weights] == [weight.shape for weight in model.weights]
    assert (twin.embedding_l2, twin.schema, twin.name) == (0.5, tiny_schema, model.name)


@pytest.mark.parametrize("name", at_length(sorted(MODELS), "LR", "TF4CTR", then=OF_EACH_KIND))
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_is_finite(name, policy, tiny_schema, data):
    outside = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = made(name, tiny_schema)
        model.compile()
        history = model.fit(*data, batch_size=64, epochs=2, verbose=0).history
    finally:
        keras.config.set_dtype_policy(outside)
    assert np.isfinite(history["loss"]).all()
    assert model.predict(data[0], verbose=0).dtype == np.float32
    assert {keras.backend.standardize_dtype(w.dtype) for w in model.trainable_variables} == {"float32"}


@EVERY_MODEL_AT_LENGTH
def test_embedding_l2_covers_every_table(name, tiny_schema, data):
    model = spread(made(name, tiny_schema, embedding_l2=0.2))
    model.compile()
    tables = [w.numpy() for w in model.trainable_variables if w.shape[0] == tiny_schema.table_rows]
    expected = 0.1 * sum(float((table.astype("float64") ** 2).sum()) for table in tables)
    np.testing.assert_allclose(model.loss_terms(*data)["l2"], expected, rtol=1e-5)


@EVERY_MODEL
def test_docstring_has_a_formula_and_a_source(name):
    assert "= " in inspect.getdoc(MODELS[name])
    model = models.describe(name)
    assert 2000 < model["year"] < 2100
    assert model["link"].startswith("https://")
    assert model["idea"].endswith(".")


def test_one_class_one_file_one_line():
    folder = models.__path__[0]
    imports = Path(models.__file__).read_text(encoding="utf-8").splitlines()
    for cls in MODELS.values():
        lines = Path(inspect.getsourcefile(cls)).read_text(encoding="utf-8").splitlines()
        assert inspect.getsourcefile(cls).startswith(folder)
        assert len(lines) <= 80
        assert sum("@register" in line for line in lines) == 1
        assert sum(re.search(rf"\b{cls.__name__}\b", line) is not None for line in imports) == 1


# each model's own formula


def test_lr_by_hand():
    model = LR(Schema(features=[Categorical("user", size=4), Categorical("item", size=5)], label="click"))
    table = np.zeros((9, 1))
    table[3], table[4 + 4] = 0.5, 0.25
    model.set_weights([table, np.array([0.125])])
    np.testing.assert_allclose(model(np.array([[3, 8]], "int32"))["logit"], [[0.5 + 0.25 + 0.125]])


def test_fm_against_all_pairs(tiny_schema, tiny_ids):
    model = spread(FM(tiny_schema, embedding_dim=3))
    weights, vectors = by_hand(tiny_schema, tiny_ids(20), model.embeddings)
    bias = next(w.numpy() for w in model.trainable_variables if w.shape == (1,))
    expected = bias + weights.sum(axis=(1, 2))
    count = len(tiny_schema.fields)
    for i in range(count):
        for j in range(i + 1, count):
            expected = expected + (vectors[:, i] * vectors[:, j]).sum(axis=-1)
    np.testing.assert_allclose(model(tiny_ids(20))["logit"][:, 0], expected, rtol=1e-4, atol=1e-5)


def mlp_by_hand(x, kernels):
    *hidden, (kernel, bias) = kernels
    for weight, offset in hidden:
        x = np.maximum(x @ weight + offset, 0)
    return x @ kernel + bias


def kernels_of(model):
    """Kernel and bias of the hidden layers, then of the head."""
    hidden, head = {}, {}
    for variable in model.trainable_variables:
        if variable.path.endswith(("kernel", "bias")) and "linear_terms" not in variable.path:
            layer, _, kind = variable.path.rpartition("/")
            (hidden if "mlp" in layer else head).setdefault(layer, {})[kind] = variable.numpy()
    return [(weights["kernel"], weights["bias"]) for weights in [*hidden.values(), *head.values()]]


def test_dnn_deepfm_and_wide_deep_against_numpy(tiny_schema, tiny_ids):
    ids = tiny_ids(20)
    dnn = spread(DNN(tiny_schema, embedding_dim=3, hidden_units=[7, 5]))
    (fields,) = by_hand(tiny_schema, ids, dnn.embeddings)
    deep = mlp_by_hand(fields.reshape(20, -1), kernels_of(dnn))
    np.testing.assert_allclose(dnn(ids)["logit"], deep, rtol=1e-4, atol=1e-5)

    deepfm = spread(DeepFM(tiny_schema, embedding_dim=3, hidden_units=[7, 5]))
    fm = FM(tiny_schema, embedding_dim=3)
    for ours, its in zip(fm.embeddings, deepfm.embeddings, strict=True):
        ours.set_weights(its.get_weights())
    bias = next(w.numpy() for w in deepfm.trainable_variables if w.path.endswith("bias") and "linear_terms" in w.path)
    deep = mlp_by_hand(by_hand(tiny_schema, ids, deepfm.embeddings)[1].reshape(20, -1), kernels_of(deepfm))
    np.testing.assert_allclose(deepfm(ids)["logit"], fm(ids)["logit"] + bias + deep, rtol=1e-4, atol=1e-5)

    wide_deep = spread(WideDeep(tiny_schema, embedding_dim=3, hidden_units=[7, 5]))
    wide, fields = by_hand(tiny_schema, ids, wide_deep.embeddings)
    bias = next(w.numpy() for w in wide_deep.trainable_variables if "linear_terms" in w.path)
    deep = mlp_by_hand(fields.reshape(20, -1), kernels_of(wide_deep))
    expected = wide.sum(axis=(1, 2))[:, None] + bias + deep
    np.testing.assert_allclose(wide_deep(ids)["logit"], expected, rtol=1e-4, atol=1e-5)


def test_wide_deep_is_the_twin_sentence(tiny_schema, tiny_ids):
    """Wide&Deep = Separate (one number a token) + LinearTerms, MLP + Sum: TF4CTR only changes the loss around it."""
    model = spread(WideDeep(tiny_schema, embedding_dim=3, hidden_units=[7]))
    twin = TF4CTR(
        tiny_schema,
        selection=layers.SeparateEmbedding(tiny_schema, 3, simple_dim=1),
        simple_encoder=layers.LinearTerms(),
        complex_encoder=layers.MLP([7]),
        fusion="sum",
    )
    twin.set_weights(model.get_weights())
    np.testing.assert_array_equal(twin(tiny_ids(9))["logit"], model(tiny_ids(9))["logit"])


# TF4CTR


@pytest.mark.slow
def test_tf4ctr_takes_any_pair_of_encoders(tiny_schema, data):
    encoders = [
        lambda: layers.MLP([4]),
        layers.FactorizationMachine,
        layers.LinearTerms,
        lambda: layers.CrossNetwork(1),
    ]
    for simple in encoders:
        for complex_ in encoders:
            model = TF4CTR(tiny_schema, embedding_dim=4, simple_encoder=simple(), complex_encoder=complex_())
            model.compile(run_eagerly=True)
            assert np.isfinite(model.fit(*data, epochs=1, batch_size=256, verbose=0).history["loss"][0])


def logged_schema(*sizes):
    return Schema(features=[Categorical(f"f{i}", size=size) for i, size in enumerate(sizes)], label="click")


FRAPPE = logged_schema(942, 4084, 9, 9, 4, 5, 4, 11, 82, 233)  # sizes as logged by the authors
ML_1M = logged_schema(6042, 4, 9, 23, 3548)
ML_TAG = logged_schema(16362, 22575, 49659)


def encoder(*hidden_units):
    return layers.MLP(hidden_units, dropout=0.1, batch_norm=True)


@pytest.mark.parametrize(
    ("schema", "selection", "fusion", "simple", "parameters"),
    [
        (FRAPPE, "separate", "weighted_sum", (400, 400), 711_996),  # v2_121_422294bf
        (ML_1M, "separate", "weighted_sum", (400,), 604_628),  # v2_021_661e3269
        (ML_TAG, "separate", "weighted_sum", (400, 400), 2_641_908),  # v2_221_2244ac8b
        (FRAPPE, "shared", "weighted_sum", (400,), 539_732),  # 070_be95cddc
        (ML_TAG, "shared", "weighted_sum", (400,), 1_781_540),  # 054_0ed421b3
    ],
)
def test_parameters_equal_the_released_logs(schema, selection, fusion, simple, parameters):
    model = TF4CTR(
        schema, selection=selection, fusion=fusion, simple_encoder=encoder(*simple), complex_encoder=encoder(400, 400, 400)
    )
    assert sum(int(np.prod(w.shape)) for w in model.trainable_variables) == parameters


def test_dual_mlp_is_tf4ctr_without_its_loss(tiny_schema, tiny_ids):
    dual = spread(DualMLP(tiny_schema, embedding_dim=4, simple_hidden_units=[5], complex_hidden_units=[6, 7]))
    twin = TF4CTR(tiny_schema, 4, "shared", "sum", simple_encoder=layers.MLP([5]), complex_encoder=layers.MLP([6, 7]))
    twin.set_weights(dual.get_weights())
    for name, logits in dual(tiny_ids(9)).items():
        np.testing.assert_array_equal(twin(tiny_ids(9))[name], logits)
    assert dual.auxiliary == {}
    dual.compile()
    assert set(dual.loss_terms(tiny_ids(9), np.ones((9, 1), "float32"))) == {"ctr"}


def test_gamma_zero_is_deep_supervision(tiny_schema, data):
    ids, labels = data
    model = spread(TF4CTR(tiny_schema, embedding_dim=4, alpha=0.3, gamma=0.0))
    model.compile()
    outputs = {name: np.array(value, "float64") for name, value in model(ids).items()}
    bce = {name: np.logaddexp(0, np.where(labels == 1, -z, z)).mean() for name, z in outputs.items()}
    expected = 0.3 * bce["simple"] + 0.7 * bce["complex"]
    np.testing.assert_allclose(model.loss_terms(ids, labels, training=False)["twin_focus"], expected, rtol=1e-5)


def test_noise_of_the_voting_fusion_is_for_training_only(tiny_schema, tiny_ids):
    model = spread(TF4CTR(tiny_schema, embedding_dim=4, fusion="voting"))
    ids = tiny_ids(64)
    np.testing.assert_array_equal(model(ids)["logit"], model(ids)["logit"])
    assert (model(ids, training=True)["logit"].numpy() != model(ids, training=True)["logit"].numpy()).any()


# models by name


def test_build_from_plain_arguments(tiny_schema):
    model = models.build(
        "TF4CTR",
        tiny_schema,
        embedding_dim=4,
        selection={"type": "gated", "dropout": 0.5},
        simple_encoder={"type": "FactorizationMachine"},
        complex_encoder={"type": "MLP", "hidden_units": [3]},
    )
    arguments = model.get_config()
    assert arguments["simple_encoder"]["class_name"] == "FactorizationMachine"
    assert arguments["complex_encoder"]["config"]["hidden_units"] == [3]
    assert arguments["selection"]["config"]["dropout"] == 0.5
    assert arguments["selection"]["config"]["embedding_dim"] == 4  # that of the model


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("TF4CRT", {}, "Did you mean 'TF4CTR'"),
        ("DNN", {"hiden_units": [4]}, "Did you mean 'hidden_units'"),
        ("DNN", {"schema": 1}, "no argument 'schema'"),
        ("TF4CTR", {"selection": "seperate"}, "Did you mean 'separate'"),
        ("TF4CTR", {"fusion": "vote"}, "Did you mean 'voting'"),
        ("TF4CTR", {"simple_encoder": {"type": "MPL"}}, "Did you mean 'MLP'"),
        ("TF4CTR", {"simple_encoder": {"hidden_units": [3]}}, "`simple_encoder` has no `type`"),
        ("TF4CTR", {"embedding_dim": 8, "selection": {"type": "gated", "embedding_dim": 4}}, "is 8, and 4 in `selection`"),
        ("TF4CTR", {"simple_encoder": {"type": "MLP", "hiden_units": [3]}}, "Did you mean 'hidden_units'"),
    ],
)
def test_unknown_names_are_refused_with_the_closest(name, arguments, message, tiny_schema):
    with pytest.raises(ConfigError, match=message):
        models.build(name, tiny_schema, **arguments)


def test_outputs_are_float32_graph_tensors_in_a_tf_function(tiny_schema, tiny_ids):
    model = TF4CTR(tiny_schema, embedding_dim=4)
    logits = tf.function(model)(tf.constant(tiny_ids(3)))
    assert set(logits) == {"logit", "simple", "complex"}
