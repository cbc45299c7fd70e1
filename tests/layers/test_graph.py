import numpy as np
import pytest
from kit.encoder_contract import check_encoder
from kit.randomized import dense, draw, leaky_relu, normalize, numbers, randomize, sigmoid, softmax

from tfctr.errors import ConfigError
from tfctr.layers import AttentiveScore, FactorizationGraph, FieldGraph
from tfctr.layers.graph import masked_softmax

VIEW = draw(5, 4, 3)


def built(layer, shape=VIEW.shape):
    layer.build(shape)
    return randomize(layer)


@pytest.mark.parametrize(
    ("encoder", "units"),
    [
        (FieldGraph(), 48),
        (FieldGraph(num_steps=1, state_dim=5, num_heads=1), 15),
        (FieldGraph(num_steps=2, shared_steps=False, edges="heard", reset_after=True), 48),
        (FieldGraph(num_steps=2, state_dim=4, num_heads=0, edges="equal"), 12),
        (FactorizationGraph(hidden_units=(8, 4), kept=(1.0, 1.0)), 12),
        (FactorizationGraph(hidden_units=(8, 4), kept=(1.0, 1.0), form="released"), 12),
    ],
)
def test_encoder_contract(encoder, units):
    check_encoder(encoder, units)


def test_kept_neighbors_survive_the_config():
    layer = FactorizationGraph((4, 6), (1.0, 0.25), num_heads=1, selection_units=3)
    twin = built(FactorizationGraph.from_config(layer.get_config()))
    np.testing.assert_array_equal(twin(VIEW), built(layer)(VIEW))


# Fi-GNN


def gru(layer, message, state):
    """The update of the paper: the reset gate multiplies the state before its matrix; PyTorch's does so after."""
    kernel, recurrent, bias = (weight.astype("float64") for weight in layer.get_weights())
    bias, recurrent_bias = bias if layer.reset_after else (bias, np.zeros(3 * state.size))
    z_x, r_x, h_x = np.split(message @ kernel + bias, 3)
    z_u, r_u, h_u = np.split(recurrent, 3, axis=1)
    z_b, r_b, h_b = np.split(recurrent_bias, 3)
    z, r = sigmoid(z_x + state @ z_u + z_b), sigmoid(r_x + state @ r_u + r_b)
    candidate = np.tanh(h_x + (r * (state @ h_u + h_b) if layer.reset_after else (r * state) @ h_u))
    return z * state + (1 - z) * candidate


def graph_states(layer, fields):
    """One sample's states after all steps, node by node."""
    count = len(fields)
    first = attended(layer, fields) if layer.num_heads else fields
    weights = edge_weights(layer, first)
    states = first
    for step in range(layer.num_steps):
        parts = [numbers(part) for part in (layer.outgoing, layer.incoming, layer.bias)]
        outgoing, incoming, bias = parts if layer.shared_steps else (part[step] for part in parts)
        updated = []
        for i in range(count):
            message = sum(weights[j, i] * states[j] @ outgoing[j] for j in range(count))
            updated.append(gru(layer.update, message @ incoming[i] + bias, states[i]) + first[i])
        states = np.array(updated)
    return states


def attended(layer, fields):
    """The first states by self-attention."""
    count = len(fields)
    queries, keys, values = (dense(projection, fields) for projection in layer.projections)
    width = layer.state_dim // layer.num_heads
    first = np.zeros((count, layer.state_dim))
    for head in range(layer.num_heads):
        part = slice(head * width, (head + 1) * width)
        for i in range(count):
            weights = softmax(np.array([queries[i, part] @ keys[j, part] for j in range(count)]) / np.sqrt(width))
            first[i, part] = sum(weights[j] * values[j, part] for j in range(count))
    return np.maximum(first, 0)


def edge_weights(layer, first):
    """What the message from node j to node i weighs, in row j and column i."""
    count = len(first)
    if layer.edges == "equal":
        return 1 - np.eye(count)
    edge = numbers(layer.edge_scores.kernel)  # the two halves of w, side by side
    whole = np.concatenate([edge[:, 0], edge[:, 1]])
    weights = np.zeros((count, count))  # of the pair i, j, among all pairs of i
    for i in range(count):
        others = [j for j in range(count) if j != i]
        scores = [leaky_relu(whole @ np.concatenate([first[i], first[j]])) for j in others]
        weights[i, others] = softmax(np.array(scores))
    return weights if layer.edges == "sent" else weights.T


@pytest.mark.parametrize(
    "options",
    [
        {"state_dim": 6, "num_heads": 2},
        {"state_dim": 3, "num_heads": 0, "shared_steps": False, "edges": "heard", "reset_after": True},  # FuxiCTR's
        {"state_dim": 6, "shared_steps": False, "edges": "equal"},
    ],
)
def test_field_graph_against_a_loop_over_nodes(options):
    layer = built(FieldGraph(num_steps=2, **options))
    expected = np.array([graph_states(layer, numbers(fields)).ravel() for fields in VIEW])
    np.testing.assert_allclose(layer(VIEW), expected, rtol=1e-5, atol=1e-5)


def test_messages_use_the_same_matrices_at_every_step():
    counts = {built(FieldGraph(num_steps=steps)).count_params() for steps in (1, 2, 5)}
    assert len(counts) == 1


# of 4 fields of 3, states of 6: projections 3 x 3 x 6, edges 6 x 2; a step 2 x 4 x 6 x 6 + 6; GRU 2 x 6 x 18 + 18
@pytest.mark.parametrize(
    ("options", "parameters"),
    [
        ({}, 54 + 12 + 294 + 234),
        ({"shared_steps": False}, 54 + 12 + 3 * 294 + 234),
        ({"edges": "equal"}, 54 + 294 + 234),
        ({"reset_after": True}, 54 + 12 + 294 + 234 + 18),  # PyTorch's has two biases
        ({"num_heads": 0, "state_dim": 3}, 6 + (2 * 4 * 9 + 3) + (2 * 3 * 9 + 9)),
    ],
)
def test_parameters_of_a_field_graph(options, parameters):
    assert built(FieldGraph(**{"num_steps": 3, "state_dim": 6, **options})).count_params() == parameters


def test_fields_without_attention_are_as_wide_as_the_states():
    with pytest.raises(ConfigError, match="`state_dim` is 6, and the fields are 3 wide"):
        FieldGraph(state_dim=6, num_heads=0)(VIEW)


@pytest.mark.parametrize("layer", [FieldGraph, FactorizationGraph])
def test_one_field_is_no_graph(layer):
    with pytest.raises(ConfigError, match="1 field has no pairs"):
        layer()(VIEW[:, :1])


def test_edges_sum_to_one_without_the_field_itself():
    layer = built(FieldGraph())
    edges = numbers(layer.weigh(layer.attend(VIEW)))
    np.testing.assert_allclose(edges.sum(axis=-1), 1, rtol=1e-5)
    np.testing.assert_array_equal(edges[:, range(4), range(4)], 0)


def test_attentive_score_by_hand():
    layer = AttentiveScore(num_fields=2)
    layer.build((None, 4))
    # u = [1, -1]; V looks at the first component of node 1 for both weights, with factors 0 and ln 3
    layer.set_weights([np.array([[1.0], [-1.0]]), np.array([[0.0, np.log(3.0)], [0, 0], [0, 0], [0, 0]])])
    # nodes [1, 3] and [5, 1] score -2 and 4; their weights are sigmoid(0) = 1/2 and sigmoid(ln 3) = 3/4
    np.testing.assert_allclose(layer(np.array([[1.0, 3.0, 5.0, 1.0]])), [[-2 / 2 + 4 * 3 / 4]], rtol=1e-6)


# GraphFM


def factorization_step(step, fields):
    """One sample's next fields, edge by edge, with every product of a pair written out."""
    count = len(fields)
    products, products_bias = numbers(step.products), numbers(step.products_bias)
    score_weights, bias = numbers(step.score), numbers(step.score_bias)[0]
    score = np.zeros((count, count))
    for i in range(count):
        for j in range(count):
            hidden = np.maximum(products @ (fields[i] * fields[j]) + products_bias, 0)
            score[i, j] = sigmoid(hidden @ score_weights[:, 0] + bias)
    rows = []
    for i in range(count):
        neighbors = [j for j in range(count) if score[i, j] >= np.sort(score[i])[-step.neighbors]]
        heads = []
        for attention, kernel in zip(numbers(step.attention), numbers(step.kernel), strict=True):
            weights = softmax(np.array([leaky_relu(attention @ (fields[i] * fields[j])) for j in neighbors]))
            heads.append(
                sum(w * score[i, j] * (fields[i] * fields[j]) for w, j in zip(weights, neighbors, strict=True)) @ kernel
            )
        rows.append(np.maximum(np.concatenate(heads) + dense(step.residual, fields[i]), 0))
    return normalize(np.array(rows), step.norm)


def edge_scores(step, fields):
    """`p_ij` of all pairs."""
    products, products_bias = numbers(step.products), numbers(step.products_bias)
    weights, bias = numbers(step.score)[:, 0], numbers(step.score_bias)[0]
    pairs = fields[:, None] * fields[None]  # (fields, fields, dim)
    return sigmoid(np.maximum(pairs @ products.T + products_bias, 0) @ weights + bias)


def released_step(step, fields):
    """One sample's next fields as the authors' code computes them, field by field."""
    score, rows = edge_scores(step, fields), []
    for i in range(len(fields)):
        pairs = fields[i] * fields  # (fields, dim)
        kept = score[i] * (score[i] >= np.sort(score[i])[-step.neighbors])
        heads = []
        for head in range(step.num_heads):
            attention = np.maximum(pairs @ numbers(step.attention)[head] + numbers(step.attention_bias)[head], 0)
            heads.append(softmax(kept * attention) @ (pairs @ numbers(step.kernel)[head, i]))
        residual = np.maximum(fields[i] @ numbers(step.residual)[i] + numbers(step.residual_bias)[i], 0)
        row = np.maximum(np.concatenate(heads) + residual, 0)
        normal = (row - row.mean()) / np.sqrt(row.var() + 1e-8)
        rows.append(normal * numbers(step.norm.gain)[i] + numbers(step.norm.bias)[i])
    return np.array(rows)


@pytest.mark.parametrize("form", ["paper", "released"])
@pytest.mark.parametrize("kept", [(1.0, 1.0), (0.5, 0.26), (1.0, 0.01)])
def test_factorization_graph_against_a_loop_over_edges(kept, form):
    layer = built(FactorizationGraph(hidden_units=(6, 4), kept=kept, num_heads=2, selection_units=3, form=form))
    next_fields = {"paper": factorization_step, "released": released_step}[form]
    expected = []
    for fields in VIEW.astype("float64"):
        pooled = []
        for step in layer.steps:
            fields = next_fields(step, fields)
            pooled.append(fields.mean(axis=0))
        expected.append(np.concatenate(pooled))
    np.testing.assert_allclose(layer(VIEW), expected, rtol=1e-5, atol=1e-5)


# of 4 fields of 3 to 6 units, 2 heads, 5 selection units: selection 5 x 3 + 5 + 5 + 1, attention 2 x 3
@pytest.mark.parametrize(
    ("form", "parameters"),
    [
        ("paper", 26 + 6 + 3 * 6 + (3 * 6 + 6) + 2 * 6),
        ("released", 26 + 6 + 2 + 4 * (3 * 6 + (3 * 6 + 6) + 2 * 6)),  # W, U with bias and norm once a field
    ],
)
def test_parameters_of_a_factorization_graph(form, parameters):
    assert built(FactorizationGraph((6,), (1.0,), num_heads=2, selection_units=5, form=form)).count_params() == parameters


def test_shares_of_neighbors_are_those_of_criteo():
    layer = FactorizationGraph()
    layer.build((None, 39, 16))
    assert [step.neighbors for step in layer.steps] == [39, 20, 5]


def test_dropped_neighbors_do_not_count():
    """As in the paper: the authors' code would leave them a weight, since it masks before the softmax by a factor."""
    step = built(FactorizationGraph((4,), (0.5,))).steps[0]
    kept = numbers(step.edges(VIEW)) > 0
    assert (kept.sum(axis=-1) == 2).mean() > 0.5
    weights = numbers(masked_softmax(np.zeros_like(kept, "float32"), kept))
    np.testing.assert_allclose(weights, kept / kept.sum(axis=-1, keepdims=True), rtol=1e-6)


@pytest.mark.parametrize(
    ("layer", "arguments"),
    [
        (FieldGraph, {"num_steps": 0}),
        (FieldGraph, {"state_dim": 5}),
        (FieldGraph, {"edges": "send"}),
        (FactorizationGraph, {"form": "papers"}),
        (FactorizationGraph, {"hidden_units": ()}),
        (FactorizationGraph, {"hidden_units": (4, 4)}),
        (FactorizationGraph, {"kept": (1.0, 0.5, 0.0)}),
        (FactorizationGraph, {"hidden_units": (4, 4, 3)}),
    ],
)
def test_bad_arguments_are_refused(layer, arguments):
    with pytest.raises(ConfigError):
        layer(**arguments)
