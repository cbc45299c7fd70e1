import keras
import numpy as np
import pytest
from kit.encoder_contract import check_precision, round_trip

from tfctr import Categorical, Schema, Sequence
from tfctr.errors import ConfigError
from tfctr.layers import (
    FUSIONS,
    MLP,
    SELECTIONS,
    ExpertEmbedding,
    FactorizationMachine,
    GatedEmbedding,
    SeparateEmbedding,
    SharedEmbedding,
    SumFusion,
)

SCHEMA = Schema(
    features=[Categorical("user", size=6), Sequence("genres", max_length=2, size=5), Categorical("item", size=9)],
    label="click",
)
IDS = np.array([[3, 6 + 3, 6 + 4, 11 + 8], [5, 6 + 1, 6 + 0, 11 + 2], [1, 6 + 4, 6 + 0, 11 + 3]], "int32")
DIM = 4  # 3 fields of 4: D = 12
NAMES = sorted(set(SELECTIONS) - {"attended"})  # which needs a history: tests/models/test_histories.py


def built(selection):
    """The selection with random weights, positive variances, and the fields of each table."""
    selection(IDS)
    for i, weight in enumerate(selection.weights):
        if "seed" not in weight.path:
            lowest = 0.5 if "variance" in weight.path else -0.5
            weight.assign(np.random.default_rng(i).uniform(lowest, 1.0, size=weight.shape))
    return selection, [np.asarray(embedding(IDS)) for embedding in selection.embeddings]


def views_of(selection):
    return [np.asarray(view) for view in selection(IDS)]


def count(weights):
    return sum(int(np.prod(weight.shape)) for weight in weights)


def hidden(mlp, x):
    """An MLP at inference: dense, normalization, ReLU, from its weights in their order."""
    trainable, moving = (
        [w.numpy() for w in mlp.trainable_weights],
        [w.numpy() for w in mlp.non_trainable_weights if "seed" not in w.path],
    )
    for i in range(len(mlp.hidden_units)):
        kernel, bias, scale, shift = trainable[4 * i : 4 * i + 4]
        mean, variance = moving[2 * i : 2 * i + 2]
        x = np.maximum((x @ kernel + bias - mean) / np.sqrt(variance + 1e-5) * scale + shift, 0)
    return x


def gate(network, x):
    mlp, head = network.layers
    return hidden(mlp, x) @ head.kernel.numpy() + head.bias.numpy()


@pytest.mark.parametrize("name", NAMES)
class TestEverySelection:
    def test_gives_two_views(self, name):
        views = SELECTIONS[name](SCHEMA, DIM)(keras.Input((SCHEMA.width,), dtype="int32"))
        assert len(views) == 2
        assert views[0].shape == (None, 3, 2 if name == "separate" else 4)
        assert views[1].shape == (None, 3, 4)

    def test_saved_model_is_the_same(self, name, tmp_path):
        ids = keras.Input((SCHEMA.width,), dtype="int32", name="ids")
        selection = SELECTIONS[name](SCHEMA, DIM)
        easy, hard = selection(ids)
        model = keras.Model(ids, SumFusion()([MLP([3])(easy), MLP([3, 3])(hard)]))
        built(selection)
        model.save(tmp_path / "model.keras")
        restored = keras.saving.load_model(tmp_path / "model.keras")
        for key, logit in model(IDS).items():
            np.testing.assert_allclose(restored(IDS)[key], logit, rtol=1e-6)

    def test_config_keeps_every_argument(self, name):
        networks = {"activation": "tanh", "dropout": 0.3, "batch_norm": True} if name in ("gated", "experts") else {}
        selection = SELECTIONS[name](SCHEMA, DIM, **networks)
        twin = round_trip(round_trip(selection))
        assert twin.schema == SCHEMA
        assert twin.get_config() == selection.get_config()
        assert networks.items() <= twin.get_config().items()

    def test_embeddings_are_the_tables(self, name):
        selection, _ = built(SELECTIONS[name](SCHEMA, DIM))
        tables = [weight for weight in selection.trainable_weights if "table" in weight.path]
        assert sorted(id(table) for table in tables) == sorted(id(embedding.table) for embedding in selection.embeddings)

    def test_every_precision_is_near_float32(self, name):
        selection, _ = built(SELECTIONS[name](SCHEMA, DIM))
        check_precision(selection, IDS)

    def test_width_must_be_positive(self, name):
        with pytest.raises(ConfigError):
            SELECTIONS[name](SCHEMA, 0)


def test_shared_views_are_one():
    selection, (fields,) = built(SharedEmbedding(SCHEMA, DIM))
    for view in views_of(selection):
        np.testing.assert_array_equal(view, fields)


def test_separate_views_have_their_own_tables():
    selection, fields = built(SeparateEmbedding(SCHEMA, DIM))
    assert [embedding.embedding_dim for embedding in selection.embeddings] == [2, 4]
    assert count(selection.trainable_weights) == 20 * (2 + 4)
    for view, expected in zip(views_of(selection), fields, strict=True):
        np.testing.assert_array_equal(view, expected)


@pytest.mark.parametrize(("dim", "simple_dim", "expected"), [(5, None, 2), (16, 1, 1), (1, 1, 1), (4, 8, 8)])
def test_simple_dim(dim, simple_dim, expected):
    easy, hard = SeparateEmbedding(SCHEMA, dim, simple_dim)(IDS)
    assert (easy.shape[-1], hard.shape[-1]) == (expected, dim)


def test_simple_dim_of_an_odd_one_is_refused():
    with pytest.raises(ConfigError, match="`simple_dim`"):
        SeparateEmbedding(SCHEMA, 1)
    with pytest.raises(ConfigError, match="0"):
        SeparateEmbedding(SCHEMA, 4, simple_dim=0)


def test_gated_views_against_numpy():
    selection, (fields,) = built(GatedEmbedding(SCHEMA, DIM, batch_norm=True, dropout=0.5))
    g = 1 / (1 + np.exp(-gate(selection.easiness, fields.reshape(3, 12))))[:, :, None]
    assert g.std() > 0.01, "the gate differs from sample to sample"
    easy, hard = views_of(selection)
    np.testing.assert_allclose(easy, g * fields, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(hard, (1 - g) * fields, rtol=1e-4, atol=1e-5)


def test_gate_is_one_number_behind_a_quarter_of_the_units():
    selection, _ = built(GatedEmbedding(SCHEMA, DIM, batch_norm=True))
    # D = 12: 12 x 3 + 3, normalization 2 x 3, 3 x 1 + 1
    assert count(selection.trainable_weights) == 20 * 4 + 39 + 6 + 4
    assert built(GatedEmbedding(SCHEMA, 1))[0].easiness.layers[0].hidden_units == (1,), "a quarter of 3 is not 0"


def test_expert_views_against_numpy():
    selection, (fields,) = built(ExpertEmbedding(SCHEMA, DIM, batch_norm=True, dropout=0.5))
    x = fields.reshape(3, 12)
    first, second = (hidden(expert, x) for expert in selection.experts)
    for view, network in zip(views_of(selection), selection.gates, strict=True):
        weights = np.exp(gate(network, x))
        weights /= weights.sum(1, keepdims=True)
        expected = weights[:, :1] * first + weights[:, 1:] * second
        np.testing.assert_allclose(view, expected.reshape(3, 3, 4), rtol=1e-4, atol=1e-5)


def test_experts_end_in_an_activation():
    selection, _ = built(ExpertEmbedding(SCHEMA, DIM))
    selection.experts[0].trainable_weights[-1].assign(np.full(12, -100.0))
    selection.experts[1].trainable_weights[-1].assign(np.full(12, -100.0))
    for view in views_of(selection):
        np.testing.assert_array_equal(view, np.zeros((3, 3, 4)))


def test_expert_parameter_count():
    selection, _ = built(ExpertEmbedding(SCHEMA, DIM, batch_norm=True))
    # D = 12: two experts 12 x 6 + 6 + 12, 6 x 12 + 12 + 24; two gates 12 x 3 + 3 + 6, 3 x 2 + 2
    assert count(selection.trainable_weights) == 20 * 4 + 2 * (90 + 108) + 2 * (45 + 8)


def test_gradient_reaches_the_table_and_the_gate():
    ids = keras.Input((SCHEMA.width,), dtype="int32")
    easy, hard = GatedEmbedding(SCHEMA, DIM)(ids)
    model = keras.Model(ids, SumFusion()([FactorizationMachine()(easy), MLP([3])(hard)])["logit"])
    model.compile("sgd", "mse")
    for weight in model.weights:
        weight.assign(np.full(weight.shape, 0.1))
    before = model.get_weights()
    model.train_on_batch(IDS, np.ones((3, 1)))
    assert all((old != new).any() for old, new in zip(before, model.get_weights(), strict=True))


RELEASED = [
    # data, fields, ids, selection, simple encoder, fusion, parameters of the authors' log
    ("Frappe", 10, 5383, "separate", [400, 400], "weighted_sum", 711_996),
    ("Frappe v1", 10, 5383, "shared", [400], "weighted_sum", 539_732),
    ("ML-1M", 5, 9626, "separate", [400], "weighted_sum", 604_628),
    ("ML-tag", 3, 88_596, "separate", [400, 400], "weighted_sum", 2_641_908),
    ("ML-tag v1", 3, 88_596, "shared", [400], "weighted_sum", 1_781_540),
    ("KKBox", 13, 227_853, "separate", [400, 400], "experts", 6_083_278),
]


@pytest.mark.parametrize(
    ("fields", "ids", "selection", "simple", "fusion", "expected"),
    [row[1:] for row in RELEASED],
    ids=[row[0] for row in RELEASED],
)
def test_released_parameter_counts(fields, ids, selection, simple, fusion, expected):
    sizes = [4] * (fields - 1) + [ids - 4 * (fields - 1)]
    schema = Schema(features=[Categorical(f"f{i}", size=size) for i, size in enumerate(sizes)], label="click")
    inputs = keras.Input((fields,), dtype="int32")
    easy, hard = SELECTIONS[selection](schema, 16)(inputs)
    representations = [MLP(simple, batch_norm=True)(easy), MLP([400, 400, 400], batch_norm=True)(hard)]
    model = keras.Model(inputs, FUSIONS[fusion]()(representations))
    assert count(model.trainable_weights) == expected
