"""DeepCTR (legacy Keras), as its guide uses it: a dictionary of columns, `model.fit`. Its L2 terms are off, to its favour."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
from deepctr.feature_column import SparseFeat
from deepctr.models import DCN, DeepFM
from worker import take_turns

MODELS = {
    "DeepFM": lambda columns: DeepFM(columns, columns, dnn_hidden_units=[400] * 3, l2_reg_linear=0, l2_reg_embedding=0),
    "DCNv2": lambda columns: DCN(columns, columns, 3, "matrix", [400] * 3, l2_reg_linear=0, l2_reg_embedding=0, l2_reg_cross=0),
}


def prepare(task):
    names = [f"f{i}" for i in range(len(task.sizes))]
    columns = [SparseFeat(name, size, task.embedding_dim) for name, size in zip(names, task.sizes, strict=True)]
    ids, labels = task.clicks()
    table = {name: np.ascontiguousarray(column) for name, column in zip(names, ids.T, strict=True)}
    model = MODELS[task.model](columns)
    model.compile("adam", "binary_crossentropy")
    return (lambda: model.fit(table, labels, task.batch_size, epochs=1, verbose=0)), model.trainable_weights


take_turns(prepare)
