"""From a raw table to ids on disk to batches. Each public name is loaded when it is first used."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what `__getattr__` gives
    from tfctr.data.dataset import Dataset as Dataset
    from tfctr.data.drifting import drift as drift
    from tfctr.data.encoding import encode as encode
    from tfctr.data.preparing import prepare as prepare
    from tfctr.data.split import Split as Split

_NAMES = {"prepare": "preparing", "encode": "encoding", "drift": "drifting", "Dataset": "dataset", "Split": "split"}
_SUBMODULES = ("synthetic",)

__all__ = [*_NAMES, *_SUBMODULES]


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return importlib.import_module(f"tfctr.data.{name}")
    if name in _NAMES:
        return getattr(importlib.import_module(f"tfctr.data.{_NAMES[name]}"), name)
    raise AttributeError(f"module 'tfctr.data' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
