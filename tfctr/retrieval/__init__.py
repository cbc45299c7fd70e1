"""The stage before ranking: two towers that retrieve, among all items, the candidates for a user.

They are trained with TensorFlow Recommenders (`pip install 'tfctr[retrieval]'`), in a process of its own; what they have
learnt needs it no more. Nothing is loaded before it is used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tfctr.retrieval.evaluating import evaluate as evaluate
    from tfctr.retrieval.items import Items as Items
    from tfctr.retrieval.library import load_tfrs as load_tfrs
    from tfctr.retrieval.options import TowerOptions as TowerOptions
    from tfctr.retrieval.retriever import Retriever as Retriever
    from tfctr.retrieval.retriever import load_retriever as load_retriever
    from tfctr.retrieval.training import train as train

_NAMES = {
    "train": "training",
    "evaluate": "evaluating",
    "load_retriever": "retriever",
    "Retriever": "retriever",
    "Items": "items",
    "TowerOptions": "options",
    "load_tfrs": "library",
}

__all__ = [*_NAMES]


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return getattr(importlib.import_module(f"tfctr.retrieval.{_NAMES[name]}"), name)
    raise AttributeError(f"module 'tfctr.retrieval' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
