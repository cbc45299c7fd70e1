"""Embeddings that begin with vectors from elsewhere: of a language model's texts, of another model, of an earlier run."""

import dataclasses
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfctr.data.fitting import read_vocabulary
from tfctr.data.vectors import BLOCK, UNKNOWN, VectorFile, token_owner
from tfctr.errors import ConfigError, DataError
from tfctr.features import FIRST_KNOWN, PADDING, TokenFeature
from tfctr.layers import FeatureEmbedding
from tfctr.models import CTRModel
from tfctr.models._base import require_model
from tfctr.models._graph import vectors_of
from tfctr.replicas import write_rows
from tfctr.storage import sha256
from tfctr.types import StrPath

_LOG = logging.getLogger(__name__)


def start_with_vectors(model: CTRModel, files: Mapping[str, StrPath]) -> dict[str, dict[str, Any]]:
    """Let embeddings of a fresh model begin with vectors from files, token by token.

    A file is Parquet, with a column of tokens and one of lists of numbers, or `.npy`: see `tfctr.data.vectors`. Its tokens are
    read as `prepare` has read the feature's. All tables of the model that have vectors of the feature begin with them; weights
    of the first order, one number a token, do not.

    | rows | begin with |
    |---|---|
    | of tokens in the file | their vector |
    | of other tokens, and of what is missing or unknown, unless the file has vectors of these | the mean of those vectors |

    Where a table has fewer columns than the vectors, it gets `X V`: `V (width, dim)` are the first right singular vectors of
    `X`, those of the file's vectors that have a known token. No other projection keeps inner products better (Eckart and
    Young); it is made once, and not learnt. Where a table has more columns, the further ones begin with zeros. Vectors are not
    scaled; the numbers of a fresh model's are some 1e-4.

    From here on the vectors are trained, as any others, unless the model is `frozen`: `DNN(schema, frozen=["item"])`.

    They are told to the model, not to the schema, since ids are the same with and without them: a prepared dataset does not
    change, and runs with other files, or none, compare on the same data. A saved model has them as its weights, and does not
    need the file.

    Args:
        model: over the ids of a dataset, whose vocabulary files its `schema` knows.
        files: `{feature: file}`; of features that share a vocabulary, one.

    Returns:
        For each feature the `file`'s name and `sha256`; its `width`; `with_vector` and `without_vector`, how many known tokens
        have one and have none; `without_token`, how many of its vectors are of no known token; and `kept`, by the number of
        columns, the share of their squared length that a projection has kept.

    Raises:
        ConfigError: no such feature, one without tokens of its own text, or of which the model has no vectors; two of one
            vocabulary.
        DataError: none of the tokens is known; or vectors that cannot be used: see `VectorFile`.
        StorageError: a file is missing or corrupt.

    >>> import tempfile, tfctr
    >>> from pyarrow import parquet, table
    >>> schema = tfctr.Schema(features=[tfctr.Categorical("item")], label="click")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     data = tfctr.prepare(schema, train={"item": ["7", "60"], "click": [1, 0]}, out=f"{folder}/data")
    ...     parquet.write_table(table({"token": [60, 8], "vector": [[0.5, 2.0], [1.0, 0.0]]}), f"{folder}/items.parquet")
    ...     model = tfctr.models.DNN(data.schema, embedding_dim=2)
    ...     found = start_with_vectors(model, {"item": f"{folder}/items.parquet"})["item"]
    >>> found["with_vector"], found["without_vector"], found["without_token"]
    (1, 1, 1)
    >>> model.embeddings[0].table.numpy()[3:].tolist()  # 7 has none: the mean
    [[0.5, 2.0], [0.5, 2.0]]

    Reference: [Eckart and Young, 1936](https://doi.org/10.1007/BF02288367).
    """
    require_model(model)
    owners = {name: token_owner(model.schema, name) for name in files}
    for name, owner in owners.items():
        other = next(other for other in owners if owners[other].name == owner.name)
        if other != name:
            raise ConfigError(f"features {other!r} and {name!r} have one vocabulary, and so one row a token.", fix="name one")
        if not vectors_of(model, name):
            fix = "use a model with embeddings, of an embedding_dim above 1"
            raise ConfigError(f"{type(model).__name__} has no vectors of feature {name!r}.", fix=fix)
    model.settle()
    return {name: _begin(model, name, owners[name], path) for name, path in files.items()}


def _begin(model: CTRModel, name: str, owner: TokenFeature, path: StrPath) -> dict[str, Any]:
    file = VectorFile.open(path, name)
    ids = file.ids(model.schema, owner)
    if not (ids >= FIRST_KNOWN).any():
        known = ", ".join(repr(token) for token in read_vocabulary(model.schema, owner)["token"][:3].to_pylist())
        problem = f"none of the tokens of {path} is one of feature {name!r}: {file.examples(ids)} there, {known} here."
        raise DataError(problem, fix="write the tokens as the table has them, which the model was prepared on")
    found = _Found.of(file, ids)
    kept = {}
    for layer in vectors_of(model, name):
        projection, kept[layer.embedding_dim] = found.projection(layer.embedding_dim)
        _write(layer, name, file, ids, found, projection)
    report = {
        "file": Path(path).name,
        "sha256": sha256(path),
        "width": file.width,
        "with_vector": found.tokens,
        "without_vector": (owner.size or 0) - FIRST_KNOWN - found.tokens,
        "without_token": int((ids == UNKNOWN).sum()),
        "kept": {str(dim): share for dim, share in kept.items() if dim < file.width},
    }
    said = "%s: %d tokens begin with a vector of %s, %d without one at their mean; %d vectors are of no known token"
    _LOG.info(said, name, found.tokens, report["file"], report["without_vector"], report["without_token"])
    projected = "%s: vectors of %d numbers, projected to %s, keep %.1f %% of their squared length"
    for dim, share in report["kept"].items():
        _LOG.info(projected, name, file.width, dim, 100 * share)
    return report


@dataclasses.dataclass(frozen=True)
class _Found:
    """What is known of the vectors that have a known token: how many they are, their mean, and `X^T X`."""

    tokens: int
    mean: np.ndarray
    products: np.ndarray

    @classmethod
    def of(cls, file: VectorFile, ids: np.ndarray) -> "_Found":
        total = np.zeros(file.width)
        products = np.zeros((file.width, file.width))
        start = 0
        for block in file.blocks():
            known = block[ids[start : start + len(block)] >= FIRST_KNOWN].astype(np.float64)
            total += known.sum(axis=0)
            products += known.T @ known
            start += len(block)
        tokens = int((ids >= FIRST_KNOWN).sum())
        return cls(tokens, (total / tokens).astype(np.float32), products)

    def projection(self, dim: int) -> tuple[np.ndarray | None, float]:
        """`(width, dim)` float32 and the share of squares that it keeps; None where vectors are taken as they are."""
        width = len(self.mean)
        if dim >= width:
            return (None if dim == width else np.eye(width, dim, dtype=np.float32)), 1.0
        squares, directions = np.linalg.eigh(self.products)  # ascending
        directions = directions[:, : -dim - 1 : -1]
        largest = np.take_along_axis(directions, np.abs(directions).argmax(axis=0)[None], axis=0)
        share = squares[-dim:].sum() / max(squares.sum(), np.finfo(float).tiny)
        return (directions * np.sign(largest)).astype(np.float32), float(share)  # the sign, which nothing else decides


def _write(
    layer: FeatureEmbedding, name: str, file: VectorFile, ids: np.ndarray, found: _Found, projection: np.ndarray | None
) -> None:
    """Set all rows of the feature in a table, but for that of padding."""
    start, size = layer.rows_of(name)

    def write(some: np.ndarray, vectors: np.ndarray) -> None:
        projected = vectors if projection is None else vectors @ projection
        write_rows(layer.table, tf.constant(start + some), tf.constant(projected))

    others = np.ones(size, bool)
    others[[PADDING, *ids[ids != UNKNOWN]]] = False
    rest = np.flatnonzero(others)
    for first in range(0, len(rest), BLOCK):
        some = rest[first : first + BLOCK]
        write(some, np.repeat(found.mean[None], len(some), axis=0))
    place = 0
    for block in file.blocks():
        some = ids[place : place + len(block)]
        write(some[some != UNKNOWN], block[some != UNKNOWN])
        place += len(block)
