"""What Keras keeps of a layer, kept of every layer of a model: frozen or not, names, precision, regularizers."""

import itertools
import json

import keras
import numpy as np
import pytest
from kit.at_length import at_length
from kit.encoder_contract import round_trip

from tfctr import Categorical, Schema
from tfctr.errors import ConfigError
from tfctr.layers import MLP, FactorizationMachine, SeparateEmbedding, SumFusion, ThroughNetwork
from tfctr.layers.nested import nested_states, restore_nested
from tfctr.models import DNN, TF4CTR, DeepFM

SCHEMA = Schema(features=[Categorical("user", size=5), Categorical("item", size=7)], label="click")
IDS = np.stack([np.arange(64) % 5, 5 + np.arange(64) % 7], axis=1).astype("int32")
LABELS = (IDS[:, :1] % 2).astype("float32")


def small(**arguments):
    encoders = {"simple_encoder": MLP([4]), "complex_encoder": MLP([4, 4])}
    return TF4CTR(SCHEMA, **{"embedding_dim": 4, **encoders, **arguments})


def tables(model):
    return [embedding.get_weights()[0] for embedding in model.embeddings]


def saved(model, folder):
    model.save(folder / "model.keras")
    return keras.saving.load_model(folder / "model.keras")


def copied(model, folder):
    return type(model).from_config(json.loads(json.dumps(model.get_config())))


@pytest.mark.parametrize("again", [saved, copied])
class TestEveryWayToHaveAModelAgain:
    def test_what_is_frozen_stays_so(self, again, tmp_path):
        model = small()
        model.embeddings[0].trainable = False
        model.get_layer(index=3).steps[1].trainable = False  # the first dense layer of an encoder
        twin = again(model, tmp_path)
        assert [layer.trainable for layer in twin._flatten_layers()] == [layer.trainable for layer in model._flatten_layers()]
        assert [table.trainable for table in twin.tables] == [False, True]
        assert len(twin.trainable_variables) == len(model.trainable_variables) == len(model.weights) - 3

    def test_a_frozen_model_stays_so(self, again, tmp_path):
        model = DNN(SCHEMA, hidden_units=[4])
        model.trainable = False
        twin = again(model, tmp_path)
        assert not twin.trainable
        assert twin.trainable_variables == []
        twin.trainable = True
        assert len(twin.trainable_variables) == len(twin.weights)

    def test_names_precision_and_regularizers_stay(self, again, tmp_path):
        model = small()
        first, second = model.get_layer(index=2), model.get_layer(index=3)
        first.name, first.activity_regularizer = "mine", keras.regularizers.L2(0.25)
        second.dtype_policy = "mixed_bfloat16"
        twin = again(model, tmp_path)
        assert [layer.name for layer in twin.layers] == [layer.name for layer in model.layers]
        assert twin.get_layer("mine").activity_regularizer.l2 == 0.25
        assert [layer.dtype_policy for layer in twin._flatten_layers()] == [
            layer.dtype_policy for layer in model._flatten_layers()
        ]
        assert nested_states(twin) == nested_states(model)


def test_a_config_of_an_older_version_is_read():
    config = small().get_config()
    del config["nested"], config["trainable"]
    assert len(TF4CTR.from_config(config).trainable_variables) == len(small().trainable_variables)


def test_states_of_other_layers_are_refused():
    with pytest.raises(ConfigError, match="'through' has other layers within"):
        restore_nested(ThroughNetwork([2], [2], name="through"), nested_states(MLP([2])))


def test_layers_of_a_plain_graph_keep_what_is_within(tmp_path):
    ids = keras.Input((SCHEMA.width,), dtype="int32")
    selection = SeparateEmbedding(SCHEMA, 4)
    easy, hard = selection(ids)
    deep = MLP([3])
    model = keras.Model(ids, SumFusion()([FactorizationMachine()(easy), deep(hard)])["logit"])
    selection.embeddings[1].trainable = False
    deep.steps[1].trainable = False
    twin = saved(model, tmp_path)
    assert [layer.trainable for layer in twin._flatten_layers()] == [layer.trainable for layer in model._flatten_layers()]
    assert len(twin.trainable_variables) == len(model.trainable_variables) == len(model.weights) - 3


def test_a_built_encoder_keeps_what_is_within():
    encoder = ThroughNetwork([3], [3])
    encoder(np.ones((2, 3, 4), "float32"))
    encoder.shallow.trainable = False
    assert [state["trainable"] for state in nested_states(round_trip(encoder))] == [
        state["trainable"] for state in nested_states(encoder)
    ]


@pytest.mark.parametrize(
    ("compiled", "optimizer"),
    at_length(
        list(itertools.product(["before", "after"], ["adam", "lazy_adam", "exact_lazy_adam", "adagrad", "ftrl", "auto"])),
        ("before", "exact_lazy_adam"),
        ("after", "adam"),
    ),
)
def test_training_leaves_a_frozen_table_as_it_is(optimizer, compiled, tmp_path):
    model = small(embedding_l2=0.1, l2_scope="batch")
    if compiled == "before":  # the optimizer has moments of the table
        model.compile(optimizer)
        model.fit(IDS, LABELS, batch_size=16, verbose=0)
    model.embeddings[0].trainable = False
    if compiled == "after":
        model.compile(optimizer)
    else:
        model.make_train_function(force=True)
    frozen, other = tables(model)
    model.fit(IDS, LABELS, batch_size=16, verbose=0)
    model.evaluate(IDS, LABELS)
    np.testing.assert_array_equal(tables(model)[0], frozen)
    assert (tables(model)[1] != other).any()
    twin = saved(model, tmp_path)  # without a warning of moments that find no place
    twin.fit(IDS, LABELS, batch_size=16, verbose=0)
    np.testing.assert_array_equal(tables(twin)[0], frozen)
    assert int(twin.optimizer.iterations) == int(model.optimizer.iterations) + 4


def test_l2_holds_no_frozen_table_small():
    model = small(embedding_l2=0.5)
    for embedding in model.embeddings:
        embedding.set_weights([np.ones(embedding.table.shape)])
    model.embeddings[1].trainable = False
    model.compile("adam")
    rows, dim = SCHEMA.table_rows, 2  # of the narrower table
    assert float(model.loss_terms(IDS, LABELS)["l2"]) == pytest.approx(0.25 * rows * dim)


def test_a_model_without_trainable_weights_says_so():
    model = DeepFM(SCHEMA, hidden_units=[4])
    model.trainable = False
    model.compile("adam")
    before = model.get_weights()
    with pytest.warns(UserWarning, match="does not have any trainable weights"):
        model.fit(IDS, LABELS, verbose=0)
    for new, old in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(new, old)
