"""Where the logits of a fresh model start: at the click rate, not at one half."""

import math

import numpy as np

from tfctr.errors import ConfigError, require_number
from tfctr.features import MISSING, Numeric
from tfctr.layers import KeyValueBlock

_LARGEST_BIAS = 2  # values of a bias that makes logits: one, or one an expert
_LEAST_EFFECT, _CLOSE = 1e-2, 1e-3  # of one unit of bias on a logit; of a logit to where it should be
_FIRST = 1e3  # how much more the prediction counts than the other logits


def start_at(model, click_rate):
    """Set the biases of a fresh model so that each of its logits starts at the log-odds of `click_rate`.

    A network that starts at one half spends its first epochs on learning the click rate: the more of them, the rarer clicks
    are. The biases change as little as puts the prediction there, and the logits of auxiliary losses as near as they can come
    (least squares). Semantic spaces, whose weights start near 0, start with equal weights that sum to 1.

    Args:
        model: a `CTRModel` that has not been trained.
        click_rate: in (0, 1), such as `dataset.train.click_rate`.

    Raises:
        ConfigError: a rate out of range, or a model whose prediction no bias moves.

    >>> from tfctr import Categorical, Schema, models
    >>> model = models.DNN(Schema(features=[Categorical("user", size=5)], label="click"))
    >>> start_at(model, 0.02)
    >>> round(float(model.predict(np.array([[3]], "int32"), verbose=0)[0, 0]), 4)
    0.02

    Reference: [Lin et al., 2017](https://arxiv.org/abs/1708.02002), section 3.3.
    """
    require_number("click_rate", click_rate, 0, 1)
    if click_rate in (0, 1):
        raise ConfigError(f"`click_rate` is {click_rate}.", fix="train on rows of both classes")
    goal = math.log(click_rate / (1 - click_rate))
    blocks = [layer for layer in model.layers if isinstance(layer, KeyValueBlock)]
    for block in blocks:
        block.start_weight(1 / len(blocks))
    biases = [
        weight for weight in model.trainable_variables if weight.name == "bias" and math.prod(weight.shape) <= _LARGEST_BIAS
    ]
    values = [np.array(bias, "float64") for bias in biases]
    sizes = [len(value) for value in values]
    rows = _some_rows(model.schema)

    def logits(flat):
        for bias, value in zip(biases, np.split(flat, np.cumsum(sizes)[:-1]), strict=True):
            bias.assign(value)
        outputs = model(rows, training=False)
        means = {name: np.mean(output, dtype="float64") for name, output in outputs.items() if output.shape[1] == 1}
        return np.array([means.pop("logit"), *means.values()])

    start = np.concatenate([np.zeros(0), *values])
    found = logits(start) if biases else np.zeros(1)
    effects = [logits(start + one) - found for one in np.eye(len(start))]  # of each bias on each logit
    effects = np.array(effects).reshape(len(start), len(found)).T
    effects[np.abs(effects) < _LEAST_EFFECT] = 0
    counts = np.array([_FIRST, *np.ones(len(found) - 1)])
    shift, *_ = np.linalg.lstsq(effects * counts[:, None], (goal - found) * counts)
    if not biases or abs(logits(start + shift)[0] - goal) > _CLOSE:
        logits(start)  # as it was
        raise ConfigError(
            f"{type(model).__name__} has no bias that moves its prediction.", fix="leave start_at out, or give it one"
        )


def _some_rows(schema, rows=64):
    """`(rows, schema.width)`: any ids will do, since the embeddings of a fresh model are tiny."""
    rng = np.random.default_rng(0)
    ids = np.empty((rows, schema.width), np.int32)
    for field in schema.fields:
        scaled = isinstance(field.feature, Numeric) and field.feature.transform == "scaled"
        shape = ids[:, field.columns].shape
        drawn = (
            rng.normal(size=shape).astype("float32").view("int32")
            if scaled
            else rng.integers(MISSING, field.feature.size, shape)
        )
        ids[:, field.columns] = drawn if scaled else drawn + field.offset
    return ids
