"""What the columns of a split hold, and how far that is from what training's hold.

The distance is, of numbers, that of Kolmogorov and Smirnov, `max over x of |F(x) - G(x)|`: the largest difference between the
shares of rows up to a value; of tokens, the largest difference between the shares that one known token has of all. Both lie in
[0, 1].

Counts are exact, whatever the number of threads. Numbers are counted by their sign, exponent and leading 6 bits, so that a
quantile here is one of the column, or is up to 1.6 % closer to 0.
"""

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from tfctr.features import FIRST_KNOWN, OUT_OF_VOCABULARY, Feature, Numeric, TokenFeature
from tfctr.schema import Schema

_TOLD = 0.04  # distances from which on one is said,
_WARNED = 0.2  # and is a warning
_ERRORS = 5  # standard errors of a share, more than which no chance is credible
_DROPPED = 46  # bits of a double's 64
_ZERO = 1 << (63 - _DROPPED)
_RAREST = 2**17  # ids from here on are counted as one: of a vocabulary, what is rarest in training
_QUANTILES = {"least": 0.0, "5%": 0.05, "median": 0.5, "95%": 0.95, "greatest": 1.0}
_FREQUENT = 3  # tokens that are named


class Histogram:
    """How often each code, a small whole number, has come: ascending `codes`, and their `counts`.

    >>> histogram = Histogram()
    >>> histogram.add(np.array([7, 2, 7]))
    >>> histogram.codes.tolist(), histogram.counts.tolist()
    ([2, 7], [1, 2])
    """

    def __init__(self) -> None:
        self.codes = np.empty(0, np.int64)
        self.counts = np.empty(0, np.int64)

    def add(self, codes: np.ndarray) -> None:
        """Count some more."""
        here = np.bincount(codes)
        seen = np.flatnonzero(here)
        self.codes, places = np.unique(np.concatenate([self.codes, seen]), return_inverse=True)
        counts = np.concatenate([self.counts, here[seen]])
        self.counts = np.zeros(len(self.codes), np.int64)
        np.add.at(self.counts, places, counts)

    def of(self, codes: np.ndarray) -> np.ndarray:
        """The counts of some ascending codes, which hold all of its own."""
        counts = np.zeros(len(codes), np.int64)
        counts[np.searchsorted(codes, self.codes)] = self.counts
        return counts


def number_codes(values: np.ndarray) -> np.ndarray:
    """A whole number for each double that is no NaN, in their order; equal for those that agree in sign, exponent and 6 bits.

    >>> codes = number_codes(np.array([-2.0, -0.0, 0.0, 3.0, 3.01, 4.0]))
    >>> np.diff(codes).astype(bool).tolist()
    [True, False, True, False, True]
    """
    bits = np.ascontiguousarray(values, np.float64).view(np.int64)
    size = (bits & np.int64(2**63 - 1)) >> _DROPPED
    return _ZERO + np.where(bits < 0, -size, size)


def _number(code: int) -> float:
    """The number of a code that is closest to 0."""
    size = np.int64(abs(int(code) - _ZERO) << _DROPPED)
    return math.copysign(float(size.view(np.float64)), int(code) - _ZERO)


class Profile:
    """What one split holds, counted while it is written."""

    def __init__(self) -> None:
        self.histograms: dict[str, Histogram] = {}  # by feature
        self.rows: dict[str, int] = {}  # with a finite number, or with a token, by feature

    def add_numbers(self, feature: Feature, values: np.ndarray) -> None:
        """Count the finite ones of some doubles."""
        values = values[np.isfinite(values)]
        self._add(feature, number_codes(values), len(values))

    def add_tokens(self, feature: Feature, ids: np.ndarray) -> None:
        """Count the tokens of some rows, ids `(rows, tokens)` without the offset of the field; all unknown ones are one."""
        is_token = ids >= OUT_OF_VOCABULARY
        self._add(feature, np.minimum(ids[is_token], _RAREST), int(is_token.any(axis=1).sum()))

    def _add(self, feature: Feature, codes: np.ndarray, rows: int) -> None:
        self.histograms.setdefault(feature.name, Histogram()).add(codes)
        self.rows[feature.name] = self.rows.get(feature.name, 0) + rows

    def describe(self, schema: Schema, training: "Profile | None" = None) -> dict[str, dict[str, Any]]:
        """What the manifest keeps.

        Args:
            schema: the fitted schema, with its vocabulary files.
            training: the `Profile` of the training split, from which there is then a distance.

        Returns:
            Of numbers `{feature: {"quantiles": {"median": 2.5, ...}}}`, of tokens `{feature: {"frequent": {token: share}}}`;
            with a `distance`, and what chance may make of it, `by_chance`; and which `token` it is of, its `share`, and that
            `in_training`.
        """
        return {feature.name: self._describe(schema, feature, training) for feature in schema.features}

    def _describe(self, schema: Schema, feature: Feature, training: "Profile | None") -> dict[str, Any]:
        name = feature.name
        own = self.histograms[name]
        said: dict[str, Any] = {}
        if isinstance(feature, Numeric):
            said["quantiles"] = _quantiles(own)
        else:
            said["frequent"] = _frequent(own, schema, feature)
        if training is None or not self.rows[name] or not training.rows[name]:
            return said
        before = training.histograms[name]
        error = math.sqrt(1 / self.rows[name] + 1 / training.rows[name])
        if isinstance(feature, Numeric):
            return said | _distance(own, before, error)
        return said | _token_distance(own, before, error, schema, feature)


def _distance(own: Histogram, before: Histogram, error: float) -> dict[str, Any]:
    codes = np.union1d(own.codes, before.codes)
    share, in_training = (np.cumsum(found.of(codes)) / found.counts.sum() for found in (own, before))
    return {"distance": float(np.abs(share - in_training).max()), "by_chance": _ERRORS / 2 * error}


def _token_distance(own: Histogram, before: Histogram, error: float, schema: Schema, feature: TokenFeature) -> dict[str, Any]:
    codes = np.union1d(own.codes, before.codes)
    shares, training = (found.of(codes) / found.counts.sum() for found in (own, before))
    is_one = (codes >= FIRST_KNOWN) & (codes < _RAREST)
    if not is_one.any():
        return {}
    place = np.argmax(np.where(is_one, np.abs(shares - training), -1))
    share = float(shares[place])
    in_training = float(training[place])
    middle = (share + in_training) / 2
    return {
        "distance": abs(share - in_training),
        "by_chance": _ERRORS * math.sqrt(middle * (1 - middle)) * error,
        "token": _texts(schema, feature, [codes[place]])[0],
        "share": share,
        "in_training": in_training,
    }


def _quantiles(histogram: Histogram) -> dict[str, float]:
    below = np.cumsum(histogram.counts)
    ranks = {name: max(1, math.ceil(share * below[-1])) for name, share in _QUANTILES.items()} if len(below) else {}
    return {name: _number(histogram.codes[np.searchsorted(below, rank)]) for name, rank in ranks.items()}


def _frequent(histogram: Histogram, schema: Schema, feature: TokenFeature) -> dict[str, float]:
    order = np.argsort(-histogram.counts, kind="stable")[: _FREQUENT + 2]
    places = [place for place in order if FIRST_KNOWN <= histogram.codes[place] < _RAREST][:_FREQUENT]
    shares = histogram.counts[places] / histogram.counts.sum()
    return dict(zip(_texts(schema, feature, histogram.codes[places]), shares.tolist(), strict=True))


def _texts(schema: Schema, feature: TokenFeature, ids: Iterable[int]) -> list[str]:
    """The tokens of some ids below `_RAREST`."""
    if feature.hash_buckets is not None:
        return [f"bucket {number - FIRST_KNOWN}" for number in ids]
    with open(schema.vocabulary_file(feature), encoding="utf-8", newline="\n") as lines:
        tokens = dict(enumerate(itertools.islice(lines, _RAREST), FIRST_KNOWN))
    return [tokens[number].removesuffix("\n") for number in ids]


def moved(profile: Mapping[str, dict[str, Any]], from_distance: float = _TOLD) -> dict[str, dict[str, Any]]:
    """The features of a described profile that are so far from training's, and further than by chance: `{feature: found}`."""
    return {
        name: found
        for name, found in profile.items()
        if found.get("distance", 0) > from_distance and found["distance"] > found["by_chance"]
    }


def move_warnings(where: str, profile: Mapping[str, dict[str, Any]], training: Mapping[str, dict[str, Any]]) -> Iterator[str]:
    """A sentence for each feature that is far from what training's profile has of it."""
    for name, found in moved(profile, _WARNED).items():
        if "token" in found:
            what = f"{found['token']!r} is {found['share']:.1%} of its tokens, in training {found['in_training']:.1%}"
        else:
            what = f"its median is {found['quantiles']['median']:.6g}, in training {training[name]['quantiles']['median']:.6g}"
        yield f"{where}: {name!r} has another distribution than in training (distance {found['distance']:.2f}): {what}."
