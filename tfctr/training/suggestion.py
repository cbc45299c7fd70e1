"""A run for a table that nobody has tuned a model for."""

import inspect
from collections.abc import Iterable
from typing import Any

from tfctr.config import STEPS_AN_EPOCH, Config, batch_size_for
from tfctr.data.dataset import Dataset
from tfctr.data.split import Split
from tfctr.errors import DataError, choose
from tfctr.models import MODELS, describe
from tfctr.optimizers import ROWS_WORTH_SKIPPING

_ENCODER: dict[str, Any] = {"type": "MLP", "hidden_units": [256, 256], "dropout": 0.2, "batch_norm": True}
_ARGUMENTS: dict[str, Any] = {  # of the models that have them
    "simple_encoder": {**_ENCODER, "hidden_units": [256]},
    "complex_encoder": _ENCODER,
    "dropout": 0.2,
    "output_bias": True,
}
_TRAINING: dict[str, Any] = {"batch_size": "auto", "optimizer": "auto", "start": "click_rate", "monitor": "log_loss"}
_FIRST_STEPS = 500
_PRIOR_ROWS = 30
_PRIOR_ROWS_UNSCALED = 30_000
_LARGEST_L2 = 10
_LINEAR_RATE = 0.005  # its few weights have a long way to go, and nothing behind them to upset


def suggest(dataset: Dataset, model: str = "TF4CTR", overrides: Iterable[str] = ()) -> Config:
    """A `Config` that follows from the data, for a table that nobody has tuned a model for.

    Logits that start at the click rate `r`; at least 50 gradient steps an epoch; log loss as the monitor; dropout; batch
    normalization in most models. `embedding_l2` falls with the rows, so that it counts as much whether there are many or few:
    `30,000 / rows`, at most 10, with batch normalization, behind which the scale of embeddings is free, and L2 says which of
    them count; `1 / rows` in a linear model, which also learns at the rate 0.005; else `4 r (1 - r) 30 / rows`, the curvature
    of the log loss on 30 rows. Tables of many rows have it on the rows of a batch. Where an epoch has fewer steps, none counts
    against the patience before 500 of them.

    Args:
        dataset: a prepared `Dataset`.
        model: a name in `tfctr.models.MODELS`.
        overrides: as of `Config.load`.

    Raises:
        ConfigError: an unknown model, or an override that cannot be used.
        DataError: training rows of one class only, or without weight.
    """
    train = dataset.splits["train"]  # its files are compared with the manifest when they are read
    rate = rate_of(train)
    steps = train.rows // batch_size_for(train.rows)
    known = inspect.signature(choose(MODELS, model, "model").__init__).parameters
    arguments = {name: value for name, value in _ARGUMENTS.items() if name in known}
    encoders = describe(model)["encoders"]
    normalized = "complex_encoder" in known
    # First-order terms are added behind it, and products of small embeddings vary too little for it.
    if "batch_norm" in known and "spaces" not in known and "LinearTerms" not in encoders:
        arguments["batch_norm"] = normalized = True
    is_linear = encoders == ["LinearTerms"]
    strength = 1 if is_linear else _PRIOR_ROWS_UNSCALED if normalized else 4 * rate * (1 - rate) * _PRIOR_ROWS
    arguments["embedding_l2"] = float(f"{min(strength / train.rows, _LARGEST_L2):.2g}")
    if dataset.schema.table_rows >= ROWS_WORTH_SKIPPING:
        arguments["l2_scope"] = "batch"
    patience_from = 0 if steps >= STEPS_AN_EPOCH else _FIRST_STEPS // max(steps, 1)
    training = {**_TRAINING, "patience_from": patience_from, **({"learning_rate": _LINEAR_RATE} if is_linear else {})}
    return Config.from_dict({"model": {"name": model, **arguments}, "training": training}, overrides).for_rows(train.rows)


def rate_of(split: Split) -> float:
    """Its click rate. Raises `DataError` where that is nothing to start at: 0, 1, or none."""
    if 0 < split.click_rate < 1:
        return split.click_rate
    raise DataError(
        f"the click rate of the {split.name} split is {split.click_rate:g}.",
        fix="prepare with rows of both classes, and with weights above 0 where there are any",
    )
