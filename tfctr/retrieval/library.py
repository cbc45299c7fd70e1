"""TensorFlow Recommenders, which knows Keras 2 alone, beside the Keras 3 of all else.

`import keras` stays Keras 3. TensorFlow Recommenders reads `tf.keras`, which TensorFlow resolves once, when it is first used:
to `tf_keras`, Keras 2, only if the environment has TF_USE_LEGACY_KERAS=1 by then. So training is a process of its own that has
it.
"""

import importlib
import importlib.util
import os
import sys
from types import ModuleType

from tfctr.errors import ConfigError

VARIABLE = "TF_USE_LEGACY_KERAS"
_PACKAGES = {"tensorflow_recommenders": "TensorFlow Recommenders", "tf_keras": "tf-keras"}


def require_installed() -> None:
    """Raise `ConfigError` unless the packages of the extra `retrieval` are installed. Imports nothing."""
    for module, name in _PACKAGES.items():
        if module not in sys.modules and importlib.util.find_spec(module) is None:
            raise ConfigError(f"retrieval needs {name}, which is not installed.", fix="pip install 'tfctr[retrieval]'")


def load_tfrs() -> ModuleType:
    """The module `tensorflow_recommenders`; `tf.keras` is `tf_keras` in this process from then on.

    Raises:
        ConfigError: it is not installed, or `tf.keras` was used as Keras 3 here before, which cannot be undone.
    """
    require_installed()
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = "1"
    try:
        return importlib.import_module("tensorflow_recommenders")
    except ImportError as error:
        fix = f"start Python with {VARIABLE}=1, or write `import keras` for `tf.keras`; `tfctr.retrieval.train` works as it is"
        problem = f"TensorFlow Recommenders needs `tf.keras` to be Keras 2, and here it is another one: {error}"
        raise ConfigError(problem, fix=fix) from error
    finally:
        if before is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = before
