"""Evaluation: a trained model on rows that it has not seen: scores, exact metrics, what each feature adds; and its vectors."""

from tfctr.evaluation.evaluate import evaluate, figures
from tfctr.evaluation.importance import importance
from tfctr.evaluation.scoring import score
from tfctr.evaluation.token_vectors import embeddings

__all__ = ["embeddings", "evaluate", "figures", "importance", "score"]
