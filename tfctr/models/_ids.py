"""Are these ids of the model's own fit? Any whole numbers would be answered, and any others cut to whole ones.

Data are checked at the door where that costs one pass over an array, and batch by batch where they come as batches. Those of
`Split.batches` cost nothing: their split knows its fit.
"""

import contextlib
import functools
import inspect
import numbers
import re
import reprlib
import types
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NoReturn

import keras
import numpy as np
import tensorflow as tf

from tfctr.errors import ConfigError, DataError
from tfctr.features import Numeric
from tfctr.models._distributed import own_part
from tfctr.models._usual import usual_rows
from tfctr.schema import Schema
from tfctr.token_text import GREATEST_WEIGHT
from tfctr.types import Tensor

_TENSORS = (tf.Tensor, tf.Variable, keras.KerasTensor, keras.Variable)
_PREPARE = "prepare the table: tfctr.prepare(schema, train=..., test=table, out=...); or use dataset.test.ids"
_GREATEST_BITS = np.float32(GREATEST_WEIGHT).view("int32")
_INT32 = np.iinfo(np.int32)
_BLOCK = 2**20  # numbers that are compared at a time
_REFUSAL = re.compile(r"DataError: (.*?)\n  fix: (.*?)\n+Traceback ", re.DOTALL)


class IdsCheck:
    """What the ids of one fitted schema can be: whole numbers, `(rows, schema.width)`, each within its feature's rows.

    A feature's ids are `[offset, offset + size)` in each of its columns. A scaled number's are the bits of its float32, which
    `prepare` makes finite, NaN, and never subnormal, as whole numbers such as 35 would be; a token's weight's those of a number
    from 0 to 1e15.

    Args:
        schema: a fitted `Schema`.

    >>> from tfctr import Categorical, Schema
    >>> schema = Schema(features=[Categorical("user", size=5), Categorical("item", size=7)], label="click")
    >>> IdsCheck(schema).checked(np.array([[3, 8], [4, 11]])).tolist()
    [[3, 8], [4, 11]]
    >>> IdsCheck(schema).checked(np.array([[3, 2438]]))
    Traceback (most recent call last):
    tfctr.errors.DataError: `x`: row 0, column 1 (feature 'item'): 2438 is none of its ids, 5 to 11.
      fix: prepare the table: tfctr.prepare(schema, train=..., test=table, out=...); or use dataset.test.ids
    """

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        widths = [field.feature.width for field in schema.fields]
        scaled = [isinstance(f.feature, Numeric) and f.feature.transform == "scaled" for f in schema.fields]
        limits = [(_INT32.min, _INT32.max) if z else _rows_of(f) for f, z in zip(schema.fields, scaled, strict=True)]
        weights = np.concatenate([np.arange(schema.width)[field.weight_columns] for field in schema.fields])
        self.names = np.repeat([field.feature.name for field in schema.fields], widths)  # (width,), as are these:
        self.least, self.most = np.repeat(np.array(limits, np.int32), widths, axis=0).T
        self.scaled = np.repeat(scaled, widths)
        self.scaled[weights], self.least[weights], self.most[weights] = True, 0, _GREATEST_BITS
        self.raw_names = {str(name) for f in schema.fields for name in (f.feature.name, f.feature.source)}

    def checked(self, x: Any) -> Any:
        """What Keras is to be given as `x`: the same ids as int32, or the same batches, which are checked as they come.

        Args:
            x: an array, a tensor, a DataFrame or nested lists of ids; or batches: a `tf.data.Dataset`, a generator, or a
                `keras.utils.PyDataset`. Of a distributed dataset only type and width are known here.

        Raises:
            DataError: a number that is no id of its feature, ids that are not whole numbers, or too many or few of them a row.
                A later batch raises it within `surfacing()`.
            ConfigError: the batches are those of another fit: their numbers mean other tokens.
        """
        if hasattr(x, "batches") and hasattr(x, "digest"):
            raise ConfigError("`x` is a split, not its batches.", fix="give them: dataset.train.batches(1024)")
        if isinstance(x, tf.data.Dataset):
            return self._checked_dataset(x)
        if isinstance(x, keras.utils.PyDataset):
            return _CheckedBatches(x, self)
        if isinstance(x, types.GeneratorType):
            return (self.batch(batch, number) for number, batch in enumerate(x))
        if hasattr(x, "element_spec"):  # distributed
            for spec in tf.nest.flatten(_only(_ids_of(x.element_spec), self.raw_names), expand_composites=True):  # one a device
                self._require_spec(spec)
            return x
        if x is None or not (hasattr(x, "__array__") or isinstance(x, list | tuple | Mapping) or _is_no_matrix(x)):
            return x  # Keras says what it takes
        return self.array(x)

    def validation(self, data: Any) -> Any:
        """The same for `validation_data`: batches, or `(x, y)` or `(x, y, sample_weight)`."""
        if isinstance(data, tuple | list) and len(data) in (2, 3):
            return (self.checked(data[0]), *data[1:])
        return data if data is None else self.checked(data)

    def batch(self, batch: Any, number: int | None = None) -> Any:
        """One batch, `ids` or `(ids, labels[, weights])`, with the ids as int32."""
        where = "" if number is None else f"batch {number}, "
        if isinstance(batch, tuple | list) and len(batch) in (1, 2, 3):
            return (self.array(batch[0], where), *batch[1:])
        return self.array(batch, where)

    def array(self, ids: Any, where: str = "") -> np.ndarray:
        """The ids as an int32 array. Raises `DataError`."""
        ids = _dense(_only(ids, self.raw_names))
        names = [str(name) for name in getattr(ids, "column_names", getattr(ids, "columns", ()))]  # of Arrow, of pandas
        if {*names} & self.raw_names:
            nameless = "x.to_numpy()" if hasattr(ids, "to_numpy") else "numpy.asarray(x)"
            raise DataError(
                f"`x` is a table with the raw columns {reprlib.repr(names)}, and the model reads ids.",
                fix=f"{_PREPARE}; if these are prepared ids all the same, take their names away: {nameless}",
            )
        if np.ma.is_masked(ids):
            row, column = np.argwhere(np.ma.getmaskarray(ids))[0].tolist()
            fix = f"{_PREPARE}; if what is under the mask are ids all the same: x.data"
            raise DataError(f"`x`: {where}row {row}, column {column} is masked: no id is missing.", fix=fix)
        try:
            array = np.asarray(ids)
        except ValueError as error:
            raise DataError(f"`x` is no matrix of ids: {error}", fix=_PREPARE) from error
        self._require_matrix(array.shape, where)
        if array.dtype.kind not in "iu":
            self._refuse_type(array, where)
        for row, column in _first(array, self._unlike):
            self._refuse_number(array[row, column], row, column, where)
        return array.astype(np.int32, copy=False)

    def require_split(self, split: Any) -> None:
        """Raise `ConfigError` for a split of another fit, `DataError` for one of arrays whose ids cannot be this one's."""
        digest = getattr(split, "digest", None)
        self.schema.require_fit(digest, f"the {getattr(split, 'name', '')} split")
        if digest is None and hasattr(split, "ids"):
            self.array(split.ids)

    # within batches that TensorFlow reads

    def _checked_dataset(self, dataset: Any) -> Any:
        """The batches of a `tf.data.Dataset`, each checked as it comes; those of a split of this fit as they are."""
        split = getattr(dataset, "split", None)
        if split is not None:
            self.require_split(split)
            return dataset
        for origin in _origins(dataset):
            self.schema.require_fit(origin.digest)
        self._require_spec(_only(_ids_of(dataset.element_spec), self.raw_names))
        return dataset.enumerate().map(self._checked_batch)

    def _require_spec(self, spec: Any) -> None:
        if not isinstance(spec, tf.TensorSpec):
            raise DataError(f"`x` gives batches of {spec!r}.", fix="give batches of (ids, labels), the ids as one dense matrix")
        if not spec.dtype.is_integer:
            raise DataError(f"`x` gives ids of the type {spec.dtype.name}: ids are whole numbers.", fix=_PREPARE)
        if spec.shape.rank == 1:
            problem = f"`x` gives ids of the shape {tuple(spec.shape)}: single rows, not batches."
            raise DataError(problem, fix="end it with .batch(batch_size)")
        if spec.shape.rank is not None and None not in spec.shape[1:]:
            self._require_matrix(tuple(spec.shape), "")

    def _checked_batch(self, number: Tensor, batch: Any) -> Any:
        ids = _only(_ids_of(batch), self.raw_names)

        def refused():
            return tf.numpy_function(lambda number, ids: self.array(ids, f"batch {number}, "), [number, ids], tf.int32)

        known = tf.cond(self._all_like(ids), lambda: tf.cast(ids, tf.int32), refused)
        known = tf.ensure_shape(known, (ids.shape[0] if ids.shape.rank else None, len(self.names)))
        return (known, *batch[1:]) if isinstance(batch, tuple) else known

    def _all_like(self, ids: Tensor) -> Tensor:
        """Whether all is as it must be, as a tensor: two comparisons a number, where `array` would also find the first."""

        def like():
            cells = tf.reshape(ids if ids.dtype == tf.int32 else tf.cast(ids, tf.int64), (-1, len(self.names)))
            least, most = (limit.astype(cells.dtype.name) for limit in (self.least, self.most))
            within = tf.reduce_all((cells >= least) & (cells <= most))
            if not self.scaled.any():
                return within
            bits = tf.cast(tf.gather(cells, np.flatnonzero(self.scaled), axis=1), tf.int32)
            return within & tf.reduce_all(_are_numbers(bits))

        fits = tf.equal(tf.rank(ids), 2) & tf.equal(tf.shape(ids)[-1], len(self.names))
        return tf.cond(fits, like, lambda: False)

    # what is wrong

    def _require_matrix(self, shape: Sequence[int | None], where: str) -> None:
        if len(shape) != 2 or shape[1] != len(self.names):
            problem = f"`x`: {where}the shape is {tuple(shape)}, and the model reads (rows, {len(self.names)})"
            raise DataError(f"{problem}: {self._columns()}.", fix=_PREPARE)

    def _columns(self) -> str:
        fields = self.schema.fields
        shown = [f"{f.feature.name} ({f.feature.width})" if f.feature.width > 1 else f.feature.name for f in fields[:6]]
        return ", ".join([*shown, "..."] if len(fields) > 6 else shown)

    def _refuse_type(self, array: np.ndarray, where: str) -> NoReturn:
        problem = f"`x`: {where}the type is {array.dtype}: ids are whole numbers"
        fix = _PREPARE
        found = next(_first(array, _not_whole), None)
        if array.size:
            row, column = found or (0, 0)
            value = reprlib.repr(array[row].tolist()[column])
            problem += f"; row {row}, column {column} (feature {str(self.names[column])!r}) holds {value}"
        if array.dtype.kind in "fO" and found is None:
            fix += "; if they are ids all the same: x.astype('int32')"
        raise DataError(f"{problem}.", fix=fix)

    def _unlike(self, cells: np.ndarray) -> np.ndarray:
        unlike = (cells < self.least) | (cells > self.most)
        if self.scaled.any():
            unlike[:, self.scaled] |= ~_are_numbers(cells[:, self.scaled])
        return unlike

    def _refuse_number(self, value: Any, row: int, column: int, where: str) -> NoReturn:
        name = self.names[column]
        least = self.least[column]
        most = self.most[column]
        ids = "the bits of no float32 that `prepare` writes" if self.scaled[column] else f"none of its ids, {least} to {most}"
        problem = f"`x`: {where}row {row}, column {column} (feature {str(name)!r}): {value} is {ids}"
        raise DataError(f"{problem}.", fix=_PREPARE)


class ReadsIds(keras.Model):
    """What a `keras.Model` with the one input `ids` and a `schema` refuses to read: all that cannot be ids of its fit."""

    schema: Schema
    usual_rows: int | None = None  # of the batches of `fit`: see `tfctr.layers.hidden.finish`

    @functools.cached_property
    def ids_check(self) -> IdsCheck:
        """The `IdsCheck` of the model's schema."""
        return IdsCheck(self.schema)

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        ids = _only(inputs, self.ids_check.raw_names)
        require_whole(ids)
        if not isinstance(ids, _TENSORS):  # which are those of a graph, or of batches that are checked
            inputs = self.ids_check.array(ids)
        return super().__call__(inputs, *args, **kwargs)

    def fit(self, *args: Any, **kwargs: Any) -> keras.callbacks.History:
        given = inspect.signature(keras.Model.fit).bind(self, *args, **kwargs).arguments
        checkpoints = _around_fit(self, dict(given))
        if self.compiled and (rows := usual_rows(self, given)) != self.usual_rows:
            self.usual_rows = rows
            self.train_function = None  # made for batches of another size
        given["x"] = own_part(self, self.ids_check.checked(given.get("x")))
        given["validation_data"] = self.ids_check.validation(given.get("validation_data"))
        del given["self"]
        with checkpoints, surfacing():
            return super().fit(**given)

    def predict(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        x = own_part(self, self.ids_check.checked(x))
        with surfacing():
            return super().predict(x, *args, **kwargs)

    def train_on_batch(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        return super().train_on_batch(self.ids_check.array(x), *args, **kwargs)

    def test_on_batch(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        return super().test_on_batch(self.ids_check.array(x), *args, **kwargs)

    def predict_on_batch(self, x: Any) -> Any:
        return super().predict_on_batch(self.ids_check.array(x))


@contextlib.contextmanager
def _around_fit(model: keras.Model, given: Mapping[str, Any]) -> Iterator[None]:
    """Enter `callback.around_fit(model, given)` of the callbacks that have one, such as `tfctr.training.Checkpoint`."""
    callbacks = given.get("callbacks") or []
    with contextlib.ExitStack() as entered:
        for callback in getattr(callbacks, "callbacks", callbacks if isinstance(callbacks, list | tuple) else [callbacks]):
            if hasattr(callback, "around_fit"):
                entered.enter_context(callback.around_fit(model, given))
        yield


class _CheckedBatches(keras.utils.PyDataset):
    """A user's `PyDataset`, each batch checked where it is made."""

    def __init__(self, batches: keras.utils.PyDataset, check: IdsCheck) -> None:
        super().__init__(batches.workers, batches.use_multiprocessing, batches.max_queue_size)
        self.batches = batches
        self.check = check

    def __getitem__(self, index: int) -> Any:
        return self.check.batch(self.batches[index], index)

    @property
    def num_batches(self) -> Any:
        return self.batches.num_batches

    def on_epoch_begin(self) -> None:
        self.batches.on_epoch_begin()

    def on_epoch_end(self) -> None:
        self.batches.on_epoch_end()


@contextlib.contextmanager
def surfacing() -> Iterator[None]:
    """Let a `DataError` out of the batches that TensorFlow reads, which wraps it in an error of its own."""
    try:
        yield
    except tf.errors.OpError as error:
        if (refusal := _REFUSAL.search(error.message)) is None:
            raise
        raise DataError(refusal[1], fix=refusal[2]) from None


def require_whole(ids: Any) -> None:
    """Raise `DataError` for a tensor of another type: Keras would cut 3.9 to 3."""
    try:
        dtype = keras.backend.standardize_dtype(ids.dtype) if hasattr(ids, "dtype") else "int32"
    except ValueError:  # text, objects: of an array, which is looked into
        return
    if not dtype.startswith(("int", "uint")):
        raise DataError(f"the ids are of the type {dtype}: ids are whole numbers.", fix=_PREPARE)


def _rows_of(field: Any) -> tuple[int, int]:
    return field.offset, field.offset + field.feature.size - 1


def _ids_of(batch: Any) -> Any:
    return batch[0] if isinstance(batch, tuple) else batch


def _only(x: Any, names: Collection[str]) -> Any:
    """The one input of the model, out of `[ids]` or `{"ids": ids}`."""
    if isinstance(x, Mapping):
        if [*x] == ["ids"]:
            return x["ids"]
        if {*x} & {*names}:
            raise DataError(f"`x` has the raw columns {reprlib.repr([*x])}, and the model reads ids.", fix=_PREPARE)
        raise DataError(f"`x` has the keys {reprlib.repr([*x])}, and the model has one input, 'ids'.", fix=_PREPARE)
    return x[0] if isinstance(x, list | tuple) and len(x) == 1 and hasattr(x[0], "shape") else x


def _is_no_matrix(x: Any) -> bool:
    return isinstance(x, tf.SparseTensor | tf.RaggedTensor) or hasattr(x, "tocsr")


def _dense(ids: Any) -> Any:
    """Sparse ids as they are written out, zeros and all. Raises `DataError` for rows of several lengths."""
    if isinstance(ids, tf.RaggedTensor):
        fix = f"{_PREPARE}; if all rows are equally long: x.to_tensor()"
        raise DataError("`x` is ragged, and every row has as many ids.", fix=fix)
    if isinstance(ids, tf.SparseTensor):
        return tf.sparse.to_dense(ids)
    return ids.toarray() if hasattr(ids, "tocsr") else ids


def _origins(dataset: Any) -> Iterator[Any]:
    """The splits whose batches a `tf.data.Dataset` was made of."""
    waiting = [dataset]
    while waiting:
        found = waiting.pop()
        if hasattr(found, "split"):
            yield found.split
        elif hasattr(found, "_inputs"):
            waiting += found._inputs()


def _first(array: np.ndarray, unlike: Callable[[np.ndarray], np.ndarray]) -> Iterator[tuple[int, int]]:
    """`(row, column)` of the first number that is unlike an id, if there is one; only so many are looked at at a time."""
    step = max(1, _BLOCK // max(1, array.shape[1]))
    for start in range(0, len(array), step):
        for row, column in np.argwhere(unlike(array[start : start + step]))[:1].tolist():
            yield start + row, column
            return


def _are_numbers(bits: Tensor) -> Tensor:
    """Whether these are the bits of 0, of a normal number, or of NaN, in float32."""
    magnitude = bits & 0x7FFFFFFF
    return ((magnitude == 0) | (magnitude >= 0x00800000)) & (magnitude != 0x7F800000)


def _not_whole(cells: np.ndarray) -> np.ndarray:
    if cells.dtype.kind == "f":
        return cells != np.floor(cells)
    return np.array([[not isinstance(x, numbers.Integral) or isinstance(x, bool) for x in row] for row in cells.tolist()])
