"""What `keras.saving.load_model` must know of tfctr, told to Keras without importing it.

Keras builds what is in a `.keras` file out of classes that are registered, and a class registers itself when its module is
imported; importing tfctr imports neither Keras nor those modules. So, as soon as both Keras and tfctr are imported, in either
order, each name gets a stand-in that imports the class when a file first asks for it.
"""

import importlib
import importlib.abc
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

# All that is registered in the package "tfctr". A new class of a file is a name here; a test compares them.
_NAMES = """
    AFM AFN Adam AttendedEmbedding AttentiveScore AutoInt BST BiInteraction BilinearFusion BilinearInteraction
    BridgedCross CETN CIN CL4CTR CTRModel ConcatenationFusion ContrastLoss CosineLoss CrossNetwork DCN DCNv2 DIN DNN
    DeepFM Dice Dropout DualMLP EDCN ElementwiseProducts EulerInteraction EulerNet EulerStep ExactLazyAdam
    ExpertEmbedding ExpertFusion ExponentialCrossNetwork FCN FM FactorizationGraph FactorizationMachine
    FactorizationStep FeatureEmbedding FeatureGating FiBiNET FiGNN FieldGate FieldGraph FieldNormalization FieldSignal
    FieldTransformer FinalBlock FinalMLP FinalNet FocalLoss GDCN GatedCrossNetwork GatedEmbedding GraphFM HeadLoss
    HistoryTransformer IPNN InnerProducts KeyValueBlock LR LazyAdam LinearCrossNetwork LinearTerms LogLoss
    LogarithmicNetwork LogarithmicTransform LowRankCrossNetwork MLP MaskBlock MaskBlocks MaskNet MeanFusion NFM
    PairAttention Perturbation ProductLayer QNNAlpha QuadraticNetwork Regulation ReleasedFactorizationStep
    RobustCrossEntropy SelfAttention SelfDistillation SelfEnsemble SeparateEmbedding SharedEmbedding SimMHN SpaceFusion
    SparseAdagrad SparseFtrl SqueezeExcitation StackedFusion SumFusion TF4CTR TargetAttention ThroughConnection
    ThroughNetwork TriBCELoss TriDNN TwinFocusLoss VectorCrossNetwork ViewDistance VotingFusion WeightedSumFusion
    WideDeep XDeepFM
"""
NAMES = tuple(_NAMES.split())


class StandIn:
    """In the place of the class `name`, of which Keras only asks for `from_config`."""

    def __init__(self, name: str) -> None:
        self.name = name

    def from_config(self, config: Mapping[str, Any]) -> Any:
        """An object of that class. Importing the models imports, and so registers, all that they are made of."""
        importlib.import_module("tfctr.models")
        # Not by `get_registered_object`: while it loads, Keras looks into a copy of what was registered when it began.
        return sys.modules["keras"].saving.get_custom_objects()[f"tfctr>{self.name}"].from_config(config)


def register() -> None:
    """Now where Keras is imported, else when it is."""
    if sys.modules.get("keras") is not None:  # None: as if it was not installed
        _tell(sys.modules["keras"])
    else:
        sys.meta_path.insert(0, _WhenKerasIsImported())


def _tell(keras: Any) -> None:
    known = keras.saving.get_custom_objects()
    for name in NAMES:
        known.setdefault(f"tfctr>{name}", StandIn(name))


class _WhenKerasIsImported(importlib.abc.MetaPathFinder):
    """Finds Keras as Python does, once, and has it told when it is there."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != "keras":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec("keras")
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_tell(module):
                execute(module)
                _tell(module)

            spec.loader.exec_module = execute_and_tell
        return spec
