"""Losses: pure functions to one value an example, and thin `keras.losses.Loss` classes around them.

Labels are 0 or 1 (floats, whole numbers or booleans), logits any number, each `(batch, 1)` or `(batch,)`; values have the shape
of the logits. `loss.call(labels, logits)` is the value of each example; `loss(labels, logits, sample_weight)` is
`sum(weight * value) / batch`.

All of them read logits: on a plain `keras.Model`, leave the sigmoid out of its last layer. Losses that compare several outputs
(`TwinFocusLoss`, `TriBCELoss`, `ContrastLoss`, `CosineLoss` and those of CL4CTR) are for
`CTRModel(schema, ids, outputs, auxiliary={...})`: Keras' `compile(loss=...)` calls a loss once for each output.
"""

from tfctr.losses.alignment import feature_alignment, field_uniformity, released_uniformity, squared_distance
from tfctr.losses.contrast import ContrastLoss, CosineLoss, cosine_distance, do_info_nce, info_nce
from tfctr.losses.cross_entropy import HeadLoss, LogLoss, RobustCrossEntropy, log_loss, robust_cross_entropy
from tfctr.losses.focus import FocalLoss, TwinFocusLoss, complex_focus, focal, simple_focus, twin_focus
from tfctr.losses.tri_bce import TriBCELoss, tri_bce

LOSSES = {"log_loss": LogLoss, "focal": FocalLoss, "robust_cross_entropy": RobustCrossEntropy}

__all__ = [
    "LOSSES",
    "ContrastLoss",
    "CosineLoss",
    "FocalLoss",
    "HeadLoss",
    "LogLoss",
    "RobustCrossEntropy",
    "TriBCELoss",
    "TwinFocusLoss",
    "complex_focus",
    "cosine_distance",
    "do_info_nce",
    "feature_alignment",
    "field_uniformity",
    "focal",
    "info_nce",
    "log_loss",
    "released_uniformity",
    "robust_cross_entropy",
    "simple_focus",
    "squared_distance",
    "tri_bce",
    "twin_focus",
]
