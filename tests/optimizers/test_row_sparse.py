"""Optimizers that write the rows of a batch only: what they leave alone, and that exactly-lazy Adam is Adam."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from kit.at_length import at_length
from tensorflow.python.grappler import tf_optimizer

from tfctr.errors import ConfigError
from tfctr.features import Categorical
from tfctr.layers import MLP
from tfctr.models import CETN, DNN, TF4CTR
from tfctr.optimizers import (
    OPTIMIZERS,
    Adam,
    ExactLazyAdam,
    LazyAdam,
    SparseAdagrad,
    SparseFtrl,
    exact_lazy_adam,
    merge_duplicates,
    optimizer_named,
)
from tfctr.schema import Schema

ROWS, DIM, BATCH = 1_000, 3, 32


def table_of(values):
    table = keras.Variable(np.asarray(values, "float32"))
    table.is_table = True
    return table


def slices(rows, values):
    return tf.IndexedSlices(tf.constant(values, "float32"), tf.constant(rows), tf.constant([ROWS, DIM]))


@pytest.fixture
def stream():
    """The start of a table, and the ids (few are read often, most seldom) and slopes of 1,000 steps."""
    rng = np.random.default_rng(0)
    rows = (np.minimum(rng.zipf(1.2, size=(1_000, BATCH)), ROWS) - 1).astype("int32")
    return rng.normal(scale=0.1, size=(ROWS, DIM)), rows, rng.normal(scale=0.1, size=(*rows.shape, DIM)).astype("float32")


def dense_adam(start, rows, slopes, rate, b1=0.9, b2=0.999):
    """Adam over the whole table in float64; each slope has a part that follows the weights, so that an error would grow."""
    weights = start.copy()
    m, v = np.zeros_like(weights), np.zeros_like(weights)
    for index in range(len(rows)):
        gradient = np.zeros_like(weights)
        np.add.at(gradient, rows[index], slopes[index] + 0.1 * weights[rows[index]])
        m, v, step = b1 * m + (1 - b1) * gradient, b2 * v + (1 - b2) * gradient**2, index + 1
        weights -= rate(index) * np.sqrt(1 - b2**step) / (1 - b1**step) * m / (np.sqrt(v) + 1e-8)
    return weights


def trained(optimizer, start, rows, slopes, rate=None):
    table = table_of(start)
    optimizer.build([table])

    @tf.function
    def step(rows, slopes):
        if isinstance(optimizer, ExactLazyAdam):
            optimizer.catch_up(table, tf.unique(rows)[0])
        read = tf.gather(table.value, rows)
        optimizer.apply([tf.IndexedSlices(slopes + 0.1 * read, rows, tf.constant([ROWS, DIM]))], [table])

    for index in range(len(rows)):
        if rate:
            optimizer.learning_rate = rate(index)
        step(tf.constant(rows[index]), tf.constant(slopes[index]))
    if isinstance(optimizer, ExactLazyAdam):
        optimizer.settle()
    return table.numpy()


def drops(index):
    return 1e-2 if index < 300 else 1e-3 if index < 800 else 1e-4


@pytest.mark.sampled(1)
@pytest.mark.parametrize("ring", [2**16, 512], ids=["long ring", "ring that turns"])
def test_exact_lazy_adam_is_adam(ring, stream, monkeypatch):
    monkeypatch.setattr(exact_lazy_adam, "_RING", ring)
    expected = dense_adam(*stream, drops)
    assert np.abs(expected - stream[0]).max() > 0.1
    np.testing.assert_allclose(trained(ExactLazyAdam(), *stream, drops), expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(trained(Adam(), *stream, drops), expected, rtol=0, atol=1e-5)
    assert np.abs(trained(LazyAdam(), *stream, drops) - expected).max() > 0.01


def test_exact_lazy_adam_follows_a_schedule(stream):
    start, rows, slopes = stream
    schedule = keras.optimizers.schedules.ExponentialDecay(1e-2, decay_steps=50, decay_rate=0.5)
    expected = dense_adam(start, rows[:300], slopes[:300], lambda index: 1e-2 * 0.5 ** (index / 50))
    np.testing.assert_allclose(trained(ExactLazyAdam(schedule), start, rows[:300], slopes[:300]), expected, rtol=0, atol=1e-5)


def test_settle_in_blocks_and_twice_changes_nothing_more(stream, monkeypatch):
    monkeypatch.setattr(exact_lazy_adam, "_BLOCK", 300)  # the last block is not whole
    start, rows, slopes = stream
    optimizer = ExactLazyAdam(1e-2)
    settled = trained(optimizer, start, rows[:50], slopes[:50])
    np.testing.assert_allclose(settled, dense_adam(start, rows[:50], slopes[:50], lambda _: 1e-2), rtol=0, atol=1e-5)
    optimizer.settle()
    np.testing.assert_array_equal(optimizer._trainable_variables[0].numpy(), settled)


def test_lazy_adam_is_adam_on_the_rows_of_the_batch(stream):
    start, _, slopes = stream
    rows = np.array([5, 7, 5], "int32")
    lazy, dense = table_of(start), keras.Variable(start.astype("float32"))
    optimizer, adam = LazyAdam(0.1), Adam(0.1)
    for index in range(3):
        optimizer.apply([slices(rows, slopes[index, :3])], [lazy])
        adam.apply([slices(rows, slopes[index, :3])], [dense])
    np.testing.assert_allclose(lazy.numpy(), dense.numpy(), rtol=1e-6)
    before = lazy.numpy()
    optimizer.apply([slices([9], slopes[9, :1])], [lazy])
    assert np.flatnonzero((lazy.numpy() != before).any(axis=1)).tolist() == [9]  # Adam would have moved 5 and 7 on
    for moments in optimizer._moments(lazy):
        assert np.flatnonzero(moments.numpy().any(axis=1)).tolist() == [5, 7, 9]


def test_small_tables_are_updated_whole(stream):
    start, rows, slopes = stream
    expected = trained(Adam(1e-2), start, rows[:20], slopes[:20])
    np.testing.assert_array_equal(trained(LazyAdam(1e-2, dense_rows=ROWS + 1), start, rows[:20], slopes[:20]), expected)
    np.testing.assert_array_equal(trained(ExactLazyAdam(1e-2, dense_rows=ROWS + 1), start, rows[:20], slopes[:20]), expected)


def test_adagrad_by_rows_is_adagrad(stream):
    start, rows, slopes = stream
    weights, sums = start.copy(), np.full_like(start, 0.1)
    for index in range(20):
        gradient = np.zeros_like(weights)
        np.add.at(gradient, rows[index], slopes[index] + 0.1 * weights[rows[index]])
        sums += gradient**2
        weights -= 0.05 * gradient / (np.sqrt(sums) + 1e-7)
    np.testing.assert_allclose(trained(SparseAdagrad(0.05), start, rows[:20], slopes[:20]), weights, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("sparse", [True, False])
def test_ftrl_equals_keras_on_the_rows_that_it_reads(sparse, stream):
    _, rows, slopes = stream
    start = np.zeros((ROWS, DIM))  # of a row that is not read, FTRL over the whole table makes zero
    settings = {"l1_regularization_strength": 0.01, "l2_regularization_strength": 0.1, "beta": 0.5}
    ours, theirs = table_of(start), keras.Variable(start.astype("float32"))
    optimizer, keras_ftrl = SparseFtrl(0.05, **settings), keras.optimizers.Ftrl(0.05, **settings)
    for index in range(20):
        gradient = tf.convert_to_tensor(merge_duplicates(slices(rows[index], slopes[index])))
        optimizer.apply([slices(rows[index], slopes[index]) if sparse else gradient], [ours])
        keras_ftrl.apply([gradient], [theirs])
    read = np.unique(rows[:20]) if sparse else slice(None)
    np.testing.assert_allclose(ours.numpy()[read], theirs.numpy()[read], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_round_trip(name):
    optimizer = OPTIMIZERS[name](0.5)
    twin = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert type(twin) is type(optimizer)
    assert twin.get_config() == optimizer.get_config()


OPTIONS = {
    "weight_decay": 0.1,
    "global_clipnorm": 1.0,
    "use_ema": True,
    "loss_scale_factor": 2.0,
    "gradient_accumulation_steps": 2,
}


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("optimizer", [LazyAdam, ExactLazyAdam, SparseAdagrad, SparseFtrl])
def test_options_that_write_every_row_are_refused(optimizer, option):
    with pytest.raises(ConfigError, match=f"`{option}`.*every row"):
        optimizer(**{option: OPTIONS[option]})


@pytest.mark.parametrize(("options", "message"), [({"beta_2": 0.7}, "beta_1"), ({"dense_rows": -1}, "dense_rows")])
def test_exact_lazy_adam_refuses_what_it_cannot_do(options, message):
    with pytest.raises(ConfigError, match=message):
        ExactLazyAdam(**options)


def test_exact_lazy_adam_refuses_a_dense_gradient():
    table, optimizer = table_of(np.ones((2, 1))), ExactLazyAdam()
    with pytest.raises(ConfigError, match="dense"):
        optimizer.apply([tf.ones((2, 1))], [table])


def test_names():
    assert type(optimizer_named("lazy_adam", 0.5)) is LazyAdam
    auto = optimizer_named("auto", 0.5)
    assert (type(auto), auto.dense_rows, float(auto.learning_rate)) == (ExactLazyAdam, 300_000, 0.5)
    assert type(optimizer_named("auto", table_l2=True)) is Adam
    with pytest.raises(ConfigError, match="lazy_adam"):
        optimizer_named("lazyadam")


# in a model


@pytest.fixture
def data(tiny_ids, tiny_labels):
    return tiny_ids(256), tiny_labels(256)[:, None]


def small(schema, optimizer, compile=None, **arguments):
    keras.utils.set_random_seed(1)
    model = TF4CTR(schema, 4, simple_encoder=MLP([8]), complex_encoder=MLP([8, 8]), **arguments)
    model.compile(optimizer=optimizer, **(compile or {}))
    return model


def fitted(model, data, epochs=3):
    model.fit(*data, batch_size=8, epochs=epochs, shuffle=False, verbose=0)
    return model


@pytest.mark.parametrize("compile", at_length([{}, {"steps_per_execution": 4}, {"run_eagerly": True}], {}), ids=str)
def test_a_model_with_exact_lazy_adam_trains_as_with_adam(compile, tiny_schema, data):
    adam = fitted(small(tiny_schema, "adam"), data)
    exact = fitted(small(tiny_schema, "exact_lazy_adam", compile), data)
    lazy = fitted(small(tiny_schema, "lazy_adam", compile), data)
    for expected, weights in zip(adam.get_weights(), exact.get_weights(), strict=True):
        np.testing.assert_allclose(weights, expected, rtol=0, atol=1e-5)
    table = adam.embeddings[0].get_weights()[0]
    assert np.abs(lazy.embeddings[0].get_weights()[0] - table).max() > 1e-4


@pytest.mark.slow
def test_reading_a_model_settles_it(tiny_schema, data, tmp_path):
    ids, labels = data
    seen = {}

    class Read(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 20:
                seen["predict"] = self.model.predict(ids, verbose=0)
                seen["loss"] = self.model.evaluate(ids, labels)[0]
                self.model.save(tmp_path / "model.keras")

    def read(optimizer):
        model = small(tiny_schema, optimizer)
        model.fit(ids, labels, batch_size=8, epochs=1, shuffle=False, verbose=0, callbacks=[Read()])
        return dict(seen), keras.saving.load_model(tmp_path / "model.keras").get_weights()

    (adam, adam_weights), (exact, exact_weights) = read("adam"), read("exact_lazy_adam")
    np.testing.assert_allclose(exact["predict"], adam["predict"], atol=1e-6)
    assert exact["loss"] == pytest.approx(adam["loss"], abs=1e-6)
    for expected, weights in zip(adam_weights, exact_weights, strict=True):
        np.testing.assert_allclose(weights, expected, rtol=0, atol=1e-6)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("optimizer", ["adam", "exact_lazy_adam"])
def test_weights_that_are_set_stay_as_they_are_set(optimizer, tiny_schema, data, tmp_path):
    """Rows that owe steps, as those that a callback restores, are not moved by them afterwards."""
    ids, y = data
    model = small(tiny_schema, optimizer)
    model.fit(ids, y, verbose=0)
    best = model.get_weights()
    keras.Model(model.input, model.output).save_weights(tmp_path / "best.weights.h5")  # without the optimizer

    def load():
        with pytest.warns(UserWarning, match="Skipping variable loading for optimizer"):
            model.load_weights(tmp_path / "best.weights.h5")

    for restore in (lambda: model.set_weights(best), load):
        for _ in range(2):
            model.train_on_batch(ids[:4], y[:4])
        restore()
        for found, expected in zip(model.get_weights(), best, strict=True):
            np.testing.assert_array_equal(found, expected)


def test_tables_are_settled_once_a_step(tiny_schema, data, tmp_path, monkeypatch):
    settled = []
    settle = ExactLazyAdam.settle
    monkeypatch.setattr(
        ExactLazyAdam, "settle", lambda optimizer: (settled.append(int(optimizer.iterations)), settle(optimizer))
    )
    model = fitted(small(tiny_schema, "exact_lazy_adam"), data, epochs=1)
    model.predict(data[0], verbose=0)
    model.evaluate(*data)
    model.save(tmp_path / "model.keras")
    model.get_weights()
    assert settled == [256 // 8]
    fitted(model, data, epochs=1)
    assert settled == [256 // 8, 2 * 256 // 8]


@pytest.mark.parametrize("optimizer", at_length(sorted(OPTIMIZERS), "exact_lazy_adam"))
def test_a_saved_model_goes_on_as_if_it_had_not_stopped(optimizer, tiny_schema, data, tmp_path):
    whole = fitted(small(tiny_schema, optimizer), data)
    half = fitted(small(tiny_schema, optimizer), data, epochs=2)
    half.save(tmp_path / "half.keras")
    resumed = fitted(keras.saving.load_model(tmp_path / "half.keras"), data, epochs=1)
    for expected, weights in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_allclose(weights, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("optimizer", ["lazy_adam", "exact_lazy_adam", "adagrad", "ftrl"])
def test_l2_over_whole_tables_is_refused(optimizer, tiny_schema):
    with pytest.raises(ConfigError, match="embedding_l2 all rows of the tables"):
        small(tiny_schema, optimizer, embedding_l2=0.1)
    small(tiny_schema, optimizer, embedding_l2=0.1, l2_scope="batch")
    small(tiny_schema, LazyAdam(dense_rows=10**6), embedding_l2=0.1)


@pytest.mark.slow
def test_mixed_precision_scales_the_loss_of_lazy_rows(tiny_schema, data):
    model = small(tiny_schema, keras.optimizers.LossScaleOptimizer(ExactLazyAdam()), embedding_l2=0.1, l2_scope="batch")
    plain = small(tiny_schema, "exact_lazy_adam", embedding_l2=0.1, l2_scope="batch")
    for expected, weights in zip(fitted(plain, data).get_weights(), fitted(model, data).get_weights(), strict=True):
        np.testing.assert_allclose(weights, expected, rtol=0, atol=1e-5)


def outputs_of(graph):
    for operation in graph.get_operations():
        yield from operation.outputs
    for function in graph._functions.values():
        yield from outputs_of(function.graph)


def step_of(model):
    """The graph of one training step on batches of 331 rows."""
    data = tf.TensorSpec((331, model.schema.width), "int32"), tf.TensorSpec((331, 1), "float32")
    return tf.function(lambda *data: model.train_step(data), autograph=False).get_concrete_function(*data).graph


@pytest.mark.parametrize("optimizer", ["lazy_adam", "exact_lazy_adam"])
def test_two_tables_share_one_search_for_duplicates(optimizer):
    schema = Schema(features=[Categorical("user", size=50), Categorical("item", size=3)], label="click")
    model = TF4CTR(schema, selection="separate", embedding_l2=0.1, l2_scope="batch")
    model.compile(optimizer=optimizer)
    assert len(model.tables) == 2
    graph = step_of(model)
    exported = tf.compat.v1.train.export_meta_graph(graph_def=graph.as_graph_def(), graph=graph)
    exported.collection_def["train_op"].node_list.value.extend(tensor.name for tensor in graph.outputs + graph.control_outputs)
    optimized = tf_optimizer.OptimizeGraph(tf.compat.v1.ConfigProto(), exported)
    assert sum(node.op == "Unique" for node in optimized.node) == 1


@pytest.mark.sampled(4)
@pytest.mark.parametrize("optimizer", ["lazy_adam", "exact_lazy_adam", "adagrad", "ftrl"])
@pytest.mark.parametrize("model", [DNN, TF4CTR, CETN])
def test_no_step_writes_a_whole_table_or_a_square_of_the_batch(model, optimizer):
    rows, batch = 100_003, 331  # sizes that nothing else has
    schema = Schema(features=[Categorical("user", size=100_000), Categorical("item", size=3)], label="click")
    built = model(schema, embedding_l2=0.1, l2_scope="batch")
    built.compile(optimizer=optimizer)
    tensors = [tensor for tensor in outputs_of(step_of(built)) if tensor.shape.rank]
    assert any(tensor.shape[0] == batch for tensor in tensors)
    assert not [tensor.op.name for tensor in tensors if tensor.shape[0] == rows]
    assert not [tensor.op.name for tensor in tensors if tensor.shape.as_list()[:2] == [batch, batch]]


def test_a_step_over_whole_tables_is_seen(tiny_schema):
    model = DNN(tiny_schema, embedding_l2=0.1)
    model.compile()
    tensors = [tensor for tensor in outputs_of(step_of(model)) if tensor.shape.rank]
    assert [tensor for tensor in tensors if tensor.shape[0] == tiny_schema.table_rows]
