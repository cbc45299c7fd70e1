"""The strict loader and check: they run what TensorFlow Serving runs, refuse what it refuses, and compare every bit."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
import tensorflow as tf
from kit.saved_models import TYPES, check, export_identities, export_scorer, probabilities, texts

from tfctr.errors import ExportError, StorageError
from tfctr.serving.exporting.check import _environment
from tfctr.serving.runtime.saved_model import SavedModel, StatusError

USERS, PRICES = texts("60", "nobody", "café", ""), np.array([1.0, 2.0, np.nan, -50.0])
# Bits that arithmetic would lose: -0.0, subnormals, both kinds of NaN.
VALUES = {
    "string": texts("", "a", "x" * 22, "x" * 23, "nul \0 inside", "東京", b"\xff\xfe", "y" * 100_000),
    "float64": np.array([0.0, -0.0, np.inf, np.nan, 5e-324, 1 / 3]),
    "float32": np.array([0x7FC00001, 0x7FC00000, 0xFFC00000, 0x00000001, 0x80000000], np.uint32).view(np.float32),
    "int32": np.array([0, -1, 2**31 - 1, -(2**31)], np.int32),
    "int64": np.array([0, -1, 2**63 - 1, -(2**63)]),
    "bool": np.array([True, False]),
}


@pytest.fixture(scope="module")
def scorer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scorer") / "1"
    export_scorer(folder)
    return folder


@pytest.fixture(scope="module")
def identities(tmp_path_factory):
    folder = tmp_path_factory.mktemp("identities") / "1"
    export_identities(folder)
    return folder


@pytest.fixture
def golden(scorer):
    """What TensorFlow's Python answers: the other face of the same model."""
    signatures = tf.saved_model.load(scorer).signatures
    ids = np.array([[1, 0, 2], [-1, -1, -2]], np.int32)
    batches = {"serving_default": {"user": USERS, "price": PRICES}, "ids": {"ids": ids}}
    return [
        {
            "signature": name,
            "inputs": inputs,
            "outputs": {key: value.numpy() for key, value in signatures[name](**as_tensors(inputs)).items()},
        }
        for name, inputs in batches.items()
    ]


def as_tensors(inputs):
    return {name: tf.constant(array.tolist() if array.dtype == object else array) for name, array in inputs.items()}


# the loader


def test_signatures_run_by_their_formula(scorer):
    model = SavedModel(scorer)
    assert sorted(model.signatures) == ["ids", "serving_default"]
    answer = model.run("serving_default", {"user": USERS, "price": PRICES})
    np.testing.assert_allclose(answer["probability"], probabilities(["60", "", "café", ""], PRICES), rtol=1e-6)
    # sigmoid(0.5 * (1 + 2 + 3)), sigmoid(0)
    ids = np.array([[1, 2, 3], [1, -1, 0]], np.int32)
    np.testing.assert_allclose(model.run("ids", {"ids": ids})["probability"], [0.95257413, 0.5], rtol=1e-6)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("rows", [slice(None), slice(0, 1), slice(0, 0)], ids=["all", "one", "none"])
def test_every_type_passes_unchanged(identities, dtype, rows):
    value = VALUES[dtype][rows]
    same = SavedModel(identities).run(dtype, {"value": value})["same"]
    assert same.dtype == value.dtype
    assert same.tolist() == value.tolist() if dtype == "string" else same.tobytes() == value.tobytes()


def test_many_threads_share_a_model(scorer):
    model = SavedModel(scorer)
    rows = {"user": texts(*["60"] * 100), "price": np.arange(100.0)}
    expected = model.run("serving_default", rows)["probability"].tobytes()
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: model.run("serving_default", rows)["probability"].tobytes(), range(400)))
    assert set(answers) == {expected}


@pytest.mark.parametrize(
    ("inputs", "problem"),
    [
        ({"user": USERS, "price": PRICES[:3]}, "the inputs differ in rows"),
        ({"user": USERS, "price": PRICES.astype("float32")}, "Expects arg"),
        ({"user": USERS, "price": PRICES.astype("complex64")}, "complex64"),
    ],
)
def test_what_tensorflow_refuses(scorer, inputs, problem):
    with pytest.raises(StatusError, match=problem):
        SavedModel(scorer).run("serving_default", inputs)


def test_folders_without_a_model(tmp_path, scorer):
    with pytest.raises(StorageError, match="holds no SavedModel"):
        SavedModel(tmp_path)
    (tmp_path / "saved_model.pb").write_bytes(scorer.joinpath("saved_model.pb").read_bytes()[:-7])
    with pytest.raises(StorageError, match="corrupt"):
        SavedModel(tmp_path)
    (tmp_path / "saved_model.pb").write_bytes(b"")
    with pytest.raises(StorageError, match="no graph with the tag 'serve'"):
        SavedModel(tmp_path)
    (tmp_path / "saved_model.pb").write_bytes(scorer.joinpath("saved_model.pb").read_bytes())
    model = SavedModel(tmp_path)  # TensorFlow takes a folder without `variables/` for a model without variables
    with pytest.raises(StatusError, match="Could not find variable"):
        model.run("ids", {"ids": np.ones((1, 3), np.int32)})


@pytest.mark.parametrize(
    "module", ["exporting.check", "client", "runtime.stand_in", "store", "wire", "publishing.configuration"]
)
def test_no_module_imports_tensorflow(module):
    code = f"import sys, tfctr.serving.{module}; sys.exit(len({{'tensorflow', 'keras', 'pandas'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.slow
def test_tensorflow_still_imports_after_the_loader(scorer):
    # The libraries' TLS symbols must not reach Python's own OpenSSL.
    load = f"from tfctr.serving.runtime.saved_model import SavedModel; SavedModel({str(scorer)!r})"
    code = f"{load}; import hashlib, ssl, tensorflow"
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode == 0


# the check


def test_equal_bits_pass(scorer, golden):
    assert check(scorer, golden) == {"serving_default": 4, "ids": 2}


def test_every_type_is_compared(identities):
    values = {**VALUES, "serving_default": VALUES["string"]}  # Keras names the first signature so, too
    batches = [{"signature": name, "inputs": {"value": value}, "outputs": {"same": value}} for name, value in values.items()]
    assert check(identities, batches) == {name: len(value) for name, value in values.items()}
    for batch in batches[:2]:  # text and float64
        turned = {**batch, "outputs": {"same": batch["outputs"]["same"][::-1]}}
        with pytest.raises(ExportError, match=f"signature '{batch['signature']}', output 'same', row 0"):
            check(identities, [turned if other is batch else other for other in batches])


def test_one_bit_is_found_and_told(scorer, golden):
    right = golden[0]["outputs"]["probability"]
    wrong = right.copy()
    wrong[2] = np.nextafter(right[2], np.float32(1))
    golden[0]["outputs"] = {"probability": wrong}
    with pytest.raises(ExportError) as raised:
        check(scorer, golden)
    assert (
        "signature 'serving_default', output 'probability', row 2: 0.88079715 offline, 0.8807971 served (1 of 4 rows differ)"
        in str(raised.value)
    )


def test_signatures_must_match(scorer, golden):
    with pytest.raises(ExportError, match="signature 'ids' has no golden rows"):
        check(scorer, golden[:1])
    with pytest.raises(ExportError, match="signature 'rank' cannot run: Serving signature key \"rank\" not found"):
        check(scorer, [*golden, {**golden[0], "signature": "rank"}])
    with pytest.raises(ExportError, match="signature 'serving_default' cannot run: input size does not match signature: 1!=2"):
        check(scorer, [{**golden[0], "inputs": {"user": USERS}}, golden[1]])
    more = {**golden[0]["outputs"], "more": USERS}
    with pytest.raises(ExportError, match=r"has the outputs \['probability'\], its golden rows have \['more', 'probability'\]"):
        check(scorer, [{**golden[0], "outputs": more}, golden[1]])
    wide = {"probability": golden[0]["outputs"]["probability"].astype("float64")}
    with pytest.raises(ExportError, match=r"float64 \(4,\) offline, float32 \(4,\) served"):
        check(scorer, [{**golden[0], "outputs": wide}, golden[1]])


def untracked_variables(folder):
    model = keras.Sequential([keras.Input((3,), dtype="int32", name="ids"), keras.layers.Rescaling(1.0), keras.layers.Dense(1)])
    function = tf.function(
        lambda ids: {"probability": model(ids)}, input_signature=[tf.TensorSpec([None, 3], "int32", name="ids")]
    )
    module = tf.Module()
    module.model = model
    tf.saved_model.save(module, str(folder), signatures=function)


def compiled(folder):
    score = tf.function(lambda user, price: {"probability": tf.sigmoid(price)}, jit_compile=True)
    export_scorer(folder, serving_default=lambda user, price: score(user, price))


def python_function(folder):
    export_scorer(folder, serving_default=lambda user, price: {"probability": tf.py_function(np.sign, [price], "float64")})


def aborting(folder):
    def abort(user, price):
        with tf.control_dependencies([tf.raw_ops.Abort(error_msg="the graph aborts")]):
            return {"probability": tf.identity(price)}

    export_scorer(folder, serving_default=abort)


def endless(folder):
    def loop(user, price):
        return {"probability": tf.while_loop(lambda _: True, lambda price: [price + 1], [price])[0]}

    export_scorer(folder, serving_default=loop)


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    ("export", "problem"),
    [
        (untracked_variables, "signature 'serving_default' cannot run: .*Could not find variable"),
        (compiled, "signature 'serving_default' cannot run: .*XLA"),
        (python_function, "signature 'serving_default' cannot run: .*PyFunc"),
        (aborting, "crashed the process that loaded it .SIGABRT"),
    ],
)
@pytest.mark.filterwarnings("ignore")  # TensorFlow's own, of saving this way
def test_models_that_only_python_can_run(tmp_path, export, problem):
    export(tmp_path / "1")
    assert tf.saved_model.load(tmp_path / "1").signatures["serving_default"]  # the forgiving loader sees nothing
    inputs = {"ids": np.ones((1, 3), np.int32)} if export is untracked_variables else {"user": USERS, "price": PRICES}
    with pytest.raises(ExportError, match=f"(?s){problem}"):
        check(tmp_path / "1", [{"signature": "serving_default", "inputs": inputs, "outputs": {"probability": np.zeros(1)}}])


@pytest.mark.slow
def test_a_model_that_never_answers(tmp_path):
    endless(tmp_path / "1")
    rows = {"signature": "serving_default", "inputs": {"user": USERS, "price": PRICES}, "outputs": {"probability": PRICES}}
    with pytest.raises(ExportError, match="did not answer its golden rows within 5 s"):
        check(tmp_path / "1", [rows], timeout=5)


def test_the_child_gets_a_clean_environment(monkeypatch):
    for name in ("TF_XLA_FLAGS", "LD_PRELOAD", "PYTHONSTARTUP", "SECRET_TOKEN"):
        monkeypatch.setenv(name, "leaks")
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    environment = _environment()
    assert "leaks" not in environment.values()
    assert environment["TF_ENABLE_ONEDNN_OPTS"] == "0"  # decides bits, so both faces must have it
    assert environment["PATH"] == os.environ["PATH"]
