"""Every registered model, for contract tests: all, or at once those at the heart of the papers, and then one of each kind."""

import pytest

from kit.at_length import at_length
from tfctr.models import MODELS

_FIRST = {"CETN", "DNN", "DeepFM", "DualMLP", "FM", "LR", "TF4CTR", "WideDeep"}

EVERY_MODEL = pytest.mark.parametrize("name", sorted(MODELS))
# One model of each kind of layer, table and loss: what fails for another one fails for one of these, too, or in its own tests.
OF_EACH_KIND = ["AFN", "AutoInt", "CETN", "CL4CTR", "EulerNet", "FM", "FiGNN", "FinalMLP", "FinalNet", "MaskNet", "XDeepFM"]
_NEXT = sorted({*OF_EACH_KIND} - _FIRST)
EVERY_MODEL_AT_LENGTH = pytest.mark.parametrize("name", at_length(sorted(MODELS), *_FIRST, then=_NEXT))
