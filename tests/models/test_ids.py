"""What a model takes for ids of its fit, and what it refuses: raw values, fractions, another fit's."""

import dataclasses

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

import tfctr
from tfctr.data import Dataset, Split
from tfctr.errors import ConfigError, DataError
from tfctr.evaluation import evaluate
from tfctr.features import Categorical, Numeric, Sequence
from tfctr.models import DNN
from tfctr.schema import Schema
from tfctr.serving import compress_tables, export, fit_calibration
from tfctr.serving.publishing.samples import sample_rows

SCHEMA = Schema([Categorical("user"), Categorical("item"), Numeric("age", "scaled"), Sequence("tags", 2)], label="click")
ROWS = 120  # user: ids 0 to 12; item: 13 to 35; age: bits; tags: 40 to 44


def table(first=0):
    rows = range(ROWS)
    users, items = [first + row % 10 for row in rows], [first + row % 20 for row in rows]
    ages, tags = [float(row) for row in rows], ["a|b" if row % 3 else "" for row in rows]
    return {"user": users, "item": items, "age": ages, "tags": tags, "click": [row // 2 % 2 for row in rows]}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return tfctr.prepare(SCHEMA, train=table(), valid=table(), out=tmp_path_factory.mktemp("ids") / "data")


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """Another fit: as many tokens, but others."""
    return tfctr.prepare(SCHEMA, train=table(5), valid=table(5), out=tmp_path_factory.mktemp("other") / "data")


@pytest.fixture
def model(dataset):
    model = DNN(dataset.schema, embedding_dim=2, hidden_units=[4])
    model.compile()
    return model


@pytest.fixture
def ids(dataset):
    return np.array(dataset.train.ids)


@pytest.fixture
def labels(dataset):
    return dataset.train.labels[:, None]


def with_value(ids, value, row=70, column=1):
    """These ids with one other value; rows of batches of 50 begin at 50, so row 70 is row 20 of batch 1."""
    ids = np.array(ids) if isinstance(value, float) or value < 2**31 else ids.astype("int64")
    ids[row, column] = value
    return ids


# what is read


@pytest.mark.sampled(4)
@pytest.mark.parametrize(
    "form",
    [
        lambda ids: ids,
        lambda ids: ids.astype("int64"),
        lambda ids: ids.tolist(),
        lambda ids: [ids],
        lambda ids: {"ids": ids},
        lambda ids: tf.constant(ids),
        lambda ids: tf.constant(ids, tf.int64),
        lambda ids: pd.DataFrame(ids),
        lambda ids: tf.data.Dataset.from_tensor_slices(ids).batch(50),
        lambda ids: tf.data.Dataset.from_tensor_slices({"ids": ids}).batch(50),
    ],
)
def test_every_form_of_ids_is_read_alike(model, dataset, ids, form):
    expected = model.predict(dataset.train.batches(50, shuffle=False), verbose=0)
    # The middle of a batch of another size may round otherwise in its last bit.
    np.testing.assert_allclose(model.predict(form(ids), batch_size=50, verbose=0), expected, rtol=1e-6)


def test_padding_missing_unknown_and_every_bit_pattern_of_a_number_are_ids(model, dataset, ids):
    fields = dataset.schema.fields
    edge = np.repeat(ids[:1], 4, axis=0)
    for field in fields:
        if field.feature.name != "age":
            edge[0, field.columns], edge[1, field.columns] = field.offset, field.offset + field.feature.size - 1
    edge[:, 2] = np.float32([np.nan, -0.0, np.finfo("f4").tiny, -3e38]).view("i4")
    assert model.predict(edge, verbose=0).shape == (4, 1)


# what is refused


BAD = {
    "below": (12, r"column 1 \(feature 'item'\): 12 is none of its ids, 13 to 35"),
    "above": (36, r"column 1 \(feature 'item'\): 36 is none of its ids, 13 to 35"),
    "negative": (-1, r"feature 'item'\): -1 is"),
    "beyond int32": (2**32 + 20, r"feature 'item'\): 4294967316 is"),
}


@pytest.mark.parametrize("case", BAD)
def test_an_array_is_refused_by_row_feature_and_value(model, ids, labels, case):
    value, message = BAD[case]
    bad = with_value(ids, value)
    for call in (
        lambda: model.fit(bad, labels, verbose=0),
        lambda: model.evaluate(bad, labels),
        lambda: model.predict(bad, verbose=0),
        lambda: model.train_on_batch(bad, labels),
        lambda: model.test_on_batch(bad, labels),
        lambda: model.predict_on_batch(bad),
        lambda: model.predict(bad.tolist(), verbose=0),
        lambda: model.predict(tf.constant(bad), verbose=0),
        lambda: model.predict(pd.DataFrame(bad), verbose=0),
        lambda: model.fit(Split.from_arrays(bad.clip(-(2**31), 2**31 - 1), labels[:, 0]).batches(50), verbose=0),
    ):
        with pytest.raises(DataError, match=r"row 70, column 1 .*\n  fix: prepare the table") as error:
            call()
    assert int(model.optimizer.iterations) == 0
    with pytest.raises(DataError, match=message):
        model.predict(bad, verbose=0)
    assert "dataset.test.ids" in error.value.fix


class Batches(keras.utils.PyDataset):
    def __init__(self, ids, labels, **arguments):
        super().__init__(**arguments)
        self.ids, self.labels = ids, labels

    def __len__(self):
        return -(-len(self.ids) // 50)

    def __getitem__(self, index):
        rows = slice(50 * index, 50 * index + 50)
        return self.ids[rows], self.labels[rows]


def generator(ids, labels):
    yield from (Batches(ids, labels)[index] for index in range(3))


def foreign(ids, labels):
    return tf.data.Dataset.from_tensor_slices((ids, labels)).batch(50)


def of_unknown_shape(ids, labels):
    specs = (tf.TensorSpec(None, tf.int64), tf.TensorSpec((None, 1), tf.float32))
    return tf.data.Dataset.from_generator(lambda: generator(ids, labels), output_signature=specs)


def edited(ids, labels):
    """Batches of a split that a user has changed."""
    return Split.from_arrays(ids, labels[:, 0], name="valid").batches(50).map(lambda ids, labels: (ids, labels)).prefetch(1)


SOURCES = [foreign, of_unknown_shape, generator, Batches, edited, lambda *data: Batches(*data, workers=2)]


@pytest.mark.sampled(2)
@pytest.mark.parametrize("source", SOURCES, ids=["dataset", "unknown shape", "generator", "PyDataset", "edited", "workers"])
def test_batches_are_refused_as_they_come(model, ids, labels, source):
    bad = with_value(ids, 36)
    message = r"`x`: batch 1, row 20, column 1 \(feature 'item'\): 36 is none of its ids, 13 to 35"
    for call in (
        lambda: model.fit(source(bad, labels), verbose=0, steps_per_epoch=3),
        lambda: model.evaluate(source(bad, labels), steps=3),
        lambda: model.predict(source(bad, labels), verbose=0, steps=3),
    ):
        with pytest.raises(DataError, match=message):
            call()
    history = model.fit(source(ids, labels), verbose=0, steps_per_epoch=3, validation_data=(ids, labels)).history
    assert np.isfinite(history["val_loss"]).all()


@pytest.mark.parametrize("source", [foreign, Batches, lambda ids, labels: (ids, labels)])
def test_validation_data_are_checked(model, ids, labels, source):
    with pytest.raises(DataError, match="36 is none of its ids"):
        model.fit(ids, labels, validation_data=source(with_value(ids, 36), labels), verbose=0)
    positional = (50, 1, 0, None, 0.0, (with_value(ids, 36), labels))
    with pytest.raises(DataError, match="36 is none of its ids"):
        model.fit(ids, labels, *positional)


def test_arrays_of_validation_are_checked_before_the_first_step(model, ids, labels):
    with pytest.raises(DataError, match="36 is none of its ids"):
        model.fit(ids, labels, validation_data=(with_value(ids, 36), labels), verbose=0)
    assert int(model.optimizer.iterations) == 0


@pytest.mark.parametrize(
    ("convert", "message"),
    [
        (
            lambda ids: (ids + 0.5).astype("float32"),
            r"float32: ids are whole numbers; row 0, column 0 \(feature 'user'\) holds \d+\.5",
        ),
        (
            lambda ids: with_value(ids.astype("float64"), 20.25),
            r"float64: .* row 70, column 1 \(feature 'item'\) holds 20\.25",
        ),
        (lambda ids: ids.astype("float64"), r"type is float64: ids are whole .*\n  fix: .*x\.astype\('int32'\)"),
        (lambda ids: ids > 3, "type is bool: .* holds False"),
        (lambda ids: ids.astype(str), r"type is <U\d+"),
        (lambda ids: ids.astype(object), "type is object"),
        (lambda ids: ids[:, :3], r"shape is \(120, 3\), and the model reads \(rows, 5\): user, item, age, tags \(2\)"),
        (lambda ids: ids[0], r"shape is \(5,\)"),
        (lambda ids: [[1, 2], [3]], "no matrix of ids"),
        (lambda ids: tf.data.Dataset.from_tensor_slices(ids.astype("float32")).batch(9), "of the type float32"),
        (lambda ids: tf.data.Dataset.from_tensor_slices(ids), r"single rows, not batches.\n  fix: end it with .batch"),
        (lambda ids: tf.data.Dataset.from_tensor_slices(ids[:, :2]).batch(9), r"shape is \(None, 2\)"),
        (lambda ids: tf.data.Dataset.from_tensor_slices({"user": ids[:, 0]}).batch(9), r"raw columns \['user'\]"),
        (lambda ids: {"user": ids[:, 0], "item": ids[:, 1]}, r"raw columns \['user', 'item'\]"),
        (lambda ids: {"x": ids}, r"keys \['x'\], and the model has one input, 'ids'"),
    ],
)
def test_other_types_and_shapes_are_refused(model, ids, convert, message):
    with pytest.raises(DataError, match=message):
        model.predict(convert(ids), verbose=0)


def test_fractions_are_not_cut_by_a_call_either(model, ids):
    with pytest.raises(DataError, match="of the type float64"):
        model(ids + 0.5)


def test_raw_columns_are_told_from_ids_even_where_their_numbers_would_do(dataset):
    schema = dataclasses.replace(dataset.schema, features=dataset.schema.features[:1])
    model = DNN(schema, embedding_dim=2, hidden_units=[4])
    raw = pd.DataFrame({"user": [3, 4]})
    with pytest.raises(DataError, match=r"raw columns \['user'\].*\n  fix: prepare the table.*x\.to_numpy\(\)"):
        model.predict(raw, verbose=0)
    assert model.predict(raw.to_numpy(), verbose=0).shape == (2, 1)


@pytest.mark.parametrize("value", [35, -(2**31) + 35, np.float32(np.inf).view("i4"), 2**31])
def test_a_scaled_number_is_the_bits_that_prepare_writes(model, ids, labels, value):
    bad = with_value(ids, int(value), column=2)
    with pytest.raises(DataError, match=r"row 70, column 2 \(feature 'age'\): -?\d+ is the bits of no float32"):
        model.predict(bad, verbose=0)
    with pytest.raises(DataError, match=r"batch 1, row 20, column 2 \(feature 'age'\)"):
        model.predict(foreign(bad, labels), verbose=0)


# the fit


def test_the_digest_is_that_of_the_fit(dataset, other, tmp_path):
    again = tfctr.prepare(SCHEMA, train=table(), valid=table(), out=tmp_path / "again")
    assert again.schema.digest == dataset.schema.digest == again.train.digest == Dataset.load(tmp_path / "again").valid.digest
    assert other.schema.digest != dataset.schema.digest
    schema = dataset.schema
    renamed = dataclasses.replace(schema, label="bought", group="user", folder=None)
    assert renamed.digest == schema.digest  # other labels, the same ids
    schema.save(tmp_path / "schema.yaml")
    assert Schema.load(tmp_path / "schema.yaml").digest == schema.digest
    with pytest.raises(ConfigError, match="not fitted"):
        _ = SCHEMA.digest


@pytest.mark.parametrize(
    ("index", "change", "same"),
    [
        (0, {"vocabulary_sha256": "0" * 64}, False),
        (0, {"size": 12}, False),
        (2, {"mean": 0.5}, False),
        (3, {"keep": "last"}, False),
        (3, {"separator": ","}, False),
        (3, {"pooling": "sum"}, True),
    ],
)
def test_what_the_digest_covers(dataset, index, change, same):
    features = list(dataset.schema.features)
    features[index] = dataclasses.replace(features[index], **change)
    changed = dataclasses.replace(dataset.schema, features=features)
    assert (changed.digest == dataset.schema.digest) is same


def test_another_fit_is_refused_wherever_a_split_is_taken(model, dataset, other, tmp_path):
    model.fit(dataset.train.batches(50), validation_data=dataset.valid.batches(50), verbose=0)
    steps = int(model.optimizer.iterations)
    for call in (
        lambda: model.fit(other.train.batches(50), verbose=0),
        lambda: model.fit(other.train.batches(50).take(1).prefetch(1), verbose=0),
        lambda: model.fit(dataset.train.batches(50), validation_data=other.valid.batches(50), verbose=0),
        lambda: model.evaluate(other.valid.batches(50)),
        lambda: model.predict(other.valid.batches(50), verbose=0),
        lambda: evaluate(model, other.valid),
        lambda: fit_calibration(model, other.valid),
        lambda: compress_tables(model, other.valid, "float16"),
        lambda: export(model, tmp_path / "ctr", vocabularies=other.folder),
        lambda: sample_rows(other.valid, dataset.schema),
    ):
        with pytest.raises(ConfigError, match=r"of another fit.*\n  fix: .*dataset that the model was trained on"):
            call()
    assert int(model.optimizer.iterations) == steps
    assert not (tmp_path / "ctr").exists()


def test_a_loaded_model_knows_its_fit(model, dataset, other, tmp_path):
    model.save(tmp_path / "model.keras")
    restored = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(
        restored.predict(dataset.valid.batches(50), verbose=0), model.predict(dataset.valid.batches(50), verbose=0)
    )
    with pytest.raises(ConfigError, match="of another fit"):
        restored.predict(other.valid.batches(50), verbose=0)


def test_own_batches_are_handed_on_as_they_are(model, dataset):
    batches = dataset.train.batches(50)
    assert model.ids_check.checked(batches) is batches


def test_a_distributed_dataset_is_known_by_its_type_and_width(model, ids, labels):
    strategy = tf.distribute.OneDeviceStrategy("CPU:0")
    batches = strategy.experimental_distribute_dataset(foreign(ids, labels))
    assert model.ids_check.checked(batches) is batches
    for bad, message in ((ids.astype("float32"), "type float32"), (ids[:, :2], r"\(None, 2\)")):
        with pytest.raises(DataError, match=message):
            model.ids_check.checked(strategy.experimental_distribute_dataset(foreign(bad, labels)))
