"""From a trained model to a published SavedModel that answers raw rows exactly as the model does."""

import contextlib
import dataclasses
import math
import platform
from datetime import UTC, datetime
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

import tfctr
from tfctr.errors import ConfigError, ExportError
from tfctr.schema import Schema, Sequence
from tfctr.serving.check import check_saved_model
from tfctr.serving.golden import golden_rows, write_golden
from tfctr.serving.publish import publish
from tfctr.serving.raw_features import RawFeatures, in_range
from tfctr.serving.rows import to_arrays
from tfctr.storage import write_json

_EXTRA = "assets.extra"  # loaders leave this folder of a SavedModel alone
_MISSING = {tf.string: [""], tf.float64: [math.nan]}


def export(model, folder, *, vocabularies=None, metrics=None, examples=None, check=True):
    """Publish a model as the next version of `folder`, once it has given the answers of `model.predict` bit for bit.

    | signature | inputs |
    |---|---|
    | `serving_default` | every feature by its name, `(batch,)`: text, "" for missing, or float64, NaN for missing |
    | `ids` | `ids`, `(batch, schema.width)` int32, as in a prepared dataset; what a feature lacks is out of vocabulary |

    Both answer `{"probability": (batch,)}`, float32 under every dtype policy. A row with a number so extreme that the model
    answers NaN is answered like a row without values. The SavedModel needs no file outside its folder. In there,
    `assets.extra/` holds `schema.json`, `model_card.json`, and `golden.json` with requests and answers to replay.

    Args:
        model: a `CTRModel`.
        folder: where the versions are; this one becomes `folder/<number>`.
        vocabularies: the folder of the prepared dataset, if it is no longer where the model was trained.
        metrics: `{name: number}` for the model card.
        examples: raw rows, in any form that `PredictionClient` takes, that join the golden rows.
        check: run the strict check before publishing.

    Returns:
        The path of the new version.

    Raises:
        ConfigError: the model has no fitted schema, or a vocabulary file is not the model's.
        StorageError: a vocabulary file is missing, or `folder` cannot be written.
        DataError: the examples do not fit the schema.
        ExportError: a weight or an answer is not finite, or the SavedModel answers differently. Nothing is published.

    >>> import tempfile
    >>> from tfctr.schema import Categorical
    >>> schema = Schema(features=[Categorical("user", hash_buckets=9, size=12)], label="click")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     export(tfctr.models.LR(schema), folder).name
    '1'
    """
    schema = _schema_of(model, vocabularies)
    _refuse_infinite_weights(model)
    raw = RawFeatures(schema)
    with _as_served(model):
        graph = _ServedGraph(model, raw)
        golden = [*_golden_batches(graph, golden_rows(graph.schema), (1, 3, 64)), _foreign_ids(graph)]
        if examples is not None:
            columns = _example_columns(graph.schema, examples)
            golden += _golden_batches(graph, columns, {len(column) for column in columns.values()} - {0})

    def build(version):
        graph.write(version)
        (version / _EXTRA).mkdir()
        graph.schema.save(version / _EXTRA / "schema.json")
        write_json(version / _EXTRA / "model_card.json", _model_card(model, metrics or {}))
        write_golden(version / _EXTRA / "golden.json", golden, model=Path(folder).name)
        if check:
            check_saved_model(version, golden)

    return publish(folder, build)


class _ServedGraph:
    """Both signatures of a model, and the answers that they must give."""

    def __init__(self, model, raw):
        self.model, self.raw, self.schema = model, raw, raw.schema
        nothing = {name: tf.constant(_MISSING[spec.dtype], spec.dtype) for name, spec in raw.signature.items()}
        self.fallback = self._predict(raw(nothing).numpy())[0]
        if not math.isfinite(self.fallback):
            raise ExportError(f"the model answers {self.fallback} to a row without values.", fix="train the model again")

    def write(self, folder):
        archive = keras.export.ExportArchive()
        archive.track(self.model)
        archive.track(self.raw)
        archive.add_endpoint("serving_default", self._serving_default, input_signature=[self.raw.signature])
        ids = tf.TensorSpec((None, self.schema.width), tf.int32, name="ids")
        archive.add_endpoint("ids", self._ids, input_signature=[ids])
        archive.write_out(folder, verbose=False)

    def answers(self, ids):
        """What `model.predict` gives for `ids` at this batch size, except for what is not a number."""
        probability = self._predict(ids)
        return {"probability": np.where(np.isnan(probability), self.fallback, probability)}

    def _serving_default(self, columns):
        return self._probability(self.raw(columns))

    def _ids(self, ids):
        return self._probability(in_range(self.schema, tf.ensure_shape(ids, (None, self.schema.width))))

    def _probability(self, ids):
        probability = tf.cast(self.model.predict_step(ids), tf.float32)[:, 0]
        return {"probability": tf.where(tf.math.is_nan(probability), self.fallback, probability)}

    def _predict(self, ids):
        return self.model.predict(ids, batch_size=len(ids), verbose=0)[:, 0].astype("float32")


@contextlib.contextmanager
def _as_served(model):
    """Let `predict` round as the check and TensorFlow Serving do: in a graph, on the CPU."""
    eagerly = model.run_eagerly
    model.run_eagerly, model.predict_function = False, None
    try:
        with tf.device("CPU"):
            yield
    finally:
        model.run_eagerly, model.predict_function = eagerly, None


def _golden_batches(graph, columns, sizes):
    """The first rows of `columns`, in batches of these sizes, for both signatures."""
    for size in sizes:
        inputs = {name: column[:size] for name, column in columns.items()}
        ids = graph.raw(inputs).numpy()
        answers = graph.answers(ids)
        yield {"signature": "serving_default", "inputs": inputs, "outputs": answers}
        yield {"signature": "ids", "inputs": {"ids": ids}, "outputs": answers}


def _foreign_ids(graph):
    """Ids that belong to no feature, or to another one."""
    ids = np.int32([[number] * graph.schema.width for number in (-1, 0, graph.schema.table_rows, 2**31 - 1)])
    return {"signature": "ids", "inputs": {"ids": ids}, "outputs": graph.answers(in_range(graph.schema, ids).numpy())}


def _example_columns(schema, examples):
    dtypes = {"string": np.dtype(object), "number": np.dtype(np.float64)}
    inputs = {feature.name: (dtypes[feature.raw_type], (None,)) for feature in schema.features}
    separators = {feature.name: feature.separator for feature in schema.features if isinstance(feature, Sequence)}
    return to_arrays(examples, inputs, separators)


def _schema_of(model, vocabularies):
    schema = getattr(model, "schema", None)
    if not isinstance(schema, Schema):
        raise ConfigError(f"{type(model).__name__} has no `schema`.", fix="export a model of tfctr.models")
    if vocabularies is not None:
        schema = dataclasses.replace(schema, folder=str(vocabularies))
    return schema


def _refuse_infinite_weights(model):
    for weight in model.weights:
        if not tf.reduce_all(tf.math.is_finite(weight.value)):
            raise ExportError(f"the weight {weight.path!r} is not finite.", fix="train the model again")


def _model_card(model, metrics):
    return {
        "model": type(model).__name__,
        "config": _without_schemas(model.get_config()),
        "parameters": model.count_params(),
        "metrics": {name: None if value is None or math.isnan(value) else value for name, value in metrics.items()},
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {
            "tfctr": tfctr.__version__,
            "keras": keras.__version__,
            "tensorflow": tf.__version__,
            "python": platform.python_version(),
        },
    }


def _without_schemas(config):
    """The config without the schemas in it: `schema.json` has the one there is, and not the folders of this machine."""
    if isinstance(config, dict):
        return {key: _without_schemas(value) for key, value in config.items() if key != "schema"}
    return [_without_schemas(value) for value in config] if isinstance(config, list | tuple) else config
