"""Which id of an earlier fit each id of a fit was: what carries rows of a table, and rows of ids, from one to the other."""

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow.compute

from tfctr.data.fitting import read_vocabulary
from tfctr.errors import ConfigError
from tfctr.features import FIRST_KNOWN, OUT_OF_VOCABULARY, Feature, Numeric, feature_to_dict, has_vocabulary_file
from tfctr.schema import Schema

_FITTED_TOKENS = ("size", "vocabulary_sha256")
_READ_BY_FIT = ("min_count", "buckets")
_NEW = -1


def earlier_ids(schema: Schema, earlier: Schema) -> dict[str, np.ndarray]:
    """For each feature of a fitted schema, which id of the earlier one each of its ids was: int32 `(size,)`, -1 of a new one.

    Ids count from 0 within their feature: 0 to 2 are the same in every fit, known tokens are compared as text.

    Raises:
        ConfigError: features, edges, means or hash buckets differ, so that rows would change their meaning.
        StorageError: a vocabulary file is missing or corrupt.

    >>> import tempfile, tfctr
    >>> schema = tfctr.Schema(features=[tfctr.Categorical("user")], label="click")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     monday = tfctr.prepare(schema, train={"user": ["7", "60"], "click": [1, 0]}, out=f"{folder}/monday")
    ...     tuesday = tfctr.prepare(schema, train={"user": ["8", "7"], "click": [1, 0]}, out=f"{folder}/tuesday")
    ...     earlier_ids(tuesday.schema, monday.schema)["user"].tolist()
    [0, 1, 2, 4, -1]
    """
    names, before = ([feature.name for feature in some.features] for some in (schema, earlier))
    if names != before:
        odd = next((pair for pair in itertools.zip_longest(before, names) if pair[0] != pair[1]), None)
        raise ConfigError(
            f"the features differ: {odd and odd[0]!r} there, {odd and odd[1]!r} here.",
            fix="prepare the new table by the same schema: tfctr prepare --extend",
        )
    ids = {}  # by owner
    for feature, other in zip(schema.features, earlier.features, strict=True):
        _require_same_meaning(feature, other)
        if feature.vocabulary_of is None:
            ids[feature.name] = _ids_of(schema, feature, earlier, other)
    return {feature.name: ids[feature.owner] for feature in schema.features}


def _require_same_meaning(feature: Feature, other: Feature) -> None:
    ours, theirs = _meaning(feature), _meaning(other)
    for argument in dict.fromkeys((*ours, *theirs)):
        if ours.get(argument) != theirs.get(argument):
            raise ConfigError(
                f"feature {feature.name!r} has another `{argument}` than the earlier fit, so its rows mean something else.",
                fix="keep that fit and add to it: tfctr prepare --extend; or train anew",
            )


def _ids_of(schema: Schema, feature: Feature, earlier: Schema, other: Feature) -> np.ndarray:
    assert feature.size is not None
    if isinstance(feature, Numeric) or isinstance(other, Numeric) or feature.hash_buckets is not None:
        return np.arange(feature.size, dtype=np.int32)
    known = read_vocabulary(earlier, other)["token"]
    compute: Any = pyarrow.compute  # whose functions are made at import, unseen by type checkers
    found = compute.index_in(read_vocabulary(schema, feature)["token"], value_set=known)
    places = found.fill_null(_NEW - FIRST_KNOWN).to_numpy().astype(np.int32) + FIRST_KNOWN
    return np.concatenate([np.arange(FIRST_KNOWN, dtype=np.int32), places.astype(np.int32)])


def _meaning(feature: Feature) -> Mapping[str, Any]:
    """What rows of a feature mean, but for its tokens."""
    left_out = (*_READ_BY_FIT, *(_FITTED_TOKENS if has_vocabulary_file(feature) else ()))
    return {name: value for name, value in feature_to_dict(feature).items() if name not in left_out}


def carried(ids: np.ndarray, schema: Schema, earlier: Schema, earlier_of: Mapping[str, np.ndarray]) -> np.ndarray:
    """Rows of ids of the earlier fit, as ids of this one: `(rows, width)` int32; forgotten tokens are out of vocabulary.

    Args:
        ids: of `earlier`.
        schema, earlier: the two fits.
        earlier_of: what `earlier_ids` gives of them.
    """
    moved = np.empty_like(ids)
    for field, before in zip(schema.fields, earlier.fields, strict=True):
        cells = ids[:, before.token_columns]
        moved[:, field.weight_columns] = ids[:, before.weight_columns]
        if isinstance(field.feature, Numeric) and field.feature.transform == "scaled":
            moved[:, field.token_columns] = cells  # the bits of a number
            continue
        earlier_id = earlier_of[field.feature.name]
        now = np.full(before.size, OUT_OF_VOCABULARY, np.int32)
        known = earlier_id >= 0
        now[earlier_id[known]] = np.flatnonzero(known)
        moved[:, field.token_columns] = now[cells - before.offset] + field.offset
    return moved
