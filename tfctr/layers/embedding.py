"""The shared embedding table: ids in, fields out."""

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from tfctr.errors import require_count, require_one_of
from tfctr.features import FIRST_KNOWN, MISSING, Numeric, Sequence
from tfctr.layers.views import IdsLayer
from tfctr.schema import Field, Schema
from tfctr.types import Shape, Tensor


@keras.saving.register_keras_serializable("tfctr")
class FeatureEmbedding(IdsLayer):
    """One table for all features: one gather, then one vector a field.

    A token's field is its row of the table. A `Sequence`'s field is the mean, sum or sum / sqrt(count) of the rows of what is
    not padding. A scaled number's field is `z * row`, or the row of "missing" when z is NaN; z lies in the id matrix as the
    bits of its float32.

    Args:
        schema: a fitted `Schema`.
        embedding_dim: width of the table.
        features: names of the features to embed, in the schema's order; None is all. The table has their rows only.

    Shapes:
        `(batch, schema.width)` int32 `-> (batch, fields, embedding_dim)`

    Weights:
        `table`: `(schema.table_rows, embedding_dim)`, float32 under every dtype policy, drawn with a standard deviation of 1e-4
        as in the authors' code.

    Raises:
        ConfigError: the schema is not fitted, `embedding_dim` is below 1, or no feature has one of the names.

    >>> from tfctr import Categorical, Schema
    >>> schema = Schema(features=[Categorical("user", size=5), Categorical("item", size=7)], label="click")
    >>> tuple(FeatureEmbedding(schema, embedding_dim=4)(np.array([[3, 5 + 6]], "int32")).shape)
    (1, 2, 4)
    """

    _shared: Collection[Field] = ()  # see `sharing`

    def __init__(
        self, schema: Schema | Mapping[str, Any], embedding_dim: int, features: Collection[str] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        require_count("embedding_dim", embedding_dim)
        self.schema = Schema.from_config(schema)
        self.embedding_dim = embedding_dim
        every = self.schema.fields
        for name in features or ():
            require_one_of([field.feature.name for field in every], name, "feature")
        self.features = None if features is None else tuple(features)
        self.fields = tuple(field for field in every if features is None or field.feature.name in features)
        sizes = [field.size for field in self.fields]
        self.rows = sum(sizes)
        before = np.cumsum([0, *sizes[:-1]])  # rows of the table before each field's
        self.shifts = np.zeros(self.schema.width, "int32")
        for field, first in zip(self.fields, before, strict=True):
            self.shifts[field.columns] = field.offset - first
        scaled = np.full(self.schema.width, False)
        for field in every:
            scaled[field.columns] = isinstance(field.feature, Numeric) and field.feature.transform == "scaled"
        self.scaled_columns = scaled
        self.column_offsets = np.repeat([f.offset for f in every], [f.feature.width for f in every]).astype("int32")

    def build(self, input_shape: Shape) -> None:
        self.compute_output_shape(input_shape)
        # Not autocast: a mixed-precision policy would cast the whole table at each read; the rows are cast instead.
        self.table = self.add_weight(
            name="table",
            shape=(self.rows, self.embedding_dim),
            initializer=keras.initializers.RandomNormal(stddev=1e-4),
            dtype="float32",
            autocast=False,
        )
        self.table.is_table = True  # for optimizers that work by rows

    def call(self, ids: Tensor) -> Tensor:
        ids = ops.cast(ids, "int32")  # whatever integers came: the bits of numbers are those of int32
        own = [field for field in self.fields if field not in self._shared]
        fields = self._embed(ids, own)  # (batch, own, dim)
        if self._shared:
            once = self._embed(ids[:1], self._shared)  # (1, shared, dim)
            once = tf.repeat(once, ops.shape(ids)[0], axis=0)  # (batch, shared, dim)
            place = np.argsort([field.column for field in [*self._shared, *own]])
            fields = tf.gather(tf.concat([once, fields], axis=1), place, axis=1)  # (batch, fields, dim)
        return ops.cast(fields, self.compute_dtype)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        batch, _ = self.ids_shape(input_shape)
        return batch, len(self.fields), self.embedding_dim

    def squared_norm(self) -> Tensor:
        """Sum of squares of the whole table."""
        return ops.sum(ops.square(self.table))

    def distinct_rows(self, ids: Tensor) -> Tensor:
        """The table rows that a batch reads, each once, on all devices together: `(batch, schema.width) -> (rows,)`."""
        if tf.distribute.get_strategy().num_replicas_in_sync > 1:
            ids = tf.distribute.get_replica_context().all_gather(ids, axis=0)
        rows, _ = self._rows(ids)
        if self.features is not None:
            columns = self._columns(self.fields)
            rows = tf.gather(rows, columns, axis=1) - self.shifts[columns]
        # Made flat as the gradient of the gather does it: TensorFlow then looks for a batch's duplicates once, for all tables.
        return tf.unique(tf.reshape(rows, tf.expand_dims(tf.size(rows), 0)))[0]

    @contextlib.contextmanager
    def reading(self, gather: Callable[[Tensor], Tensor]) -> Iterator[None]:
        """Take rows from `gather(ids)`, not from the table, in all that is traced within."""
        self._gather = gather
        try:
            yield
        finally:
            del self._gather

    @contextlib.contextmanager
    def sharing(self, names: Collection[str]) -> Iterator[None]:
        """Pool these features of the first row alone, for all rows, in all that is traced within.

        Features of one column are embedded row by row all the same: to read a row of the table costs less than to copy one.
        """
        self._shared = [field for field in self.fields if field.feature.name in names and isinstance(field.feature, Sequence)]
        try:
            yield
        finally:
            del self._shared

    def get_config(self) -> dict[str, Any]:
        arguments = {"schema": self.schema.get_config(), "embedding_dim": self.embedding_dim, "features": self.features}
        return {**super().get_config(), **arguments}

    def _columns(self, fields: Collection[Field]) -> np.ndarray:
        """The columns of these fields in the id matrix."""
        return np.concatenate([np.arange(self.schema.width)[field.columns] for field in fields])

    def _rows(self, ids: Tensor) -> tuple[Tensor, Tensor | None]:
        """The row of each cell in a table of all features `(batch, columns)`, and its factor `(batch, columns, 1)` or None."""
        if not self.scaled_columns.any():
            return ids, None
        numbers = tf.bitcast(ids, tf.float32)
        missing = tf.math.is_nan(numbers)
        ids = tf.where(self.scaled_columns, self.column_offsets + tf.where(missing, MISSING, FIRST_KNOWN), ids)
        return ids, tf.where(self.scaled_columns & ~missing, numbers, 1.0)[..., None]

    def _gather(self, ids: Tensor, /) -> Tensor:
        # On the variable itself: ResourceGather reads rows. `keras.ops.take` would first read the whole table.
        return tf.nn.embedding_lookup(self.table.value, ids)

    def _embed(self, ids: Tensor, fields: Collection[Field]) -> Tensor:
        """These fields alone, of `self.fields`: `(batch, schema.width) -> (batch, len(fields), dim)`."""
        ids, factors = self._rows(ids)
        columns = self._columns(fields)
        if len(columns) < self.schema.width:
            ids, factors = (cells if cells is None else tf.gather(cells, columns, axis=1) for cells in (ids, factors))
        rows = self._gather(ids if self.features is None else ids - self.shifts[columns])  # (batch, columns, dim)
        return self._pool(fields, ids, rows if factors is None else rows * factors)

    def _pool(self, fields: Collection[Field], ids: Tensor, rows: Tensor) -> Tensor:
        if not any(isinstance(field.feature, Sequence) for field in fields):
            return rows  # one column a field already
        widths = [field.feature.width for field in fields]
        parts = zip(fields, tf.split(ids, widths, axis=1), tf.split(rows, widths, axis=1), strict=True)
        return ops.concatenate([self._field(*part) for part in parts], axis=1)

    def _field(self, field: Field, ids: Tensor, rows: Tensor) -> Tensor:
        if not isinstance(field.feature, Sequence):
            return rows
        present = ops.cast(ids != field.offset, rows.dtype)[..., None]  # (batch, width, 1)
        total = ops.sum(rows * present, axis=1, keepdims=True)  # (batch, 1, dim)
        count = ops.maximum(ops.sum(present, axis=1, keepdims=True), 1.0)  # (batch, 1, 1)
        return total / {"sum": 1.0, "mean": count, "sqrtn": ops.sqrt(count)}[field.feature.pooling]
