"""`tfctr.evaluation.embeddings`: what a model has learnt of each token, as a file for other programs, or for the next model."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import tensorflow as tf
from pyarrow import parquet

from tfctr.data.fitting import read_vocabulary
from tfctr.data.vectors import BLOCK, ID, KIND, KINDS, TOKEN, VECTOR, token_owner
from tfctr.errors import ConfigError
from tfctr.evaluation.scoring import fit_and_model, require_out, require_run_or_model
from tfctr.features import FIRST_KNOWN, MISSING
from tfctr.layers import FeatureEmbedding
from tfctr.models import CTRModel
from tfctr.models._graph import embeddings_of
from tfctr.replicas import resource
from tfctr.storage import atomic_file
from tfctr.training import Run
from tfctr.types import StrPath

_FILE = pa.schema(
    [
        pa.field(KIND, pa.string(), nullable=False),
        pa.field(TOKEN, pa.string()),
        pa.field(ID, pa.int32(), nullable=False),
        pa.field(VECTOR, pa.list_(pa.float32()), nullable=False),
    ]
)


def embeddings(
    model: Run | CTRModel, feature: str, *, out: StrPath, table: int | None = None, data: StrPath | None = None
) -> dict[str, Any]:
    """Write the vectors of a feature as a Parquet file, one row a token, by row groups.

    | column | is |
    |---|---|
    | `kind` | `"token"`; or `"missing"` and `"out_of_vocabulary"`, the first two rows, which have no token |
    | `token` | its text in the form that `prepare` has given it; null in those two rows |
    | `id` | within the feature, from 1 on: its row of the table, but for the feature's offset |
    | `vector` | float32 numbers, as the model reads them |

    `tfctr.training.start_with_vectors` takes the file, and gives a table of as many columns the same rows.

    Args:
        model: a `tfctr.training.Run`, or a model.
        feature: a categorical one or a sequence, with tokens of its own or those of another feature.
        out: the new `.parquet` file. It appears when all is written.
        table: which of the model's tables that have the feature, from 1 on; None for the widest, and of those the first. TF4CTR
            with separate ones has two.
        data: the folder of the dataset that the model was trained on, if that is no longer where it was.

    Returns:
        `rows`; `width`, the numbers of a vector; `table`, which one was written; and `widths`, those of all that there are.

    Raises:
        ConfigError: no such feature, one that is numeric or hashed, or no such table; or a model of another fit than `data`.
        StorageError: a file is missing or corrupt, or `out` exists.

    >>> from tfctr.evaluation import embeddings
    >>> embeddings(run, "item", out="items.parquet")  # doctest: +SKIP
    {'rows': 5384, 'width': 16, 'table': 1, 'widths': [16, 16]}
    """
    path = Path(out)
    require_run_or_model(model)
    require_out(path)
    fit, model = fit_and_model(model, data)
    owner = token_owner(fit.schema, feature)
    layers = [layer for layer in embeddings_of(model) if layer.rows_of(feature)[1]]
    widths = [layer.embedding_dim for layer in layers]
    number = _number(table, widths, feature)
    model.settle()
    with atomic_file(path, "wb") as file, parquet.ParquetWriter(file, _FILE) as writer:
        rows = _write(writer, layers[number - 1], feature, read_vocabulary(fit.schema, owner)[TOKEN])
    return {"rows": rows, "width": widths[number - 1], "table": number, "widths": widths}


def _number(table: int | None, widths: Sequence[int], feature: str) -> int:
    if not widths:
        raise ConfigError(f"the model has no table with feature {feature!r}.", fix="name another feature")
    if table is None:
        return widths.index(max(widths)) + 1
    if not isinstance(table, int) or not 1 <= table <= len(widths):
        raise ConfigError(f"`table` is {table!r}.", fix=f"use 1 to {len(widths)}: they have the widths {list(widths)}")
    return table


def _write(writer: parquet.ParquetWriter, layer: FeatureEmbedding, feature: str, tokens: pa.ChunkedArray) -> int:
    """Write the feature's rows of a table, a row group each block, and return how many there are."""
    first, size = layer.rows_of(feature)
    all_tokens = pa.chunked_array([pa.nulls(FIRST_KNOWN - MISSING, pa.string()), *tokens.cast(pa.string()).chunks])
    for start in range(MISSING, size, BLOCK):
        ids = np.arange(start, min(start + BLOCK, size), dtype=np.int32)
        vectors = resource(layer.table).sparse_read(tf.constant(first + ids)).numpy()
        ends = np.arange(len(ids) + 1, dtype=np.int32) * layer.embedding_dim
        kinds = [KINDS.get(id, TOKEN) for id in ids.tolist()]
        found = all_tokens.slice(start - MISSING, len(ids)).combine_chunks()
        columns = [pa.array(kinds), found, pa.array(ids), pa.ListArray.from_arrays(pa.array(ends), pa.array(vectors.ravel()))]
        writer.write_table(pa.Table.from_arrays(columns, schema=_FILE))
    return size - MISSING
