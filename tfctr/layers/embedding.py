"""The shared embedding table: ids in, fields out."""

import contextlib
import contextvars
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from tfctr.errors import require, require_count, require_one_of
from tfctr.features import FIRST_KNOWN, MISSING, Numeric, Sequence
from tfctr.layers.views import IdsLayer
from tfctr.replicas import cluster_of, resource, rows_of_all_replicas
from tfctr.schema import Field, Schema
from tfctr.types import Shape, Tensor

_outlined: contextvars.ContextVar[bool] = contextvars.ContextVar("outlined", default=False)


@contextlib.contextmanager
def outlined() -> Iterator[None]:
    """Within, tables have one row: models show what they would be, without its memory. Each layer knows its `rows`."""
    before = _outlined.set(True)
    try:
        yield
    finally:
        _outlined.reset(before)


@keras.saving.register_keras_serializable("tfctr")
class FeatureEmbedding(IdsLayer):
    """One table for all features: one gather, then one vector a field.

    A token's field is its row of the table. A `Sequence`'s field is the mean, sum or sum / sqrt(count) of the rows of what is
    not padding, weighted where its tokens have weights. A scaled number's field is `z * row`, or the row of "missing" when z is
    NaN; z and weights lie in the id matrix as the bits of their float32.

    Args:
        schema: a fitted `Schema`.
        embedding_dim: width of the table.
        features: names of the features to embed, in the schema's order; None is all. The table has their rows only.
        unpooled: names of sequences among them that are no fields, but given whole, in this order, behind the fields of all
            others: their tokens' vectors, zeros for padding, which Keras' mask says, too.
        frozen: names of features whose rows get no gradient, and so stay what they are, whatever reads them: features of one
            vocabulary are frozen together.

    Shapes:
        `(batch, schema.width)` int32 `-> (batch, fields, embedding_dim)`; with `unpooled`, a tuple of that and
        `(batch, max_length, embedding_dim)` for each sequence

    Weights:
        `table`: `(schema.table_rows, embedding_dim)`, float32 under every dtype policy, drawn with a standard deviation of 1e-4
        as in the authors' code. With parameter servers its `parts`, zeros: as many consecutive rows on each of them.

    Raises:
        ConfigError: the schema is not fitted, `embedding_dim` is below 1, no feature has one of the names, or `unpooled` names
            one that is no sequence, or leaves no field.

    >>> from tfctr import Categorical, Schema
    >>> schema = Schema(features=[Categorical("user", size=5), Categorical("item", size=7)], label="click")
    >>> tuple(FeatureEmbedding(schema, embedding_dim=4)(np.array([[3, 5 + 6]], "int32")).shape)
    (1, 2, 4)
    """

    _shared: Collection[Field] = ()  # see `sharing`
    parts: list[keras.Variable] | None = None  # see Weights

    def __init__(
        self,
        schema: Schema | Mapping[str, Any],
        embedding_dim: int,
        features: Collection[str] | None = None,
        unpooled: Iterable[str] = (),
        frozen: Collection[str] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        require_count("embedding_dim", embedding_dim)
        self.schema = Schema.from_config(schema)
        self.embedding_dim = embedding_dim
        every = self.schema.fields
        for name in (*(features or ()), *frozen):
            require_one_of([field.feature.name for field in every], name, "feature")
        self.frozen = tuple(frozen)
        self.features = None if features is None else tuple(features)
        self.fields = tuple(field for field in every if features is None or field.feature.name in features)
        sequences = {field.feature.name: field for field in self.fields if isinstance(field.feature, Sequence)}
        self.unpooled = tuple(unpooled)
        for name in self.unpooled:
            require_one_of(sequences, name, "sequence in `unpooled`")
            problem = f"`unpooled` names {name!r}, whose tokens have weights, and these only weigh what is pooled."
            field = sequences[name]
            require(field.token_columns == field.columns, problem, fix="leave it out, or give it no `weight_separator`")
        self.sequences = tuple(sequences[name] for name in self.unpooled)  # the fields that are given whole
        self.pooled = tuple(field for field in self.fields if field not in self.sequences)  # those that the output has
        require(len(self.pooled) > 0, "`unpooled` leaves no field.", fix="leave out one of its names")
        blocks = {field.offset: field for field in reversed(self.fields)}
        self.blocks = tuple(blocks[offset] for offset in sorted(blocks))  # one of the fields of each vocabulary, in its order
        ends = np.cumsum([0, *(field.size for field in self.blocks)])
        self.rows = int(ends[-1])
        first = dict(zip(sorted(blocks), ends, strict=False))  # row of the table, by offset
        self.shifts = np.zeros(self.schema.width, "int32")
        for field in self.fields:
            self.shifts[field.columns] = field.offset - first[field.offset]
        scaled = np.full(self.schema.width, False)
        for field in every:
            scaled[field.columns] = isinstance(field.feature, Numeric) and field.feature.transform == "scaled"
        self.scaled_columns = scaled
        self.weight_columns = np.arange(self.schema.width)  # of each column that of its weight; of one without, itself
        for field in every:
            if field.token_columns != field.columns:
                self.weight_columns[field.token_columns] = np.arange(self.schema.width)[field.weight_columns]
        self.weighted_columns = self.weight_columns != np.arange(self.schema.width)
        self.column_offsets = np.repeat([f.offset for f in every], [f.feature.width for f in every]).astype("int32")

    def build(self, input_shape: Shape) -> None:
        self.compute_output_shape(input_shape)
        rows = 1 if _outlined.get() else self.rows
        servers = min(cluster_of(tf.distribute.get_strategy())["ps"], rows)
        if servers == 0:
            self.table = self._part("table", rows, keras.initializers.RandomNormal(stddev=1e-4))
            return
        sizes = [rows // servers + (part < rows % servers) for part in range(servers)]  # as "div" in `_gather`
        self.parts = [self._part(f"table_{part}", size, "zeros") for part, size in enumerate(sizes)]

    def _part(self, name: str, rows: int, initializer: Any) -> keras.Variable:
        # Not autocast: a mixed-precision policy would cast the whole table at each read; the rows are cast instead.
        shape = (rows, self.embedding_dim)
        table = self.add_weight(name=name, shape=shape, initializer=initializer, dtype="float32", autocast=False)
        table.is_table = True  # for optimizers that work by rows
        return table

    @property
    def tables(self) -> list[keras.Variable]:
        """The table; with parameter servers, its parts."""
        return [self.table] if self.parts is None else list(self.parts)

    def call(self, ids: Tensor) -> Tensor | tuple[Tensor, ...]:
        ids = ops.cast(ids, "int32")  # whatever integers came: the bits of numbers are those of int32
        shared = [field for field in self.pooled if field in self._shared]
        own = [field for field in self.pooled if field not in shared]
        if not shared:
            fields = self._embed(ids, own)  # (batch, fields, dim)
        elif not own:
            fields = self._once(ids, shared)  # (batch, fields, dim)
        else:
            both = tf.concat([self._embed(ids, own), self._once(ids, shared)], axis=1)
            fields = tf.gather(both, np.argsort([field.column for field in [*own, *shared]]), axis=1)  # (batch, fields, dim)
        fields = ops.cast(fields, self.compute_dtype)
        if not self.sequences:
            return fields
        return fields, *(ops.cast(self._whole(ids, field), self.compute_dtype) for field in self.sequences)

    def compute_mask(self, inputs: Tensor, previous_mask: Any = None) -> Any:
        """Of each sequence that is given whole, which of its tokens are no padding: `(batch, max_length)` bool."""
        masks = [ops.not_equal(ops.cast(inputs, "int32")[:, field.columns], field.offset) for field in self.sequences]
        return [None, *masks] if masks else None

    def compute_output_shape(self, input_shape: Shape) -> Any:
        batch, _ = self.ids_shape(input_shape)
        fields = batch, len(self.pooled), self.embedding_dim
        wholes = [(batch, field.feature.width, self.embedding_dim) for field in self.sequences]
        return (fields, *wholes) if wholes else fields

    def rows_of(self, feature: str) -> tuple[int, int]:
        """Where in the table the rows of a feature, or of one that shares them, begin, and how many they are: 0 of none."""
        offset = next((field.offset for field in self.schema.fields if field.feature.name == feature), None)
        field = next((block for block in self.blocks if block.offset == offset), None)
        return (0, 0) if field is None else (field.offset - int(self.shifts[field.column]), field.size)

    def squared_norm(self) -> Tensor:
        """Sum of squares of the whole table, but for the rows of frozen features."""
        if not self.frozen:
            return ops.sum(ops.square(self.table))
        ends = np.cumsum([block.size for block in self.blocks])
        still = self._are_still(np.array([block.offset for block in self.blocks]))
        trained = [self.table[end - self.blocks[place].size : end] for place, end in enumerate(ends) if not still[place]]
        return sum((ops.sum(ops.square(rows)) for rows in trained), ops.zeros(()))

    def distinct_rows(self, ids: Tensor) -> Tensor:
        """The table rows that a batch reads, each once, on all devices together: `(batch, schema.width) -> (rows,)`."""
        rows, _ = self._rows(rows_of_all_replicas(ids))
        columns = self._columns(self.fields)
        if self.features is not None or len(columns) < self.schema.width:
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
        """Read these sequences of the first row alone, for all rows, in all that is traced within.

        Features of one column are embedded row by row all the same: to read a row of the table costs less than to copy one.
        """
        self._shared = [field for field in self.fields if field.feature.name in names and isinstance(field.feature, Sequence)]
        try:
            yield
        finally:
            del self._shared

    def get_config(self) -> dict[str, Any]:
        arguments = {"schema": self.schema.get_config(), "embedding_dim": self.embedding_dim, "features": self.features}
        return {**super().get_config(), **arguments, **self._further_arguments()}

    def _further_arguments(self) -> dict[str, Any]:
        """Those that not every layer has been given."""
        unpooled = {"unpooled": self.unpooled} if self.unpooled else {}
        return {**unpooled, **({"frozen": list(self.frozen)} if self.frozen else {})}  # a list, which a file gives back

    def _are_still(self, offsets: np.ndarray) -> np.ndarray:
        """Which of these are offsets of frozen features."""
        return np.isin(offsets, [field.offset for field in self.schema.fields if field.feature.name in self.frozen])

    def _columns(self, fields: Collection[Field]) -> np.ndarray:
        """The columns of these fields in the id matrix, but for those of weights."""
        return np.concatenate([np.arange(self.schema.width)[field.token_columns] for field in fields])

    def _rows(self, ids: Tensor) -> tuple[Tensor, Tensor | None]:
        """The row of each cell in a table of all features `(batch, columns)`, and its factor `(batch, columns, 1)` or None."""
        have_factors = self.scaled_columns | self.weighted_columns
        if not have_factors.any():
            return ids, None
        numbers = tf.bitcast(ids, tf.float32)
        if self.weighted_columns.any():
            numbers = tf.gather(numbers, self.weight_columns, axis=1)
        missing = tf.math.is_nan(numbers)
        ids = tf.where(self.scaled_columns, self.column_offsets + tf.where(missing, MISSING, FIRST_KNOWN), ids)
        return ids, tf.where(have_factors & ~missing, numbers, 1.0)[..., None]

    def _gather(self, ids: Tensor, /) -> Tensor:
        # On the variable itself: ResourceGather reads rows. `keras.ops.take` would first read the whole table.
        if self.parts is None:
            return tf.nn.embedding_lookup(resource(self.table), ids)
        rows, position = tf.unique(tf.reshape(ids, [-1]))  # so that each row travels once
        read = tf.compat.v1.nn.embedding_lookup([resource(part) for part in self.parts], rows, partition_strategy="div")
        return _spread(read, tf.reshape(position, tf.shape(ids)))

    def _read(self, rows: Tensor, columns: np.ndarray) -> Tensor:
        """The vectors of these rows, which are those of these columns of the id matrix; of frozen ones without a gradient.

        Two gathers, so that the gradient of a table does not even name the rows that stay: some optimizers move what it names.
        """
        still = self._are_still(self.column_offsets[columns])
        if not still.any():
            return self._gather(rows)
        if still.all():
            return tf.stop_gradient(self._gather(rows))
        moved, kept = np.flatnonzero(~still), np.flatnonzero(still)
        parts = [tf.gather(rows, some, axis=1) for some in (moved, kept)]
        vectors = tf.concat([self._gather(parts[0]), tf.stop_gradient(self._gather(parts[1]))], axis=1)
        return tf.gather(vectors, np.argsort(np.concatenate([moved, kept])), axis=1)

    def _once(self, ids: Tensor, fields: Collection[Field]) -> Tensor:
        """These fields of the first row, for all rows: `(batch, schema.width) -> (batch, len(fields), dim)`."""
        return tf.repeat(self._embed(ids[:1], fields), ops.shape(ids)[0], axis=0)

    def _whole(self, ids: Tensor, field: Field) -> Tensor:
        """The vectors of a sequence's tokens, zeros for padding: `(batch, schema.width) -> (batch, max_length, dim)`."""
        tokens = (ids[:1] if field in self._shared else ids)[:, field.columns]
        rows = self._read(tokens - self.shifts[field.columns], self._columns([field]))
        rows *= ops.cast(tokens != field.offset, rows.dtype)[..., None]
        return tf.repeat(rows, ops.shape(ids)[0], axis=0) if field in self._shared else rows

    def _embed(self, ids: Tensor, fields: Collection[Field]) -> Tensor:
        """These fields alone, of `self.fields`: `(batch, schema.width) -> (batch, len(fields), dim)`."""
        ids, factors = self._rows(ids)
        columns = self._columns(fields)
        if len(columns) < self.schema.width:
            ids, factors = (cells if cells is None else tf.gather(cells, columns, axis=1) for cells in (ids, factors))
        rows = self._read(ids if self.features is None else ids - self.shifts[columns], columns)  # (batch, columns, dim)
        return self._pool(fields, ids, rows if factors is None else rows * factors, factors)

    def _pool(self, fields: Collection[Field], ids: Tensor, rows: Tensor, factors: Tensor | None) -> Tensor:
        if not any(isinstance(field.feature, Sequence) for field in fields):
            return rows  # one column a field already
        widths = [field.feature.tokens for field in fields]
        weights = [None] * len(widths) if factors is None else tf.split(factors, widths, axis=1)
        parts = zip(fields, tf.split(ids, widths, axis=1), tf.split(rows, widths, axis=1), weights, strict=True)
        return ops.concatenate([self._field(*part) for part in parts], axis=1)

    def _field(self, field: Field, ids: Tensor, rows: Tensor, weights: Tensor | None) -> Tensor:
        """One field, `(batch, 1, dim)`, of the rows of its tokens, which are weighted already."""
        if not isinstance(field.feature, Sequence):
            return rows
        present = ops.cast(ids != field.offset, rows.dtype)[..., None]  # (batch, width, 1)
        total = ops.sum(rows * present, axis=1, keepdims=True)  # (batch, 1, dim)
        if field.feature.weight_separator is not None:
            return total / _divisor(field.feature.pooling, weights * present)
        count = ops.maximum(ops.sum(present, axis=1, keepdims=True), 1.0)  # (batch, 1, 1)
        return total / {"sum": 1.0, "mean": count, "sqrtn": ops.sqrt(count)}[field.feature.pooling]


def _divisor(pooling: str, weights: Tensor) -> Tensor | float:
    """By what the sum of weighted vectors is divided: `(batch, tokens, 1) -> (batch, 1, 1)`; 1 where that would be 0."""
    if pooling == "sum":
        return 1.0
    powers = weights if pooling == "mean" else ops.square(weights)
    total = ops.sum(powers, axis=1, keepdims=True)
    total = total if pooling == "mean" else ops.sqrt(total)
    return ops.where(total == 0, 1.0, total)


@tf.custom_gradient
def _spread(rows: Tensor, position: Tensor) -> tuple[Tensor, Callable[[Tensor], tuple[Tensor, None]]]:
    """`rows[position]`, with a gradient that is dense, as there is one row for each distinct id."""
    return tf.gather(rows, position), lambda upstream: (
        tf.math.unsorted_segment_sum(upstream, position, tf.shape(rows)[0]),
        None,
    )
