"""A run for a table that nobody has tuned a model for."""

import inspect

from tfctr.config import Config
from tfctr.errors import choose
from tfctr.models import MODELS, describe

_ENCODER = {"type": "MLP", "hidden_units": [256, 256], "dropout": 0.2, "batch_norm": True}
_ARGUMENTS = {  # of the models that have them
    "simple_encoder": {**_ENCODER, "hidden_units": [256]},
    "complex_encoder": _ENCODER,
    "dropout": 0.2,
    "output_bias": True,
}
_TRAINING = {"batch_size": "auto", "optimizer": "auto", "start": "click_rate", "monitor": "log_loss"}
_PRIOR_ROWS = {
    True: 2_000,
    False: 30,
}  # behind batch normalization the scale of embeddings is free, and only their shares count


def suggest(dataset, model="TF4CTR", overrides=()):
    """A `Config` that follows from the data, for a table that nobody has tuned a model for.

    Logits that start at the click rate `r`; at least 50 gradient steps an epoch; log loss as the monitor; dropout; batch
    normalization in most models; and `embedding_l2 = 4 r (1 - r) n / rows`: L2 counts as much as the curvature of the log loss
    on `n` rows, whether there are many rows or few, many clicks or few. `n` is 2,000 with batch normalization and 30 without.

    Args:
        dataset: a prepared `Dataset`.
        model: a name in `tfctr.models.MODELS`.
        overrides: as of `Config.load`.

    Raises:
        ConfigError: an unknown model, or an override that cannot be used.
    """
    train = dataset.splits["train"]  # its files are compared with the manifest when they are read
    known = inspect.signature(choose(MODELS, model, "model").__init__).parameters
    arguments = {name: value for name, value in _ARGUMENTS.items() if name in known}
    normalized = "complex_encoder" in known
    # First-order terms are added behind it, and products of small embeddings vary too little for it.
    if "batch_norm" in known and "spaces" not in known and "LinearTerms" not in describe(model)["encoders"]:
        arguments["batch_norm"] = normalized = True
    curvature = 4 * train.click_rate * (1 - train.click_rate)
    arguments["embedding_l2"] = float(f"{curvature * _PRIOR_ROWS[normalized] / train.rows:.2g}")
    values = {"model": {"name": model, **arguments}, "training": _TRAINING}
    return Config.from_dict(values, overrides).for_rows(train.rows)
