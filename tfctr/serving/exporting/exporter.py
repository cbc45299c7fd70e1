"""From a trained model to a published SavedModel that answers raw rows exactly as the model does."""

import contextlib
import dataclasses
import logging
import platform
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

import tfctr
from tfctr.data.dataset import fit_folder
from tfctr.data.shares import told_shares
from tfctr.errors import DataError, ExportError
from tfctr.models._base import CTRModel, require_model
from tfctr.schema import Schema
from tfctr.serving.exporting.check import check_saved_model
from tfctr.serving.exporting.compression import CompressedTables, reading
from tfctr.serving.exporting.golden import Golden, RawColumns, golden_rows, write_golden
from tfctr.serving.exporting.options import ExportOptions, chosen_options
from tfctr.serving.exporting.signatures import ServedGraph, golden_token_rules
from tfctr.serving.runtime.saved_model import SavedModel
from tfctr.serving.runtime.warmup import MOST_ROWS, write_warmup
from tfctr.serving.store.folders import add_version, require_place
from tfctr.serving.wire.token_rules import raw_columns
from tfctr.storage import write_json
from tfctr.types import StrPath

_LOG = logging.getLogger(__name__)

_EXTRA = "assets.extra"  # loaders leave this folder of a SavedModel alone
_MOST_EXAMPLES = 10_000


def export(
    model: CTRModel, folder: StrPath, options: ExportOptions | None = None, *, check: bool = True, **fields: Any
) -> Path:
    """Publish a model as the next version of `folder`, once it has given the answers of `model.predict` bit for bit.

    | signature | inputs | outputs |
    |---|---|---|
    | `serving_default` | each feature by its name, `(batch,)`: text, "" if missing; float64, NaN if missing | `probability` |
    | `ids` | `ids`, `(batch, schema.width)` int32, as prepared; what a feature lacks is out of vocabulary | `probability` |
    | `rank` | the `candidates` as `(rows,)`, all other features, the context, as `(1,)` | `probability`, `(rows,)` |
    | `recommend` | the features of the user, `(1,)` | `item`, `probability`, `score`: `(1, retrieved)`, the best first |
    | `classify` | `inputs`: tf.Example messages, see `parse_tf_examples` | `classes`, `scores`, `(batch, 2)`: no click, click |
    | `regress` | the same | `outputs`, the probability |
    | `explain` | as `serving_default` | `probability`, and what `Explanation` has |
    | `schema` | `rows`, `(batch,)` int32 | `schema`: JSON of what clients must know of tokens, the same for each row |
    | `embedding` | as `serving_default` | `embedding`: the fields of each of `model.embeddings`, flat, side by side |
    | `unseen` | as `serving_default` | for each feature with a vocabulary, `(batch, 3)`: see `UnseenTokens` |

    Tokens are read in their form, as `prepare` reads them: see `Categorical`. Probabilities are `(batch,)`, float32 under every
    dtype policy. A row with a number so extreme that the model answers NaN is answered like a row without values. The
    SavedModel needs no file outside its folder. In there, `assets.extra/` holds `schema.json`, `model_card.json`, and requests
    with their answers twice: `golden.json` to read and to send, and `tf_serving_warmup_requests`, which TensorFlow Serving
    replays before it serves the version.

    Back in Keras, a version is `keras.layers.TFSMLayer(folder / "1", call_endpoint="serving_default", dtype="float64")`: called
    with a dict of columns, whose numbers are float64, while a layer casts them to its own type. The signature to convert to
    TFLite or ONNX is `ids`: it has neither text nor look-ups. Keras' own `model.export` gives logits of ids.

    Args:
        model: a `CTRModel`: one of `tfctr.models`, or `CTRModel(schema, ids, {"logit": ...})` of the tensors of any graph.
        folder: where the versions are; this one becomes `folder/<number>`.
        options: an `ExportOptions`; its defaults if None.
        check: run the strict check before publishing.
        fields: those of `ExportOptions`, which replace the ones in `options`: `export(model, folder, candidates=["item"])`.

    Returns:
        The path of the new version.

    Raises:
        ConfigError: the model has no fitted schema, `vocabularies` is a dataset of another fit, a vocabulary file is not the
            model's, `candidates` or `optional` names no feature, another option cannot be used, `tables` are not this model's
            as it is now, or the name of `folder` cannot be a model's.
        StorageError: a vocabulary file is missing, `folder` is no folder of versions, or cannot be written.
        DataError: the examples are too many, or do not fit the schema.
        ExportError: a weight or an answer is not finite, the SavedModel answers differently, or `tables` move a probability
            of the golden rows or the examples too far. Nothing is published.

    >>> import tempfile
    >>> from tfctr import Categorical, Schema
    >>> schema = Schema(features=[Categorical("user", hash_buckets=9, size=12)], label="click")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     export(tfctr.models.LR(schema), folder).name
    '1'
    """
    folder, options = require_place(folder), chosen_options(options, fields)
    schema = _schema_of(model, options.vocabularies)
    model.settle()
    _refuse_infinite_weights(model)
    with reading(model, options.tables):
        with _as_served(model):
            graph = ServedGraph(model, schema, options)
            golden = list(_golden(graph, options))
        card = {**_model_card(model, options), **_served(graph, options)}
        return publish_graph(folder, graph.write, schema, card, golden, check)


def publish_graph(
    folder: Path, write: Callable[[Path], None], schema: Schema, card: Mapping[str, Any], golden: list[Golden], check: bool
) -> Path:
    """Publish what `write` writes as the next version of `folder`, with its schema, its card and its golden rows.

    Raises:
        StorageError: `folder` cannot be written.
        ExportError: the strict check has found another answer than a golden one. Nothing is published.
    """

    def build(version: Path) -> None:
        write(version)
        (version / _EXTRA).mkdir()
        schema.save(version / _EXTRA / "schema.json")
        write_json(version / _EXTRA / "model_card.json", card)
        write_golden(version / _EXTRA / "golden.json", golden, model=folder.name)
        write_warmup(version, golden, model=folder.name)
        if check:
            check_saved_model(version)

    return add_version(folder, build)


def made_now() -> dict[str, Any]:
    """When, and with which versions: for a model card."""
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {
            "tfctr": tfctr.__version__,
            "keras": keras.__version__,
            "tensorflow": tf.__version__,
            "python": platform.python_version(),
        },
    }


def unseen_of(version: StrPath, schema: Schema, examples: Any) -> dict[str, Any] | None:
    """The shares of the tokens of raw rows that an exported version does not know: see `PredictionClient.unseen`."""
    model = SavedModel(version)
    if (signature := model.signatures.get("unseen")) is None:
        return None
    columns = raw_columns(schema, examples)
    answers = model.run("unseen", {name: columns[name] for name in signature.inputs})
    return told_shares(answers, "the rows to compare versions on")


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


def _golden(graph: ServedGraph, options: ExportOptions) -> Iterator[Golden]:
    """Requests with answers, of golden rows and of examples."""
    rows = golden_rows(graph.schema)
    yield from graph.golden(rows, (1, 3, MOST_ROWS))
    yield from graph.golden_without_optional(rows)
    yield graph.foreign_ids()
    yield golden_token_rules(graph.schema)
    _require_close(graph, rows, "golden row", options.tables)
    if options.examples is not None:
        columns = raw_columns(graph.schema, options.examples)
        _LOG.warning("%s rows of yours go into the version, for all who may read it", f"{len(next(iter(columns.values()))):,}")
        yield from _golden_examples(graph, columns)
        _require_close(graph, columns, "example", options.tables)


def _golden_examples(graph: ServedGraph, columns: RawColumns) -> Iterator[Golden]:
    """The first rows for every signature, the others for `serving_default` alone."""
    rows = len(next(iter(columns.values())))
    if rows > _MOST_EXAMPLES:
        raise DataError(f"there are {rows:,} examples.", fix=f"give at most {_MOST_EXAMPLES:,}: servers replay them")
    for start in range(0, rows, MOST_ROWS):
        part = {name: column[start : start + MOST_ROWS] for name, column in columns.items()}
        if start == 0:
            yield from graph.golden(part, {min(rows, MOST_ROWS)})
        else:
            yield graph.golden_probabilities(part)


def _require_close(graph: ServedGraph, columns: RawColumns, what: str, tables: CompressedTables | None) -> None:
    if tables is not None:
        tables.require_close(graph.raw(columns), what, graph.calibration)


def _schema_of(model: CTRModel, vocabularies: StrPath | None) -> Schema:
    require_model(model)
    schema = model.schema
    if vocabularies is not None:
        folder = fit_folder(vocabularies)
        _require_same_fit(schema, folder)
        schema = dataclasses.replace(schema, folder=str(folder))
    return schema


def _require_same_fit(schema, folder):
    """Refuse a prepared dataset of another fit; a folder with vocabularies alone is compared with them, file by file."""
    if (folder / "schema.json").is_file() and (found := Schema.load(folder / "schema.json")).is_fitted:
        schema.require_fit(found.digest, f"`vocabularies`: {folder}", "give the dataset that the model was trained on")


def _refuse_infinite_weights(model):
    for weight in model.weights:
        if not tf.reduce_all(tf.math.is_finite(weight.value)):
            raise ExportError(f"the weight {weight.path!r} is not finite.", fix="train the model again")


def _model_card(model: CTRModel, options: ExportOptions) -> dict[str, Any]:
    return {
        "model": type(model).__name__,
        "config": _without_schemas(model.get_config()),
        "precision": _precision(model),
        "parameters": model.count_params(),
        "metrics": options.metrics,
        **made_now(),
        "origin": options.origin,
    }


def _served(graph: ServedGraph, options: ExportOptions) -> dict[str, Any]:
    """What the model card says of the answers."""
    return {
        "signatures": sorted(graph.endpoints),
        "candidates": list(graph.candidates or ()),
        "optional": list(graph.raw.optional),
        "retrieved": graph.retriever and graph.retriever.retrieved,
        "calibration": None if graph.calibration is None else graph.calibration.describe(),
        "negatives_kept": options.negatives_kept,
        "tables": None if options.tables is None else options.tables.describe(),
    }


def _precision(model):
    """The lowest precision that a layer computes in."""
    used = {layer.compute_dtype for layer in model._flatten_layers()}
    return next((name for name in ("bfloat16", "float16") if name in used), "float32")


def _without_schemas(config):
    """The arguments without the schemas in them: `schema.json` has the one there is, and not the folders of this machine."""
    if isinstance(config, dict):
        return {key: _without_schemas(value) for key, value in config.items() if key not in ("schema", "nested")}
    return [_without_schemas(value) for value in config] if isinstance(config, list | tuple) else config
