"""tfctr: click-through-rate prediction on Keras 3 and TensorFlow, from a raw table to a gRPC answer.

Importing tfctr imports neither TensorFlow nor Keras: each public name is loaded when it is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

from tfctr import registration

if TYPE_CHECKING:  # what `__getattr__` gives
    from tfctr import config as config
    from tfctr import data as data
    from tfctr import errors as errors
    from tfctr import evaluation as evaluation
    from tfctr import experiments as experiments
    from tfctr import fuxictr as fuxictr
    from tfctr import layers as layers
    from tfctr import losses as losses
    from tfctr import metrics as metrics
    from tfctr import models as models
    from tfctr import optimizers as optimizers
    from tfctr import retrieval as retrieval
    from tfctr import schema as schema
    from tfctr import serving as serving
    from tfctr import training as training
    from tfctr.classifier import CTRClassifier as CTRClassifier
    from tfctr.data import Dataset as Dataset
    from tfctr.data import drift as drift
    from tfctr.data import encode as encode
    from tfctr.data import prepare as prepare
    from tfctr.features import Categorical as Categorical
    from tfctr.features import Numeric as Numeric
    from tfctr.features import Sequence as Sequence
    from tfctr.models import load_model as load_model
    from tfctr.schema import Label as Label
    from tfctr.schema import Schema as Schema

__version__ = "0.1.0"

_SUBMODULES = (
    "config",
    "data",
    "errors",
    "evaluation",
    "experiments",
    "fuxictr",
    "layers",
    "losses",
    "metrics",
    "models",
    "optimizers",
    "retrieval",
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
    "encode": "data",
    "drift": "data",
    "Dataset": "data",
    "load_model": "models",
}
_OPTIONAL = {"CTRClassifier": "classifier"}  # needs scikit-learn, so `from tfctr import *` leaves it out

__all__ = ["__version__", *_SUBMODULES, *_NAMES]


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return importlib.import_module(f"tfctr.{name}")
    if module := (_NAMES | _OPTIONAL).get(name):
        return getattr(importlib.import_module(f"tfctr.{module}"), name)
    raise AttributeError(f"module 'tfctr' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, *_OPTIONAL]


registration.register()
