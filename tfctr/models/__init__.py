"""The models, one small file each. A new one is a file here and a line below.

With `as`, a name is public for type checkers too, which cannot read `*MODELS`.
"""

from tfctr.malloc import keep_freed_memory
from tfctr.models._base import CTRModel, ids_input
from tfctr.models._options import ModelOptions
from tfctr.models._pairs import PAIRS
from tfctr.models._registry import MODELS, build, describe, describe_arguments, register
from tfctr.models._saving import load_model
from tfctr.models.afm import AFM as AFM
from tfctr.models.afn import AFN as AFN
from tfctr.models.autoint import AutoInt as AutoInt
from tfctr.models.bst import BST as BST
from tfctr.models.cetn import CETN as CETN
from tfctr.models.cl4ctr import CL4CTR as CL4CTR
from tfctr.models.dcn import DCN as DCN
from tfctr.models.dcnv2 import DCNv2 as DCNv2
from tfctr.models.deepfm import DeepFM as DeepFM
from tfctr.models.din import DIN as DIN
from tfctr.models.dnn import DNN as DNN
from tfctr.models.dual_mlp import DualMLP as DualMLP
from tfctr.models.edcn import EDCN as EDCN
from tfctr.models.eulernet import EulerNet as EulerNet
from tfctr.models.fcn import FCN as FCN
from tfctr.models.fibinet import FiBiNET as FiBiNET
from tfctr.models.fignn import FiGNN as FiGNN
from tfctr.models.final_mlp import FinalMLP as FinalMLP
from tfctr.models.final_net import FinalNet as FinalNet
from tfctr.models.fm import FM as FM
from tfctr.models.gdcn import GDCN as GDCN
from tfctr.models.graphfm import GraphFM as GraphFM
from tfctr.models.ipnn import IPNN as IPNN
from tfctr.models.lr import LR as LR
from tfctr.models.masknet import MaskNet as MaskNet
from tfctr.models.nfm import NFM as NFM
from tfctr.models.qnn_alpha import QNNAlpha as QNNAlpha
from tfctr.models.simmhn import SimMHN as SimMHN
from tfctr.models.tf4ctr import TF4CTR as TF4CTR
from tfctr.models.tri_dnn import TriDNN as TriDNN
from tfctr.models.wide_deep import WideDeep as WideDeep
from tfctr.models.xdeepfm import XDeepFM as XDeepFM

keep_freed_memory()  # before the first operation of TensorFlow

__all__ = [
    *MODELS,
    "MODELS",
    "PAIRS",
    "CTRModel",
    "ModelOptions",
    "build",
    "describe",
    "describe_arguments",
    "ids_input",
    "load_model",
    "register",
]
