"""Settings of layers that are changed by hand once a model is built: kept by every way to have it again, or refused."""

import copy
import pickle

import keras
import numpy as np
import pytest
from kit.at_length import at_length

import tfctr
from tfctr import Categorical, Schema
from tfctr.errors import ConfigError, StorageError
from tfctr.layers import MLP, FeatureEmbedding, Perturbation
from tfctr.models import DNN, TF4CTR, CTRModel, ids_input

SCHEMA = Schema(features=[Categorical("user", size=5), Categorical("item", size=7)], label="click")
IDS = np.stack([np.arange(64) % 5, 5 + np.arange(64) % 7], axis=1).astype("int32")
LABELS = IDS[:, 0] % 2


def saved(model, folder):
    model.save(folder / "model.keras")
    return tfctr.load_model(folder / "model.keras")


def copied(model, folder):
    return copy.deepcopy(model)


def pickled(model, folder):
    return pickle.loads(pickle.dumps(model))  # noqa: S301  our own


def twice(model, folder):
    return saved(saved(model, folder), folder)


@keras.saving.register_keras_serializable("test_changed_layers")
def doubled(x):
    return 2.0 * x


def of_arguments():
    """A model whose layers are made anew from its arguments, and the steps of its MLP."""
    model = DNN(SCHEMA, hidden_units=[4], dropout=0.1, batch_norm=True)
    return model, model.layers[2].steps


def of_an_encoder():
    encoder = MLP([4], dropout=0.1, batch_norm=True)
    return TF4CTR(SCHEMA, embedding_dim=4, simple_encoder=encoder, complex_encoder=MLP([2])), encoder.steps


def of_a_graph():
    ids, encoder = ids_input(SCHEMA), MLP([4], dropout=0.1, batch_norm=True)
    logit = keras.layers.Dense(1)(encoder(FeatureEmbedding(SCHEMA, 4)(ids)))
    return CTRModel(SCHEMA, ids, {"logit": logit}), encoder.steps


def of_plain_keras():
    ids, encoder = ids_input(SCHEMA), MLP([4], dropout=0.1, batch_norm=True)
    return keras.Model(ids, keras.layers.Dense(1)(encoder(FeatureEmbedding(SCHEMA, 4)(ids)))), encoder.steps


def settings(model):
    """What Keras would save of each stock layer, those within others too."""
    stock = [layer for layer in model._flatten_layers(include_self=False) if type(layer).__module__.startswith("keras.")]
    return [layer.get_config() for layer in stock if not isinstance(layer, keras.Model)]


def drawn(model):
    """The model with weights of which each step shows in the predictions."""
    rng = np.random.default_rng(0)
    model.set_weights([rng.uniform(0.5, 1.5, weight.shape) for weight in model.get_weights()])
    return model


@pytest.mark.parametrize("again", at_length([saved, copied, pickled, twice], saved, copied))
@pytest.mark.parametrize("make", [of_arguments, of_an_encoder, of_a_graph, of_plain_keras])
def test_what_is_changed_by_hand_is_kept(make, again, tmp_path):
    model, (_, dense, norm, activation, dropout) = make()
    drawn(model)
    dense.activation, dense.kernel_regularizer = keras.activations.tanh, keras.regularizers.L2(0.25)
    dense.kernel_constraint = keras.constraints.MaxNorm(2.0)
    norm.momentum, norm.epsilon = 0.5, 0.1
    activation.activation, dropout.rate = doubled, 0.7
    twin = again(model, tmp_path)
    assert settings(twin) == settings(model)
    found, expected = (keras.tree.flatten(one(IDS, training=False))[-1] for one in (twin, model))
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    kernel = next(layer for layer in twin._flatten_layers() if layer.name == dense.name).kernel
    assert kernel.regularizer.l2 == 0.25, "as in Keras, it counts in the layer that is made anew"
    assert kernel.constraint.max_value == 2.0


def test_a_cell_within_a_layer_of_keras_is_kept(tmp_path):
    ids = ids_input(SCHEMA)
    lstm, turned = keras.layers.LSTM(3), keras.layers.TimeDistributed(keras.layers.Dense(2))
    fields = turned(FeatureEmbedding(SCHEMA, 4)(ids))
    model = drawn(CTRModel(SCHEMA, ids, {"logit": keras.layers.Dense(1)(lstm(fields))}))
    lstm.cell.activation, turned.layer.activation = keras.activations.relu, keras.activations.sigmoid
    twin = saved(model, tmp_path)
    assert twin.get_layer(lstm.name).activation is keras.activations.relu
    np.testing.assert_allclose(twin(IDS)["logit"], model(IDS)["logit"], rtol=1e-6)


@pytest.mark.parametrize("again", [saved, copied])
def test_arguments_of_our_own_layers_and_models_are_kept(again, tmp_path):
    ids = ids_input(SCHEMA)
    noise = Perturbation(scale=0.5)
    logit = keras.layers.Dense(1)(MLP([2])(noise(FeatureEmbedding(SCHEMA, 4)(ids))))
    model = CTRModel(SCHEMA, ids, {"logit": logit}, embedding_l2=0.5)
    noise.scale, model.embedding_l2 = 0.125, 0.25
    twin = again(model, tmp_path)
    assert twin.get_layer(noise.name).scale == 0.125
    assert twin.embedding_l2 == 0.25
    plain = again(keras.Model(model.input, model.output["logit"]), tmp_path)
    assert plain.get_layer(noise.name).scale == 0.125


def test_what_cannot_be_set_again_is_refused_before_a_file_is_begun(tmp_path):
    ids = ids_input(SCHEMA)
    product = keras.layers.EinsumDense("bfd,de->bfe", (2, 3))
    model = CTRModel(SCHEMA, ids, {"logit": keras.layers.Dense(1)(MLP([2])(product(FeatureEmbedding(SCHEMA, 4)(ids))))})
    product.partial_output_shape = (None, 3)
    with pytest.raises(ConfigError, match=f"`output_shape` of EinsumDense {product.name!r} was changed"):
        model.save(tmp_path / "model.keras")
    assert not (tmp_path / "model.keras").exists()


def test_a_lambda_is_refused_and_a_function_that_is_not_registered_is_asked_for(tmp_path):
    model, steps = of_arguments()
    steps[1].activation = lambda x: 2.0 * x
    with pytest.raises(ConfigError, match=r"`activation` of Dense 'dense.*' is a lambda"):
        model.save(tmp_path / "model.keras")

    def tripled(x):
        return 3.0 * x

    steps[1].activation = tripled
    with pytest.raises(StorageError, match="needs the class 'tripled'"):
        saved(model, tmp_path)
    twin = tfctr.load_model(tmp_path / "model.keras", custom_objects={"tripled": tripled})
    np.testing.assert_allclose(twin(IDS)["logit"], model(IDS)["logit"], rtol=1e-6)


def test_lora_is_refused_with_the_line_that_merges_it(tmp_path):
    model, steps = of_arguments()
    steps[1].enable_lora(2)
    model.compile(keras.optimizers.SGD(0.1))
    model.fit(IDS, LABELS, verbose=0)
    for again in (saved, copied):
        with pytest.raises(ConfigError, match=r"has LoRA(?s:.*)save_weights\('merged\.weights\.h5'\)"):
            again(model, tmp_path)
    assert not (tmp_path / "model.keras").exists()
    model.save_weights(tmp_path / "merged.weights.h5")
    merged, _ = of_arguments()
    merged.load_weights(tmp_path / "merged.weights.h5")
    np.testing.assert_allclose(merged.predict(IDS, verbose=0), model.predict(IDS, verbose=0), rtol=1e-5)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("first", ["compile", "quantize"])
def test_a_quantized_layer_is_kept(first, tmp_path):
    model, steps = of_arguments()
    for step in [first, *{"compile", "quantize"} - {first}]:
        model.compile("sgd") if step == "compile" else steps[1].quantize("int8")
    twin = saved(model, tmp_path)
    assert twin.layers[2].steps[1].quantization_mode == "int8"
    np.testing.assert_allclose(twin.predict(IDS, verbose=0), model.predict(IDS, verbose=0), rtol=1e-6)
