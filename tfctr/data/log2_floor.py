"""The Criteo rule for counts, as intervals of the real line that any engine can search.

`bucket(x) = floor(ln(x)^2)` for x > 2, else `int(x)`. Engines round logarithms differently, so the rule is evaluated
here, once, at fit: each bucket becomes one or two intervals whose ends are exact doubles, and later both faces only compare.

Source: the preprocessing of the Criteo challenge's winners, as described by
[Juan et al., 2016](https://www.csie.ntu.edu.tw/~cjlin/papers/ffm.pdf).
"""

import functools
import math
from collections.abc import Mapping

import numpy as np

from tfctr.features import OUT_OF_VOCABULARY


def bucket(x: float) -> int:
    """The rule itself, for one finite number.

    >>> [bucket(x) for x in (-1.5, 0, 1.9, 2, 2.5, 3, 1000)]
    [-1, 0, 1, 2, 0, 1, 47]
    """
    return math.floor(math.log(x) ** 2) if x > 2 else int(x)


def buckets(values: np.ndarray) -> np.ndarray:
    """The rule for a float64 array of finite numbers, equal to `bucket` at every value; the result is float64."""
    result = np.trunc(values)
    large = values > 2
    near = np.floor(np.log(values[large]) ** 2)  # right, or off by one beside an end
    around, position = np.unique(near, return_inverse=True)
    low, high = (np.array([_least(b) for b in around + shift]) for shift in (0, 1))
    result[large] = near - (values[large] < low[position]) + (values[large] >= high[position])
    return result


def intervals(ids: Mapping[int, int]) -> tuple[list[float], list[int]]:
    """The ascending `edges` and the `interval_ids` of `{bucket: id}`; what lies in no such bucket is out of vocabulary.

    Interval k holds the x with `edges[k - 1] <= x < edges[k]`.

    >>> edges, interval_ids = intervals({1: 3, 47: 4})
    >>> [round(edge, 2) for edge in edges], interval_ids
    ([1.0, 2.0, 2.72, 4.11, 949.23, 1020.66], [2, 3, 2, 3, 2, 4, 2])
    """
    pieces = sorted((low, high, id) for number, id in ids.items() for low, high in _preimage(number))
    edges: list[float] = []
    interval_ids = [OUT_OF_VOCABULARY]
    for low, high, id in pieces:
        if edges and edges[-1] == low:
            interval_ids[-1] = id
        else:
            edges.append(low)
            interval_ids.append(id)
        if high < math.inf:
            edges.append(high)
            interval_ids.append(OUT_OF_VOCABULARY)
    return edges, interval_ids


def _preimage(number: int) -> list[tuple[float, float]]:
    """The half-open intervals [low, high) whose doubles have this bucket."""
    if number < 0:
        # Beyond 2^53 each double is a bucket of its own: there `number - 1.0` may round back to it.
        return [(min(float(number), math.nextafter(number - 1.0, 0.0)), math.nextafter(number, 0.0))]
    below_two = {0: (math.nextafter(-1.0, 0.0), 1.0), 1: (1.0, 2.0), 2: (2.0, math.nextafter(2.0, 3.0))}
    above_two = (_least(number), _least(number + 1))
    return [below_two[number], above_two] if number in below_two else [above_two]


@functools.cache
def _least(number: float) -> float:
    """The least double above 2 whose bucket is at least `number`: e^sqrt(number), corrected to the last bit."""
    least = math.nextafter(2.0, 3.0)
    if number <= 0:
        return least
    try:
        edge = math.exp(math.sqrt(number))
    except OverflowError:
        return math.inf
    while edge > least and bucket(edge) >= number:
        edge = math.nextafter(edge, 0.0)
    while bucket(edge) < number:
        edge = math.nextafter(edge, math.inf)
    return edge
