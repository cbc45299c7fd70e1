"""Where the logits of a fresh model start: at the click rate, not at one half."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tfctr.errors import ConfigError, require_number
from tfctr.features import MISSING, Numeric
from tfctr.layers import KeyValueBlock
from tfctr.schema import Schema

_SHAPES = ((1,), (2,))  # of a bias that makes logits: one, or one an expert
_LEAST_EFFECT = 1e-2  # of one unit of bias on a logit
_CLOSE = 1e-3  # of a logit to where it should be
_FIRST = 1e3  # how much more the prediction counts than the other logits


def start_at(model: Any, click_rate: float) -> None:
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
    biases = [weight for weight in model.trainable_variables if weight.name == "bias" and tuple(weight.shape) in _SHAPES]
    if not biases or not _moved(model, biases, goal):
        raise ConfigError(
            f"{type(model).__name__} has no bias that moves its prediction.", fix="leave start_at out, or give it one"
        )


def _moved(model: Any, biases: Sequence[Any], goal: float) -> bool:
    """Whether the biases now put the prediction at the goal; where they cannot, they are as they were."""
    values = [np.array(bias, "float64") for bias in biases]
    ends = np.cumsum([len(value) for value in values])[:-1]
    rows = _some_rows(model.schema)

    def logits(flat: np.ndarray) -> np.ndarray:
        for bias, value in zip(biases, np.split(flat, ends), strict=True):
            bias.assign(value)
        outputs = model(rows, training=False)
        means = {name: np.mean(output, dtype="float64") for name, output in outputs.items() if output.shape[1] == 1}
        return np.array([means.pop("logit"), *means.values()])

    start = np.concatenate(values)
    found = logits(start)
    effects = _effects(logits, start, found)  # (logits, biases)
    importance = np.array([_FIRST, *np.ones(len(found) - 1)])
    shift, *_ = np.linalg.lstsq(effects * importance[:, None], (goal - found) * importance)
    is_close = bool(abs(logits(start + shift)[0] - goal) < _CLOSE)
    if not is_close:
        logits(start)
    return is_close


def _effects(logits: Callable[[np.ndarray], np.ndarray], start: np.ndarray, found: np.ndarray) -> np.ndarray:
    """By how much one unit of each bias moves each logit; 0 where that is next to nothing, or other than a straight line."""
    up = np.stack([logits(start + one) - found for one in np.eye(len(start))], axis=1)
    down = np.stack([logits(start - one) - found for one in np.eye(len(start))], axis=1)
    straight = np.all(np.abs(up + down) < _CLOSE, axis=0)
    return np.where(straight & (np.abs(up) > _LEAST_EFFECT), up, 0.0)


def _some_rows(schema: Schema, rows: int = 64) -> np.ndarray:
    """`(rows, schema.width)`: any ids will do, since the embeddings of a fresh model are tiny."""
    rng = np.random.default_rng(0)
    ids = np.empty((rows, schema.width), np.int32)
    for field in schema.fields:
        scaled = isinstance(field.feature, Numeric) and field.feature.transform == "scaled"
        shape = ids[:, field.token_columns].shape
        if scaled:
            ids[:, field.token_columns] = rng.normal(size=shape).astype("float32").view("int32")
        else:
            ids[:, field.token_columns] = field.offset + rng.integers(MISSING, field.feature.size, shape)
            ids[:, field.weight_columns] = np.float32(1).view("int32")
    return ids
