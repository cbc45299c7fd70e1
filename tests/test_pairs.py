"""Every selection with every fusion learns from Frappe."""

import keras
import numpy as np
import pytest

import tfctr
from tfctr.layers import FUSIONS, MLP, SELECTIONS
from tfctr.models import TF4CTR
from tfctr.schema import Categorical, Schema

COLUMNS = ["user", "item", "daytime", "weekday", "isweekend", "homework", "cost", "weather", "country", "city"]


@pytest.fixture(scope="module")
def frappe(real_data, tmp_path_factory):
    schema = Schema(features=[Categorical(name, min_count=2) for name in COLUMNS], label="label", group="user")
    folder = real_data("frappe")
    splits = {split: str(folder / f"{split}.parquet") for split in ("train", "valid", "test")}
    return tfctr.prepare(schema, **splits, out=tmp_path_factory.mktemp("frappe") / "data")


@pytest.mark.parametrize("fusion", sorted(FUSIONS))
@pytest.mark.parametrize("selection", sorted(SELECTIONS))
def test_one_epoch_of_frappe(selection, fusion, frappe):
    keras.utils.set_random_seed(1)
    model = TF4CTR(
        frappe.schema,
        embedding_dim=8,
        selection=selection,
        fusion=fusion,
        simple_encoder=MLP([32], batch_norm=True),
        complex_encoder=MLP([32, 32], batch_norm=True),
        embedding_l2=0.01,
    )
    model.compile()
    losses = []
    log = keras.callbacks.LambdaCallback(on_train_batch_end=lambda step, logs: losses.append(float(logs["ctr"])))
    model.fit(frappe.train.batches(2_000), epochs=1, callbacks=[log], verbose=0)
    assert np.isfinite(losses).all()
    # Keras logs the running mean: it falls all the way, and far below that of a constant, ln 2 at the first steps.
    assert losses[-1] < losses[len(losses) // 2] < losses[9]
    assert losses[-1] < 0.5
