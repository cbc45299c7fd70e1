"""Models that are an embedding, one encoder and a linear head: the options reach the encoder, and nothing else the logit."""

import numpy as np
import pytest
from kit.randomized import dense, numbers, randomize

from tfctr import layers
from tfctr.models import EDCN, EulerNet, GraphFM, MaskNet, build

GRAPHFM = {"hidden_units": (6, 4), "kept": (0.5, 1.0), "num_heads": 2}
EDCN_OPTIONS = {"num_layers": 2, "bridge": "attention", "temperature": 0.5, "dropout": 0.1, "batch_norm": False}
EULERNET = {"num_layers": 1, "num_orders": 3, "dropout": 0.1, "layer_norm": False}
FIGNN = {"num_steps": 2, "state_dim": 6, "num_heads": 3}
FUXICTR = {"num_steps": 2, "state_dim": 4, "num_heads": 0, "shared_steps": False, "edges": "heard", "reset_after": True}


@pytest.mark.parametrize(
    ("model", "encoder", "options"),
    [
        (GraphFM, layers.FactorizationGraph, GRAPHFM),
        (GraphFM, layers.FactorizationGraph, {**GRAPHFM, "form": "released"}),
        (EDCN, layers.BridgedCross, EDCN_OPTIONS),
        (EDCN, layers.BridgedCross, {**EDCN_OPTIONS, "attention": "sides"}),
        (EulerNet, layers.EulerInteraction, EULERNET),
        (EulerNet, layers.EulerInteraction, {**EULERNET, "explicit_dropout": 0.1, "implicit_dropout": 0.2}),
    ],
)
def test_logit_is_linear_in_the_encoder(model, encoder, options, tiny_schema, tiny_ids):
    model = randomize(build(model.__name__, tiny_schema, embedding_dim=4, **options))
    _, embedding, encoder_layer, head = model.layers
    assert type(encoder_layer) is encoder
    assert {name: encoder_layer.get_config()[name] for name in options} == options
    encoded = numbers(encoder_layer(embedding(tiny_ids(9))))
    np.testing.assert_allclose(model(tiny_ids(9))["logit"], dense(head, encoded), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("options", [FIGNN, FUXICTR])
def test_fignn_scores_the_states_of_its_graph(options, tiny_schema, tiny_ids):
    model = randomize(build("FiGNN", tiny_schema, embedding_dim=4, **options))
    _, embedding, graph, score = model.layers
    assert {name: graph.get_config()[name] for name in options} == options
    assert score.num_fields == len(tiny_schema.fields)
    np.testing.assert_array_equal(model(tiny_ids(9))["logit"], score(graph(embedding(tiny_ids(9)))))


@pytest.mark.parametrize(("arrangement", "field_norms"), [("serial", False), ("parallel", True)])
def test_masknet_is_its_blocks_and_a_head(arrangement, field_norms, tiny_schema, tiny_ids):
    options = {"arrangement": arrangement, "reduction_ratio": 0.5, "dropout": 0.1, "field_norms": field_norms}
    model = randomize(MaskNet(tiny_schema, embedding_dim=4, block_units=(6, 5), hidden_units=(7,), **options))
    _, embedding, blocks, *above, head = model.layers
    assert {name: blocks.get_config()[name] for name in options} == options
    deep = blocks(embedding(tiny_ids(9)))
    for mlp in above:
        assert (mlp.hidden_units, mlp.dropout) == ((7,), 0.1)
        deep = mlp(deep)
    np.testing.assert_allclose(model(tiny_ids(9))["logit"], dense(head, numbers(deep)), rtol=1e-5, atol=1e-5)
    assert len(above) == (arrangement == "parallel")
