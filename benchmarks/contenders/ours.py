"""tfctr, as its README says to use it."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
from matched import MATCHES, given
from worker import take_turns, task_given

from tfctr.malloc import return_freed_memory

if not task_given().keep_freed_memory:
    return_freed_memory()  # which `import tfctr.models` would keep

from tfctr.data import Split
from tfctr.features import Categorical
from tfctr.layers import MLP
from tfctr.models import MODELS
from tfctr.schema import Schema

LONG = 100  # epochs
NETWORK = {"dropout": 0.2, "batch_norm": True}  # of the authors' best run on Frappe


def arguments_of(task):
    if task.model == "TF4CTR":
        return {"simple_encoder": MLP([400, 400], **NETWORK), "complex_encoder": MLP([400] * 3, **NETWORK)}
    return given(MATCHES[task.model].ours, len(task.sizes)) if task.model in MATCHES else {}


def prepare(task):
    schema = Schema(features=[Categorical(f"f{i}", size=size) for i, size in enumerate(task.sizes)], label="click")
    ids, labels = task.clicks()
    ids += np.array([field.offset for field in schema.fields], "int32")
    batches = Split.from_arrays(ids, labels).batches(task.batch_size)
    width = {} if task.model == "LR" else {"embedding_dim": task.embedding_dim}
    model = MODELS[task.model](schema, **width, **arguments_of(task))
    model.compile(optimizer=task.optimizer)
    # `fit` compiles hidden layers where it pays: each turn is the last epoch of many.
    epochs = LONG if task.compile_hidden else 1
    return (lambda: model.fit(batches, initial_epoch=epochs - 1, epochs=epochs, verbose=0)), model.trainable_weights


take_turns(prepare)
