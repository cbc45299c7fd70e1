"""Models that are an embedding, one encoder and a linear head: the options reach the encoder, and nothing else the logit."""

import numpy as np
import pytest
from randomized import dense, numbers, randomize

from tfctr import layers
from tfctr.models import EDCN, EulerNet, FiGNN, GraphFM, MaskNet

GRAPHFM = {"hidden_units": (6, 4), "kept": (0.5, 1.0), "num_heads": 2}
EDCN_OPTIONS = {"num_layers": 2, "bridge": "attention", "temperature": 0.5, "dropout": 0.1, "batch_norm": False}
EULERNET = {"num_layers": 1, "num_orders": 3, "dropout": 0.1, "layer_norm": False}


@pytest.mark.parametrize(
    ("model", "encoder", "options"),
    [
        (GraphFM, layers.FactorizationGraph, GRAPHFM),
        (EDCN, layers.BridgedCross, EDCN_OPTIONS),
        (EulerNet, layers.EulerInteraction, EULERNET),
    ],
)
def test_logit_is_linear_in_the_encoder(model, encoder, options, tiny_schema, tiny_ids):
    model = randomize(model(tiny_schema, embedding_dim=4, **options))
    _, embedding, encoder_layer, head = model.layers
    assert type(encoder_layer) is encoder
    assert {name: encoder_layer.get_config()[name] for name in options} == options
    encoded = numbers(encoder_layer(embedding(tiny_ids(9))))
    np.testing.assert_allclose(model(tiny_ids(9))["logit"], dense(head, encoded), rtol=1e-5, atol=1e-5)


def test_fignn_scores_the_states_of_its_graph(tiny_schema, tiny_ids):
    model = randomize(FiGNN(tiny_schema, embedding_dim=4, num_steps=2, state_dim=6, num_heads=3))
    _, embedding, graph, score = model.layers
    assert (graph.num_steps, graph.state_dim, graph.num_heads, score.num_fields) == (2, 6, 3, len(tiny_schema.fields))
    np.testing.assert_array_equal(model(tiny_ids(9))["logit"], score(graph(embedding(tiny_ids(9)))))


@pytest.mark.parametrize("arrangement", ["serial", "parallel"])
def test_masknet_is_its_blocks_and_a_head(arrangement, tiny_schema, tiny_ids):
    options = {"arrangement": arrangement, "reduction_ratio": 0.5, "dropout": 0.1}
    model = randomize(MaskNet(tiny_schema, embedding_dim=4, block_units=(6, 5), hidden_units=(7,), **options))
    _, embedding, blocks, *above, head = model.layers
    assert {name: blocks.get_config()[name] for name in options} == options
    deep = blocks(embedding(tiny_ids(9)))
    for mlp in above:
        assert (mlp.hidden_units, mlp.dropout) == ((7,), 0.1)
        deep = mlp(deep)
    np.testing.assert_allclose(model(tiny_ids(9))["logit"], dense(head, numbers(deep)), rtol=1e-5, atol=1e-5)
    assert len(above) == (arrangement == "parallel")
