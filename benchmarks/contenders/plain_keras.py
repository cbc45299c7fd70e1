"""Keras as its guides teach it: an `Embedding` a field, stock layers, stock Adam, `from_tensor_slices().shuffle().batch()`.

The ids come as a dictionary of columns, as in the guide to structured data, or, which is faster, as one matrix.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import tensorflow as tf
from keras import layers, ops
from worker import take_turns


def embed(ids, sizes, dim):
    return [layers.Embedding(size, dim)(column) for column, size in zip(ids, sizes, strict=True)]  # (batch, dim) a field


def mlp(x, units, activation="relu"):
    for width in units:
        x = layers.Dense(width, activation=activation)(x)
    return x


def normalized_mlp(x, units):
    """As in the authors' best run of TF4CTR on Frappe."""
    for width in units:
        x = layers.Dropout(0.2)(layers.ReLU()(layers.BatchNormalization()(layers.Dense(width)(x))))
    return x


def dnn(ids, task):
    deep = mlp(layers.Concatenate()(embed(ids, task.sizes, task.embedding_dim)), [400] * 3)
    return {"logit": layers.Dense(1)(deep)}


def deepfm(ids, task):
    fields = embed(ids, task.sizes, task.embedding_dim)
    total = layers.Add()(fields)
    pairs = ops.square(total) - layers.Add()([ops.square(field) for field in fields])
    linear = layers.Add()(embed(ids, task.sizes, 1))
    deep = layers.Dense(1)(mlp(layers.Concatenate()(fields), [400] * 3))
    return {"logit": deep + linear + 0.5 * ops.sum(pairs, axis=1, keepdims=True)}


def dcnv2(ids, task):
    first = cross = layers.Concatenate()(embed(ids, task.sizes, task.embedding_dim))
    for _ in range(3):
        cross = first * layers.Dense(first.shape[1])(cross) + cross
    return {"logit": layers.Dense(1)(layers.Concatenate()([cross, mlp(first, [400] * 3)]))}


def tf4ctr(ids, task):
    simple = normalized_mlp(layers.Concatenate()(embed(ids, task.sizes, task.embedding_dim // 2)), [400] * 2)
    hard = normalized_mlp(layers.Concatenate()(embed(ids, task.sizes, task.embedding_dim)), [400] * 3)
    simple, hard = layers.Dense(1)(simple), layers.Dense(1)(hard)
    return {"logit": layers.Dense(1)(layers.Concatenate()([simple, hard])), "simple": simple, "hard": hard}


def cetn(ids, task):
    fields = ops.stack(embed(ids, task.sizes, task.embedding_dim), axis=1)
    pairs = [(i, j) for i in range(len(task.sizes)) for j in range(i, len(task.sizes))]
    products = ops.take(fields, [i for i, _ in pairs], axis=1) * ops.take(fields, [j for _, j in pairs], axis=1)
    views = [layers.Flatten()(fields), layers.Flatten()(products), ops.sum(products, axis=2)]
    values = [mlp(view, [400, 400], activation) for view, activation in zip(views, ("gelu", "relu", "mish"), strict=True)]
    weights = [layers.Dense(1, "leaky_relu")(mlp(view, [400], "leaky_relu")) for view in views]
    values = [values[0], values[1] + values[0], values[2] + values[0]]
    logit = sum(weight * layers.Dense(1)(value) for weight, value in zip(weights, values, strict=True))
    return {"logit": logit, **{f"value_{i}": value for i, value in enumerate(values)}}


def cross_entropy(y, logit):
    return ops.mean(keras.losses.binary_crossentropy(y[:, None], logit, from_logits=True))


class TF4CTR(keras.Model):
    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        sign = 2 * y[:, None] - 1
        easy, hard = ops.sigmoid(sign * y_pred["simple"]), ops.sigmoid(sign * y_pred["hard"])
        twin = 0.25 * (0.7 + easy) * ops.log(easy + 1e-7) + 0.75 * (1.3 - hard) * ops.log(hard + 1e-7)
        return cross_entropy(y, y_pred["logit"]) - ops.mean(twin)


class CETN(keras.Model):
    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        main, first, second = (ops.normalize(y_pred[f"value_{i}"], axis=1) for i in range(3))
        contrast = ops.logsumexp(ops.matmul(first, ops.transpose(second)) / 0.3, axis=1) - 1 / 0.3  # (batch,)
        cosine = 0.1 * ops.sum(main * first, axis=1) + 0.7 * ops.sum(main * second, axis=1)
        return cross_entropy(y, y_pred["logit"]) + ops.mean(0.1 * contrast - cosine)


class Plain(keras.Model):
    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return cross_entropy(y, y_pred["logit"])


GRAPHS = {"DNN": dnn, "DeepFM": deepfm, "DCNv2": dcnv2, "TF4CTR": tf4ctr, "CETN": cetn}


def prepare(task):
    table, labels = task.clicks()
    if task.columns:
        names = [f"f{i}" for i in range(len(task.sizes))]
        inputs, table = [keras.Input((), dtype="int32", name=name) for name in names], dict(zip(names, table.T, strict=True))
        ids = inputs
    else:
        inputs = keras.Input((len(task.sizes),), dtype="int32")
        ids = [inputs[:, i] for i in range(len(task.sizes))]
    model = {"TF4CTR": TF4CTR, "CETN": CETN}.get(task.model, Plain)(inputs, GRAPHS[task.model](ids, task))
    model.compile(optimizer=keras.optimizers.Adam(0.001), jit_compile=False)
    batches = tf.data.Dataset.from_tensor_slices((table, labels)).shuffle(task.rows).batch(task.batch_size).prefetch(2)
    return (lambda: model.fit(batches, epochs=1, shuffle=False, verbose=0)), model.trainable_weights


take_turns(prepare)
