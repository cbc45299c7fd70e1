"""TensorFlow Recommenders is loaded beside Keras 3, or a clear error says why not; nothing else of tfctr needs it."""

import importlib.util
import subprocess
import sys

import pytest
from kit.places import ROOT

from tfctr.errors import ConfigError
from tfctr.retrieval.library import require_installed

LOADED = """
import keras, tensorflow as tf
from tfctr.retrieval import load_tfrs
tfrs = load_tfrs()
assert keras.__version__.startswith("3.") and tf.keras.Model.__module__.startswith("tf_keras."), tf.keras.Model.__module__
assert load_tfrs() is tfrs and tfrs.tasks.Retrieval
import os; assert "TF_USE_LEGACY_KERAS" not in os.environ
print("loaded")
"""
TOUCHED = "import tensorflow as tf; tf.keras.layers; from tfctr.retrieval import load_tfrs; load_tfrs()"
ABSENT = """
import sys
sys.modules["tensorflow_recommenders"] = sys.modules["tf_keras"] = None
import tfctr.cli, tfctr.models, tfctr.serving.exporting.exporter, tfctr.retrieval.retriever, tfctr.retrieval.evaluating
print("imported")
"""


INSTALLED = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow_recommenders") is None, reason="the extra `retrieval` is absent"
)


def python(code):
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, encoding="utf-8", check=False)


@pytest.mark.slow
@INSTALLED
def test_it_is_loaded_beside_keras_3():
    run = python(LOADED)
    assert run.stdout == "loaded\n", run.stderr


@INSTALLED
def test_where_keras_3_was_used_as_that_of_tensorflow_an_error_says_what_to_do():
    run = python(TOUCHED)
    assert "ConfigError: TensorFlow Recommenders needs `tf.keras` to be Keras 2" in run.stderr
    assert "fix: start Python with TF_USE_LEGACY_KERAS=1" in run.stderr


@pytest.mark.slow
def test_all_else_does_without_it():
    run = python(ABSENT)
    assert run.stdout == "imported\n", run.stderr


@pytest.mark.parametrize(("module", "name"), [("tensorflow_recommenders", "TensorFlow Recommenders"), ("tf_keras", "tf-keras")])
def test_an_extra_that_is_not_installed_is_named(module, name, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda wanted: None if wanted == module else found("json"))
    with pytest.raises(ConfigError, match=f"retrieval needs {name}, which is not installed.\n.*pip install 'tfctr.retrieval.'"):
        require_installed()
