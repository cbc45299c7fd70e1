"""What calls of a client come to: the `Answer` of a signature, and the `Request` that `observe` is told of."""

import dataclasses
from typing import TypeAlias

import numpy as np

from tfctr.types import Shape

# Signature -> "inputs" or "outputs" -> name -> TensorFlow's name of the type, and the shape.
Metadata: TypeAlias = dict[str, dict[str, dict[str, tuple[str, Shape]]]]

# Feature -> "unseen" and "expected", shares of its tokens.
Shares: TypeAlias = dict[str, dict[str, float | None]]


@dataclasses.dataclass(frozen=True)
class Answer:
    """All outputs of a signature, by name, and the version that gave them; None if the server does not say."""

    outputs: dict[str, np.ndarray]
    version: int | None


@dataclasses.dataclass(frozen=True)
class Recommendations:
    """The best items for one user, the most probable click first, and the version that gave them; None if it does not say."""

    items: list[str]
    probabilities: np.ndarray
    version: int | None


@dataclasses.dataclass(frozen=True)
class Request:
    """One request that has ended, for `observe`: its method ("Predict"), its gRPC code ("OK"), and how long it took."""

    model: str
    method: str
    code: str
    seconds: float
