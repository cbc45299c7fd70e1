"""Training: the papers' schedule as Keras callbacks, and whole runs from a configuration."""

from tfctr.models import load_model
from tfctr.training.checkpoint import Checkpoint
from tfctr.training.run import Run, load_run
from tfctr.training.schedule import paper_callbacks
from tfctr.training.suggestion import suggest
from tfctr.training.trainer import train
from tfctr.training.vectors import start_with_vectors
from tfctr.training.warm import warm_start

__all__ = [
    "Checkpoint",
    "Run",
    "load_model",
    "load_run",
    "paper_callbacks",
    "start_with_vectors",
    "suggest",
    "train",
    "warm_start",
]
