"""How two towers are made and trained."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Self

from tfctr.errors import require, require_count, require_one_of, require_positive

_MOST = 2**31 - 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class TowerOptions:
    """How two towers are made and trained.

    Args:
        embedding_dim: width of the table of embeddings that each tower has.
        hidden_units: width of each hidden layer of a tower; none for a linear one.
        vector_dim: the length of the vectors of users and items.
        temperature: scores are the cosine of the two vectors, divided by this in the loss: the smaller, the more the hardest
            negatives count.
        epochs: passes over the positive rows, at most.
        patience: epochs without a better recall on the validation rows, after which training stops.
        batch_size: positive rows of one gradient step; the items of the others are the negatives of each.
        uniform_items: items that are drawn uniformly for each step, negatives of all its rows beside those.
        learning_rate: of Adam.
        seed: of the initial weights, the order of rows and the drawn items.

    Raises:
        ConfigError: an argument out of range.

    >>> TowerOptions(epochs=0)
    Traceback (most recent call last):
    tfctr.errors.ConfigError: `epochs` is 0.
      fix: use a whole number of at least 1
    """

    embedding_dim: int = 32
    hidden_units: Sequence[int] = (128,)
    vector_dim: int = 64
    temperature: float = 0.1
    epochs: int = 30
    patience: int = 3
    batch_size: int = 512
    uniform_items: int = 256
    learning_rate: float = 0.001
    seed: int = 1

    def __post_init__(self) -> None:
        for name in ("embedding_dim", "vector_dim", "epochs", "patience"):
            require_count(name, getattr(self, name))
        require_count("batch_size", self.batch_size, least=2)
        require_count("uniform_items", self.uniform_items, least=0)
        require_count("seed", self.seed, least=0, most=_MOST)
        require_positive("temperature", self.temperature)
        require_positive("learning_rate", self.learning_rate)
        are_widths = isinstance(self.hidden_units, list | tuple)
        require(are_widths, f"`hidden_units` is {self.hidden_units!r}.", fix="list the width of each hidden layer: [128]")
        for units in self.hidden_units:
            require_count("hidden_units", units)
        object.__setattr__(self, "hidden_units", tuple(self.hidden_units))

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """The options of these names. Raises `ConfigError` for an unknown one, with the closest name."""
        known = [field.name for field in dataclasses.fields(cls)]
        for name in values:
            require_one_of(known, name, "option of a retriever")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {**dataclasses.asdict(self), "hidden_units": list(self.hidden_units)}
