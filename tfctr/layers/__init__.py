"""Layers: embedding, selection, encoders, fusion. Each has plain arguments and knows no label and no file."""

from tfctr.layers.activations import ACTIVATIONS, Dice
from tfctr.layers.attended import AttendedEmbedding
from tfctr.layers.attention import PairAttention, SelfAttention
from tfctr.layers.bilinear import BilinearInteraction, SqueezeExcitation
from tfctr.layers.bilinear_fusion import BilinearFusion
from tfctr.layers.bridge import BridgedCross, Regulation
from tfctr.layers.cin import CIN
from tfctr.layers.cross import CrossNetwork, GatedCrossNetwork, LowRankCrossNetwork, VectorCrossNetwork
from tfctr.layers.dropout import Dropout
from tfctr.layers.embedding import FeatureEmbedding
from tfctr.layers.euler import EulerInteraction
from tfctr.layers.final_block import FinalBlock
from tfctr.layers.fusion import (
    ConcatenationFusion,
    ExpertFusion,
    MeanFusion,
    StackedFusion,
    SumFusion,
    VotingFusion,
    WeightedSumFusion,
)
from tfctr.layers.gating import FeatureGating, FieldGate
from tfctr.layers.graph import AttentiveScore, FactorizationGraph, FieldGraph
from tfctr.layers.history import HistoryTransformer, TargetAttention
from tfctr.layers.interactions import BiInteraction, FactorizationMachine, LinearTerms
from tfctr.layers.key_value import KeyValueBlock
from tfctr.layers.logarithmic import LogarithmicNetwork, LogarithmicTransform
from tfctr.layers.mask import MaskBlocks
from tfctr.layers.mlp import MLP, linear
from tfctr.layers.product_layer import ProductLayer
from tfctr.layers.quadratic import QuadraticNetwork
from tfctr.layers.selection import ExpertEmbedding, GatedEmbedding, SeparateEmbedding, SharedEmbedding
from tfctr.layers.self_masked import ExponentialCrossNetwork, LinearCrossNetwork
from tfctr.layers.spaces import ElementwiseProducts, InnerProducts, Perturbation, SpaceFusion
from tfctr.layers.through import ThroughConnection, ThroughNetwork
from tfctr.layers.transformer import FieldTransformer

ENCODERS = {
    "MLP": MLP,
    "InnerProducts": InnerProducts,
    "ThroughNetwork": ThroughNetwork,
    "FactorizationMachine": FactorizationMachine,
    "LinearTerms": LinearTerms,
    "CrossNetwork": CrossNetwork,
    "BiInteraction": BiInteraction,
    "BilinearInteraction": BilinearInteraction,
    "CIN": CIN,
    "GatedCrossNetwork": GatedCrossNetwork,
    "ExponentialCrossNetwork": ExponentialCrossNetwork,
    "LinearCrossNetwork": LinearCrossNetwork,
    "QuadraticNetwork": QuadraticNetwork,
    "LogarithmicNetwork": LogarithmicNetwork,
    "LogarithmicTransform": LogarithmicTransform,
    "LowRankCrossNetwork": LowRankCrossNetwork,
    "PairAttention": PairAttention,
    "ProductLayer": ProductLayer,
    "SelfAttention": SelfAttention,
    "VectorCrossNetwork": VectorCrossNetwork,
    "BridgedCross": BridgedCross,
    "EulerInteraction": EulerInteraction,
    "FactorizationGraph": FactorizationGraph,
    "FieldGraph": FieldGraph,
    "FinalBlock": FinalBlock,
    "MaskBlocks": MaskBlocks,
    "FieldTransformer": FieldTransformer,
}
SELECTIONS = {
    "shared": SharedEmbedding,
    "separate": SeparateEmbedding,
    "gated": GatedEmbedding,
    "experts": ExpertEmbedding,
    "feature_gating": FeatureGating,
    "attended": AttendedEmbedding,
}
FUSIONS = {
    "sum": SumFusion,
    "mean": MeanFusion,
    "weighted_sum": WeightedSumFusion,
    "voting": VotingFusion,
    "concatenation": ConcatenationFusion,
    "experts": ExpertFusion,
    "bilinear": BilinearFusion,
    "stacked": StackedFusion,
}

__all__ = [
    "ACTIVATIONS",
    "CIN",
    "ENCODERS",
    "FUSIONS",
    "MLP",
    "SELECTIONS",
    "AttendedEmbedding",
    "AttentiveScore",
    "BiInteraction",
    "BilinearFusion",
    "BilinearInteraction",
    "BridgedCross",
    "ConcatenationFusion",
    "CrossNetwork",
    "Dice",
    "Dropout",
    "ElementwiseProducts",
    "EulerInteraction",
    "ExpertEmbedding",
    "ExpertFusion",
    "ExponentialCrossNetwork",
    "FactorizationGraph",
    "FactorizationMachine",
    "FeatureEmbedding",
    "FeatureGating",
    "FieldGate",
    "FieldGraph",
    "FieldTransformer",
    "FinalBlock",
    "GatedCrossNetwork",
    "GatedEmbedding",
    "HistoryTransformer",
    "InnerProducts",
    "KeyValueBlock",
    "LinearCrossNetwork",
    "LinearTerms",
    "LogarithmicNetwork",
    "LogarithmicTransform",
    "LowRankCrossNetwork",
    "MaskBlocks",
    "MeanFusion",
    "PairAttention",
    "Perturbation",
    "ProductLayer",
    "QuadraticNetwork",
    "Regulation",
    "SelfAttention",
    "SeparateEmbedding",
    "SharedEmbedding",
    "SpaceFusion",
    "SqueezeExcitation",
    "StackedFusion",
    "SumFusion",
    "TargetAttention",
    "ThroughConnection",
    "ThroughNetwork",
    "VectorCrossNetwork",
    "VotingFusion",
    "WeightedSumFusion",
    "linear",
]
