"""What the layers take, and the one error for anything else."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

import keras
from keras import ops

from tfctr.errors import ConfigError
from tfctr.layers.nested import Nested
from tfctr.schema import Schema
from tfctr.types import Shape, Tensor

# What a layer takes: the names of its sizes, the rows first.
Form: TypeAlias = tuple[str, ...]

# A shape of such a form: the sizes that the layer needs are known; the rows may differ from batch to batch.
ViewShape: TypeAlias = tuple[int | None, *tuple[int, ...]]

# The shape of a representation.
UnitsShape: TypeAlias = tuple[int | None, int]

IDS = ("batch", "columns")
VIEW = ("batch", "fields", "dim")
UNITS = ("batch", "units")
HISTORY = ("batch", "length", "dim")
TARGET = ("batch", "dim")
_SOURCES = {
    IDS: "give prepared ids, one row a sample: `dataset.train.ids`",
    VIEW: "embed ids with FeatureEmbedding, or use keras.ops.reshape",
    UNITS: "give it what an encoder makes, or use keras.ops.reshape",
    HISTORY: "give a sequence whole: FeatureEmbedding(schema, dim, unpooled=['history'])",
    TARGET: "give one field of each row: fields[:, place]",
}


class ViewLayer(Nested):
    """The base of the layers over one view: refuses anything else before it is worked on.

    A subclass says which forms it `takes`, and which of their sizes it `needs` to know; its `build` and its
    `compute_output_shape` begin with `view_shape`.

    Raises:
        ConfigError: another rank, a size that is 0 or needed and not known, or an input that is not of floats.
    """

    takes: tuple[Form, ...] = (VIEW,)
    needs: tuple[str, ...] = ("fields", "dim", "units")

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        return super().__call__(*map(self._checked_view, args[:1]), *args[1:], **kwargs)

    def build(self, input_shape: Shape) -> None:
        self.view_shape(input_shape)

    def view_shape(self, input_shape: Shape) -> ViewShape:
        """`input_shape` as a tuple, once it is one that this layer takes."""
        return require_shape(self, input_shape, self.takes, self.needs)

    def compute_output_shape(self, input_shape: Shape) -> Shape | tuple[Shape, ...]:
        return self.view_shape(input_shape)

    def _checked_view(self, view: Tensor) -> Tensor:
        require_floats(self, view)
        if hasattr(view, "shape"):  # else Keras says that it is no tensor
            require_shape(self, view.shape, self.takes)
            half = "float16" in (self.compute_dtype, keras.backend.standardize_dtype(view.dtype))
            return overflow_as_a_whole(view) if half and not isinstance(view, keras.KerasTensor) else view
        return view


class IdsLayer(Nested):
    """The base of the layers over the ids of `self.schema`: whole numbers, as many columns as the schema has."""

    schema: Schema

    def __call__(self, ids: Tensor, **kwargs: Any) -> Tensor:
        dtype = keras.backend.standardize_dtype(getattr(ids, "dtype", None) or "int32")
        if not keras.backend.is_int_dtype(dtype):
            problem = _refusal(self, (), f"a tensor of {dtype}", "ids of int32")
            raise ConfigError(problem, fix="give prepared ids; keras.Input((schema.width,), dtype='int32')")
        if hasattr(ids, "shape"):
            self.ids_shape(ids.shape)
        return super().__call__(ids, **kwargs)

    def ids_shape(self, input_shape: Shape) -> ViewShape:
        """`input_shape` as a tuple, once it is that of ids of the schema."""
        shape = require_shape(self, input_shape, (IDS,))
        if shape[1] not in (None, self.schema.width):
            problem = _refusal(self, (IDS,), f"{shape[1]} columns, where the schema has {self.schema.width}")
            raise ConfigError(problem, fix="give rows that were prepared by this schema")
        return shape


def require_shape(
    layer: keras.layers.Layer, shape: Iterable[Any], takes: Sequence[Form], needs: Sequence[str] = ()
) -> ViewShape:
    """`shape` as a tuple, or a `ConfigError` that names the layer, what it takes and what came; `takes` empty is any shape."""
    shape = tuple(shape)
    form = next((form for form in takes if len(form) == len(shape)), None)
    if takes and form is None:
        raise ConfigError(_refusal(layer, takes, f"the shape {shape}"), fix=_SOURCES[takes[0]])
    for name, size in list(zip(form or (), shape, strict=False))[1:]:
        if size == 0:
            raise ConfigError(_refusal(layer, takes, f"the shape {shape}, without {name}"), fix="give it at least one")
        if size is None and name in needs:
            problem = _refusal(layer, takes, f"the shape {shape}, and it must know `{name}`")
            raise ConfigError(problem, fix="say the size: keras.Input((3, 16)), or keras.ops.reshape(x, (-1, 3, 16))")
    return shape


def require_representations(
    layer: keras.layers.Layer, shapes: Any, count: int | None = None, needs: Sequence[str] = ("units",)
) -> list[UnitsShape]:
    """The shapes of `count` representations of the same rows (None: of at least one), as tuples; a `ConfigError` as above."""
    listed = isinstance(shapes, list | tuple) and all(isinstance(shape, list | tuple) for shape in shapes)
    if not listed or not shapes or count not in (None, len(shapes)) or any(len(shape) != 2 for shape in shapes):
        wanted = "two representations" if count == 2 else "a list of representations"
        problem = _refusal(layer, (UNITS,), f"the shapes {shapes}", wanted)
        raise ConfigError(problem, fix="give it the outputs of as many encoders, in a list")
    known = []
    for shape in shapes:
        rows, units = require_shape(layer, shape, (UNITS,), needs)
        known.append((rows, units))
    if len(batches := {rows for rows, _ in known} - {None}) > 1:
        raise ConfigError(_refusal(layer, (UNITS,), f"batches of {sorted(batches)} rows"), fix="give it the same rows")
    return known


def shapes_of(tensors: Any) -> list[Shape] | Shape:
    """The shape of one tensor, or of each in a list."""
    return [tuple(tensor.shape) for tensor in tensors] if isinstance(tensors, list | tuple) else tuple(tensors.shape)


def require_floats(layer: keras.layers.Layer, *tensors: Tensor) -> None:
    """Raise `ConfigError`, naming the layer, if one of the tensors holds anything but floats, such as ids."""
    for tensor in tensors:
        dtype = keras.backend.standardize_dtype(getattr(tensor, "dtype", None) or "float32")
        if not keras.backend.is_float_dtype(dtype):
            problem = _refusal(layer, (), f"a tensor of {dtype}", "floats")
            raise ConfigError(problem, fix="embed ids with FeatureEmbedding; make numbers floats: keras.ops.cast(x, 'float32')")


@ops.custom_gradient
def overflow_as_a_whole(view: Tensor) -> tuple[Tensor, Callable[..., Tensor]]:
    """The view; where one number of its gradient is not finite, none is.

    Loss scaling skips a step whose gradient has overflowed. But of a table's row that a batch reads several times, Keras looks
    at one reading only: the step would be taken, and the table would become NaN.
    """

    def gradient(*upstream: Tensor, **named: Tensor) -> Tensor:
        (upstream,) = upstream or named.values()
        return ops.where(ops.all(ops.isfinite(upstream)), upstream, ops.full_like(upstream, float("inf")))

    return view, gradient


def _refusal(layer: keras.layers.Layer, takes: Sequence[Form], received: str, wanted: str = "") -> str:
    forms = " or ".join(f"({', '.join(form)})" for form in takes)
    return f"{type(layer).__name__} {layer.name!r} takes {' '.join(filter(None, [wanted, forms]))}. Received {received}."
