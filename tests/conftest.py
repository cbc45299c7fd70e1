"""What the tests share: the backend, where real data are, and a tiny fitted schema with ids that are valid for it."""

import functools
import gc
import os
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import pytest
from hypothesis import settings
from kit.at_length import share_out
from kit.places import ROOT

from tfctr.features import FIRST_KNOWN, MISSING, PADDING, Categorical, Numeric, Sequence
from tfctr.schema import Schema

pytest_plugins = [
    "kit.saved_models",
    "kit.served_model",
    "kit.certificates",
    "kit.engines",
]  # with `models`, `base`, `live_server`, `certificate`, `postgres`, `spark`

gc.set_threshold(20_000, 20, 50)  # graphs consist of many objects that live on

settings.register_profile("tfctr", deadline=None, max_examples=50)  # shared machines are slow at times
settings.load_profile("tfctr")

MISSING_NUMBER = np.int32(0x7FC00000)  # the bits of NaN in float32
VOCABULARIES = {
    "user": ["60", "7", "Zoë", "東京"],
    "item": [f"item {number}" for number in range(9)],
    "genres": ["Comedy", "Drama", "Animation", "Film-Noir", "Sci-Fi"],
}


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Give each test, and the fixtures made for it, the same weights whatever ran before in its process."""
    keras.utils.set_random_seed(1)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    share_out(items)


@functools.cache
def multiplies_in_low_precision():
    """Whether products in 16 bits leave the process alive: not where ONEDNN_MAX_CPU_ISA hides what TensorFlow relies on."""
    product = "tf.matmul(tf.ones((64, 400), dtype), tf.ones((400, 400), dtype))"
    code = f"import tensorflow as tf; [{product} for dtype in ('bfloat16', 'float16')]"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


@pytest.fixture(autouse=True)
def _skip_low_precision_where_it_ends_the_process(monkeypatch):
    if "ONEDNN_MAX_CPU_ISA" not in os.environ or multiplies_in_low_precision():
        return
    make = keras.DTypePolicy.__init__

    def refuse(policy, name=None, *arguments, **options):
        if "float16" in str(name):
            pytest.skip(f"TensorFlow cannot multiply in {name} with ONEDNN_MAX_CPU_ISA={os.environ['ONEDNN_MAX_CPU_ISA']}")
        make(policy, name, *arguments, **options)

    monkeypatch.setattr(keras.DTypePolicy, "__init__", refuse)


@pytest.fixture(scope="session")
def real_data():
    """`real_data("frappe")` is the folder with that data set; the test is skipped where it is absent."""
    default = ROOT.parent / "shared" / "data"
    root = Path(os.environ.get("TFCTR_DATA", default))

    def locate(name):
        if not (root / name).is_dir():
            pytest.skip(f"no data set {name!r} in {root}: set TFCTR_DATA")
        return root / name

    return locate


@pytest.fixture(scope="session")
def tiny_schema(tmp_path_factory):
    """A fitted schema, one feature of each kind, in a folder with its vocabulary files."""
    sizes = {name: FIRST_KNOWN + len(tokens) for name, tokens in VOCABULARIES.items()}
    schema = Schema(
        features=[
            Categorical("user", size=sizes["user"]),
            Categorical("item", size=sizes["item"]),
            Sequence("genres", max_length=3, size=sizes["genres"]),
            Numeric("age", "scaled", mean=40.0, scale=12.5, size=FIRST_KNOWN + 1),
            Numeric("price", "edges", edges=(1.0, 10.0, 100.0), interval_ids=(3, 4, 5, 6), size=FIRST_KNOWN + 4),
        ],
        label="click",
        group="user",
        folder=str(tmp_path_factory.mktemp("tiny_schema")),
    )
    for feature in schema.features:
        if feature.name in VOCABULARIES:
            file = schema.vocabulary_file(feature)
            file.parent.mkdir(exist_ok=True)
            file.write_bytes("".join(f"{token}\n" for token in VOCABULARIES[feature.name]).encode())
    schema.save(Path(schema.folder) / "schema.json")
    return schema


@pytest.fixture(scope="session")
def tiny_ids(tiny_schema):
    """`tiny_ids(rows, seed=0)`: a prepared matrix with every kind of id: known, unknown, missing, padding."""

    def draw(rows, seed=0):
        rng = np.random.default_rng(seed)
        return np.concatenate([_draw_field(rng, rows, field) for field in tiny_schema.fields], axis=1)

    return draw


@pytest.fixture(scope="session")
def tiny_labels(tiny_ids):
    """`tiny_labels(rows, seed=0)` are labels of `tiny_ids(rows, seed)` that depend on user and item, about half of them 1."""

    def draw(rows, seed=0):
        ids = tiny_ids(rows, seed)
        return ((ids[:, 0] + ids[:, 1]) % 2).astype(np.float32)

    return draw


def _draw_field(rng, rows, field):
    feature = field.feature
    if isinstance(feature, Numeric) and feature.transform == "scaled":
        values = rng.normal(size=(rows, 1)).astype(np.float32).view(np.int32)
        return np.where(rng.random((rows, 1)) < 0.1, MISSING_NUMBER, values)
    ids = rng.integers(MISSING, feature.size, size=(rows, feature.width), dtype=np.int32)
    if isinstance(feature, Sequence):
        lengths = rng.integers(1, feature.width + 1, size=(rows, 1))
        ids = np.maximum(ids, MISSING + 1)
        ids[rng.random(rows) < 0.1, 0] = MISSING
        lengths[ids[:, 0] == MISSING] = 1
        ids[np.arange(feature.width) >= lengths] = PADDING
    return ids + np.int32(field.offset)
