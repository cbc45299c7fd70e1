"""Hidden layers that XLA compiles for training compute what their layers compute one by one."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfctr.data import Split
from tfctr.layers import MLP, hidden
from tfctr.layers.hidden import usual_batches
from tfctr.models import DNN, _usual

ROWS = 60


def trained(rows, x, upstream, **arguments):
    """Outputs, gradients and moving statistics of two steps, by name; `rows`: those that layers are compiled for."""
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


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    x = tf.Variable(rng.normal(size=(ROWS, 8), loc=0.5).astype("float32"))
    return x, rng.normal(size=(ROWS, 8)).astype("float32")


KINDS = [
    {"batch_norm": True},
    {"dropout": 0.2},
    {"dropout": 0.3, "activation": "leaky_relu"},
    {"dropout": 0.3, "activation": "mish", "use_bias": False},
    {"activation": "gelu"},
    {"batch_norm": True, "dropout": 0.5, "activation": "gelu"},
    {"batch_norm": True, "dropout": 0.2, "use_bias": False},
    *({"batch_norm": True, "activation": name} for name in ("elu", "selu", "silu", "sigmoid", "softplus", "tanh", "linear")),
]


@pytest.mark.parametrize(
    ("arguments", "rows"),
    [*((kind, ROWS) for kind in KINDS), *((kind, ROWS + 1) for kind in KINDS[:6])],
    ids=lambda value: (
        str(value).replace("'", "") if isinstance(value, dict) else "compiled" if value == ROWS else "another size"
    ),
)
def test_all_that_the_layers_give_one_by_one(arguments, rows, batch):
    expected, found = trained(None, *batch, **arguments), trained(rows, *batch, **arguments)
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


@pytest.fixture
def every_fit_pays(monkeypatch):
    monkeypatch.setattr(_usual, "_LEAST_ROWS", 1)
    monkeypatch.setattr(_usual, "_LEAST_IN_ALL", 1)


@pytest.fixture
def fit(tiny_schema, tiny_ids, tiny_labels):
    def run(model=None, batch_size=32, epochs=2):
        if model is None:
            keras.utils.set_random_seed(1)
            model = DNN(tiny_schema, hidden_units=[8], batch_norm=True, dropout=0.2)
            model.compile(keras.optimizers.SGD(0.1))
        split = Split.from_arrays(tiny_ids(70), tiny_labels(70))  # the last batch has 6 rows
        return model, model.fit(split.batches(batch_size), epochs=epochs, verbose=0).history

    return run


def test_a_fit_compiles_for_its_batches_and_loses_nothing(fit, every_fit_pays, monkeypatch):
    compiled = []
    as_it_is = hidden._compiled
    monkeypatch.setattr(hidden, "_compiled", lambda formula: compiled.append(formula.__name__) or as_it_is(formula))
    model, history = fit()
    assert model.usual_rows == 32
    assert compiled == ["forward", "backward"]
    assert fit()[1] == history
    monkeypatch.setattr(_usual, "_LEAST_IN_ALL", 1_000)
    model, expected = fit()
    assert model.usual_rows is None
    assert len(compiled) == 4
    for name, values in expected.items():
        np.testing.assert_allclose(history[name], values, rtol=1e-5, err_msg=name)


def test_a_fit_of_other_batches_compiles_for_those(fit, every_fit_pays):
    model, _ = fit()
    before = model.train_function
    assert fit(model)[0].train_function is before
    assert fit(model, batch_size=35)[0].train_function is not before
    assert model.usual_rows == 35


def of_arrays(rows, batch_size):
    return {"x": np.zeros((rows, 2), "int32"), "y": np.zeros(rows), **({"batch_size": batch_size} if batch_size else {})}


def of_dataset(rows, batch_size, drop_remainder):
    batches = tf.data.Dataset.from_tensor_slices((np.zeros((rows, 2), "int32"), np.zeros(rows)))
    return {"x": batches.batch(batch_size, drop_remainder)}


def test_which_batches_are_known(tiny_schema, tiny_ids, tiny_labels, monkeypatch):
    model = DNN(tiny_schema)
    model.compile()
    known = functools.partial(_usual.usual_rows, model)
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
    model.run_eagerly = True
    assert known(of_arrays(100, None)) is None
