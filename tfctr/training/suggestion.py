"""A run for a table that nobody has tuned a model for."""

import inspect

from tfctr.config import Config
from tfctr.errors import choose
from tfctr.models import MODELS

_ENCODER = {"type": "MLP", "hidden_units": [128, 128], "dropout": 0.2, "batch_norm": True}
_ARGUMENTS = {  # for the models that have an argument of this name
    "simple_encoder": {**_ENCODER, "hidden_units": [128]},
    "complex_encoder": _ENCODER,
    "dropout": 0.2,
    "batch_norm": True,
    "output_bias": True,
}
_TRAINING = {
    "batch_size": "auto",
    "optimizer": "auto",
    "start": "click_rate",
    "monitor": "log_loss",
    "patience": 2,
}


def suggest(dataset, model="TF4CTR", overrides=()):
    """A `Config` that does well on most tables, as far as one can without trying: see `Training` for what it sets.

    Args:
        dataset: a prepared `Dataset`.
        model: a name in `tfctr.models.MODELS`.
        overrides: as of `Config.load`.

    Raises:
        ConfigError: an unknown model, or an override that cannot be used.
    """
    known = inspect.signature(choose(MODELS, model, "model").__init__).parameters
    arguments = {name: value for name, value in _ARGUMENTS.items() if name in known}
    rows = dataset.splits["train"].rows  # the files of the split are compared with the manifest when they are read
    config = Config.from_dict({"model": {"name": model, **arguments}, "training": _TRAINING}, overrides)
    return config.for_rows(rows)
