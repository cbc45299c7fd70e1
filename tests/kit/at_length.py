"""Parameters of which some are tried by `make test`, and the others by `make test-slow`."""

import pytest


def at_length(values, *first):
    """The values for `pytest.mark.parametrize`, a tuple where there are several names: all but the `first` as slow tests."""
    unknown = [value for value in first if value not in values]
    assert not unknown, unknown
    return [
        pytest.param(*(value if isinstance(value, tuple) else [value]), marks=[] if value in first else pytest.mark.slow)
        for value in values
    ]
