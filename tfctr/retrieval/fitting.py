"""The process that trains two towers with TensorFlow Recommenders: `python -m tfctr.retrieval.fitting FOLDER REPORT`.

It finds in FOLDER what `tfctr.retrieval.train` put there, `retriever.json` and `items.npy`, and adds the weights of both
towers. These are of Keras 3. TensorFlow Recommenders, which knows Keras 2 alone, gets their variables and what they compute,
not the layers: it would train none of their weights.
"""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfctr import malloc
from tfctr.data.dataset import Dataset
from tfctr.data.split import Split
from tfctr.errors import TfctrError, TrainingError, require
from tfctr.retrieval.items import Items
from tfctr.retrieval.library import load_tfrs
from tfctr.retrieval.options import TowerOptions
from tfctr.retrieval.retriever import Retriever, read_retriever
from tfctr.storage import write_json

KS = (10, 50)  # of the recall that is measured after each epoch; the last one decides which epoch is the best
_MOST_VALIDATED = 20_000  # rows, drawn
_BATCH = 1024  # of them


def sampling_probability(places: np.ndarray, items: int, options: TowerOptions) -> np.ndarray:
    """How likely each item is among the candidates of a step, up to a factor, of which the loss does not depend: at most 1.

    Of a batch of `b` rows and `u` drawn items, `b * frequency + u / items`, the frequency among the positive rows.

    >>> sampling_probability(np.array([0, 0, 0, 1]), 3, TowerOptions(batch_size=4, uniform_items=3)).tolist()
    [1.0, 0.5, 0.25]

    Reference: [Yi et al., 2019](https://doi.org/10.1145/3298689.3346996), eq. 3, and, mixed with drawn items,
    [Yang et al., 2020](https://doi.org/10.1145/3366424.3386195).
    """
    frequency = np.bincount(places, minlength=items) / len(places)
    expected = options.batch_size * frequency + options.uniform_items / items
    return (expected / expected.max()).astype(np.float32)


def batches(
    split: Split, rows: np.ndarray, places: np.ndarray, items: int, options: TowerOptions, epoch: int
) -> Iterator[tuple[np.ndarray, ...]]:
    """`(ids, places of their items, places of the drawn items, weights)` of each step; a function of the seed and the epoch."""
    rng = np.random.default_rng([options.seed, epoch])
    order = rng.permutation(len(rows))
    for start in range(0, len(order), options.batch_size):
        chosen = np.sort(order[start : start + options.batch_size])
        drawn = rng.integers(items, size=options.uniform_items)
        numbers = rows[chosen]
        weights = np.ones(len(numbers), np.float32) if split.weights is None else split.weights[numbers]
        yield split.ids_of(numbers), places[chosen], drawn, weights


def two_towers(tfrs: ModuleType, retriever: Retriever, probability: np.ndarray) -> Any:
    """The model of TensorFlow Recommenders around the two towers."""
    user, item, options = retriever.user_tower, retriever.item_tower, retriever.options
    items, probabilities = tf.constant(retriever.items.ids), tf.constant(probability)
    keras2 = importlib.import_module("tf_keras")

    class TwoTowers(tfrs.Model):
        def __init__(self) -> None:
            super().__init__()
            self.of_towers = [variable.value for variable in (*user.trainable_variables, *item.trainable_variables)]
            self.task = tfrs.tasks.Retrieval(
                loss=keras2.losses.CategoricalCrossentropy(from_logits=True, reduction="sum_over_batch_size"),
                loss_metrics=[keras2.metrics.Mean(name="mean_loss")],
                temperature=options.temperature,
                remove_accidental_hits=True,
            )

        def compute_loss(self, inputs: Any, training: bool = False) -> Any:
            ids, places, drawn, weights = inputs
            candidates = tf.concat([places, drawn], axis=0)
            return self.task(
                user(ids, training=training),
                item(tf.gather(items, candidates), training=training),
                sample_weight=weights,
                candidate_sampling_probability=tf.gather(probabilities, candidates),
                candidate_ids=candidates,
                compute_metrics=False,
            )

    model = TwoTowers()
    model.compile(optimizer=keras2.optimizers.Adam(options.learning_rate))
    return model


def recall(tfrs: ModuleType, retriever: Retriever, split: Split, rows: np.ndarray, places: np.ndarray) -> dict[str, float]:
    """The share of these positive rows whose item is among the first K of all: TensorFlow Recommenders' `FactorizedTopK`."""
    ks = [min(k, len(retriever.items)) for k in KS]
    index = tfrs.layers.factorized_top_k.BruteForce(k=max(ks)).index(
        tf.constant(retriever.item_vectors()), tf.range(len(retriever.items), dtype=tf.int64)
    )
    metric = tfrs.metrics.FactorizedTopK(candidates=index, ks=ks)
    vectors = tf.constant(retriever.item_vectors())
    for start in range(0, len(rows), _BATCH):
        chosen = places[start : start + _BATCH]
        users = retriever.user_vectors(split.ids_of(rows[start : start + _BATCH]))
        metric.update_state(tf.constant(users), tf.gather(vectors, chosen), tf.constant(chosen))
    return {f"recall_at_{k}": float(found) for k, found in zip(KS, metric.result(), strict=True)}


def fit(folder: Path) -> None:
    """Train the towers of a folder, and keep the weights of the best epoch there, with `history.json`."""
    malloc.keep_freed_memory()
    tfrs = load_tfrs()
    retriever = read_retriever(folder)
    options, dataset = retriever.options, Dataset.load(retriever.data, verify=False)
    keras.utils.set_random_seed(options.seed)
    tf.config.experimental.enable_op_determinism()
    split, count = dataset.splits["train"], len(retriever.items)
    rows, places = retriever.items.clicks(split)
    model = two_towers(tfrs, retriever, sampling_probability(places, count, options))
    measured = None if "valid" not in dataset.splits else _drawn(dataset.splits["valid"], retriever.items, options.seed)
    shapes = ((None, retriever.schema.width), (None,), (None,), (None,))
    types = (tf.int32, tf.int64, tf.int64, tf.float32)
    specs = tuple(tf.TensorSpec(shape, dtype) for shape, dtype in zip(shapes, types, strict=True))
    history: list[dict[str, float]] = []
    best, since = -1.0, 0
    for epoch in range(options.epochs):
        of_epoch = batches(split, rows, places, count, options, epoch)
        data = tf.data.Dataset.from_generator(lambda of_epoch=of_epoch: of_epoch, output_signature=specs)
        loss = model.fit(data, epochs=1, verbose=0).history["mean_loss"][-1]
        fix = "lower the learning rate, or raise the temperature"
        require(np.isfinite(loss), f"the loss of epoch {epoch + 1} is {loss}.", fix=fix, error=TrainingError)
        figures = {"loss": float(loss)} | ({} if measured is None else recall(tfrs, retriever, dataset.valid, *measured))
        history.append(figures)
        told = ", ".join(f"{name} {value:.5f}" for name, value in figures.items())
        sys.stderr.write(f"epoch {epoch + 1}: {told}\n")
        reached = figures.get(f"recall_at_{KS[-1]}", float(epoch))  # without a validation the last epoch is the best
        if reached > best:
            best, since = reached, 0
            retriever.save_weights(folder)
        else:
            since += 1
        if since == options.patience:
            break
    write_json(folder / "history.json", history)


def _drawn(split: Split, items: Items, seed: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Positive rows of a split to measure on; None where it has none."""
    rows, places = items.clicks(split) if split.has_labels else (np.array([], int), np.array([], int))
    if len(rows) > _MOST_VALIDATED:
        chosen = np.sort(np.random.default_rng(seed).choice(len(rows), _MOST_VALIDATED, replace=False))
        rows, places = rows[chosen], places[chosen]
    return (rows, places) if len(rows) else None


def _main(folder: str, report: str) -> int:
    try:
        fit(Path(folder))
    except TfctrError as error:
        write_json(report, {"problem": error.problem, "fix": error.fix, "class": type(error).__name__})
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))
