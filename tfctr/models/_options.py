"""What every model takes beside its own arguments, and how it is seen in each model's signature."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypedDict, Unpack


class ModelOptions(TypedDict, total=False):
    """What every model takes by name and hands on to `CTRModel`, whose docstring says more and whose defaults they have.

    A constructor ends in `**options: Unpack[ModelOptions]`, and calls `super().__init__(..., **options)`.

    Args:
        embedding_l2: lambda of the L2 term.
        l2_scope: the rows that the L2 term counts: those of the whole `"table"`, or those of the `"batch"`.
        name: of the Keras model; None for that of its class.
        frozen: names of features whose vectors are not trained: they stay what they began with.
    """

    embedding_l2: float
    l2_scope: Literal["table", "batch"]
    name: str | None
    frozen: Sequence[str]


def show_options(constructor: Any, base: Callable[..., None]) -> None:
    """Let the signature of a model's constructor list each option in the place of `**options: Unpack[ModelOptions]`.

    Whatever reads signatures then finds them, with the defaults of `base`: a model's config, `build` and its errors,
    `tfctr models NAME`, and the pages.

    >>> def constructor(self, depth=2, **options: Unpack[ModelOptions]): ...
    >>> def base(self, embedding_l2=0.0, l2_scope="table", name=None, frozen=()): ...
    >>> show_options(constructor, base)
    >>> print(inspect.signature(constructor))
    (self, depth=2, *, embedding_l2=0.0, l2_scope='table', name=None, frozen=())
    """
    signature = inspect.signature(constructor)
    own = list(signature.parameters.values())
    if own[-1].annotation not in (Unpack[ModelOptions], "Unpack[ModelOptions]"):  # a text under postponed annotations
        return
    defaults = inspect.signature(base).parameters
    options = [defaults[name].replace(kind=inspect.Parameter.KEYWORD_ONLY) for name in ModelOptions.__annotations__]
    constructor.__signature__ = signature.replace(parameters=[*own[:-1], *options])
