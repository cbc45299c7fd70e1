"""Hidden layers that XLA compiles for training compute what their layers compute one by one."""

import functools
import itertools
import multiprocessing

import keras
import numpy as np
import pytest
import tensorflow as tf
from kit.at_length import at_length

from tfctr.data import Split
from tfctr.features import Categorical
from tfctr.layers import ACTIVATIONS, MLP, hidden
from tfctr.layers.hidden import usual_batches
from tfctr.models import DNN, _usual
from tfctr.schema import Schema
from tfctr.serving.runtime.saved_model import disable_xla

ROWS = 60
# What is compiled is tried in a process that has had no server, which would have switched XLA off.
FORKSERVER = multiprocessing.get_context("forkserver")


@pytest.fixture(scope="module")
def child():
    with FORKSERVER.Pool(1) as pool:
        yield pool


def trained(rows, arguments):
    """Outputs, gradients and moving statistics of two steps, by name; `rows`: those that layers are compiled for."""
    x, upstream = made()
    keras.utils.set_random_seed(1)
    mlp = MLP([8, 8], name="mlp", **arguments)
    mlp.build(x.shape)
    rng = np.random.default_rng(2)
    for variable in mlp.trainable_variables:  # biases that are not zero, among them
        variable.assign(rng.normal(size=variable.shape, scale=0.5))
    found = []
    for step in range(2):
        with usual_batches(rows), tf.GradientTape() as tape:
            y = mlp(x, training=True)
            total = tf.reduce_sum(y * upstream)
        gradients = tape.gradient(total, [x, *mlp.trainable_variables])
        names = ["x", *(variable.name for variable in mlp.trainable_variables)]
        found += [(f"step {step}, gradient of {name}", value) for name, value in zip(names, gradients, strict=True)]
        found += [(f"step {step}, {variable.name}", variable.numpy()) for variable in mlp.non_trainable_variables]
        found.append((f"step {step}, y", y))
    return [(name, np.array(value)) for name, value in found]


def made():
    """A batch, and the gradient of what a layer gives for it."""
    rng = np.random.default_rng(0)
    x = tf.Variable(rng.normal(size=(ROWS, 8), loc=0.5).astype("float32"))
    return x, rng.normal(size=(ROWS, 8)).astype("float32")


@pytest.fixture
def batch():
    return made()


KINDS = [
    {"batch_norm": True},
    {"dropout": 0.3, "activation": "leaky_relu"},
    {"activation": "gelu"},
    {"batch_norm": True, "dropout": 0.2, "use_bias": False},
    {"batch_norm": True, "dropout": 0.5, "activation": "gelu"},
    {"dropout": 0.3, "activation": "mish", "use_bias": False},
    *({"batch_norm": True, "activation": name} for name in ("elu", "selu", "silu", "sigmoid", "softplus", "tanh", "linear")),
]
ONE_BY_ONE = [*((kind, ROWS) for kind in KINDS), *((kind, ROWS + 1) for kind in KINDS[:6])]


@pytest.mark.parametrize(
    ("arguments", "rows"), at_length(ONE_BY_ONE, *[case for case in ONE_BY_ONE if case[0] in KINDS[:4]]), ids=str
)
def test_all_that_the_layers_give_one_by_one(arguments, rows, child):
    expected, found = child.starmap(trained, [(None, arguments), (rows, arguments)])
    for (name, values), (_, compiled) in zip(expected, found, strict=True):
        if "gradient of bias" in name and arguments.get("batch_norm"):
            assert not compiled.any()  # what is left of it one by one is rounding
            assert abs(values).max() < 1e-4
        else:
            # Sums over 60 rows and 8 units, in another order: some hundred roundings of 6e-8.
            np.testing.assert_allclose(compiled, values, rtol=1e-5, atol=1e-5 * (1 + abs(values).max()), err_msg=name)


def dead(*_):
    raise AssertionError("compiled")


CHANGES = {
    "a regularizer of activity": lambda mlp: setattr(mlp.steps[1], "activity_regularizer", keras.regularizers.L2(0.1)),
    "frozen statistics": lambda mlp: setattr(mlp.steps[2], "trainable", False),
    "statistics over all devices": lambda mlp: setattr(mlp.steps[2], "synchronized", True),
    "adapters": lambda mlp: mlp.steps[1].enable_lora(2),
    "a mask a row": lambda mlp: setattr(mlp.steps[4], "noise_shape", (None, 1)),
    "a function of one's own": lambda mlp: setattr(mlp.steps[3], "activation", lambda x: tf.numpy_function(abs, [x], x.dtype)),
    "another activation": lambda mlp: mlp.steps.__setitem__(3, keras.layers.ReLU(max_value=6.0)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_layers_that_were_changed_are_called_one_by_one(change, batch, monkeypatch):
    monkeypatch.setattr(hidden._Rest, "apply", dead)
    mlp = MLP([8], batch_norm=True, dropout=0.2)
    mlp.build(batch[0].shape)
    with usual_batches(ROWS), pytest.raises(AssertionError, match="compiled"):
        mlp(batch[0], training=True)
    CHANGES[change](mlp)
    with usual_batches(ROWS):
        assert mlp(batch[0], training=True).shape == (ROWS, 8)


@pytest.mark.parametrize(
    "arguments", [{"activation": "dice"}, {"activation": "prelu"}, {"dtype": "mixed_bfloat16"}, {"dropout": 0.0}]
)
def test_nor_are_layers_that_are_of_another_kind(arguments, batch, monkeypatch):
    monkeypatch.setattr(hidden._Rest, "apply", dead)
    with usual_batches(ROWS):
        MLP([8], **{"batch_norm": "dropout" not in arguments, "dropout": 0.2, **arguments})(batch[0], training=True)


def test_predictions_are_never_compiled(batch, monkeypatch):
    monkeypatch.setattr(hidden._Rest, "apply", dead)
    with usual_batches(ROWS):
        MLP([8], batch_norm=True)(batch[0], training=False)


SCHEMA = Schema(features=[Categorical("user", size=20), Categorical("item", size=30)], label="click")


def fits(*calls):
    """For each `(least rows in all, rows a batch)`: the history of a new model, its `usual_rows`, and what it compiled."""
    rng = np.random.default_rng(0)
    ids = np.stack([rng.integers(3, 20, 70), 20 + rng.integers(3, 30, 70)], axis=1).astype("int32")
    labels = rng.integers(0, 2, 70)
    compiled = []
    as_it_is = hidden._compiled
    hidden._compiled = lambda formula: compiled.append(formula.__name__) or as_it_is(formula)
    _usual._LEAST_ROWS = 1
    found = []
    for _usual._LEAST_IN_ALL, rows in calls:
        keras.utils.set_random_seed(1)
        model = DNN(SCHEMA, hidden_units=[8], batch_norm=True, dropout=0.2)
        model.compile(keras.optimizers.SGD(0.1))
        compiled.clear()
        history = model.fit(Split.from_arrays(ids, labels).batches(rows), epochs=2, verbose=0).history
        found.append((history, model.usual_rows, list(compiled)))
    return found


def test_a_fit_compiles_for_its_batches_and_loses_nothing(child):
    # Of 70 rows, the last batch has 6.
    (history, *how), (again, *_), (expected, *plain) = child.apply(fits, [(1, 32), (1, 32), (1000, 32)])
    assert how == [32, ["forward", "backward"]]
    assert plain == [None, []]
    assert again == history
    for name, values in expected.items():
        np.testing.assert_allclose(history[name], values, rtol=1e-5, err_msg=name)


def fits_of_one_model():
    """Whether the graph of training is another one: after a second fit, after batches of another size, and after a server."""
    keras.utils.set_random_seed(1)
    _usual._LEAST_ROWS = _usual._LEAST_IN_ALL = 1
    model = DNN(SCHEMA, hidden_units=[8], batch_norm=True)
    model.compile()
    ids = np.full((70, 2), [3, 23], "int32")
    graphs, rows = [], []
    for size in (32, 32, 35, 35):
        if len(graphs) == 3:
            disable_xla()  # as a server does
        model.fit(ids, np.arange(70) % 2, batch_size=size, verbose=0)
        graphs.append(model.train_function)
        rows.append(model.usual_rows)
    return [after is not before for before, after in itertools.pairwise(graphs)], rows


@pytest.mark.slow
def test_a_fit_of_other_batches_or_without_xla_makes_another_graph():
    with FORKSERVER.Pool(1) as pool:  # one of its own: XLA cannot be switched on again
        assert pool.apply(fits_of_one_model) == ([False, True, True], [32, 32, 35, None])


def of_arrays(rows, batch_size):
    return {"x": np.zeros((rows, 2), "int32"), "y": np.zeros(rows), **({"batch_size": batch_size} if batch_size else {})}


def of_dataset(rows, batch_size, drop_remainder):
    batches = tf.data.Dataset.from_tensor_slices((np.zeros((rows, 2), "int32"), np.zeros(rows)))
    return {"x": batches.batch(batch_size, drop_remainder)}


def test_which_batches_are_known(tiny_schema, tiny_ids, tiny_labels, monkeypatch):
    model = DNN(tiny_schema)
    model.compile()
    known = functools.partial(_usual.usual_rows, model)
    monkeypatch.setattr(_usual, "can_compile", lambda: True)
    assert known(of_arrays(10_000, 1000)) is None  # too few rows to pay
    assert known({**of_arrays(10_000, 1000), "epochs": 100}) == 1000
    monkeypatch.setattr(_usual, "_LEAST_IN_ALL", 1)
    assert known(of_arrays(10_000, None)) is None  # 32 rows gain nothing
    monkeypatch.setattr(_usual, "_LEAST_ROWS", 1)
    assert known(of_arrays(100, None)) == 32
    assert known(of_dataset(100, 10, drop_remainder=True)) == 10
    assert known(of_dataset(100, 10, drop_remainder=False)) is None
    assert known({"x": Split.from_arrays(tiny_ids(70), tiny_labels(70)).batches(20)}) == 20
    assert known({"x": iter([])}) is None
    monkeypatch.setattr(_usual, "can_compile", lambda: False)
    assert known(of_arrays(100, None)) is None
    monkeypatch.setattr(_usual, "can_compile", lambda: True)
    model.run_eagerly = True
    assert known(of_arrays(100, None)) is None


def test_every_activation_without_weights_can_be_compiled():
    assert {name for name, make in ACTIVATIONS.items() if hidden._function_of(make()) is None} == {"dice", "prelu"}
