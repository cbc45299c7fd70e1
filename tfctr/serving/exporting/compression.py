"""Smaller embedding tables for serving, once they have shown that they do no harm.

| form | a row is stored as | bytes |
|---|---|---|
| `float16` | its numbers, rounded | `2 dim` |
| `int8` | `codes = round(row / scale)` and `scale = max(abs(row)) / 127`, float32; it is read as `codes * scale` | `dim + 4` |

Halves are rounded to even. A zero row stays exactly zero. The served graph gathers the rows of a batch as they are stored, and
only those become float32.

Reference: [Guan et al., 2019](https://arxiv.org/abs/1911.02079), who quantize trained embedding tables row by row.
"""

import contextlib
import hashlib
from collections.abc import Iterator
from typing import Any, NoReturn

import keras
import numpy as np
import tensorflow as tf

from tfctr import metrics
from tfctr.data.split import Split
from tfctr.errors import ConfigError, DataError, ExportError, require_number, require_one_of
from tfctr.models._base import PREDICTION, CTRModel, require_model
from tfctr.serving.exporting.calibration import Calibration, all_negatives, require_split
from tfctr.types import Tensor

FORMS = ("float16", "int8")
# Trained TF4CTR, CETN, DeepFM and DNN on Frappe, MovieLens and Criteo moved the worst of up to 100,000 probabilities by at most
# 0.0012 as float16 and 0.026 as int8 (on average below 0.001), and no AUC by more than 0.000011.
MAX_DIFFERENCE = {"float16": 0.005, "int8": 0.05}
MAX_AUC_DROP = 0.0002
_WIDEST_BETTER_AS_FLOAT16 = 4  # up to here, a scale costs as much as int8 saves
_CHUNK = 2**22  # numbers that are converted at a time: no second table in memory


def compress_tables(
    model: CTRModel,
    split: Split,
    form: str,
    *,
    calibration: Calibration | None = None,
    negatives_kept: float = 1.0,
    max_difference: float | None = None,
    max_auc_drop: float = MAX_AUC_DROP,
    batch_size: int = 10_000,
) -> "CompressedTables":
    """Store all embedding tables of a model in a smaller form, unless that changes its predictions too much.

    The model itself stays as it is. A table of at most four columns is stored as float16 under `"int8"`, too: as small, and
    more exact.

    Args:
        model: a trained `CTRModel`.
        split: of a prepared dataset, with both labels: `dataset.valid`. Rows count by their weight where it has weights.
        form: `"float16"` or `"int8"`.
        calibration, negatives_kept: what `export` will be given: probabilities are compared as they will be served. Isotonic
            ones may be steep.
        max_difference: how far the probability of any row may move; if None, 0.005 for float16 and 0.05 for int8. `export`
            holds its golden rows and its examples to it, too.
        max_auc_drop: how far the AUC of the split may fall.
        batch_size: rows scored at a time.

    Returns:
        What `export` takes as `tables`, as long as the model is not trained further; its `figures` have the bytes of the tables
        and the AUC, before and after, and the largest difference of a probability.

    Raises:
        ConfigError: an unknown form, a bound below 0, a `negatives_kept` not in (0, 1], or `model` is no model of ours, or
            `split` no split, or of another fit than the model.
        DataError: all rows of the split have the same label.
        ExportError: a number of a table is not finite or beyond float16, or a bound is not kept.

    >>> import tfctr
    >>> tables = compress_tables(model, dataset.valid, "int8")  # doctest: +SKIP
    >>> tfctr.serving.export(model, "serving/frappe", tables=tables)  # doctest: +SKIP
    """
    require_one_of(FORMS, form, "form of tables")
    require_model(model)
    require_split(split, model)
    max_difference = MAX_DIFFERENCE[form] if max_difference is None else max_difference
    calibration = all_negatives(calibration, negatives_kept)
    require_number("max_difference", max_difference, least=0)
    require_number("max_auc_drop", max_auc_drop, least=0)
    model.settle()
    tables = CompressedTables(model, form, max_difference)
    scored = [tables.probabilities(batch[0], calibration) for batch in split.batches(batch_size, shuffle=False)]
    exact, compressed = np.concatenate(scored, axis=1)
    difference = tables.require_alike(exact, compressed, f"{split.name} row")
    before, after = _auc(split, exact), _auc(split, compressed)
    if before - after > max_auc_drop:
        tables.refuse(f"the AUC of {split.name} falls from {before:.6g} to {after:.6g}, by more than {max_auc_drop:g}")
    tables.figures |= {
        "rows": split.rows,
        "max_difference": difference,
        "before": {"bytes": sum(4 * table.shape.num_elements() for table in model.tables), "auc": before},
        "after": {"bytes": tables.bytes, "auc": after},
    }
    return tables


def reading(model: CTRModel, tables: "CompressedTables | None") -> contextlib.AbstractContextManager[None]:
    """Within it, the model reads these `CompressedTables` in all that is traced; its own if None.

    Raises:
        ConfigError: they are not this model's, as it is now.
    """
    if tables is None:
        return contextlib.nullcontext()
    if not isinstance(tables, CompressedTables) or tables.model is not model:
        problem = f"`tables` is {tables!r}, not made of this model."
        raise ConfigError(problem, fix='pass compress_tables(model, dataset.valid, "int8")')
    if tables.weights_sha256 != _sha256_of_weights(model):
        raise ConfigError("the model has changed since its `tables` were made.", fix="compress its tables again")
    return tables.in_place()


class CompressedTables:
    """The tables of one model in a smaller form; made by `compress_tables`."""

    def __init__(self, model: CTRModel, form: str, max_difference: float) -> None:
        self.model, self.form, self.max_difference = model, form, max_difference
        self.figures: dict[str, Any] = {}
        _require_all_tables(model)
        self.weights_sha256 = _sha256_of_weights(model)
        self._stored = [_stored(table, form) for table in model.tables]
        self._exact = _scorer(model)
        with self.in_place():
            self._compressed = _scorer(model)

    @property
    def bytes(self) -> int:
        """What the tables take, in memory and on disk."""
        return sum(v.shape.num_elements() * v.dtype.size for stored in self._stored for v in stored.variables)

    def describe(self) -> dict[str, Any]:
        """What the model card says."""
        return {"form": self.form, **self.figures}

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Let the model read these tables in all that is traced within."""
        with contextlib.ExitStack() as stack:
            for embedding, stored in zip(self.model.embeddings, self._stored, strict=True):
                stack.enter_context(embedding.reading(stored))
            yield

    def probabilities(self, ids: Tensor, calibration: Calibration | None = None) -> np.ndarray:
        """Probabilities with the model's own tables and with these: `(rows, width) -> (2, rows)`, float64."""
        logits = [scorer(tf.convert_to_tensor(ids))[:, 0] for scorer in (self._exact, self._compressed)]
        if calibration is not None:
            return np.array([calibration(tf.cast(values, tf.float32)) for values in logits], np.float64)
        return np.exp(-np.logaddexp(0, -np.array(logits, np.float64)))

    def require_close(self, ids: Tensor, what: str, calibration: Calibration | None = None) -> None:
        """Refuse to serve, if the probability of one of these rows moves further than the bound."""
        before, after = self.probabilities(ids, calibration)
        self.require_alike(before, after, what)

    def require_alike(self, before: np.ndarray, after: np.ndarray, what: str) -> float:
        """The same for probabilities; gives the largest difference."""
        differences = np.where(np.isnan(before) & np.isnan(after), 0.0, np.abs(before - after))
        for row in np.argsort(differences)[-1:]:  # the largest, or one that is NaN
            if not differences[row] <= self.max_difference:
                change = f"{what} {row} moves the most, from {before[row]:.6g} to {after[row]:.6g}"
                self.refuse(f"the probability of {change}, by more than {self.max_difference:g}")
        return float(differences.max(initial=0.0))

    def refuse(self, problem: str) -> NoReturn:
        """Raise `ExportError`."""
        others = "float16, or " if self.form == "int8" else ""
        fix = f"use {others}the model's own tables; compress_tables() takes other bounds"
        raise ExportError(f"{self.form} tables: {problem}.", fix=fix)


class Float16Table(tf.Module):
    """A table in float16: `(...) ids -> (..., dim)` float32."""

    def __init__(self, table: keras.Variable) -> None:
        super().__init__()
        self.values = _empty(table.shape, tf.float16)
        for ids, rows in _chunks(table):
            self.values.scatter_update(tf.IndexedSlices(_halved(rows, ids, table.path), ids))

    def __call__(self, ids: Tensor) -> Tensor:
        return tf.cast(tf.nn.embedding_lookup(self.values, ids), tf.float32)


class Int8Table(tf.Module):
    """A table in int8, with one scale a row: `(...) ids -> (..., dim)` float32."""

    def __init__(self, table: keras.Variable) -> None:
        super().__init__()
        self.codes, self.scales = _empty(table.shape, tf.int8), _empty((table.shape[0], 1), tf.float32)
        for ids, rows in _chunks(table):
            codes, scales = quantize(rows)
            self.codes.scatter_update(tf.IndexedSlices(codes, ids))
            self.scales.scatter_update(tf.IndexedSlices(scales, ids))

    def __call__(self, ids: Tensor) -> Tensor:
        codes = tf.cast(tf.nn.embedding_lookup(self.codes, ids), tf.float32)
        return codes * tf.nn.embedding_lookup(self.scales, ids)


def quantize(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows as int8: `codes * scales` is nearest to them.

    Shapes:
        `(rows, dim)` float32 `-> (rows, dim)` int8, `(rows, 1)` float32

    >>> codes, scales = quantize(np.float32([[1.27, -0.64, 0.004], [0, 0, 0]]))
    >>> codes.tolist(), scales.round(6).tolist()
    ([[127, -64, 0], [0, 0, 0]], [[0.009999999776482582], [0.0]])
    """
    scales = np.abs(rows).max(axis=1, keepdims=True) / np.float32(127)
    scales[scales < np.finfo(np.float32).tiny] = 0.0  # TensorFlow may take such numbers for zero
    codes = np.divide(rows, scales, out=np.zeros_like(rows), where=scales > 0)
    return np.rint(codes).astype(np.int8), scales


def _stored(table, form):
    narrow = table.shape[1] <= _WIDEST_BETTER_AS_FLOAT16
    return Float16Table(table) if form == "float16" or narrow else Int8Table(table)


def _halved(rows, ids, path):
    halved = tf.cast(rows, tf.float16)  # several times faster than NumPy's
    for row, column in np.argwhere(np.isinf(halved))[:1]:
        problem = f"the table {path!r}, row {ids[row]}: {rows[row, column]:g} is beyond float16, whose largest is 65504."
        raise ExportError(problem, fix="use the model's own tables; train with embedding_l2, which keeps such numbers small")
    return halved


def _empty(shape, dtype):
    with tf.device("CPU"):
        return tf.Variable(tf.zeros(shape, dtype), trainable=False)


def _chunks(table):
    """`(ids, rows)`, a part of the table at a time."""
    step = max(1, _CHUNK // table.shape[1])
    for start in range(0, table.shape[0], step):
        ids = tf.range(start, min(start + step, table.shape[0]))
        # Gathered: to read a table that was updated by rows is to copy it.
        rows = tf.nn.embedding_lookup(table.value, ids).numpy()
        if not np.isfinite(rows).all():
            raise ExportError(f"the table {table.path!r} is not finite.", fix="train the model again")
        yield ids, rows


def _sha256_of_weights(model):
    digest, tables = hashlib.sha256(), {id(table) for table in model.tables}
    for weight in model.weights:
        parts = (rows for _, rows in _chunks(weight)) if id(weight) in tables else [weight.numpy()]
        for part in parts:
            digest.update(part.tobytes())
    return digest.hexdigest()


def _scorer(model):
    """From ids to logits, with the tables that the model reads now."""
    ids = tf.TensorSpec((None, model.schema.width), tf.int32)
    logits = tf.function(lambda ids: model(ids, training=False)[PREDICTION], input_signature=[ids], autograph=False)
    return logits.get_concrete_function()


def _auc(split, probabilities):
    auc = metrics.auc(split.labels, probabilities, split.weights)
    if np.isnan(auc):
        raise DataError(f"{split.name}: all rows have one label, so there is no AUC.", fix="give a split with both labels")
    return auc


def _require_all_tables(model):
    known = {id(table) for table in model.tables}
    for weight in model.weights:
        if getattr(weight, "is_table", False) and id(weight) not in known:
            raise ConfigError(
                f"the table {weight.path!r} is of none of `{type(model).__name__}.embeddings`.",
                fix="give each FeatureEmbedding to CTRModel.__init__",
            )
