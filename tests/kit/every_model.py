"""Every registered model, for contract tests: all, or those at the heart of the papers now and the others as slow tests."""

import pytest

from kit.at_length import at_length
from tfctr.models import MODELS

_FIRST = {"CETN", "DNN", "DeepFM", "DualMLP", "FM", "LR", "TF4CTR", "WideDeep"}

EVERY_MODEL = pytest.mark.parametrize("name", sorted(MODELS))
EVERY_MODEL_AT_LENGTH = pytest.mark.parametrize("name", at_length(sorted(MODELS), *_FIRST))
# One model of each kind of layer, table and loss: what fails for another one fails for one of these, too, or in its own tests.
OF_EACH_KIND = ["AFN", "AutoInt", "CETN", "CL4CTR", "EulerNet", "FM", "FiGNN", "FinalMLP", "FinalNet", "MaskNet", "XDeepFM"]
