"""The proof of the model form: a functional graph inside a `CTRModel`. Each test is one thing that the form must not break."""

import json
import logging
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from kit.at_length import at_length

from tfctr import losses
from tfctr.errors import ConfigError, DataError, TrainingError
from tfctr.layers import MLP, FactorizationMachine
from tfctr.metrics import auc
from tfctr.models import DNN, TF4CTR, CTRModel, DeepFM


@pytest.fixture
def data(tiny_ids, tiny_labels):
    return tiny_ids(256), tiny_labels(256)[:, None]


def small(schema, cls=TF4CTR, **arguments):
    keras.utils.set_random_seed(1)
    encoders = {"simple_encoder": MLP([8]), "complex_encoder": MLP([8, 8])} if cls is TF4CTR else {"hidden_units": [8]}
    model = cls(schema, embedding_dim=4, **{**encoders, **arguments})
    model.compile()
    return model


def test_fit_logs_each_loss_term_by_name_and_their_sum(tiny_schema, data):
    model = small(tiny_schema, embedding_l2=0.1)
    history = model.fit(*data, batch_size=256, epochs=1, verbose=0).history
    assert set(history) == {"loss", "ctr", "twin_focus", "l2"}
    np.testing.assert_allclose(history["loss"], history["ctr"][0] + history["twin_focus"][0] + history["l2"][0], rtol=1e-6)


def test_terms_are_what_they_say(tiny_schema, data):
    ids, labels = data
    weights = np.random.default_rng(0).uniform(0.5, 2, size=labels.shape).astype("float32")
    model = small(tiny_schema, embedding_l2=0.1, alpha=0.3, c=0.8, gamma=2.0)
    logits = {name: np.array(value, "float64") for name, value in model(ids).items()}
    true = {name: np.where(labels == 1, 1, -1) * value for name, value in logits.items()}
    p = {name: 1 / (1 + np.exp(-value)) for name, value in true.items()}
    twin = -0.3 * np.log(p["simple"]) * (0.8 + p["simple"]) ** 2 - 0.7 * np.log(p["complex"]) * (1.2 - p["complex"]) ** 2
    terms = {name: float(value) for name, value in model.loss_terms(ids, labels, weights, training=False).items()}
    tables = [table.get_weights()[0].astype("float64") for table in model.embeddings]
    assert terms == pytest.approx(
        {
            "ctr": np.mean(-np.log(p["logit"]) * weights),
            "twin_focus": np.mean(twin * weights),
            "l2": 0.05 * sum((table**2).sum() for table in tables),
        },
        rel=1e-5,
    )


def test_keras_file_restores_class_encoders_optimizer_and_predictions(tiny_schema, data, tmp_path):
    model = small(tiny_schema, selection="gated", fusion="voting", simple_encoder=FactorizationMachine())
    model.compile(loss=losses.FocalLoss(gamma=1.0), clip_norm=3.0)
    model.fit(*data, epochs=1, verbose=0)
    model.save(tmp_path / "model.keras")
    restored = keras.saving.load_model(tmp_path / "model.keras")
    assert type(restored) is TF4CTR
    assert restored.schema == tiny_schema
    assert [type(layer) for layer in restored.layers] == [type(layer) for layer in model.layers]
    assert (restored.ctr_loss.gamma, restored.clip_norm) == (1.0, 3.0)
    assert int(restored.optimizer.iterations) == int(model.optimizer.iterations)
    np.testing.assert_array_equal(restored.predict(data[0], verbose=0), model.predict(data[0], verbose=0))


@pytest.mark.slow
def test_auxiliary_loss_changes_training_and_not_validation(tiny_schema, data):
    ids, labels = data
    plain, focused = small(tiny_schema, alpha=0.0, c=1.0, gamma=0.0), small(tiny_schema, alpha=0.9, c=0.5, gamma=2.0)
    np.testing.assert_array_equal(plain.evaluate(ids, labels), focused.evaluate(ids, labels))  # same weights, same validation
    for model in (plain, focused):
        model.fit(ids, labels, epochs=1, batch_size=64, shuffle=False, verbose=0)
    assert plain.evaluate(ids, labels) != focused.evaluate(ids, labels)


def test_evaluate_is_exact_for_arrays_datasets_and_weights(tiny_schema, data):
    ids, labels = data
    weights = np.random.default_rng(0).uniform(0.5, 2, size=labels.shape).astype("float32")
    model = small(tiny_schema)
    for variable in model.trainable_variables:  # a fresh model's probabilities differ by rounding only
        variable.assign(np.random.default_rng(0).normal(size=variable.shape, scale=0.5))
    p = model.predict(ids, verbose=0).astype("float64")
    log_loss = -np.log(np.where(labels == 1, p, 1 - p))
    dataset = tf.data.Dataset.from_tensor_slices((ids, labels, weights)).batch(100)
    plain = [log_loss.mean(), log_loss.mean(), auc(labels.ravel(), p.ravel())]
    assert model.evaluate(ids, labels) == pytest.approx(plain, rel=1e-6)
    for values in (model.evaluate(dataset), model.evaluate(ids, labels, sample_weight=weights, batch_size=50)):
        weighted = [(log_loss * weights).mean(), np.average(log_loss, weights=weights)]
        assert values == pytest.approx([*weighted, auc(labels.ravel(), p.ravel(), weights.ravel())], rel=1e-6)


@pytest.mark.slow
def test_evaluating_many_models_warns_of_nothing(tiny_schema, data):
    warnings = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: warnings.append(record.getMessage())
    tf.get_logger().addHandler(handler)
    try:
        for _ in range(6):
            small(tiny_schema, cls=DNN).evaluate(*data, batch_size=256)
    finally:
        tf.get_logger().removeHandler(handler)
    assert warnings == []


def test_validation_with_one_class_has_no_auc(tiny_schema, data):
    assert np.isnan(small(tiny_schema).evaluate(data[0], np.ones_like(data[1]), return_dict=True)["auc"])


@pytest.mark.sampled(1)
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16", "float64"])
def test_config_survives_dtype_policies(policy, tiny_schema, data, monkeypatch):
    outside = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = small(tiny_schema, selection="experts", fusion="experts")
    finally:
        keras.config.set_dtype_policy(outside)
    twin = TF4CTR.from_config(json.loads(json.dumps(model.get_config())))
    assert keras.config.dtype_policy() == outside
    assert [layer.dtype_policy for layer in twin.layers] == [layer.dtype_policy for layer in model.layers]
    twin.set_weights(model.get_weights())
    np.testing.assert_array_equal(twin.predict(data[0], verbose=0), model.predict(data[0], verbose=0))


def test_embedding_gradients_reach_the_optimizer_sparse(tiny_schema, data):
    seen = {}

    class Spy(keras.optimizers.SGD):
        def update_step(self, gradient, variable, learning_rate):
            seen[variable.shape[0]] = type(gradient)
            return super().update_step(gradient, variable, learning_rate)

    model = small(tiny_schema)
    model.compile(optimizer=Spy(), clip_norm=1.0)  # clipping must not make them dense
    model.fit(*data, epochs=1, verbose=0)
    assert issubclass(seen.pop(tiny_schema.table_rows), tf.IndexedSlices)
    assert not any(issubclass(kind, tf.IndexedSlices) for kind in seen.values())


def test_non_finite_loss_names_term_and_step(tiny_schema, data):
    ids, labels = data
    model = small(tiny_schema)
    model.fit(ids[:64], labels[:64], batch_size=32, epochs=1, verbose=0)
    before = model.get_weights()
    weights = np.where(np.arange(64) < 40, 1.0, np.inf).astype("float32")[:, None]
    with pytest.raises(TrainingError, match="'ctr' became inf at step 3"):
        model.fit(ids[:64], labels[:64], sample_weight=weights, batch_size=32, epochs=1, shuffle=False, verbose=0)
    after = model.get_weights()
    assert all(np.isfinite(weight).all() for weight in after)
    assert any((left != right).any() for left, right in zip(before, after, strict=True))  # step 2 was finite


def test_misspelt_argument_fails(tiny_schema):
    with pytest.raises(TypeError, match="embeding_dim"):
        TF4CTR(tiny_schema, embeding_dim=4)


@pytest.mark.parametrize(
    "arguments",
    [
        {"l2_scope": "tables"},
        {"embedding_l2": "0.1"},
        {"embedding_l2": -0.1},
        {"embedding_l2": np.nan},
        {"embedding_dim": 4.0},
        {"embedding_dim": True},
        {"embedding_dim": 0},
        {"alpha": "0.3"},
        {"gamma": None},
        {"simple_encoder": "MLP"},
        {"schema": {"label": "click"}},
    ],
)
def test_an_argument_that_cannot_be_is_named(arguments, tiny_schema):
    with pytest.raises(ConfigError, match=next(iter(arguments))):
        TF4CTR(**{"schema": tiny_schema, **arguments})


def test_l2_of_the_batch_trains_its_rows_only(tiny_schema, data):
    ids, labels = data
    model = small(tiny_schema, cls=DNN, embedding_l2=1.0, l2_scope="batch")
    before = model.embeddings[0].get_weights()[0]
    # Stock SGD: a row without a gradient does not move.
    model.compile(optimizer=keras.optimizers.SGD(0.1))
    model.fit(ids[:4], labels[:4], epochs=1, verbose=0)
    moved = (model.embeddings[0].get_weights()[0] != before).any(axis=1)
    assert 0 < moved.sum() <= ids[:4].size


def test_all_models_share_one_form(tiny_schema):
    # Keras puts its functional class under a model at the first construction; it stays what it was declared to be.
    assert isinstance(small(tiny_schema, cls=DeepFM), CTRModel)
    assert DeepFM.__bases__ == (CTRModel,)
    assert issubclass(CTRModel, keras.Model)


def trained(model, data, loss, **fit):
    keras.utils.set_random_seed(1)
    model.compile(keras.optimizers.SGD(0.1), loss=loss)
    model.fit(*data, batch_size=64, epochs=1, shuffle=False, verbose=0, **fit)
    return model.evaluate(*data, sample_weight=fit.get("sample_weight"))


@pytest.mark.parametrize("form", at_length(["labels", "weights", "both", "class_weight", "integers", "batches"], "both"))
def test_labels_and_weights_of_rank_1_are_those_of_rank_2(form, tiny_schema, data):
    ids, labels = data
    weights = np.where(labels == 1, 2.0, 0.5).astype("float32")
    expected = trained(small(tiny_schema), data, losses.LogLoss(), sample_weight=weights)
    if form in ("labels", "both", "batches"):
        labels = labels[:, 0]
    if form in ("weights", "both", "batches"):
        weights = weights[:, 0]
    if form == "integers":
        labels = labels.astype("int64")
    model = small(tiny_schema)
    if form == "class_weight":
        trained(model, (ids, labels[:, 0]), losses.LogLoss(), class_weight={0: 0.5, 1: 2.0})
        values = model.evaluate(ids, labels, sample_weight=weights)
    elif form == "batches":
        batches = tf.data.Dataset.from_tensor_slices((ids, labels, weights)).batch(64)
        model.compile(keras.optimizers.SGD(0.1))
        model.fit(batches, epochs=1, verbose=0)
        values = model.evaluate(batches)
    else:
        values = trained(model, (ids, labels), losses.LogLoss(), sample_weight=weights)
    assert values == pytest.approx(expected, rel=1e-6)


def test_a_stock_loss_on_logits_is_log_loss(tiny_schema, data):
    stock = keras.losses.BinaryCrossentropy(from_logits=True)
    ours, theirs = (trained(small(tiny_schema), data, loss) for loss in ("log_loss", stock))
    assert theirs == pytest.approx(ours, rel=1e-5)


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (keras.losses.BinaryCrossentropy(), r"reads probabilities(?s:.*)BinaryCrossentropy\(from_logits=True\)"),
        (keras.losses.MeanSquaredError(), "MeanSquaredError is not for the logit"),
        (keras.losses.CategoricalCrossentropy(from_logits=True), "is not for the logit"),
        (keras.losses.BinaryCrossentropy(from_logits=True, reduction="sum"), "the reduction 'sum'"),
        (keras.ops.mean, "keras.losses.Loss with call"),
        (None, "`loss` is None"),
        ("binary_crosentropy", "Did you mean 'binary_crossentropy'"),
        ({"logit": "log_loss", "simple": "log_loss"}, "auxiliary="),
    ],
)
def test_a_loss_that_does_not_read_logits_is_refused(loss, message, tiny_schema):
    with pytest.raises(ConfigError, match=message):
        small(tiny_schema).compile(loss=loss)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("binary_crossentropy", losses.LogLoss),
        ("BinaryCrossentropy", losses.LogLoss),
        (keras.losses.binary_crossentropy, losses.LogLoss),
        ("binary_focal_crossentropy", losses.FocalLoss),
        (losses.robust_cross_entropy, losses.RobustCrossEntropy),
        (losses.FocalLoss, losses.FocalLoss),
        ({"logit": "log_loss"}, losses.LogLoss),
    ],
)
def test_what_keras_calls_a_loss_is_that_loss_on_logits(given, meant, tiny_schema):
    model = small(tiny_schema, cls=DNN)
    model.compile(loss=given)
    assert type(model.ctr_loss) is meant


PR = keras.metrics.AUC(curve="PR", name="auc")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"jit_compile": True}, "jit_compile"),
        ({"clip_norm": "10"}, "clip_norm"),
        ({"clip_norm": -1}, "clip_norm"),
        ({"clip_norm": ["AUC"]}, r"compile\(..., metrics="),
        ({"loss_weights": {"logit": 2.0}}, "loss_weights"),
        ({"optimizer": None}, "`optimizer` is None"),
        ({"optimizer": "sdg"}, r"Did you mean 'sgd'(?s:.*)optimizer object"),
        ({"metrics": ["AUCC"]}, "no metric 'AUCC'"),
        ({"metrics": {"simple": ["AUC"]}}, "they are of the prediction"),
        ({"metrics": [PR]}, r"'auc' of a metric is taken(?s:.*)my_auc"),
        ({"weighted_metrics": [keras.metrics.Mean(name="ctr")]}, "'ctr' of a metric is taken"),
        ({"metrics": [keras.metrics.BinaryCrossentropy(from_logits=True)]}, "reads logits"),
    ],
)
def test_compile_refuses_what_it_cannot_do(arguments, message, tiny_schema):
    with pytest.raises(ConfigError, match=message):
        small(tiny_schema, cls=DNN).compile(**arguments)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("label", [2, -1, 0.5, np.nan])
def test_a_label_that_is_not_0_or_1_is_refused(label, tiny_schema, data):
    ids, labels = data[0], data[1].copy()
    labels[7] = label
    for method in ("fit", "evaluate", "train_on_batch", "test_on_batch"):
        with pytest.raises(DataError, match="labels must be 0 or 1; row 7 holds"):
            getattr(small(tiny_schema), method)(ids, labels)
    message = rf"labels must be 0 or 1; row 7 of the batch at step 0 holds {label}\.\n  fix: correct .*: 1 of this batch"
    with pytest.raises(DataError, match=message):  # batches cannot be looked through before
        small(tiny_schema).fit(tf.data.Dataset.from_tensor_slices((ids, labels)).batch(64), verbose=0)


def test_masked_labels_and_weights_of_two_columns_are_refused(tiny_schema, data):
    ids, labels = data
    model = small(tiny_schema)
    for method in (model.fit, model.evaluate, model.train_on_batch, model.test_on_batch):
        with pytest.raises(DataError, match="labels are masked: row 3 has none"):
            method(ids, np.ma.array(labels, mask=np.arange(len(labels)).reshape(labels.shape) == 3))
        with pytest.raises(ConfigError, match=r"sample weights has the shape \(\d+, 2\)\.\n  fix: give one value a row[^;]*$"):
            method(ids, labels, sample_weight=np.ones((len(labels), 2)))


@pytest.mark.parametrize("columns", [2, 0])
def test_labels_of_another_shape_are_refused(columns, tiny_schema, data):
    batches = tf.data.Dataset.from_tensor_slices((data[0], np.zeros((256, columns), "float32"))).batch(64)
    with pytest.raises(ConfigError, match="labels has the shape"):
        small(tiny_schema).fit(batches, verbose=0)


def test_evaluate_knows_its_arguments_and_its_loss(tiny_schema, data):
    with pytest.raises(TypeError, match="bach_size"):
        small(tiny_schema).evaluate(*data, bach_size=3)
    with pytest.raises(ConfigError, match="not compiled"):
        DNN(tiny_schema).evaluate(*data)
    model = small(tiny_schema)
    assert model.test_on_batch(*data) == pytest.approx(model.evaluate(*data)[0], rel=1e-5)


def test_keras_file_keeps_how_the_model_was_compiled(tiny_schema, tmp_path):
    model = small(tiny_schema)
    model.compile(clip_norm=None, run_eagerly=True, steps_per_execution=3)
    model.save(tmp_path / "model.keras")
    restored = keras.saving.load_model(tmp_path / "model.keras")
    assert (restored.clip_norm, restored.run_eagerly, restored.steps_per_execution) == (None, True, 3)


@pytest.mark.slow
def test_a_fresh_process_loads_a_saved_model(tiny_schema, data, tmp_path):
    model = small(tiny_schema)
    model.save(tmp_path / "model.keras")
    code = "import sys, tfctr; print(type(tfctr.load_model(sys.argv[1])).__name__)"
    run = subprocess.run([sys.executable, "-c", code, tmp_path / "model.keras"], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "TF4CTR"
