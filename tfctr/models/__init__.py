"""The models, one small file each. A new one is a file here and a line below."""

from tfctr.models._base import CTRModel, ids_input
from tfctr.models._pairs import PAIRS
from tfctr.models._registry import MODELS, build, describe, describe_arguments, register
from tfctr.models._saving import load_model
from tfctr.models.afm import AFM
from tfctr.models.afn import AFN
from tfctr.models.autoint import AutoInt
from tfctr.models.cetn import CETN
from tfctr.models.cl4ctr import CL4CTR
from tfctr.models.dcn import DCN
from tfctr.models.dcnv2 import DCNv2
from tfctr.models.deepfm import DeepFM
from tfctr.models.dnn import DNN
from tfctr.models.dual_mlp import DualMLP
from tfctr.models.edcn import EDCN
from tfctr.models.eulernet import EulerNet
from tfctr.models.fibinet import FiBiNET
from tfctr.models.fignn import FiGNN
from tfctr.models.final_mlp import FinalMLP
from tfctr.models.final_net import FinalNet
from tfctr.models.fm import FM
from tfctr.models.gdcn import GDCN
from tfctr.models.graphfm import GraphFM
from tfctr.models.ipnn import IPNN
from tfctr.models.lr import LR
from tfctr.models.masknet import MaskNet
from tfctr.models.nfm import NFM
from tfctr.models.simmhn import SimMHN
from tfctr.models.tf4ctr import TF4CTR
from tfctr.models.tri_dnn import TriDNN
from tfctr.models.wide_deep import WideDeep
from tfctr.models.xdeepfm import XDeepFM

__all__ = [
    *MODELS,
    "MODELS",
    "PAIRS",
    "CTRModel",
    "build",
    "describe",
    "describe_arguments",
    "ids_input",
    "load_model",
    "register",
]
