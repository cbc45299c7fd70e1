"""Parameters of which some are tried by `make test`, others by `make test-slow`, and the rest by `make test-every`."""

import itertools

import pytest


def at_length(values, *first, then=None):
    """The values for `pytest.mark.parametrize`, a tuple where there are several names: all but the `first` as slow tests.

    With `then`, only those are slow tests, and all others are left to `make test-every`.
    """
    unknown = [value for value in (*first, *(then or [])) if value not in values]
    assert not unknown, unknown

    def marks(value):
        if value in first:
            return []
        return pytest.mark.slow if then is None or value in then else pytest.mark.every

    return [pytest.param(*(value if isinstance(value, tuple) else [value]), marks=marks(value)) for value in values]


def share_out(items):
    """Of the cases of each test marked `sampled(first)` leave so many to `make test`, spread evenly over them in their order.

    Three times as many more, spread in the same way, are slow; those that are left are for `make test-every`. Cases that are
    marked so by themselves are not among them.
    """
    for _, cases in itertools.groupby(items, lambda item: item.nodeid.partition("[")[0]):
        cases = [case for case in cases if not {"slow", "every"} & {mark.name for mark in case.iter_markers()}]
        if cases and (marker := cases[0].get_closest_marker("sampled")):
            (first,) = marker.args
            quick, chosen = ({place * len(cases) // number for place in range(number)} for number in (first, 4 * first))
            for place, case in enumerate(cases):
                if place not in quick:
                    case.add_marker(pytest.mark.slow if place in chosen else pytest.mark.every)
