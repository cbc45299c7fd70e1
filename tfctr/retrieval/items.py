"""What can be retrieved: the items of the training table, each with the ids of its features."""

import dataclasses
from collections.abc import Collection, Sequence
from typing import Self

import numpy as np

from tfctr.data.split import Split
from tfctr.errors import ConfigError, DataError, require, require_one_of
from tfctr.features import FIRST_KNOWN, Categorical
from tfctr.schema import Field, Schema


def item_features(schema: Schema, names: Sequence[str]) -> tuple[str, ...]:
    """The names, the first of which names the item: a `Categorical` with a vocabulary. All other features are the user's.

    Raises:
        ConfigError: a name that is no feature, or is there twice; none, or all of them; the first names no item.

    >>> from tfctr import Categorical, Schema
    >>> item_features(Schema(features=[Categorical("user"), Categorical("item", hash_buckets=9)], label="click"), ["item"])
    Traceback (most recent call last):
    tfctr.errors.ConfigError: feature 'item' cannot name items: its tokens are hashed.
      fix: put first the categorical feature that names the item, with a vocabulary
    """
    fix = "list the item's features, the one that names it first, such as ['movie_id', 'genres']; the others are the user's"
    is_list = isinstance(names, list | tuple) and names
    require(is_list, f"`item` is {names!r}.", fix=fix)
    features = {feature.name: feature for feature in schema.features}
    for name in names:
        require_one_of(features, name, "feature in `item`")
    require(len(set(names)) == len(names) < len(features), f"`item` is {list(names)}, each once, not all.", fix=fix)
    first = features[names[0]]
    fix = "put first the categorical feature that names the item, with a vocabulary"
    require(isinstance(first, Categorical), f"feature {first.name!r} cannot name items: it is no Categorical.", fix=fix)
    hashed = isinstance(first, Categorical) and first.hash_buckets is not None
    require(not hashed, f"feature {first.name!r} cannot name items: its tokens are hashed.", fix=fix)
    return tuple(names)


@dataclasses.dataclass(frozen=True)
class Items:
    """The items of a training table, clicked or not, in the order of the ids of the feature that names them.

    Rows without a known name are no items. Where rows describe one item in several ways, its features are those of most rows.

    Args:
        schema: the fitted schema.
        features: as `item_features` gives them.
        ids: int32, `(items, schema.width)`, as in the prepared matrix, and 0 in the columns of the user's features.
    """

    schema: Schema
    features: tuple[str, ...]
    ids: np.ndarray

    @classmethod
    def of(cls, schema: Schema, features: tuple[str, ...], split: Split) -> Self:
        """The items of a split. Raises `DataError` where it has fewer than two."""
        columns = columns_of(schema, features)
        rows, counts = np.unique(split.ids[:, columns], axis=0, return_counts=True)
        name = rows[:, columns.index(_name(schema, features).column)]
        known = name >= _name(schema, features).offset + FIRST_KNOWN
        rows, counts, name = rows[known], counts[known], name[known]
        order = np.lexsort((-counts, name))  # stable: of equally many rows, the first by the order of ids
        _, first = np.unique(name[order], return_index=True)
        problem = f"the {split.name} split has {len(first)} known items in {features[0]!r}."
        require(len(first) > 1, problem, fix="name another feature as `item`, or prepare a larger table", error=DataError)
        ids = np.zeros((len(first), schema.width), np.int32)
        ids[:, columns] = rows[order][first]
        return cls(schema, features, ids)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def context(self) -> tuple[str, ...]:
        """The user's features: all that are not the item's."""
        return tuple(feature.name for feature in self.schema.features if feature.name not in self.features)

    def places(self, ids: np.ndarray) -> np.ndarray:
        """Which item each row has: int64 `(rows,)`, its place in `ids`; -1 where it is none of them."""
        name = _name(self.schema, self.features)
        places = np.full(name.size, -1)
        places[self.ids[:, name.column] - name.offset] = np.arange(len(self))
        return places[ids[:, name.column] - name.offset]

    def clicks(self, split: Split) -> tuple[np.ndarray, np.ndarray]:
        """The numbers of a split's rows with a click on one of these items, and its place: int64 `(clicks,)` each."""
        rows = np.flatnonzero(split.labels > 0)
        places = self.places(split.ids_of(rows))
        return rows[places >= 0], places[places >= 0]

    @property
    def tokens(self) -> list[bytes]:
        """What each is called, in UTF-8. Raises `StorageError` where the vocabulary file is missing."""
        name = _name(self.schema, self.features)
        if not isinstance(name.feature, Categorical):
            raise ConfigError(f"{self.features[0]!r} names no items.", fix="see `item_features`")
        with open(self.schema.vocabulary_file(name.feature), "rb") as file:
            known = [line.rstrip(b"\n") for line in file]
        return [known[id - name.offset - FIRST_KNOWN] for id in self.ids[:, name.column].tolist()]


def columns_of(schema: Schema, features: Collection[str]) -> list[int]:
    """The columns of these features in the prepared matrix, ascending."""
    fields = [field for field in schema.fields if field.feature.name in features]
    return [column for field in fields for column in range(field.columns.start, field.columns.stop)]


def _name(schema: Schema, features: Sequence[str]) -> Field:
    return next(field for field in schema.fields if field.feature.name == features[0])
