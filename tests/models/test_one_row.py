"""A last batch of one row, whose variance is 0 and which has no other row to contrast with; and a table of one row."""

import keras
import numpy as np
import pytest

from tfctr.layers import MLP
from tfctr.models import CETN, DNN, TF4CTR

ROWS, BATCH = 65, 64


def normalized(units):
    return MLP([units], batch_norm=True)


MODELS = {
    "TF4CTR": lambda schema: TF4CTR(schema, 4, simple_encoder=normalized(6), complex_encoder=normalized(8)),
    "CETN": lambda schema: CETN(schema, 4, hidden_units=[8], weight_hidden_units=[4]),
    "CETN with batch normalization": lambda schema: CETN(
        schema, 4, hidden_units=[8], weight_hidden_units=[4], batch_norm=True, use_bias=False
    ),
    "DNN": lambda schema: DNN(schema, 4, hidden_units=[8], batch_norm=True),
}


def compiled(make, schema):
    keras.utils.set_random_seed(1)
    model = make(schema)
    model.compile(optimizer=keras.optimizers.SGD(0.1))
    return model


def is_finite(*arrays):
    return all(np.isfinite(array).all() for array in arrays)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("name", MODELS)
def test_a_last_batch_of_one_row(name, tiny_schema, tiny_ids, tiny_labels):
    ids, labels = tiny_ids(ROWS), tiny_labels(ROWS)
    model, twin = (compiled(MODELS[name], tiny_schema) for _ in range(2))
    history = model.fit(ids, labels, batch_size=BATCH, epochs=1, shuffle=False, verbose=0).history
    for batch in (slice(BATCH), slice(BATCH, ROWS)):
        twin.train_on_batch(ids[batch], labels[batch])
    for found, expected in zip(model.get_weights(), twin.get_weights(), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
    assert is_finite(*history.values(), *model.get_weights())
    whole, cut = (model.evaluate(ids, labels, batch_size=size) for size in (ROWS, BATCH))
    np.testing.assert_allclose(cut, whole, rtol=1e-5)
    probabilities = model.predict(ids, batch_size=BATCH, verbose=0)
    np.testing.assert_allclose(probabilities[BATCH:], model.predict(ids[BATCH:], verbose=0), rtol=1e-5)
    assert is_finite(whole, probabilities)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("contrast", ["do_info_nce", "info_nce"])
def test_cetn_on_a_table_of_one_row(contrast, tiny_schema, tiny_ids, tiny_labels):
    ids, labels = tiny_ids(1), tiny_labels(1)
    model = compiled(lambda schema: CETN(schema, 4, contrast=contrast, contrast_weight=0.5, temperature=0.25), tiny_schema)
    left, right = (np.asarray(model(ids)[name], "float64")[0] for name in ("value_1", "value_2"))
    cosine = left @ right / np.sqrt((left @ left) * (right @ right))
    history = model.fit(ids, labels, epochs=1, verbose=0).history
    # ln(exp(s / t)) less 1 / t, or less s / t: with itself alone, no row is mistaken for another.
    expected = 0.5 * (cosine - 1) / 0.25 if contrast == "do_info_nce" else 0.0
    np.testing.assert_allclose(history["contrast"], [expected], rtol=1e-4, atol=1e-6)
    found = model.evaluate(ids, labels, return_dict=True)
    assert is_finite(*model.get_weights(), model.predict(ids, verbose=0), found["log_loss"])
    assert np.isnan(found["auc"])  # of one class
