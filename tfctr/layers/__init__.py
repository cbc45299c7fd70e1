"""Layers: embedding, selection, encoders, fusion. Each has plain arguments and knows no label and no file."""

from tfctr.layers.embedding import FeatureEmbedding
from tfctr.layers.fusion import ConcatenationFusion, ExpertFusion, SumFusion, VotingFusion, WeightedSumFusion
from tfctr.layers.interactions import CrossNetwork, FactorizationMachine, LinearTerms
from tfctr.layers.mlp import MLP, linear
from tfctr.layers.selection import ExpertEmbedding, GatedEmbedding, SeparateEmbedding, SharedEmbedding

ENCODERS = {
    "MLP": MLP,
    "FactorizationMachine": FactorizationMachine,
    "LinearTerms": LinearTerms,
    "CrossNetwork": CrossNetwork,
}
SELECTIONS = {
    "shared": SharedEmbedding,
    "separate": SeparateEmbedding,
    "gated": GatedEmbedding,
    "experts": ExpertEmbedding,
}
FUSIONS = {
    "sum": SumFusion,
    "weighted_sum": WeightedSumFusion,
    "voting": VotingFusion,
    "concatenation": ConcatenationFusion,
    "experts": ExpertFusion,
}

__all__ = [
    "ENCODERS",
    "FUSIONS",
    "MLP",
    "SELECTIONS",
    "ConcatenationFusion",
    "CrossNetwork",
    "ExpertEmbedding",
    "ExpertFusion",
    "FactorizationMachine",
    "FeatureEmbedding",
    "GatedEmbedding",
    "LinearTerms",
    "SeparateEmbedding",
    "SharedEmbedding",
    "SumFusion",
    "VotingFusion",
    "WeightedSumFusion",
    "linear",
]
