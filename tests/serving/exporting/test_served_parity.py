"""Raw rows through gRPC have the probabilities that the model predicts for the same rows, prepared: rows of any value."""

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from kit.at_length import at_length
from kit.every_model import made
from kit.parity_table import COLUMNS, SCHEMA, TRAIN, table
from kit.saved_models import client_of
from kit.served_rows import spread

import tfctr
from tfctr.models import MODELS
from tfctr.serving.runtime.saved_model import SavedModel
from tfctr.serving.runtime.stand_in import LocalServer

ROWS, BATCH_SIZES = 1000, (1000, 64)
SEPARATORS = {feature.name: feature.separator for feature in SCHEMA.features if hasattr(feature, "separator")}
NOTHING = {feature.name: [None] for feature in SCHEMA.features}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Raw columns that Hypothesis has drawn, and the dataset in which they are the test split."""
    rows = []

    @settings(max_examples=ROWS, phases=[Phase.generate], database=None, suppress_health_check=list(HealthCheck))
    @given(st.fixed_dictionaries(COLUMNS))
    def draw(row):
        rows.append(row)

    draw()
    columns = {name: [row[name] for row in rows[:ROWS]] for name in COLUMNS}
    test = table({**columns, "click": [row % 2 for row in range(ROWS)]})
    return columns, tfctr.prepare(SCHEMA, train=table(TRAIN), test=test, out=tmp_path_factory.mktemp("drawn") / "data")


@pytest.mark.parametrize("name", at_length(sorted(MODELS), "TF4CTR", then=["CETN", "AFN", "AutoInt", "DIN", "FiGNN"]))
def test_raw_rows_are_served_as_they_are_predicted(name, drawn, tmp_path):
    columns, dataset = drawn
    model = spread(made(name, dataset.schema), scale=0.3)
    tfctr.serving.export(model, tmp_path / "ctr")  # the strict check of every model, too
    with LocalServer(tmp_path / "ctr", port=0) as server:

        def served(batch_size, columns=columns):
            with client_of(server, separator=SEPARATORS, max_rows=batch_size, max_bytes=2**30) as client:
                return client.predict(columns)

        def predicted(batch_size):
            """As `export` promises, an extreme row that the model has no number for is answered like one without values."""
            probabilities = model.predict(dataset.test.ids, batch_size=batch_size, verbose=0)[:, 0]
            return np.where(np.isnan(probabilities), served(1, NOTHING), probabilities)

        answers = {batch_size: served(batch_size) for batch_size in BATCH_SIZES}
        for batch_size, answer in answers.items():
            np.testing.assert_array_equal(answer.view(np.int32), predicted(batch_size).view(np.int32), str(batch_size))
    # Float32 rounds the sums of extreme numbers by more than a probability, in an order that the batch size decides.
    usual = np.array([number is None or abs(number) < 10 for number in columns["scaled"]])
    assert len(np.unique(answers[ROWS][usual])) > ROWS / 20  # about 100 of EDCN's, whose products of products are small
    np.testing.assert_allclose(answers[64][usual], answers[ROWS][usual], rtol=0, atol=2e-7)


def test_rows_that_an_optimizer_has_put_off_are_served_up_to_date(tiny_schema, tiny_ids, tiny_labels, tmp_path):
    model = MODELS["LR"](tiny_schema)
    model.compile(optimizer=tfctr.optimizers.ExactLazyAdam(0.1))
    for seed in (0, *[1] * 20):  # what only the first batch reads still moves afterwards
        model.train_on_batch(tiny_ids(4, seed), tiny_labels(4, seed))
    version = tfctr.serving.export(model, tmp_path / "ctr", negatives_kept=0.5)
    ids = tiny_ids(4, 0)
    clicks = model.predict(ids, batch_size=4, verbose=0)[:, 0].astype(np.float64)
    served = SavedModel(version).run("ids", {"ids": ids})["probability"]
    np.testing.assert_allclose(served, clicks / (clicks + (1 - clicks) / 0.5), rtol=0, atol=2e-7)
