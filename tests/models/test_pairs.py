"""Every selection with every fusion learns from made clicks, and those of TF4CTR from Frappe."""

import itertools

import keras
import numpy as np
import pytest
from kit.at_length import at_length

import tfctr
from tfctr.data.synthetic import synthetic_schema, write_synthetic
from tfctr.features import Categorical
from tfctr.layers import FUSIONS, MLP, SELECTIONS
from tfctr.metrics import log_loss
from tfctr.models import TF4CTR
from tfctr.schema import Schema

COLUMNS = ["user", "item", "daytime", "weekday", "isweekend", "homework", "cost", "weather", "country", "city"]
NAMES = sorted(set(SELECTIONS) - {"attended"})  # which needs a history: tests/models/test_histories.py
# Each word is in one of the first.
FIRST = list(zip(itertools.cycle(NAMES), sorted(FUSIONS), strict=False))
AUTHORS = ["shared", "separate", "gated", "experts"], ["sum", "weighted_sum", "voting", "concatenation", "experts"]
AUTHORS_PAIRS = at_length(
    list(itertools.product(*AUTHORS)), then=list(zip(itertools.cycle(AUTHORS[0]), AUTHORS[1], strict=False))
)
EVERY_PAIR = list(itertools.product(NAMES, sorted(FUSIONS)))
EVERY_PAIR = at_length(EVERY_PAIR, *FIRST, then=[pair for pair in EVERY_PAIR[1::6] if pair not in FIRST])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    return tfctr.prepare(synthetic_schema(), **write_synthetic(folder, rows=20_000), out=folder / "data")


@pytest.fixture(scope="module")
def frappe(real_data, tmp_path_factory):
    schema = Schema(features=[Categorical(name, min_count=2) for name in COLUMNS], label="label", group="user")
    splits = {split: str(real_data("frappe") / f"{split}.parquet") for split in ("train", "valid", "test")}
    return tfctr.prepare(schema, **splits, out=tmp_path_factory.mktemp("frappe") / "data")


@pytest.mark.sampled(2)
@pytest.mark.parametrize(("selection", "fusion"), EVERY_PAIR)
def test_loss_falls_on_made_clicks(selection, fusion, made):
    assert_loss_falls(selection, fusion, made)


@pytest.mark.parametrize(("selection", "fusion"), AUTHORS_PAIRS)
def test_loss_falls_in_one_epoch_of_frappe(selection, fusion, frappe):
    assert_loss_falls(selection, fusion, frappe)


def assert_loss_falls(selection, fusion, dataset):
    keras.utils.set_random_seed(1)
    model = TF4CTR(
        dataset.schema,
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
    model.fit(dataset.train.batches(dataset.train.rows // 100), epochs=1, callbacks=[log], verbose=0)
    assert np.isfinite(losses).all()
    # Keras logs the running mean. The mean of the last quarter's own steps is what the epoch reached.
    steps, start = len(losses), 3 * len(losses) // 4
    reached = (steps * losses[-1] - start * losses[start - 1]) / (steps - start)
    labels = dataset.train.labels
    assert reached < losses[-1] < losses[9]
    assert reached < log_loss(labels, np.full(len(labels), labels.mean()))
