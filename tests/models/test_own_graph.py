"""A user's own graph: its losses, how it is saved and loaded, and how it is exported and served."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

import tfctr
from tfctr.errors import ConfigError, StorageError
from tfctr.features import Categorical, Numeric
from tfctr.layers import MLP, FeatureEmbedding, GatedEmbedding
from tfctr.losses import CosineLoss, TwinFocusLoss
from tfctr.models import CTRModel, ids_input
from tfctr.schema import Schema
from tfctr.serving.exporting.signatures import ServedGraph

ROWS = 64


@keras.saving.register_keras_serializable("test_own_graph")
class Decorrelation(keras.layers.Layer):
    """Passes its input through, and adds `weight` times the mean square of it to the loss of training."""

    def __init__(self, weight=0.5, **kwargs):
        super().__init__(**kwargs)
        self.weight = weight

    def call(self, fields, training=False):
        if training:
            self.add_loss(self.weight * ops.mean(ops.square(fields)))
        return fields


@pytest.fixture(scope="module")
def data(tiny_ids, tiny_labels):
    return tiny_ids(ROWS), tiny_labels(ROWS)[:, None]


def spread(model):
    for variable in model.trainable_variables:
        variable.assign(np.random.default_rng(variable.shape[0]).normal(size=variable.shape, scale=0.5))
    return model


def heads(schema):
    """Ids and three heads, over a table, a second one within a selection, and an operation of `keras.ops`."""
    ids = ids_input(schema)
    fields = keras.layers.Flatten()(FeatureEmbedding(schema, 3)(ids))
    easy, hard = GatedEmbedding(schema, 2)(ids)
    simple, complex_ = keras.layers.Dense(1)(MLP([4])(easy)), keras.layers.Dense(1)(MLP([4])(hard))
    logit = ops.tanh(simple) + complex_ + keras.layers.Dense(1)(fields)
    return ids, {"logit": logit, "simple": simple, "complex": complex_}


def own_model(schema, **options):
    ids, outputs = heads(schema)
    return spread(CTRModel(schema, ids, outputs, auxiliary={"twin_focus": TwinFocusLoss(alpha=0.4)}, **options))


# losses that layers add


@pytest.mark.sampled(1)
@pytest.mark.parametrize("kind", ["add_loss", "kernel_regularizer", "activity_regularizer"])
def test_what_layers_add_is_part_of_the_loss(kind, tiny_schema, data):
    ids, y = data
    given = ids_input(tiny_schema)
    embedding = FeatureEmbedding(tiny_schema, 4)
    fields = keras.layers.Flatten()(embedding(given))
    if kind == "add_loss":
        fields = Decorrelation(0.5)(fields)
    options = {kind: keras.regularizers.L2(0.25)} if kind != "add_loss" else {}
    dense = keras.layers.Dense(1, **options)
    model = spread(CTRModel(tiny_schema, given, {"logit": dense(fields)}))
    model.compile(keras.optimizers.SGD(0.1), clip_norm=None)
    flat = np.array(keras.layers.Flatten()(embedding(ids)), "float64")
    kernel = np.array(dense.kernel, "float64")
    logit = np.array(model(ids)["logit"], "float64")
    expected, slope = {
        "add_loss": (0.5 * np.mean(flat**2), 0),
        "kernel_regularizer": (0.25 * np.sum(kernel**2), 0.5 * kernel),
        "activity_regularizer": (0.25 * np.sum(logit**2) / ROWS, 0.5 / ROWS * flat.T @ logit),
    }[kind]
    slope = slope + flat.T @ (1 / (1 + np.exp(-logit)) - y) / ROWS  # of the log loss
    logs = model.fit(ids, y, batch_size=ROWS, shuffle=False, verbose=0).history
    assert logs["added"][0] == pytest.approx(expected, rel=1e-5)
    assert logs["loss"][0] == pytest.approx(logs["ctr"][0] + expected, rel=1e-5)
    np.testing.assert_allclose(dense.kernel, kernel - 0.1 * slope, rtol=1e-4, atol=1e-6)
    assert model.evaluate(ids, y, return_dict=True)["loss"] == pytest.approx(float(model.test_on_batch(ids, y)), rel=1e-5)
    again = model.fit(ids, y, epochs=2, batch_size=ROWS, shuffle=False, verbose=0).history
    assert again["added"][1] != logs["added"][0], "each epoch has its own mean"


@pytest.mark.slow
def test_rows_that_owe_steps_are_caught_up_in_tables_that_are_not_listed(tiny_schema, data):
    """`ExactLazyAdam` is Adam also where `embeddings` leaves a table out."""
    ids, y = data
    predictions = []
    for optimizer in ("adam", "exact_lazy_adam"):
        given, outputs = heads(tiny_schema)
        model = spread(CTRModel(tiny_schema, given, outputs, embeddings=[]))
        model.compile(optimizer)
        for part in (slice(0, 8), slice(8, 16), slice(0, 8)):
            model.train_on_batch(ids[part], y[part])
        predictions.append(model.predict(ids, verbose=0))
    np.testing.assert_allclose(predictions[1], predictions[0], rtol=1e-4)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_a_graph_of_low_precision_has_losses_and_probabilities_in_float32(policy, tiny_schema, data, tmp_path):
    ids, y = data
    keras.config.set_dtype_policy(policy)
    try:
        given = ids_input(tiny_schema)
        fields = Decorrelation()(MLP([4])(FeatureEmbedding(tiny_schema, 3)(given)))
        outputs = {name: keras.layers.Dense(1)(fields) for name in ("logit", "simple", "complex")}
        model = spread(CTRModel(tiny_schema, given, outputs, auxiliary={"twin_focus": TwinFocusLoss()}))
    finally:
        keras.config.set_dtype_policy("float32")
    model.compile("adam", metrics=["AUC"])
    logs = model.fit(ids, y, validation_data=(ids, y), verbose=0).history
    assert np.isfinite(list(logs.values())).all()
    assert {term.dtype for term in model.loss_terms(ids, y).values()} == {tf.float32}
    probabilities = model.predict(ids, verbose=0)
    assert probabilities.dtype == "float32"
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(tfctr.load_model(tmp_path / "model.keras").predict(ids, verbose=0), probabilities)


# saved and loaded


def test_a_graph_is_saved_and_loaded(tiny_schema, data, tmp_path):
    ids, y = data
    model = own_model(tiny_schema, embedding_l2=0.1, name="mine")
    model.compile("rmsprop", loss="focal", clip_norm=3.0)
    model.fit(ids, y, epochs=1, verbose=0)
    model.save(tmp_path / "model.keras")
    for restored in (tfctr.load_model(tmp_path / "model.keras"), keras.saving.load_model(tmp_path / "model.keras")):
        assert type(restored) is CTRModel
        assert (restored.name, restored.schema, restored.clip_norm) == ("mine", tiny_schema, 3.0)
        assert [e.embedding_dim for e in restored.embeddings] == [e.embedding_dim for e in model.embeddings]
        assert sorted(e.embedding_dim for e in restored.embeddings) == [2, 3]
        np.testing.assert_array_equal(restored.predict(ids, verbose=0), model.predict(ids, verbose=0))
        for name, term in model.loss_terms(ids, y, training=False).items():
            assert float(restored.loss_terms(ids, y, training=False)[name]) == pytest.approx(float(term), rel=1e-6)
    for trained in (model, restored):
        trained.fit(ids, y, epochs=1, shuffle=False, verbose=0)
    np.testing.assert_array_equal(restored.predict(ids, verbose=0), model.predict(ids, verbose=0))


def test_only_the_embeddings_that_were_given_are_held_small(tiny_schema, data, tmp_path):
    given, outputs = heads(tiny_schema)
    first = next(layer for layer in keras.Model(given, outputs).layers if isinstance(layer, FeatureEmbedding))
    for embeddings in ([first], []):
        model = CTRModel(tiny_schema, given, outputs, embeddings=embeddings)
        twin = CTRModel.from_config(model.get_config())
        assert [e.embedding_dim for e in twin.embeddings] == [3] * len(embeddings)


@keras.saving.register_keras_serializable("test_own_graph")
class HandsOn(CTRModel):
    """A subclass that takes the graph, and an option."""

    def __init__(self, schema, ids, outputs, embeddings=None, scale=2.0, **kwargs):
        super().__init__(schema, ids, outputs, embeddings, **kwargs)
        self.scale = scale


class Changes(CTRModel):
    def __init__(self, schema, ids, logit, name=None):
        super().__init__(schema, ids, {"logit": 2.0 * logit}, name=name)


def test_subclasses_that_take_a_graph(tiny_schema, data, tmp_path):
    model = spread(HandsOn(tiny_schema, *heads(tiny_schema), scale=3.0, embedding_l2=0.5, name="hands_on"))
    model.save(tmp_path / "model.keras")
    restored = tfctr.load_model(tmp_path / "model.keras")
    assert (type(restored), restored.scale, restored.embedding_l2, restored.name) == (HandsOn, 3.0, 0.5, "hands_on")
    np.testing.assert_array_equal(restored(data[0])["logit"], model(data[0])["logit"])
    ids, outputs = heads(tiny_schema)
    with pytest.raises(ConfigError, match=r"`ids` of Changes is a tensor(?s:.*)CTRModel\(schema, ids, outputs\) itself"):
        Changes(tiny_schema, ids, outputs["logit"]).save(tmp_path / "changes.keras")
    assert not (tmp_path / "changes.keras").exists()


class Unregistered(CTRModel):
    def __init__(self, schema, units=3, name=None):
        ids = ids_input(schema)
        super().__init__(
            schema, ids, {"logit": keras.layers.Dense(1)(MLP([units])(FeatureEmbedding(schema, 2)(ids)))}, name=name
        )


def test_a_file_that_cannot_be_loaded_says_why(tiny_schema, data, tmp_path):
    file = tmp_path / "model.keras"
    model = Unregistered(tiny_schema)
    model.save(file)
    with pytest.raises(StorageError, match=r"needs the class 'Unregistered'(?s:.*)@tfctr\.models\.register") as caught:
        tfctr.load_model(file)
    assert "corrupt" not in str(caught.value)
    restored = tfctr.load_model(file, custom_objects={"Unregistered": Unregistered})
    np.testing.assert_array_equal(restored(data[0])["logit"], model(data[0])["logit"])
    with pytest.raises(StorageError, match="is a folder"):
        tfctr.load_model(tmp_path)
    model.save_weights(tmp_path / "model.weights.h5")
    with pytest.raises(StorageError, match="load_weights"):
        tfctr.load_model(tmp_path / "model.weights.h5")
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(StorageError, match="is corrupt"):
        tfctr.load_model(file)

    class Unregistered2(Unregistered):
        def __init__(self, schema, name=None):  # the code has lost an argument
            super().__init__(schema, name=name)

    model.save(file)
    with pytest.raises(StorageError, match="is whole, but its model cannot be built here"):
        tfctr.load_model(file, custom_objects={"Unregistered": Unregistered2})


# what is no graph


def test_what_is_no_graph_is_refused_at_the_door(tiny_schema):
    ids, outputs = heads(tiny_schema)
    floats, wide = keras.Input((tiny_schema.width,)), keras.Input((tiny_schema.width + 1,), dtype="int32")
    probability = keras.layers.Dense(1, activation="sigmoid")(MLP([2])(FeatureEmbedding(tiny_schema, 2)(ids)))
    for arguments, message in [
        (("schema", ids, outputs), "`schema` is 'schema'"),
        ((tiny_schema, floats, outputs), r"of float32\.(?s:.*)ids_input"),
        ((tiny_schema, wide, outputs), r"8\) of int32\.(?s:.*)ids_input"),
        ((tiny_schema, {"ids": ids}, outputs), "input of the graph is named"),
        ((tiny_schema, ids, outputs["logit"]), "outputs of the graph are a tensor"),
        ((tiny_schema, ids, {"simple": outputs["simple"]}), r"named \['simple'\]"),
        ((tiny_schema, ids, {"logit": FeatureEmbedding(tiny_schema, 2)(ids)}), r"\(batch, 1\)"),
        ((tiny_schema, ids, {"logit": probability}), "is a probability"),
        ((tiny_schema, ids, {"logit": keras.layers.Activation("sigmoid")(outputs["logit"])}), "is a probability"),
        ((tiny_schema, ids, {"logit": ops.sigmoid(outputs["logit"])}), "is a probability"),
    ]:
        with pytest.raises(ConfigError, match=message):
            CTRModel(*arguments)


# exported


@pytest.fixture(scope="module")
def small_schema():
    features = [Categorical("user", hash_buckets=9, size=12), Numeric("age", "scaled", mean=40.0, scale=12.5, size=4)]
    return Schema(features=features, label="click")


def plain(schema):
    """A model of plain Keras, whose heads are the click and a like, trained by plain Keras."""
    ids = ids_input(schema)
    fields = keras.layers.Flatten()(FeatureEmbedding(schema, 4)(ids))
    return spread(keras.Model(ids, {name: keras.layers.Dense(1, name=name)(fields) for name in ("click", "like")}))


def test_a_plain_keras_model_is_exported_by_the_line_that_the_error_names(small_schema, tmp_path):
    model, schema = plain(small_schema), small_schema
    model.compile("sgd", loss=tfctr.losses.LogLoss())
    ids = np.stack([np.arange(3, 11), np.float32(np.arange(8)).view(np.int32)], axis=1)
    labels = np.arange(8) % 2
    model.fit(ids, {"click": labels, "like": 1 - labels}, verbose=0)
    with pytest.raises(ConfigError) as caught:
        tfctr.serving.export(model, tmp_path / "served")
    line = re.search(r"tfctr\.models\.(CTRModel\(.*\)), where", str(caught.value))[1]
    assert line == 'CTRModel(schema, model.input, {**model.output, "logit": model.output["click"]})'
    wrapped = CTRModel(schema, model.input, {**model.output, "logit": model.output["click"]})
    np.testing.assert_allclose(wrapped.predict(ids, verbose=0), tf.sigmoid(model(ids)["click"]), rtol=1e-6)
    wrapped.save(tmp_path / "model.keras")
    restored = tfctr.load_model(tmp_path / "model.keras")
    version = tfctr.serving.export(restored, tmp_path / "served", check=False)
    served = tf.saved_model.load(version)
    rows = {"user": tf.constant(["a", "b", ""]), "age": tf.constant([30.0, np.nan, 55.5], "float64")}
    encoded = ServedGraph(restored, schema).raw(rows).numpy()
    outputs = model(encoded)
    explained = served.signatures["explain"](**rows)
    probability = served.signatures["serving_default"](**rows)["probability"]
    np.testing.assert_allclose(probability, tf.sigmoid(outputs["click"])[:, 0], rtol=1e-6)
    for name, head in {"logit": "click", "click": "click", "like": "like"}.items():
        np.testing.assert_allclose(explained[name], outputs[head][:, 0], rtol=1e-5)
    assert served.signatures["embedding"](**rows)["embedding"].shape == (3, 8)
    # Back in Keras: the numbers of raw rows are float64, and a layer would cast them to its own type.
    layer = keras.layers.TFSMLayer(version, call_endpoint="serving_default", dtype="float64")
    np.testing.assert_array_equal(layer(rows)["probability"], probability)
    by_ids = keras.layers.TFSMLayer(version, call_endpoint="ids")
    np.testing.assert_array_equal(by_ids(encoded)["probability"], probability)


def test_a_subclass_of_keras_without_a_graph_is_told_so():
    class Mine(keras.Model):
        def call(self, x):
            return x

    with pytest.raises(ConfigError, match=r"build it from tensors(?s:.*)ids_input"):
        tfctr.serving.export(Mine(), "nowhere")
    x = keras.Input((3,))
    for model, line in [
        (keras.Sequential([x, keras.layers.Dense(1)]), 'CTRModel(schema, model.inputs[0], {"logit": model.outputs[0]})'),
        (keras.Model(x, keras.layers.Dense(1)(x)), 'CTRModel(schema, model.input, {"logit": model.output})'),
        (keras.Model(x, {"logit": keras.layers.Dense(1)(x)}), "CTRModel(schema, model.input, model.output)"),
    ]:
        with pytest.raises(ConfigError, match=re.escape(line)):
            tfctr.serving.export(model, "nowhere")


def test_a_trained_sigmoid_is_taken_off_by_the_line_that_the_error_names(tiny_schema, data):
    ids = ids_input(tiny_schema)
    layer = keras.layers.Dense(1, activation="sigmoid")
    model = spread(keras.Model(ids, layer(keras.layers.Flatten()(FeatureEmbedding(tiny_schema, 2)(ids)))))
    probabilities = model.predict(data[0], verbose=0)
    with pytest.raises(ConfigError, match=r"layer\.activation = None; logit = layer\(layer\.input\)"):
        CTRModel(tiny_schema, model.input, {"logit": model.output})
    layer.activation = None
    wrapped = CTRModel(tiny_schema, model.input, {"logit": layer(layer.input)})
    np.testing.assert_allclose(wrapped.predict(data[0], verbose=0), probabilities, rtol=1e-5)


def test_auxiliary_losses_of_named_outputs_go_into_any_graph(tiny_schema, data):
    ids, y = data
    given, outputs = heads(tiny_schema)
    model = spread(CTRModel(tiny_schema, given, outputs, auxiliary={"apart": CosineLoss("simple", "complex", weight=0.5)}))
    model.compile()
    assert set(model.fit(ids, y, verbose=0).history) == {"loss", "ctr", "apart"}
