"""Parameters of which some are tried by `make test`, others by `make test-slow`, and the rest by `make test-every`."""

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
