"""What people who come from Keras try on a model of ours: each works as there, or is refused with the line that works."""

import copy
import pickle

import keras
import numpy as np
import pytest
import sklearn.metrics
import tensorflow as tf

from tfctr.errors import ConfigError
from tfctr.layers import MLP, FeatureEmbedding
from tfctr.models import DNN, TF4CTR, CTRModel, ids_input
from tfctr.optimizers import optimizer_named

ROWS = 96


@pytest.fixture(scope="module")
def data(tiny_ids, tiny_labels):
    """Ids, labels and weights, `(rows, columns)`, `(rows,)` and `(rows,)`."""
    return tiny_ids(ROWS), tiny_labels(ROWS), np.random.default_rng(0).uniform(0.5, 2, ROWS).astype("float32")


def dnn(schema, **options):
    keras.utils.set_random_seed(1)
    model = DNN(schema, embedding_dim=4, hidden_units=[8])
    for variable in model.trainable_variables:  # fresh embeddings are nearly zero
        variable.assign(np.random.default_rng(variable.shape[0]).normal(size=variable.shape, scale=0.5))
    model.compile(**{"optimizer": keras.optimizers.SGD(0.1), **options})
    return model


def log_loss(model, ids, labels, weights):
    p = model.predict(ids, verbose=0)[:, 0].astype("float64")
    return float(np.mean(-np.log(np.where(labels == 1, p, 1 - p)) * weights))


# fit and its relatives, in any order


class Batches(keras.utils.PyDataset):
    def __init__(self, *arrays):
        super().__init__()
        self.arrays = arrays

    def __len__(self):
        return 3

    def __getitem__(self, index):
        return tuple(array[index * 32 : index * 32 + 32] for array in self.arrays)


def dataset(*arrays):
    return tf.data.Dataset.from_tensor_slices(arrays).batch(32)


def generator(*arrays):
    yield from (Batches(*arrays)[index] for index in range(3))


@pytest.mark.slow
def test_all_forms_of_labels_and_weights_mix_in_one_model(tiny_schema, data):
    """Keras relaxes a graph to unknown rank once it has seen both; the values must stay those of the arrays."""
    ids, y, w = data
    model = dnn(tiny_schema)
    column = y[:, None]
    train = [
        lambda: model.fit(ids, y, verbose=0),
        lambda: model.fit(dataset(ids, column), verbose=0),
        lambda: model.train_on_batch(ids, y),
        lambda: model.fit(ids, column, sample_weight=w[:, None], verbose=0),
        lambda: model.fit(ids, y, sample_weight=w, verbose=0),
        lambda: model.fit(dataset(ids, y, w[:, None]), verbose=0),
        lambda: model.train_on_batch(ids, column, sample_weight=w),
        lambda: model.train_on_batch(ids, y, class_weight={0: 1.0, 1: 2.0}),
        lambda: model.fit(ids, y, class_weight={0: 1.0, 1: 2.0}, verbose=0),
        lambda: model.fit(generator(ids, y), steps_per_epoch=3, verbose=0),
        lambda: model.fit(Batches(ids, column, w), verbose=0),
        lambda: model.fit(ids, y.astype("int64"), validation_split=0.25, verbose=0),
        lambda: model.fit({"ids": ids}, {"logit": y}, validation_data=(ids, {"logit": column}), verbose=0),
        lambda: model.fit([ids], [y.astype(bool)], verbose=0),
        lambda: model.fit(dataset({"ids": ids}, {"logit": y}), verbose=0),
    ]
    ones = np.ones(ROWS)
    for step in [*train, *train[5::-1]]:
        step()
        expected = log_loss(model, ids, y, w)
        assert model.test_on_batch(ids, y, w) == pytest.approx(expected, rel=1e-5)
        assert model.test_on_batch(ids, column, w[:, None]) == pytest.approx(expected, rel=1e-5)
    expected, weighted = log_loss(model, ids, y, ones), log_loss(model, ids, y, w)
    for found, loss in [
        (model.evaluate(ids, y), expected),
        (model.evaluate(dataset(ids, column)), expected),
        (model.evaluate(Batches(ids, y)), expected),
        (model.evaluate({"ids": ids}, {"logit": y}, sample_weight=w), weighted),
        (model.evaluate(dataset(ids, column, w)), weighted),
    ]:
        assert found[0] == pytest.approx(loss, rel=1e-5)
    probabilities = model.predict(ids, verbose=0)
    for found in [
        model.predict_on_batch(ids),
        model.predict({"ids": ids}, verbose=0),
        model.predict(dataset(ids, column), verbose=0),
        model.predict(Batches(ids), verbose=0),
        model.predict((batch for batch in generator(ids)), verbose=0, steps=3),
    ]:
        np.testing.assert_allclose(found, probabilities, rtol=1e-5)


@pytest.mark.slow
def test_training_does_not_depend_on_the_form_of_the_labels(tiny_schema, data):
    ids, y, w = data
    forms = {1: (y, w), 2: (y[:, None], w[:, None])}
    trained = []
    for order in ([1, 1, 1], [2, 2, 2], [1, 2, 1], [2, 1, 2]):
        model = dnn(tiny_schema)
        for rank in order:
            labels, weights = forms[rank]
            model.train_on_batch(ids, labels, sample_weight=weights)
        trained.append(model.get_weights())
    for weights in trained[1:]:
        for found, expected in zip(weights, trained[0], strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (lambda y: {"logit": y, "simple": y}, "all heads learn from one label"),
        (lambda y: {"click": y}, r"labels are a dict of \['click'\]"),
        (lambda y: np.stack([1 - y, y], axis=1), r"shape \(96, 2\)(?s:.*)SKLearnRegressor"),
    ],
)
def test_labels_that_cannot_be(labels, message, tiny_schema, data):
    ids, y, _ = data
    model = dnn(tiny_schema)
    for method in (model.fit, model.evaluate, model.train_on_batch):
        with pytest.raises(ConfigError, match=message):
            method(ids, labels(y))


def test_compute_loss_is_the_sum_of_the_terms(tiny_schema, data):
    ids, y, w = data
    model = TF4CTR(tiny_schema, 4, simple_encoder=MLP([4]), complex_encoder=MLP([4]), embedding_l2=0.1)
    model.compile()
    outputs = model(ids)
    terms = model.loss_terms(ids, y, w, training=False)
    expected = sum(float(term) for term in terms.values())
    assert float(model.compute_loss(ids, {"logit": y}, outputs, w)) == pytest.approx(expected, rel=1e-6)


# metrics


def test_metrics_read_probabilities_in_training_and_validation(tiny_schema, data):
    ids, y, w = data
    accuracy = keras.metrics.BinaryAccuracy(threshold=0.25)
    model = dnn(
        tiny_schema, optimizer=keras.optimizers.SGD(0.0), metrics=["AUC", accuracy], weighted_metrics=["mse", "accuracy"]
    )
    logs = model.fit(ids, y, sample_weight=w, validation_data=(ids, y[:, None], w), batch_size=32, verbose=0).history
    p = model.predict(ids, verbose=0)[:, 0]
    expected = {
        "binary_accuracy": np.mean((p > 0.25) == y),
        "mse": np.average((p - y) ** 2, weights=w),
        "accuracy": np.average((p > 0.5) == y, weights=w),
    }
    results = model.evaluate(dataset(ids, y, w), return_dict=True)
    assert list(results)[:3] == ["loss", "log_loss", "auc"]
    for name, value in expected.items():
        for found in (logs[name][0], logs[f"val_{name}"][0], results[name]):
            assert found == pytest.approx(value, rel=1e-5), name
    assert results["auc"] == pytest.approx(sklearn.metrics.roc_auc_score(y, p, sample_weight=w), abs=1e-9)
    for found in (logs["AUC"][0], logs["val_AUC"][0], results["AUC"]):  # Keras', of 200 thresholds
        assert found == pytest.approx(sklearn.metrics.roc_auc_score(y, p), abs=0.01)
    assert model.evaluate(ids, y, sample_weight=w) == pytest.approx(list(results.values()), rel=1e-5)
    on_batch = model.test_on_batch(ids, y, w, return_dict=True)
    assert on_batch["mse"] == pytest.approx(expected["mse"], rel=1e-5)
    assert model.train_on_batch(ids, y, w, return_dict=True)["mse"] == pytest.approx(expected["mse"], rel=1e-5)
    assert set(model.get_metrics_result()) == {"loss", "ctr", "AUC", "binary_accuracy", "mse", "accuracy"}
    model.compile()
    assert "mse" not in model.evaluate(ids, y, return_dict=True), "a second compile has metrics of its own"


@pytest.mark.slow
def test_metrics_and_stock_optimizers_are_saved(tiny_schema, data, tmp_path):
    ids, y, _ = data
    model = dnn(tiny_schema, optimizer="rmsprop", metrics=["AUC", keras.metrics.Precision(thresholds=0.3)])
    model.fit(ids, y, verbose=0)
    model.save(tmp_path / "model.keras")
    restored = keras.saving.load_model(tmp_path / "model.keras")
    assert restored.evaluate(ids, y, return_dict=True) == model.evaluate(ids, y, return_dict=True)
    assert isinstance(restored.optimizer, keras.optimizers.RMSprop)
    for trained in (model, restored):  # with the state of the optimizer
        trained.fit(ids, y, shuffle=False, verbose=0)
    np.testing.assert_array_equal(restored.predict(ids, verbose=0), model.predict(ids, verbose=0))


@pytest.mark.parametrize("scaled", [True, False])
def test_loss_scaling_is_as_it_was_compiled(scaled, tiny_schema, tiny_ids, tiny_labels, tmp_path):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = DNN(tiny_schema, embedding_dim=4, hidden_units=[4])
    finally:
        keras.config.set_dtype_policy("float32")
    model.compile("adam", auto_scale_loss=scaled)
    model.train_on_batch(tiny_ids(8), tiny_labels(8))
    model.save(tmp_path / "model.keras")
    restored = keras.saving.load_model(tmp_path / "model.keras")
    for found in (model, restored):
        assert isinstance(found.optimizer, keras.optimizers.LossScaleOptimizer) is scaled
    for mine, theirs in zip(restored.optimizer.variables, model.optimizer.variables, strict=True):
        np.testing.assert_array_equal(mine, theirs)


# optimizers by name


STOCK = ("SGD", "RMSprop", "AdamW", "Adadelta", "Adamax", "Nadam", "Lion", "Lamb", "Adafactor", "ScheduleFreeAdamW")


@pytest.mark.parametrize("name", STOCK)
def test_every_optimizer_of_keras_has_its_name(name):
    cls = getattr(keras.optimizers, name)
    for found in (optimizer_named(name), optimizer_named(name.lower()), optimizer_named(cls)):
        assert type(found) is cls
        assert found.get_config() == cls().get_config() | {"name": found.name}
    assert float(optimizer_named(name, 0.25).learning_rate) == 0.25


def test_a_stock_optimizer_by_name_trains_like_the_object(tiny_schema, data):
    ids, y, _ = data
    models = [dnn(tiny_schema, optimizer=optimizer) for optimizer in ("sgd", keras.optimizers.SGD())]
    for model in models:
        model.fit(ids, y, shuffle=False, verbose=0)
    np.testing.assert_array_equal(*(model.predict(ids, verbose=0) for model in models))


# callbacks


def test_stock_callbacks(tiny_schema, data, tmp_path):
    ids, y, _ = data
    seen = []
    model = dnn(tiny_schema, metrics=[keras.metrics.AUC(name="auc")])
    stop = keras.callbacks.EarlyStopping("val_auc", patience=1, restore_best_weights=True, start_from_epoch=1)
    callbacks = [
        stop,
        keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras", monitor="val_auc", save_best_only=False),
        keras.callbacks.ModelCheckpoint(tmp_path / "best.weights.h5", "val_log_loss", save_weights_only=True, mode="min"),
        keras.callbacks.ReduceLROnPlateau("val_loss", patience=1, min_delta=10.0),
        keras.callbacks.BackupAndRestore(tmp_path / "backup"),
        keras.callbacks.CSVLogger(tmp_path / "log.csv"),
        keras.callbacks.TerminateOnNaN(),
        keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(logs)),
    ]
    history = model.fit(ids, y, validation_data=(ids, y), epochs=3, callbacks=callbacks, verbose=0).history
    assert {"auc", "val_auc", "val_loss", "val_log_loss", "ctr", "loss"} <= set(history)
    assert stop.monitor_op(2, 1), "Keras knows from the compiled AUC that more is better"
    assert float(model.optimizer.learning_rate) == pytest.approx(0.001)  # 0.1, after two epochs without a gain of 10
    restored = keras.saving.load_model(tmp_path / "2.keras")
    assert restored.evaluate(ids, y, return_dict=True)["auc"] == pytest.approx(history["val_auc"][1], abs=1e-9)
    assert (tmp_path / "best.weights.h5").exists()
    assert len((tmp_path / "log.csv").read_text().splitlines()) == 1 + len(seen)


class SeesValues(keras.layers.Layer):
    """A layer that no graph can hold."""

    def call(self, x):
        return keras.ops.convert_to_tensor(x.numpy())

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape, x.dtype)


def test_all_is_eager_where_the_model_is(tiny_schema, data):
    ids, y, _ = data
    given = ids_input(tiny_schema)
    logit = keras.layers.Dense(1)(SeesValues()(MLP([2])(FeatureEmbedding(tiny_schema, 2)(given))))
    model = CTRModel(tiny_schema, given, {"logit": logit})
    model.compile(run_eagerly=True)
    model.fit(ids, y, validation_data=(ids, y), verbose=0)
    assert model.evaluate(ids, y)[0] == pytest.approx(float(model.test_on_batch(ids, y)), rel=1e-5)


def test_callbacks_of_an_evaluation_are_called(tiny_schema, data):
    ids, y, _ = data
    events = []

    class Listener(keras.callbacks.Callback):
        def on_test_begin(self, logs=None):
            events.append("begin")

        def on_test_batch_end(self, batch, logs=None):
            events.append(batch)

        def on_test_end(self, logs=None):
            events.append(logs)

    model = dnn(tiny_schema)
    results = model.evaluate(ids, y, batch_size=48, callbacks=[Listener()], return_dict=True)
    assert events == ["begin", 0, 1, results]
    events.clear()
    model.fit(ids, y, validation_data=(ids, y), validation_batch_size=96, callbacks=[Listener()], verbose=0)
    assert events[:2] == ["begin", 0]


# copies


@pytest.mark.sampled(1)
@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])  # noqa: S301  our own
def test_a_copy_goes_on_as_the_model_would(duplicate, tiny_schema, data):
    ids, y, _ = data
    model = dnn(tiny_schema, optimizer="exact_lazy_adam", clip_norm=1.0, metrics=["AUC"])
    model.train_on_batch(ids[:5], y[:5])  # rows that are not read owe a step
    twin = duplicate(model)
    assert twin is not model
    for trained in (model, twin):
        trained.train_on_batch(ids, y)
    np.testing.assert_allclose(twin.predict(ids, verbose=0), model.predict(ids, verbose=0), rtol=1e-6)
    assert twin.evaluate(ids, y) == pytest.approx(model.evaluate(ids, y), rel=1e-6)


def test_clone_model_says_what_works(tiny_schema, data):
    model = dnn(tiny_schema)
    for clone in (lambda: keras.models.clone_model(model), lambda: keras.models.clone_model(DNN(tiny_schema))):
        with pytest.raises(ConfigError, match=r"type\(model\)\.from_config\(model\.get_config\(\)\)(?s:.*)copy\.deepcopy"):
            clone()
    fresh = type(model).from_config(model.get_config())
    assert type(fresh) is DNN
    assert [w.shape for w in fresh.weights] == [w.shape for w in model.weights]
    part = keras.Model(model.input, model.output["logit"])  # a part of the graph is a plain model, and Keras clones it
    assert keras.models.clone_model(part).output_shape == (None, 1)


def test_the_wrappers_of_scikit_learn(tiny_schema, data):
    ids, y, _ = data

    def make(X, y):
        return dnn(tiny_schema)

    regressor = keras.wrappers.SKLearnRegressor(make, fit_kwargs={"verbose": 0, "epochs": 2, "shuffle": False})
    probabilities = regressor.fit(ids, y).predict(ids)
    model = dnn(tiny_schema)
    model.fit(ids, y, epochs=2, shuffle=False, verbose=0)
    np.testing.assert_allclose(probabilities, model.predict(ids, verbose=0)[:, 0], rtol=1e-5)
    with pytest.raises(ConfigError, match="SKLearnRegressor"):
        keras.wrappers.SKLearnClassifier(make).fit(ids, y.astype(int))
    with pytest.raises(ConfigError, match="a function that makes the model"):
        keras.wrappers.SKLearnRegressor(model).fit(ids, y)


def test_quantize_says_what_works(tiny_schema):
    with pytest.raises(ConfigError, match="compress_tables"):
        dnn(tiny_schema).quantize("int8")


def test_export_of_keras_serves_logits_of_ids(tiny_schema, data, tmp_path):
    ids, y, _ = data
    model = dnn(tiny_schema, optimizer="exact_lazy_adam")
    model.train_on_batch(ids[:5], y[:5])
    model.export(tmp_path / "exported", verbose=False)
    served = tf.saved_model.load(tmp_path / "exported")
    np.testing.assert_allclose(tf.sigmoid(served.serve(ids)["logit"]), model.predict(ids, verbose=0), rtol=1e-5)
