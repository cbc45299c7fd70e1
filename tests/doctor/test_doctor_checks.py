"""The doctor's checks succeed here, can fail, and their tolerances follow from the numbers that they are made of."""

import ast
import itertools
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from kit.every_model import OF_HISTORIES

from tfctr.doctor import checks, kernels, oracle
from tfctr.errors import ExportError, StorageError, TrainingError
from tfctr.models import MODELS
from tfctr.optimizers import OPTIMIZERS
from tfctr.serving.runtime.saved_model import SavedModel


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return checks.prepare(tmp_path_factory.mktemp("made") / "data")


@pytest.fixture(scope="module")
def version(made, tmp_path_factory):
    folder = tmp_path_factory.mktemp("served") / "doctor"
    return checks.export(made.model(), folder, check=False, without=["explain", "embedding"])


def exact(made):
    return [weight.astype(np.float64) for weight in made.weights]


def flat(arrays):
    return np.concatenate([np.ravel(array) for array in arrays])


def after(made, optimizer, steps):
    """The weights after so many steps, in float64."""
    return oracle.trained(optimizer, checks.RATES.get(optimizer, checks.RATE), exact(made), made.batches[:steps])


# the oracle


def test_its_gradients_are_differences(made):
    weights, (ids, labels) = exact(made), made.batches[0]

    def loss():
        probabilities = oracle.probabilities(weights, ids)
        return -np.mean(np.log(np.where(labels > 0, probabilities, 1 - probabilities)))

    for weight, gradient in zip(weights, oracle.gradients(weights, made.batches[0]), strict=True):
        for place in itertools.islice(np.ndindex(weight.shape), 0, None, 3):
            before = weight[place]
            weight[place] = before + 1e-6
            above = loss()
            weight[place] = before - 1e-6
            below = loss()
            weight[place] = before
            assert (above - below) / 2e-6 == pytest.approx(gradient[place], abs=1e-8)


def test_it_knows_every_optimizer_and_tells_them_apart(made):
    assert set(oracle.RULES) == set(checks.NAMES) == {*OPTIMIZERS, "sgd"}
    trained = {name: flat(after(made, name, 3)) for name in checks.NAMES}
    for one, other in itertools.combinations(checks.NAMES, 2):
        off = np.max(np.abs(trained[one] - trained[other]))
        assert off == 0 if {one, other} == {"adam", "exact_lazy_adam"} else off > 10 * checks.MOST_OFF


def test_the_tolerances_rest_on_numbers_that_are_so(made):
    for name in checks.NAMES:
        for before, (ids, labels) in enumerate(made.batches):
            weights = after(made, name, before)
            _, kernel, bias, last, _ = weights
            fields, hidden, _ = oracle._forward(weights, ids)
            assert np.min(np.abs(fields @ kernel + bias)) > 10 * checks.MOST_OFF  # rounding switches no unit
            terms = [fields[:, :, None] * kernel, hidden[:, :, None] * last]
            assert max(np.max(np.abs(term)) for term in terms) < 3
            gradients = flat(oracle.gradients(weights, (ids, labels)))
            assert np.linalg.norm(gradients) < 10  # which `clip_norm` leaves as they are
            if "adam" in name:
                assert np.min(np.abs(gradients[gradients != 0])) > 0.004


# each device, and each failure


TWO = """if True:
    import tensorflow as tf
    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    from tfctr.doctor import checks
    from tfctr.doctor.findings import Finding
    checks.NAMES = ("exact_lazy_adam",)
    checks.exports = lambda *_: Finding("checks", "export", None)
    print([(finding.name, finding.status) for finding in checks.check_findings()])
"""


@pytest.mark.slow
def test_every_device_is_checked():
    run = subprocess.run([sys.executable, "-c", TWO], capture_output=True, encoding="utf-8", check=True)
    found = dict(ast.literal_eval(run.stdout))
    assert found["train exact_lazy_adam on CPU:0"] == found["train exact_lazy_adam on CPU:1"] == "ok"


def test_numbers_that_are_not_finite_are_found():
    with pytest.raises(TrainingError, match="off by nan"):
        checks._judged(float("nan"), 1.0, TrainingError)


def test_an_operation_that_cannot_run_is_told(made, monkeypatch):
    def fail(*_, **__):
        raise tf.errors.InvalidArgumentError(None, None, "Cannot assign a device for operation Foo:\n no kernel")

    monkeypatch.setattr(checks.DNN, "train_on_batch", fail)
    finding = checks.trains("adam", "CPU:0", "CPU", made)
    assert finding.error is TrainingError
    assert finding.found == "InvalidArgumentError: Cannot assign a device for operation Foo: no kernel"


def test_a_right_answer_and_wrong_ones(version, made, monkeypatch):
    assert checks.answers(version, "CPU", made).status == "ok"
    run = SavedModel.run

    def wrong(model, *arguments):
        return {name: values + np.float32(1e-5) for name, values in run(model, *arguments).items()}

    monkeypatch.setattr(SavedModel, "run", wrong)
    finding = checks.answers(version, "CPU", made)
    assert (finding.name, finding.status, finding.error) == ("answer on CPU", "failed", ExportError)


def test_an_export_that_fails(made, tmp_path, monkeypatch):
    def fail(*_):
        raise ExportError("the bits differ.", fix="do not serve it")

    monkeypatch.setattr(checks, "export", fail)
    finding = checks.exports(tmp_path / "doctor", made)
    assert (finding.found, finding.fix, finding.error) == ("the bits differ.", "do not serve it", ExportError)


def test_a_table_that_cannot_be_prepared_ends_the_checks(monkeypatch):
    monkeypatch.setattr(checks, "prepare", lambda folder: 1 / 0)
    (finding,) = checks.check_findings()
    assert (finding.name, finding.error) == ("prepare", StorageError)
    assert finding.found == "ZeroDivisionError: division by zero"


def test_the_checks_leave_tensorflow_as_it_was(monkeypatch):
    monkeypatch.setattr(checks, "prepare", lambda folder: 1 / 0)
    before = tf.config.experimental.tensor_float_32_execution_enabled(), tf.get_logger().level
    list(checks.check_findings())
    assert (tf.config.experimental.tensor_float_32_execution_enabled(), tf.get_logger().level) == before


# kernels

for_gpus = pytest.mark.skipif(not kernels.is_built_for_gpus(), reason="this TensorFlow has no kernels for GPUs at all")


def graph_of(function, *specs):
    return tf.function(function).get_concrete_function(*specs).graph.as_graph_def()


@for_gpus
def test_an_operation_without_a_kernel_is_named():
    numbers = tf.TensorSpec([None], tf.float32)
    found = graph_of(lambda x: tf.raw_ops.UniqueV2(x=tf.matmul(x[:, None], x[None]), axis=[0], name="rare"), numbers)
    assert kernels.unexplained(found, "GPU") == {"UniqueV2 of float32": "rare"}
    assert kernels.unexplained(found, "CPU") == {}


@for_gpus
def test_an_operation_within_a_branch_or_a_function_is_named():
    inner = tf.function(lambda x: tf.raw_ops.UniqueV2(x=x, axis=[0], name="rare").y)
    found = graph_of(lambda x: tf.cond(x[0] > 0, lambda: inner(x), lambda: x), tf.TensorSpec([None], tf.float32))
    assert list(kernels.unexplained(found, "GPU")) == ["UniqueV2 of float32"]


@for_gpus
def test_text_and_what_is_explained_stay_on_the_host():
    found = graph_of(lambda x: tf.argmax(tf.strings.length(x)), tf.TensorSpec([None], tf.string))
    assert list(kernels.without_kernel(found, "GPU")) == ["ArgMax of int32"]
    assert kernels.unexplained(found, "GPU") == {}


@for_gpus
def test_training_and_serving_have_kernels_for_gpus(made, version, monkeypatch):
    finding = checks.host_finding(made, [version])
    assert (finding.status, finding.found) == ("ok", "for all operations, but those that stay on the host by design")
    monkeypatch.setattr(checks, "NAMES", ("exact_lazy_adam",))
    monkeypatch.setattr(kernels, "ON_THE_HOST", {"ArgMax of int32": ""})
    finding = checks.host_finding(made, [])
    assert finding.status == "warning"
    assert "ResourceGather of int32 (" in finding.found
    assert "ResourceScatterUpdate of int32 (" in finding.found


@for_gpus
@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({*MODELS} - OF_HISTORIES))
def test_training_of_each_model_has_kernels_for_gpus(name, made):
    model = MODELS[name](made.schema)
    model.compile("exact_lazy_adam")
    assert kernels.unexplained(checks.training_graph(model, made), "GPU") == {}


@for_gpus
@pytest.mark.slow
def test_what_is_explained_is_there(made, live_server):
    graphs = [checks.training_graph(made.model("exact_lazy_adam"), made), checks.served_graph(live_server.base / "1")]
    found = [kernels.without_kernel(graph, "GPU") for graph in graphs]
    assert set().union(*found) == set(kernels.ON_THE_HOST)
