"""Tables in parts, as on parameter servers, but in one process: read by rows, trained and kept as if they were whole."""

import numpy as np
import pytest
import tensorflow as tf
from kit.mirrored_step import operations

from tfctr import Categorical, Schema, models
from tfctr.errors import ConfigError
from tfctr.layers import embedding
from tfctr.storage import write_json
from tfctr.training import wholes
from tfctr.training.resuming import require_same_distribution

SIZES = (40, 11)
SCHEMA = Schema(features=[Categorical(name, size=size) for name, size in zip("ab", SIZES, strict=True)], label="click")


@pytest.fixture
def model(monkeypatch):
    def make(servers, optimizer="lazy_adam"):
        monkeypatch.setattr(embedding, "cluster_of", lambda strategy: {"worker": 1, "ps": servers})
        model = models.DeepFM(SCHEMA, embedding_dim=3, hidden_units=[5], embedding_l2=0.1, l2_scope="batch")
        model.compile(optimizer)
        return model

    return make


def copy(source, target):
    """Everything that training moves, whatever the parts."""
    for of in (wholes.weights_of, wholes.moments_of):
        for whole, other in zip(of(source), of(target), strict=True):
            other.write(whole.read())


def values(model):
    return [np.concatenate(list(w.read())) if w.is_table else next(w.read()) for w in _wholes(model)]


def _wholes(model):
    return [*wholes.weights_of(model), *wholes.moments_of(model)]


def batch(seed):
    rng = np.random.default_rng(seed)
    ids = np.stack([rng.integers(3, SIZES[0], 64), SIZES[0] + rng.integers(3, SIZES[1], 64)], axis=1)
    return tf.constant(ids, tf.int32), tf.constant(rng.integers(0, 2, (64, 1)), tf.float32)


@pytest.mark.parametrize("optimizer", ["lazy_adam", "adagrad", "ftrl"])
def test_parts_are_trained_as_the_whole(optimizer, model):
    one, three = model(0, optimizer), model(3, optimizer)
    assert [table.shape[0] for table in three.tables] == 2 * [17, 17, 17]
    copy(one, three)
    for seed in range(4):
        for each in (one, three):
            each.descend(*batch(seed))
            each.optimizer.iterations.assign(seed + 1)
    for ours, theirs in zip(values(three), values(one), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)


def test_rows_are_read_once_and_no_part_is_read_whole(model):
    parts = model(3)
    specs = tf.TensorSpec((331, 2), tf.int32), tf.TensorSpec((331, 1), tf.float32)
    found = list(operations(tf.function(parts.descend, autograph=False).get_concrete_function(*specs).graph))
    shapes = [tensor.shape for operation in found for tensor in operation.outputs]
    assert not [shape for shape in shapes if shape.rank and shape[0] in (17, 51)]
    gathers = [operation for operation in found if operation.type == "ResourceGather"]
    assert gathers
    assert not [gather for gather in gathers if gather.outputs[0].shape[0] == 331 * 2]


@pytest.mark.parametrize("servers", [0, 1, 2, 60])
def test_what_is_kept_does_not_depend_on_the_parts(servers, model, monkeypatch):
    monkeypatch.setattr(wholes, "_BLOCK", 7)
    three, others = model(3), model(servers)
    three.descend(*batch(0))
    assert [whole.blocks for whole in _wholes(three)] == [whole.blocks for whole in _wholes(others)]
    copy(three, others)
    for ours, theirs in zip(values(others), values(three), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("optimizer", ["lazy_adam", "adagrad"])
def test_terms_over_whole_tables_are_refused(optimizer, monkeypatch):
    monkeypatch.setattr(embedding, "cluster_of", lambda strategy: {"worker": 1, "ps": 2})
    with pytest.raises(ConfigError, match="embedding_l2 all rows"):
        models.LR(SCHEMA, embedding_l2=0.1).compile(optimizer)


@pytest.mark.parametrize(
    ("before", "now", "began"), [("parameter_server", None, "with"), (None, "parameter_server", "without")]
)
def test_a_run_goes_on_as_it_was_begun(before, now, began, tmp_path):
    write_json(tmp_path / "environment.json", {} if before is None else {"distribution": before})
    require_same_distribution(tmp_path, before)
    with pytest.raises(ConfigError, match=f"was begun {began} parameter servers"):
        require_same_distribution(tmp_path, now)
