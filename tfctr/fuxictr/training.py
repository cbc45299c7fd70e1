"""How FuxiCTR trains a model, as the section `training` of a run; the defaults are those of its `BaseModel` and data loader."""

import re
from collections.abc import Mapping
from typing import Any

from tfctr.errors import ConfigError, require, require_number
from tfctr.fuxictr.notes import Notes
from tfctr.fuxictr.reading import Keys

_LOSSES = ("binary_crossentropy", "binary_cross_entropy", "bce")
_MONITORS = {(1, 0): "auc", (0, -1): "log_loss", (1, -1): "auc_minus_log_loss"}  # signs of what is to grow
# FuxiCTR's `BaseModel`, data loader and log read these; none of them decides what is learnt.
_LEFT_OUT = {
    "data_block_size": "`prepare` cuts tables by itself",
    "data_root": "`prepare --out` says where a dataset is",
    "debug_mode": "there is none",
    "eval_batch_size": "`evaluate` has a batch size of its own",
    "feature_config": "FuxiCTR 2.3 does not read it",
    "gpu": "TensorFlow says which devices there are",
    "metrics": "AUC, gAUC where there is a group, and log loss are always there",
    "model_id": "`train --out` names a run",
    "model_root": "`train --out` says where a run is",
    "num_workers": "one thread makes batches ahead of the model",
    "pickle_feature_encoder": "`prepare` keeps what it has learnt as JSON and text",
    "streaming": "`prepare` and training read tables that are larger than memory",
    "verbose": "`train` prints a line an epoch",
}


def training_of(parameters: Keys, notes: Notes) -> dict[str, Any]:
    """The keys of `tfctr.config.Training`, without those that nothing is said of."""
    found = {
        "batch_size": parameters.take("batch_size", 32),
        "epochs": parameters.take("epochs", 1),
        "optimizer": _optimizer(parameters.take("optimizer", "adam"), notes),
        "learning_rate": parameters.take("learning_rate", 1e-3),
        "clip_norm": parameters.take("max_gradient_norm", 10.0),
        "monitor": _monitor(parameters.take("monitor", "AUC"), parameters.take("monitor_mode", "max"), notes),
        "patience": parameters.take("early_stop_patience", 2),
    }
    if (seed := parameters.take("seed")) is not None:
        found["seed"] = seed
    if not parameters.take("reduce_lr_on_plateau", True):
        found["learning_rate_factor"] = 1.0
    _require_same(parameters, notes)
    for key in [key for key in _LEFT_OUT if key in parameters.values]:
        notes.add("left out", key, parameters.take(key), _LEFT_OUT[key])
    return found


def embedding_l2_of(parameters: Keys, notes: Notes) -> float:
    """Lambda of the L2 term of the embeddings, which is FuxiCTR's: `lambda / 2 * sum of squares` at every step."""
    if parameters.values.get("model") in ("LR", "FM"):
        value = _l2("regularizer", parameters.take("regularizer", 0), notes)
        if value:
            notes.add("differs", "regularizer", value, "it is of the weights of tokens, not of the bias")
        return value
    net = _l2("net_regularizer", parameters.take("net_regularizer", 0), notes)
    if net:
        notes.add("lost", "net_regularizer", net, "an L2 term is of embeddings alone")
    return _l2("embedding_regularizer", parameters.take("embedding_regularizer", 0), notes)


def tables_of(parameters: Keys, notes: Notes) -> dict[str, Any]:
    """The arguments of `tfctr.prepare` that name the tables."""
    found = {name: parameters.take(f"{name}_data") for name in ("train", "valid", "test")}
    sizes = {name: parameters.take(f"{name}_size", 0) for name in ("valid", "test")}
    for name, size in sizes.items():
        require_number(f"{name}_size", size, least=0)
        if size:
            found[name] = size if size < 1 else None
            meaning = "`prepare` draws a share of the rows" if size < 1 else "give `prepare` this share of the rows, or a file"
            notes.add("differs", f"{name}_size", size, meaning)
    split_type = parameters.take("split_type")
    if split_type not in (None, "random") and any(sizes.values()):
        notes.add("differs", "split_type", split_type, "rows are drawn; cut the table where the order of rows has a meaning")
    table_format = parameters.take("data_format", "csv")
    if table_format not in ("csv", "parquet"):
        notes.add("differs", "data_format", table_format, "give `prepare` the table as text, Parquet or JSON lines")
    if parameters.take("rebuild_dataset", True) is False:
        notes.add("differs", "rebuild_dataset", False, "ids of FuxiCTR's are tokens like others: prepare these tables, too")
    if (rows := parameters.take("n_rows")) is not None:
        notes.add("differs", "n_rows", rows, "`prepare` reads all rows")
    found["separator"] = parameters.take("sep")
    return {name: value for name, value in found.items() if value is not None}


def _require_same(parameters: Keys, notes: Notes) -> None:
    """Note what tfctr has only one way for, where FuxiCTR is to go another."""
    loss = parameters.take("loss", "binary_crossentropy")
    if loss not in _LOSSES:
        notes.add("lost", "loss", loss, "the loss is log loss; tfctr's others have names and arguments of their own")
    task = parameters.take("task", "binary_classification")
    if task != "binary_classification":
        notes.add("lost", "task", task, "labels are clicks, 0 or 1")
    if not parameters.take("shuffle", True):
        notes.add("lost", "shuffle", False, "training rows are always shuffled")
    if (steps := parameters.take("accumulation_steps", 1)) != 1:
        notes.add("lost", "accumulation_steps", steps, "a gradient step is of one batch: make it larger")
    for key in ("deep_learning_rate", "wide_learning_rate", "deep_optimizer", "wide_optimizer"):  # of its TensorFlow model
        if (value := parameters.take(key)) is not None:
            notes.add("lost", key, value, "one optimizer moves all weights: give `optimizer` and `learning_rate`")
    if not parameters.take("save_best_only", True):
        notes.add("differs", "save_best_only", False, "the weights of the best epoch are kept")
    if (steps := parameters.take("eval_steps")) is not None:
        notes.add("differs", "eval_steps", steps, "a model is validated once an epoch")


def _optimizer(name: Any, notes: Notes) -> str:
    known = str(name).lower()
    if known == "adagrad":
        notes.add("differs", "optimizer", name, "sums of squares start at 0.1, as in Keras and TensorFlow, and not at 0")
        return "adagrad"
    if known != "adam":
        notes.add("lost", "optimizer", name, "runs have adam, adagrad and ftrl; any other of Keras' by model.compile")
    return "adam"


def _monitor(monitor: Any, mode: Any, notes: Notes) -> str:
    """Our name for what is to grow: a metric, or a weighted sum of some."""
    require(isinstance(monitor, str | Mapping), f"`monitor` is {monitor!r}.", fix="name a metric, or give each a number")
    weights = monitor if isinstance(monitor, Mapping) else {monitor: 1}
    sign = -1 if mode == "min" else 1
    try:
        signed = {str(name): sign * float(weight) for name, weight in weights.items() if weight}
    except (TypeError, ValueError) as error:
        raise ConfigError(f"`monitor` is {monitor!r}.", fix="name a metric, or give each a number") from error
    auc, log_loss = signed.pop("AUC", 0.0), signed.pop("logloss", 0.0)
    signs = (auc > 0) - (auc < 0), (log_loss > 0) - (log_loss < 0)
    if signed or signs not in _MONITORS or (all(signs) and auc != -log_loss):
        meaning = "monitors are the AUC, the log loss and the AUC less the log loss"
        notes.add("lost", "monitor", f"{mode} of {monitor}", meaning)
        return "auc"
    return _MONITORS[signs]


def _l2(key: str, value: Any, notes: Notes) -> float:
    if isinstance(value, str):
        if found := re.fullmatch(r"l2\((.+)\)", value):
            return _number(key, found[1])
        if found := re.fullmatch(r"l1_l2\((.+),(.+)\)", value):
            if _number(key, found[1]):
                notes.add("lost", key, value, "there is no L1 term")
            return _number(key, found[2])
        if re.fullmatch(r"l1\((.+)\)", value):
            notes.add("lost", key, value, "there is no L1 term")
            return 0.0
        raise ConfigError(f"`{key}` is {value!r}.", fix="use a number, l2(1.e-5), l1(1.e-5) or l1_l2(1.e-5, 1.e-5)")
    if not isinstance(value, float):
        if value:
            notes.add("left out", key, value, "FuxiCTR reads no whole number as a regularizer")
        return 0.0
    return value


def _number(key: str, text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise ConfigError(f"`{key}` holds {text!r}, which is no number.", fix="write l2(1.e-5)") from error
