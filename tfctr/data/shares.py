"""How much of each feature the fit does not know, in each split, beside what training lets expect.

Of rows like those of the training table, the share of tokens that it does not hold is expected to be the share of its own
tokens that would be unknown if the row that each is in were not there. Of one token a row, those are the tokens that it holds
at most `min_count` times; tokens of a list often come together, or again and again in one row alone.

Reference: [Good, 1953](https://doi.org/10.1093/biomet/40.3-4.237), eq. 2: of `n` tokens, those seen r times weigh
`(r + 1) n[r + 1] / n`, summed over `r < min_count`.
"""

import collections
import logging
import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from tfctr.features import MISSING, OUT_OF_VOCABULARY, Feature, Numeric

if TYPE_CHECKING:  # a client counts shares, too, and does without what a schema is made of
    from tfctr.schema import Schema

_LOG = logging.getLogger(__name__)

_FLOOR = 0.05  # a share that is above the expected one by less is no jump,
_FACTOR = 1.5  # nor one that is not so many times as large


def has_vocabulary(feature: Feature) -> bool:
    """Whether a token of the feature can be out of vocabulary: hashed ones and intervals without gaps never are."""
    if isinstance(feature, Numeric):
        return feature.transform == "log2_floor"
    return feature.hash_buckets is None


def count_ids(schema: "Schema", ids: np.ndarray) -> dict[str, collections.Counter[str]]:
    """What a prepared matrix holds of each feature: `{feature: {"rows", "missing"[, "tokens", "unseen"]}}`.

    >>> from tfctr import Categorical, Schema
    >>> count_ids(Schema([Categorical("user", size=5)], label="click"), np.int32([[1], [2], [3], [4]]))
    {'user': Counter({'rows': 4, 'tokens': 3, 'missing': 1, 'unseen': 1})}
    """
    counts = {}
    for field in schema.fields:
        feature = field.feature
        cells = ids[:, field.token_columns]
        if isinstance(feature, Numeric) and feature.transform == "scaled":
            missing = np.isnan(np.ascontiguousarray(cells).view(np.float32)).sum()
        else:
            missing = (cells[:, 0] == field.offset + MISSING).sum()
        found = counts[feature.name] = collections.Counter(rows=len(ids), missing=int(missing))
        if has_vocabulary(feature):
            found["tokens"] = int((cells > field.offset + MISSING).sum())
            found["unseen"] = int((cells == field.offset + OUT_OF_VOCABULARY).sum())
    return counts


def add(counts: dict[str, collections.Counter[str]], more: Mapping[str, Mapping[str, int]]) -> None:
    """Add the counts of a part of a split to those before it."""
    for name, found in more.items():
        counts.setdefault(name, collections.Counter()).update(found)


def expected_unseen(counts: Mapping[str, int], by_row: int) -> float | None:
    """The share of tokens of new rows that the fit will not know; None where there is no token.

    Args:
        counts: those of the training split, of one feature.
        by_row: how many of its known tokens would be unknown without the row that they are in.

    >>> expected_unseen({"tokens": 100, "unseen": 1}, by_row=4)
    0.05
    """
    return (counts["unseen"] + by_row) / counts["tokens"] if counts["tokens"] else None


def shares_of(
    counts: Mapping[str, Mapping[str, int]], training: Mapping[str, Mapping[str, float | None]]
) -> dict[str, dict[str, float | None]]:
    """What is said of a split: `{feature: {"missing", "missing_in_training"[, "unseen", "expected"][, "cut"]}}`, all shares.

    Args:
        counts: of the split, `{feature: {"rows", "missing"[, "tokens", "unseen"][, "cut"]}}`.
        training: `{feature: {"missing"[, "unseen"][, "rows"]}}`, the shares that so many training rows let expect.
    """
    shares: dict[str, dict[str, float | None]] = {}
    unseen = unseen_shares(counts, training)
    for name, found in counts.items():
        missing = {
            "missing": found.get("missing", 0) / found["rows"],
            "missing_in_training": training.get(name, {}).get("missing"),
        }
        said = shares[name] = {**missing, **unseen.get(name, {})}
        if "cut" in found:
            said["cut"] = found["cut"] / found["rows"]
    return shares


def unseen_shares(
    counts: Mapping[str, Mapping[str, int]], training: Mapping[str, Mapping[str, float | None]]
) -> dict[str, dict[str, float | None]]:
    """`{feature: {"unseen", "expected"}}` of the features of which there are tokens.

    >>> unseen_shares({"user": {"tokens": 4, "unseen": 1}, "item": {"tokens": 0, "unseen": 0}}, {"user": {"unseen": 0.5}})
    {'user': {'unseen': 0.25, 'expected': 0.5}}
    """
    known = {name: found for name, found in counts.items() if found.get("tokens")}
    return {
        name: {"unseen": found.get("unseen", 0) / found["tokens"], "expected": training.get(name, {}).get("unseen")}
        for name, found in known.items()
    }


def told_shares(counted: Mapping[str, np.ndarray], where: str) -> dict[str, dict[str, float | None]]:
    """`unseen_shares` of what the signature `unseen` has answered, `{feature: (rows, 3)}`. Warns where a share jumps."""
    counts: dict[str, dict[str, int]] = {}
    training: dict[str, dict[str, float | None]] = {}
    for name, rows in counted.items():
        tokens, unseen, _ = rows.sum(axis=0, dtype=np.float64)
        missing = int(np.sum(rows[:, 0] == 0))
        counts[name] = {"rows": len(rows), "missing": missing, "tokens": int(tokens), "unseen": int(unseen)}
        training[name] = {"unseen": float(rows[0, 2])} if len(rows) else {}
    for jump in jumps(counts, training):
        _LOG.warning(describe_jump(where, *jump))
    return unseen_shares(counts, training)


def jumps(
    counts: Mapping[str, Mapping[str, int]], training: Mapping[str, Mapping[str, Any]]
) -> Iterator[tuple[str, str, float, float]]:
    """The features of which much more is unseen, or missing, than training lets expect: `(feature, what, share, expected)`.

    Much more is .05 more, and three standard errors of such a share and of what is expected, and half as much again. Tokens of
    one row are no independent draws, so that the rows which have any are what counts.
    """
    for name, found in counts.items():
        rows = found["rows"]
        missing = found.get("missing", 0)
        for what, of, number in (("unseen", found.get("tokens"), rows - missing), ("missing", rows, rows)):
            expected = training.get(name, {}).get(what)
            known_of = training.get(name, {}).get("rows", math.inf)
            if expected is not None and of and share_jumps(found.get(what, 0) / of, expected, number, known_of):
                yield name, what, found.get(what, 0) / of, expected


def share_jumps(share: float, expected: float, number: int, training_rows: float = math.inf) -> bool:
    """Whether a share of `number` rows is much more than `training_rows` let expect."""
    usual = max(expected, _FLOOR)
    # Good's estimate has a variance of (n[1] + 2 n[2]) / n^2 at most, which is no more than 1 / n.
    error = math.sqrt(usual * (1 - usual) / number + 1 / training_rows)
    return share > max(expected + _FLOOR + 3 * error, _FACTOR * expected)


def describe_jump(where: str, feature: str, what: str, share: float, expected: float) -> str:
    """A sentence for people."""
    if what == "missing":
        return f"{where}: {feature!r} is missing in {share:.1%} of the rows, in training in {expected:.1%}."
    return (
        f"{where}: {share:.1%} of the tokens of {feature!r} are unknown to the fit; rows like training's have {expected:.1%}."
    )
