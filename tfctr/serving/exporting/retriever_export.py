"""A retriever as a served version of its own."""

from collections.abc import Iterable
from pathlib import Path

import tensorflow as tf

from tfctr.retrieval.retriever import Retriever
from tfctr.serving.exporting.exporter import made_now, publish_graph
from tfctr.serving.exporting.golden import golden_rows
from tfctr.serving.exporting.raw_features import RawFeatures
from tfctr.serving.exporting.retrieving import ServedRetriever
from tfctr.serving.exporting.signatures import golden_token_rules, token_rules_endpoint, write_saved_model
from tfctr.serving.runtime.warmup import MOST_ROWS
from tfctr.serving.store.folders import require_place
from tfctr.types import StrPath

_DEFAULT = "serving_default"


def export_retriever(
    retriever: Retriever, folder: StrPath, *, retrieved: int = 100, optional: Iterable[str] = (), check: bool = True
) -> Path:
    """Publish a retriever as the next version of `folder`, once it has given its own answers bit for bit.

    | signature | inputs | outputs |
    |---|---|---|
    | `retrieve`, `serving_default` | the user's features by name, `(batch,)` | `item`, `score`: `(batch, retrieved)` |
    | `user_vector` | the same | `vector`, `(batch, vector_dim)` |
    | `item_vector` | `place`, `(batch,)` int32, from 0 to the number of items - 1 | `item`, `vector` |
    | `schema` | `rows`, `(batch,)` int32 | `schema`, as in `export` |

    `export(model, folder, retriever=...)` makes one version of a ranker and a retriever, which recommends. The two vectors are
    what an approximate index elsewhere is built of, and asked with.

    Args:
        retriever: a `Retriever`, whose dataset has its vocabulary files.
        folder: where the versions are; this one becomes `folder/<number>`.
        retrieved: how many items are retrieved for a user; all where there are fewer.
        optional: names of the user's features that requests may leave out, and that are then missing.
        check: run the strict check before publishing.

    Returns:
        The path of the new version.

    Raises:
        ConfigError: an option that cannot be used, or vocabulary files of another dataset.
        StorageError: a vocabulary file is missing, `folder` is no folder of versions, or cannot be written.
        ExportError: the SavedModel answers differently. Nothing is published.
    """
    folder, schema = require_place(folder), retriever.schema
    raw = RawFeatures(schema, optional)
    with tf.device("CPU"):
        served = ServedRetriever(retriever, raw, retrieved)
        rows = golden_rows(schema)
        parts = [{name: column[:size] for name, column in rows.items()} for size in (1, 3, MOST_ROWS)]
        golden = [*(batch for part in parts for batch in served.golden(part)), golden_token_rules(schema)]
        golden += [{**batch, "signature": _DEFAULT} for batch in golden if batch["signature"] == "retrieve"]
    endpoints = {_DEFAULT: served.endpoints["retrieve"], **served.endpoints, **token_rules_endpoint(schema)}
    card = {
        "model": type(retriever).__name__,
        "config": {
            "item": list(retriever.items.features),
            "options": retriever.options.to_dict(),
            "items": len(retriever.items),
        },
        "precision": "float32",
        "parameters": retriever.user_tower.count_params() + retriever.item_tower.count_params(),
        "metrics": {},
        "history": retriever.history,
        "signatures": sorted(endpoints),
        "retrieved": served.retrieved,
        **made_now(),
    }
    return publish_graph(folder, lambda version: write_saved_model(version, endpoints, [served]), schema, card, golden, check)
