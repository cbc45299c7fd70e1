"""What Keras must know of tfctr to load a `.keras` file, in fresh processes and in either order of imports."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
from kit.at_length import at_length

import tfctr.models
from tfctr.layers import MLP, FeatureEmbedding
from tfctr.models import TF4CTR, ids_input
from tfctr.registration import NAMES, StandIn

REPORT = "model = keras.saving.load_model(sys.argv[1]); print(type(model).__module__, type(model).__name__)"
FORMS = {
    "tfctr first": "import sys, tfctr, keras",
    "keras first": "import sys, keras, tfctr",
    "a part of tfctr, which imports Keras": "import sys, tfctr.layers, keras",
    "a name of tfctr": "import sys; from tfctr import Schema; import keras",
    "within a function": "import sys, tfctr; exec('import keras')",
    "tfctr alone": "import sys, tfctr; keras = tfctr.layers.mlp.keras",
}


@pytest.fixture(scope="module")
def file(tiny_schema, tmp_path_factory):
    model = TF4CTR(tiny_schema, embedding_dim=4, simple_encoder=MLP([4]), complex_encoder=MLP([4]))
    model.compile(optimizer="lazy_adam", loss="focal")
    path = tmp_path_factory.mktemp("saved") / "model.keras"
    model.save(path)
    return path


def run(code, *arguments, check=True):
    return subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, check=check)


@pytest.mark.parametrize("form", at_length(list(FORMS), "tfctr first", "keras first"))
def test_keras_loads_a_model_in_a_fresh_process(form, file):
    assert run(f"{FORMS[form]}; {REPORT}", file).stdout.split() == ["tfctr.models.tf4ctr", "TF4CTR"]


@pytest.mark.slow
def test_a_plain_model_of_tfctr_layers_too(tiny_schema, tiny_ids, tmp_path):
    ids = ids_input(tiny_schema)
    output = keras.layers.Dense(1)(MLP([3])(FeatureEmbedding(tiny_schema, 2)(ids)))
    model = keras.Model(ids, output)
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "ids.npy", tiny_ids(5))
    code = (
        "import sys, numpy, tfctr, keras; print(keras.saving.load_model(sys.argv[1])(numpy.load(sys.argv[2])).numpy().tolist())"
    )
    found = json.loads(run(code, tmp_path / "model.keras", tmp_path / "ids.npy").stdout)
    np.testing.assert_allclose(found, model(tiny_ids(5)), rtol=1e-6)


def test_importing_tfctr_imports_neither_keras_nor_tensorflow():
    code = "import sys, tfctr, tfctr.schema; print([m for m in ('keras', 'tensorflow') if m in sys.modules])"
    assert run(code).stdout.strip() == "[]"


@pytest.mark.slow
def test_keras_without_tfctr_says_what_it_lacks(file):
    failed = run(f"import sys, keras; {REPORT}", file, check=False)
    assert "Could not locate class 'TF4CTR'" in failed.stderr
    assert "'module': 'tfctr.models.tf4ctr'" in failed.stderr


def test_all_that_registers_is_named():
    known = {name.removeprefix("tfctr>"): cls for name, cls in keras.saving.get_custom_objects().items() if "tfctr>" in name}
    ours = {name for name, cls in known.items() if isinstance(cls, type) and cls.__module__.startswith("tfctr.")}
    assert ours == set(NAMES), "tfctr.registration.NAMES has all classes that are registered, and no others"
    assert not any(isinstance(known[name], StandIn) for name in NAMES), "importing tfctr.models imports all of them"
    assert tfctr.models
