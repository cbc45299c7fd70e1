"""A loss of which one term is not finite: training ends with that term's name, and what it keeps is finite."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from kit.at_length import at_length
from kit.commands import tfctr_
from kit.every_model import made

import tfctr
from tfctr.config import Config
from tfctr.errors import TrainingError
from tfctr.layers import FeatureEmbedding
from tfctr.models import DNN, LR, MODELS, CTRModel, ids_input
from tfctr.training import load_run
from tfctr.training.recorder import RunRecorder

ROWS = 64
AUXILIARY = {
    "AFN": ["heads"],
    "CETN": ["contrast", "cosine_1", "cosine_2"],
    "CL4CTR": ["contrast", "alignment", "uniformity"],
    "FCN": ["tri_bce"],
    "FinalNet": ["distillation"],
    "QNNAlpha": ["self_ensemble"],
    "TF4CTR": ["twin_focus"],
}
TERMS = [(name, term) for name, terms in AUXILIARY.items() for term in ("ctr", *terms, "l2")]
FIRST = [("TF4CTR", "twin_focus"), ("TF4CTR", "l2"), ("CETN", "contrast")]


def test_these_are_all_auxiliary_terms(tiny_schema):
    found = {name: list(made(name, tiny_schema).auxiliary) for name in MODELS}
    assert {name: terms for name, terms in found.items() if terms} == AUXILIARY


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    schema = tfctr.Schema([tfctr.Categorical("user"), tfctr.Categorical("item")], label="click")
    table = {"user": list("abab") * 16, "item": list("xxyy") * 16, "click": [0, 1, 1, 0] * 16}
    folder = tmp_path_factory.mktemp("prepared") / "data"
    tfctr.prepare(schema, train=table, valid=table, out=folder)
    return folder


def spoil_after_one_epoch(term, monkeypatch):
    """Let a term be NaN once the first epoch is kept."""
    factor, terms_of, record = tf.Variable(1.0), CTRModel._terms, RunRecorder.on_epoch_end

    def spoiled(model, *arguments):
        terms = terms_of(model, *arguments)
        return {**terms, term: terms[term] * factor}

    def record_then_spoil(recorder, *arguments, **options):
        record(recorder, *arguments, **options)
        factor.assign(np.nan)

    monkeypatch.setattr(CTRModel, "_terms", spoiled)
    monkeypatch.setattr(RunRecorder, "on_epoch_end", record_then_spoil)


@pytest.mark.parametrize(("name", "term"), at_length(TERMS, *FIRST, then=[case for case in TERMS[::5] if case not in FIRST]))
def test_the_command_ends_with_4_and_keeps_the_epoch_before(name, term, data, tmp_path, monkeypatch):
    spoil_after_one_epoch(term, monkeypatch)
    training = {"batch_size": 32, "epochs": 9, "learning_rate": 1e-3, "optimizer": "adam"}
    Config.from_dict({"model": {"name": name, "embedding_l2": 1e-4}, "training": training}).save(tmp_path / "run.yaml")
    result = tfctr_("train", tmp_path / "run.yaml", "--data", data, "--out", tmp_path / "run")
    assert result.exit_code == 4, result.stderr
    assert f"the loss term '{term}' became nan at step 2; the trained weights are those of the step before." in result.stderr
    run = load_run(tmp_path / "run")
    assert (run.metrics["epochs"], run.metrics["finished"]) == (1, False)
    assert np.isfinite(run.history[0][term])
    assert all(np.isfinite(weight).all() for weight in run.model.get_weights())


# a weight that is too large, or none


def stops(model, term, value, tiny_ids, tiny_labels):
    before = model.get_weights()
    with pytest.raises(TrainingError, match=f"the loss term '{term}' became {value} at step 0"):
        model.fit(tiny_ids(ROWS), tiny_labels(ROWS), batch_size=ROWS, verbose=0)
    np.testing.assert_equal(model.get_weights(), before)


@pytest.mark.parametrize("l2_scope", ["table", "batch"])
def test_the_l2_of_a_table_whose_squares_overflow(l2_scope, tiny_schema, tiny_ids, tiny_labels):
    model = LR(tiny_schema, embedding_l2=1e-4, l2_scope=l2_scope)
    model.tables[0].assign(tf.fill(model.tables[0].shape, 1e20))  # 1e40 is no float32; the logits and their loss are finite
    model.compile()
    stops(model, "l2", "inf", tiny_ids, tiny_labels)


def test_what_a_layer_adds(tiny_schema, tiny_ids, tiny_labels):
    ids = ids_input(tiny_schema)
    fields = keras.layers.Flatten()(FeatureEmbedding(tiny_schema, 2)(ids))
    head = keras.layers.Dense(1, kernel_initializer="ones", kernel_regularizer=keras.regularizers.L2(1e38))
    model = CTRModel(tiny_schema, ids, {"logit": head(fields)})  # 1e38 * 10 squares of 1
    model.compile()
    stops(model, "added", "inf", tiny_ids, tiny_labels)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_weight_that_is_no_number_shows_in_the_prediction(value, tiny_schema, tiny_ids, tiny_labels):
    model = DNN(tiny_schema, embedding_dim=4, hidden_units=[8], embedding_l2=1e-4)
    model.trainable_variables[-1].assign([value])  # the bias of the logit
    model.compile()
    stops(model, "ctr", "(nan|inf)", tiny_ids, tiny_labels)
