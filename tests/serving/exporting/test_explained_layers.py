"""A layer of a user's own explains as those of tfctr do: by its attribute `explains` and `weigh`."""

import keras
import numpy as np
import pytest
from keras import ops

from tfctr import layers
from tfctr.layers import MLP, FeatureEmbedding
from tfctr.layers.fusion import Fusion
from tfctr.models import CTRModel, ids_input
from tfctr.serving.exporting.explanation import Explanation

EXPLAIN = {
    "fusion_weights": {"WeightedSumFusion", "StackedFusion", "VotingFusion", "ExpertFusion", "SpaceFusion"},
    "gate": {"GatedEmbedding", "ExpertEmbedding"},
}


class Halves(Fusion):
    explains = "fusion_weights"

    def fuse(self, logits, representations, training):
        return ops.sum(logits * self.weigh(representations), axis=-1, keepdims=True)

    def weigh(self, representations):
        """The share of each encoder in the sum of their sizes, `(batch, 2)`."""
        sizes = ops.stack([ops.sum(ops.abs(part), axis=-1) for part in representations], axis=-1)
        return sizes / (ops.sum(sizes, axis=-1, keepdims=True) + 1e-6)


@pytest.mark.parametrize("weighs", [True, False])
def test_a_fusion_of_ones_own(weighs, tiny_schema, tiny_ids):
    ids = ids_input(tiny_schema)
    fields = FeatureEmbedding(tiny_schema, 4)(ids)
    parts = [MLP([3])(fields), MLP([5])(fields)]
    fusion = Halves() if weighs else layers.SumFusion()
    model = CTRModel(tiny_schema, ids, fusion(parts))
    explained = Explanation(model)(tiny_ids(9))
    assert ("fusion_weights" in explained) == weighs
    if weighs:
        expected = fusion.weigh(keras.Model(ids, parts)(tiny_ids(9)))
        np.testing.assert_allclose(explained["fusion_weights"], expected, rtol=1e-6)


def test_which_layers_explain():
    found = {kind: set() for kind in EXPLAIN}
    for name in layers.__all__:
        kind = getattr(getattr(layers, name), "explains", None)
        if kind is not None:
            found[kind].add(name)
    assert found == EXPLAIN
