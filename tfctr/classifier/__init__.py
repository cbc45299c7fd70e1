"""An estimator of scikit-learn over the whole chain."""

import importlib.util

from tfctr.errors import require

require(importlib.util.find_spec("sklearn"), "scikit-learn is not installed.", fix='pip install "tfctr[sklearn]"')

from tfctr.classifier.estimator import CTRClassifier  # noqa: E402

__all__ = ["CTRClassifier"]
