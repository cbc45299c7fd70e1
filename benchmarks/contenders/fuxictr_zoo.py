"""FuxiCTR (PyTorch): the models of its model zoo as they are, from a checkout of it, trained as in fuxictr_torch.py."""

import importlib
import sys

import torch
from fuxictr_torch import feature_map, training
from matched import MATCHES, given
from worker import take_turns

TRAINING = {"optimizer": "adam", "loss": "binary_crossentropy", "learning_rate": 1e-3}
NOT_USED = {"verbose": 0, "model_root": "", "metrics": ["AUC"]}  # but asked for


def prepare(task):
    torch.manual_seed(1)
    match = MATCHES[task.model]
    sys.path.insert(0, task.zoo)
    model = getattr(importlib.import_module(f"{match.folder}.src"), match.name)
    arguments = given(match.theirs, len(task.sizes))
    return training(model(feature_map(task), embedding_dim=task.embedding_dim, **arguments, **TRAINING, **NOT_USED), task)


take_turns(prepare)
