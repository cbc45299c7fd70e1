"""How well each feature alone ranks the clicks: one that does so perfectly holds the answer."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from tfctr.features import PADDING, Numeric
from tfctr.metrics import auc
from tfctr.schema import Schema

if TYPE_CHECKING:
    from tfctr.data.split import Split

TOO_GOOD = 0.99
_ROWS = 100_000  # at most
_LEAST = 20  # clicks, and others, or an AUC says nothing


def auc_alone(schema: Schema, split: "Split") -> dict[str, float] | None:
    """`{feature: AUC}` of one half of (a sample of) a split's rows, with what the other half teaches.

    The score of a row is the mean click rate of its tokens; of `"scaled"` numbers their order, in the better of the two
    directions. None where the rows have too few clicks, or others, to tell.
    """
    rng = np.random.default_rng(0)
    rows = np.sort(rng.permutation(split.rows)[:_ROWS])
    ids = split.ids_of(rows)
    labels = split.labels[rows]
    is_fit = rng.permutation(len(rows)) % 2 == 0
    clicks = int(labels[~is_fit].sum())
    if min(clicks, int((~is_fit).sum()) - clicks) < _LEAST:
        return None
    found = {}
    for field in schema.fields:
        cells = ids[:, field.token_columns]
        if isinstance(field.feature, Numeric) and field.feature.transform == "scaled":
            numbers = np.nan_to_num(np.ascontiguousarray(cells[~is_fit, 0]).view(np.float32), nan=-np.inf)
            value = auc(labels[~is_fit], numbers)
            found[field.feature.name] = max(value, 1 - value)
        else:
            found[field.feature.name] = auc(labels[~is_fit], _rates(cells - field.offset, labels, is_fit)[~is_fit])
    return found


def _rates(tokens: np.ndarray, labels: np.ndarray, is_fit: np.ndarray) -> np.ndarray:
    """The mean click rate of each row's tokens, of which one row of the mean rate is added to each."""
    seen = tokens[is_fit]
    weights = np.broadcast_to(labels[is_fit, None], seen.shape)
    size = int(tokens.max()) + 1
    rows = np.bincount(seen.ravel(), minlength=size)
    clicks = np.bincount(seen.ravel(), weights.ravel(), minlength=size)
    rates = ((clicks + labels[is_fit].mean()) / (rows + 1))[tokens]
    is_token = tokens != PADDING
    return (rates * is_token).sum(axis=1) / is_token.sum(axis=1)


def alone_warnings(alone: Mapping[str, float] | None) -> Iterator[str]:
    """A sentence for each feature that alone ranks the clicks nearly perfectly."""
    for name, value in (alone or {}).items():
        if value > TOO_GOOD:
            yield (
                f"the feature {name!r} alone ranks the clicks of training with an AUC of {value:.4f}: "
                "leave it out, unless it is known before a click."
            )
