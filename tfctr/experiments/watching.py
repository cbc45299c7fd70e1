"""Keras callbacks that look at a model while it is trained, and change nothing of its training."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfctr.data.split import Split
from tfctr.errors import ConfigError, require_count
from tfctr.experiments.pictures import difficulty_of, true_class
from tfctr.models import CTRModel
from tfctr.serving.exporting.explanation import DIFFICULTY_CLASSES

_ROWS_AT_A_TIME = 10_000
HEADS = ("simple", "complex")


class Watch(keras.callbacks.Callback):
    """The base: `rows`, one mapping for each look at the model, which a checkpoint keeps."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[dict[str, Any]] = []

    def get_state(self) -> dict[str, Any]:
        """What a checkpoint keeps of it."""
        return {"rows": self.rows}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what `get_state` gave."""
        self.rows = state["rows"]

    @property
    def _watched(self) -> CTRModel:
        assert isinstance(self.model, CTRModel)
        return self.model


class DifficultyByEpoch(Watch):
    """How many clicks and other rows of splits are hard, challenging and easy after each epoch (TF4CTR, Fig. 2 and 10).

    A row's class follows from the probability that the model gives to its label: below 0.3 hard, below 0.6 challenging, else
    easy. `rows` has `epoch`, `split`, `label` (0 or 1), and the share of each class.

    Args:
        splits: `{name: Split}`.
    """

    def __init__(self, splits: Mapping[str, Split]) -> None:
        super().__init__()
        self.splits = splits

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        for name, split in self.splits.items():
            batches = split.batches(_ROWS_AT_A_TIME, shuffle=False)
            given = self._watched.predict(batches, verbose=0)[:, 0]
            clicks = split.labels == 1
            classes = difficulty_of(np.where(clicks, given, 1 - given))
            for label in (0, 1):
                counts = np.bincount(classes[clicks == label], minlength=len(DIFFICULTY_CLASSES))
                shares = (counts / max(counts.sum(), 1)).tolist()
                self.rows.append(
                    {"epoch": epoch + 1, "split": name, "label": label, **dict(zip(DIFFICULTY_CLASSES, shares, strict=True))}
                )


class LogitGradients(Watch):
    """Norms of the loss' gradient by the logits of both encoders, on the same rows, every so many steps (TF4CTR, Fig. 5).

    The loss is that of training, without its L2 terms, which no logit is part of; dropout is off. Its gradient by a logit
    includes what reaches it through the fusion. `rows` has `step`, and of each logit the norm over the rows, and its part on
    the rows that are hard and easy for the prediction: `simple`, `simple_hard`, `simple_easy`, and so of `complex`.

    Args:
        split: its first rows are looked at.
        rows: how many of them.
        every: steps from one look to the next.

    Raises:
        ConfigError: the model has no logits of two encoders.
    """

    def __init__(self, split: Split, rows: int = _ROWS_AT_A_TIME, every: int = 10) -> None:
        super().__init__()
        require_count("rows", rows)
        require_count("every", every)
        some = np.arange(min(rows, split.rows))
        self.ids, self.labels = split.ids_of(some), split.labels[some].reshape(-1, 1)
        self.every, self.step = every, 0

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        outputs: Any = self._watched.output
        if not {*HEADS} <= outputs.keys():
            problem = f"{type(self._watched).__name__} has no logits of two encoders: {', '.join(outputs)}."
            raise ConfigError(problem, fix="take a model with `simple` and `complex`, such as TF4CTR or DualMLP")
        if not self.rows:
            self._look()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self.step += 1
        if self.step % self.every == 0:
            self._look()

    def get_state(self) -> dict[str, Any]:
        return {**super().get_state(), "step": self.step}

    def set_state(self, state: Mapping[str, Any]) -> None:
        super().set_state(state)
        self.step = state["step"]

    def _look(self) -> None:
        found: dict[str, Any] = {"step": self.step}
        outputs, slopes = logit_gradients(self._watched, self.ids, self.labels)
        clicks = self.labels[:, 0] == 1
        classes = difficulty_of(true_class(outputs["logit"].numpy()[:, 0], clicks))
        for name, slope in slopes.items():
            found[name] = float(np.linalg.norm(slope))
            for number, kind in ((0, "hard"), (2, "easy")):
                found[f"{name}_{kind}"] = float(np.linalg.norm(slope[classes == number]))
        self.rows.append(found)


class SemanticSpaces(Watch):
    """Where the values of rows lie in each semantic space of the trained model (CETN, Fig. 11).

    `rows` has, for each row and space, `x` and `y`, the first two principal components of the values of all spaces, each
    divided by its length; and of the whole value `cosine_to_first`, with the row's value in the first space, and
    `cosine_to_mean`, with the mean direction of its space: 1 where all rows point the same way.

    Args:
        split: the rows are of this one, evenly spaced.
        rows: how many of them.

    Raises:
        ConfigError: the model does not name the values of several spaces.
    """

    def __init__(self, split: Split, rows: int = 1_000) -> None:
        super().__init__()
        require_count("rows", rows)
        self.numbers = np.unique(np.linspace(0, split.rows - 1, min(rows, split.rows)).astype(np.int64))
        self.ids = split.ids_of(self.numbers)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        outputs: Any = self._watched.output
        self.spaces = [name for name in outputs if name.startswith("value_")]
        if len(self.spaces) < 2:
            problem = f"{type(self._watched).__name__} has no values of several semantic spaces."
            raise ConfigError(problem, fix="take CETN, with more than one of `spaces`")

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self._watched.settle()
        outputs = self._watched(tf.convert_to_tensor(self.ids), training=False)
        values = np.stack([outputs[name].numpy().astype(np.float64) for name in self.spaces])  # (spaces, rows, units)
        values /= np.maximum(np.linalg.norm(values, axis=-1, keepdims=True), 1e-12)
        means = values.mean(axis=1, keepdims=True)
        means /= np.maximum(np.linalg.norm(means, axis=-1, keepdims=True), 1e-12)
        centred = (values - values.mean(axis=(0, 1))).reshape(-1, values.shape[-1])
        places = (centred @ np.linalg.svd(centred, full_matrices=False)[2][:2].T).reshape(*values.shape[:2], -1)
        figures = {"x": places[..., 0], "y": places[..., -1]}
        figures |= {"cosine_to_first": (values * values[0]).sum(-1), "cosine_to_mean": (values * means).sum(-1)}
        for space, name in enumerate(self.spaces):
            for row, number in enumerate(self.numbers.tolist()):
                told = {figure: float(array[space, row]) for figure, array in figures.items()}
                self.rows.append({"space": name, "row": number, **told})


def logit_gradients(model: CTRModel, ids: np.ndarray, labels: np.ndarray) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """A model's outputs, and `{head: gradient (rows, 1)}` of the mean loss by the logits of both encoders."""
    model.settle()
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch([variable.value for variable in model.trainable_variables])
        outputs = model(tf.convert_to_tensor(ids), training=False)
        terms = model._terms(outputs, tf.convert_to_tensor(labels))
        loss = sum(terms[name] for name in ("ctr", *model.auxiliary))
    slopes = tape.gradient(loss, [outputs[name] for name in HEADS], unconnected_gradients="zero")
    return outputs, {name: np.asarray(slope) for name, slope in zip(HEADS, slopes, strict=True)}
