"""Honest comparison: models, each trained with several seeds, measured on the same rows, and what of it is more than noise;
before it the search of settings, on the validation split alone; a page of any runs; and the tables and pictures of the papers.
"""

from tfctr.experiments.analyze import analyze
from tfctr.experiments.compare import compare
from tfctr.experiments.comparison import Comparison, Contender
from tfctr.experiments.report import report
from tfctr.experiments.reproduce import Reproduction, reproduce
from tfctr.experiments.space import Space
from tfctr.experiments.spec import Spec
from tfctr.experiments.tune import tune
from tfctr.experiments.tuning import Tuning

__all__ = [
    "Comparison",
    "Contender",
    "Reproduction",
    "Space",
    "Spec",
    "Tuning",
    "analyze",
    "compare",
    "report",
    "reproduce",
    "tune",
]
