"""The models, one small file each. A new one is a file here and a line below."""

from tfctr.models.base import CTRModel
from tfctr.models.deepfm import DeepFM
from tfctr.models.dnn import DNN
from tfctr.models.dual_mlp import DualMLP
from tfctr.models.fm import FM
from tfctr.models.lr import LR
from tfctr.models.registry import MODELS, build, register
from tfctr.models.tf4ctr import TF4CTR
from tfctr.models.wide_deep import WideDeep

__all__ = ["DNN", "FM", "LR", "MODELS", "TF4CTR", "CTRModel", "DeepFM", "DualMLP", "WideDeep", "build", "register"]
