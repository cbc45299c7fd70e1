"""Evaluation: a trained model on rows that it has not seen, their scores and exact metrics."""

from tfctr.evaluation.evaluate import evaluate, figures
from tfctr.evaluation.scoring import score

__all__ = ["evaluate", "figures", "score"]
