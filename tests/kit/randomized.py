"""Weights at which every part of a layer matters, and the numbers behind them."""

import numpy as np


def randomize(layer, seed=0, scale=0.5):
    """Give every weight of a built layer a size at which it matters; what must be positive stays so."""
    rng = np.random.default_rng(seed)
    for variable in layer.weights:
        if "seed" not in variable.path:
            values = rng.normal(size=variable.shape, scale=scale)
            variable.assign(np.abs(values) + 0.5 if variable.path.endswith("variance") else values)
    return layer


def numbers(variable):
    """A weight or an output as float64."""
    return np.asarray(variable, dtype="float64")


def draw(*shape, seed=0):
    """Normal numbers, float32."""
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def dense(layer, x):
    """`x W + b` with the weights of a dense layer."""
    kernel, *bias = layer.get_weights()
    return x @ kernel.astype("float64") + (bias[0] if bias else 0.0)


def softmax(x):
    """Over the last axis."""
    powers = np.exp(x - x.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def sigmoid(x):
    """`1 / (1 + exp(-x))`."""
    return 1 / (1 + np.exp(-x))


def leaky_relu(x):
    """With PyTorch's slope."""
    return np.where(x > 0, x, 0.01 * x)


def normalize(x, layer):
    """Layer normalization over the last axis, with the weights of a Keras layer."""
    scale, shift = (weight.astype("float64") for weight in layer.get_weights())
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + layer.epsilon) * scale + shift
