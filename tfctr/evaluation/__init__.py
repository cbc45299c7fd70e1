"""Evaluation: a trained model on rows that it has not seen: scores, exact metrics, and what each feature adds."""

from tfctr.evaluation.evaluate import evaluate, figures
from tfctr.evaluation.importance import importance
from tfctr.evaluation.scoring import score

__all__ = ["evaluate", "figures", "importance", "score"]
