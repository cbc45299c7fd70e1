"""Every registered model, for contract tests: all, or at once those at the heart of the papers, and then one of each kind."""

import pytest

from kit.at_length import at_length
from tfctr.features import Categorical, Sequence
from tfctr.models import MODELS

_FIRST = {"CETN", "DNN", "DeepFM", "DualMLP", "FM", "LR", "TF4CTR", "WideDeep"}

OF_HISTORIES = {"BST", "DIN"}
EVERY_MODEL = pytest.mark.parametrize("name", sorted(MODELS))
# One model of each kind of layer, table and loss: what fails for another one fails for one of these, too, or in its own tests.
OF_EACH_KIND = [
    "AFN",
    "AutoInt",
    "BST",
    "CETN",
    "CL4CTR",
    "DIN",
    "EulerNet",
    "FCN",
    "FM",
    "FiGNN",
    "FinalMLP",
    "FinalNet",
    "MaskNet",
    "QNNAlpha",
    "XDeepFM",
]
_NEXT = sorted({*OF_EACH_KIND} - _FIRST)
EVERY_MODEL_AT_LENGTH = pytest.mark.parametrize("name", at_length(sorted(MODELS), *_FIRST, then=_NEXT))


def made(name, schema, **arguments):
    """The model of that name; one that reads histories takes the first sequence for one, and the first token for its target."""
    kinds = {"histories": Sequence, "targets": Categorical} if name in OF_HISTORIES else {}
    told = {key: [next(f.name for f in schema.features if isinstance(f, kind))] for key, kind in kinds.items()}
    return MODELS[name](schema, **told, **arguments)
