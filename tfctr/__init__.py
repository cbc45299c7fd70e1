"""tfctr: click-through-rate prediction on Keras 3 and TensorFlow, from a raw table to a gRPC answer.

Importing tfctr imports neither TensorFlow nor Keras: each public name is loaded when it is first used.
"""

import importlib

from tfctr import registration

__version__ = "0.1.0"

_SUBMODULES = (
    "config",
    "data",
    "errors",
    "evaluation",
    "layers",
    "losses",
    "metrics",
    "models",
    "optimizers",
    "schema",
    "serving",
    "training",
)
_NAMES = {
    "Schema": "schema",
    "Label": "schema",
    "Categorical": "features",
    "Numeric": "features",
    "Sequence": "features",
    "prepare": "data",
    "Dataset": "data",
    "load_model": "models",
}

__all__ = ["__version__", *_SUBMODULES, *_NAMES]


def __getattr__(name):
    if name in _SUBMODULES:
        return importlib.import_module(f"tfctr.{name}")
    if name in _NAMES:
        return getattr(importlib.import_module(f"tfctr.{_NAMES[name]}"), name)
    raise AttributeError(f"module 'tfctr' has no attribute {name!r}")


def __dir__():
    return __all__


registration.register()
