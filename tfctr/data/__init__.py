"""From a raw table to ids on disk to batches. Each public name is loaded when it is first used."""

import importlib

_NAMES = {"prepare": "preparing", "Dataset": "dataset", "Split": "split"}
_SUBMODULES = ("synthetic",)

__all__ = [*_NAMES, *_SUBMODULES]


def __getattr__(name):
    if name in _SUBMODULES:
        return importlib.import_module(f"tfctr.data.{name}")
    if name in _NAMES:
        return getattr(importlib.import_module(f"tfctr.data.{_NAMES[name]}"), name)
    raise AttributeError(f"module 'tfctr.data' has no attribute {name!r}")


def __dir__():
    return __all__
