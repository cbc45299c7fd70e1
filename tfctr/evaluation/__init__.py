"""Evaluation: exact metrics of a trained model."""

from tfctr.evaluation.evaluate import evaluate, score

__all__ = ["evaluate", "score"]
