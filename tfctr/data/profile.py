"""What the columns of a split hold, and how far that is from what training's hold.

The distance is, of numbers, that of Kolmogorov and Smirnov, `max over x of |F(x) - G(x)|`: the largest difference between the
shares of rows up to a value; of tokens, the largest difference between the shares that one known token has of all. Both lie in
[0, 1].

Beside it stands the population stability index, `PSI = sum over bins of (p - q) ln(p / q)`, of the shares p of a split and q of
training, half a row added to each bin: numbers in the ten intervals between training's deciles, tokens in its twenty most
frequent ones and all other known ones, and rows without a value. Tokens that the fit does not know count in `unseen` alone.
It is the sum of both relative entropies, and has no upper bound; in practice 0.1 is called a move, and 0.25 a large one.

Counts are exact, whatever the number of threads. Numbers are counted by their sign, exponent and leading 6 bits, so that a
quantile here is one of the column, or is up to 1.6 % closer to 0.
"""

import itertools
import math
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self, TypeAlias

import numpy as np

from tfctr.errors import StorageError
from tfctr.features import FIRST_KNOWN, OUT_OF_VOCABULARY, Feature, Numeric, TokenFeature
from tfctr.schema import Schema
from tfctr.types import StrPath

_TOLD = 0.04  # distances from which on one is said,
_WARNED = 0.2  # and is a warning
_ERRORS = 5  # standard errors of a share, more than which no chance is credible
_DROPPED = 46  # bits of a double's 64
_ZERO = 1 << (63 - _DROPPED)
_RAREST = 2**17  # ids from here on are counted as one: of a vocabulary, what is rarest, or has come later, in training
_QUANTILES = {"least": 0.0, "5%": 0.05, "median": 0.5, "95%": 0.95, "greatest": 1.0}
_FREQUENT = 3  # tokens that are named
_BINS = 10  # of numbers, for the PSI,
_OWN_BIN = 20  # and tokens with a bin of their own
_ONE_IN_A_THOUSAND = 3.09  # of a normal distribution, the quantile


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
        self.without: dict[str, int] = {}  # rows, by feature

    @classmethod
    def load(cls, path: StrPath) -> Self:
        """What `save` wrote. Raises `StorageError` for a file that is missing or damaged."""
        profile = cls()
        try:
            with np.load(path, allow_pickle=False) as arrays:
                for place, name in enumerate(arrays["names"].tolist()):
                    histogram = profile.histograms[name] = Histogram()
                    histogram.codes, histogram.counts = arrays[f"codes{place}"], arrays[f"counts{place}"]
                    profile.rows[name], profile.without[name] = arrays["rows"][place].tolist()
        except (OSError, ValueError, LookupError, EOFError, zipfile.BadZipFile) as error:
            raise StorageError(f"{path} is no profile: {error}", fix="restore the folder, or prepare the data again") from error
        return profile

    def save(self, path: Path) -> None:
        """Write all counts into one file."""
        rows = [[self.rows[name], self.without[name]] for name in self.rows]
        arrays: dict[str, Any] = {"names": np.array([*self.rows], str), "rows": np.array(rows, np.int64)}
        for place, name in enumerate(self.rows):
            arrays[f"codes{place}"] = self.histograms[name].codes
            arrays[f"counts{place}"] = self.histograms[name].counts
        np.savez_compressed(path, **arrays)

    def add_numbers(self, feature: Feature, values: np.ndarray) -> None:
        """Count the finite ones of some doubles."""
        finite = values[np.isfinite(values)]
        self._add(feature, number_codes(finite), len(finite), len(values))

    def add_tokens(self, feature: Feature, ids: np.ndarray) -> None:
        """Count the tokens of some rows, ids `(rows, tokens)` without the offset of the field; all unknown ones are one."""
        is_token = ids >= OUT_OF_VOCABULARY
        self._add(feature, np.minimum(ids[is_token], _RAREST), int(is_token.any(axis=1).sum()), len(ids))

    def _add(self, feature: Feature, codes: np.ndarray, rows: int, of: int) -> None:
        self.histograms.setdefault(feature.name, Histogram()).add(codes)
        self.rows[feature.name] = self.rows.get(feature.name, 0) + rows
        self.without[feature.name] = self.without.get(feature.name, 0) + of - rows

    def describe(self, schema: Schema, training: "Profile | None" = None) -> dict[str, dict[str, Any]]:
        """What the manifest keeps.

        Args:
            schema: the fitted schema, with its vocabulary files.
            training: the `Profile` of the training split, from which there is then a distance.

        Returns:
            Of numbers `{feature: {"quantiles": {"median": 2.5, ...}}}`, of tokens `{feature: {"frequent": {token: share}}}`;
            with a `distance`, and what chance may make of it, `by_chance`; and which `token` it is of, its `share`, and that
            `in_training`; and the `psi`, with what chance exceeds once in a thousand splits, `psi_by_chance`.
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
        if training is None or name not in training.rows:
            return said
        said |= self._psi(training, feature)
        if not self.rows[name] or not training.rows[name]:
            return said
        before = training.histograms[name]
        error = math.sqrt(1 / self.rows[name] + 1 / training.rows[name])
        if isinstance(feature, Numeric):
            return said | _distance(own, before, error)
        return said | _token_distance(own, before, error, schema, feature)

    def _psi(self, training: "Profile", feature: Feature) -> dict[str, float]:
        name = feature.name
        own, before = self.histograms[name], training.histograms[name]
        bins, of = _number_bins(before) if isinstance(feature, Numeric) else _token_bins(before)
        counts = [
            np.append(np.bincount(of(found.codes), found.counts, bins + 1)[:bins], without)
            for found, without in ((own, self.without[name]), (before, training.without[name]))
        ]
        return stability(*counts)


def stability(counts: np.ndarray, training: np.ndarray) -> dict[str, float]:
    """`{"psi", "psi_by_chance"}` of the rows in some bins, and training's in the same.

    By chance it is `1 / rows + 1 / training's rows` times a chi-squared number of as many degrees of freedom as bins but one
    ([Yurdakul, 2018](https://scholarworks.wmich.edu/dissertations/3208)), here its quantile .999 by Wilson and Hilferty.

    >>> found = stability(np.array([30, 70]), np.array([50, 50]))
    >>> round(found["psi"], 2), round(found["psi_by_chance"], 2)
    (0.17, 0.22)
    """
    filled = (counts + training) > 0
    counts, training = counts[filled], training[filled]
    share, in_training = ((found + 0.5) / (found.sum() + 0.5 * len(found)) for found in (counts, training))
    freedom = max(1, len(counts) - 1)
    spread = 2 / (9 * freedom)
    chi_squared = freedom * (1 - spread + _ONE_IN_A_THOUSAND * math.sqrt(spread)) ** 3
    return {
        "psi": float(np.sum((share - in_training) * np.log(share / in_training))),
        "psi_by_chance": chi_squared * float(sum(1 / max(1.0, found.sum()) for found in (counts, training))),
    }


_Bins: TypeAlias = tuple[int, Callable[[np.ndarray], np.ndarray]]  # how many, and which one a code is in; one more for none


def _number_bins(histogram: Histogram) -> _Bins:
    """The intervals between the deciles."""
    below = np.cumsum(histogram.counts)
    ranks = np.ceil(np.arange(1, _BINS) * below[-1] / _BINS) if len(below) else np.empty(0)
    cuts = np.unique(histogram.codes[np.searchsorted(below, ranks)])
    return len(cuts) + 1, lambda codes: np.searchsorted(cuts, codes)


def _token_bins(histogram: Histogram) -> _Bins:
    """The most frequent known tokens, and all others."""
    order = np.argsort(-histogram.counts, kind="stable")[: _OWN_BIN + 2]
    own = np.sort([code for code in histogram.codes[order] if FIRST_KNOWN <= code < _RAREST][:_OWN_BIN])
    others = len(own)

    def of(codes: np.ndarray) -> np.ndarray:
        if not others:
            return np.where(codes == OUT_OF_VOCABULARY, 1, 0)
        place = np.minimum(np.searchsorted(own, codes), others - 1)
        return np.where(codes == OUT_OF_VOCABULARY, others + 1, np.where(own[place] == codes, place, others))

    return others + 1, of


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
