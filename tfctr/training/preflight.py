"""Whether a machine can hold what is to be trained, before it tries."""

import logging

import tensorflow as tf

from tfctr.config import Config
from tfctr.errors import ConfigError
from tfctr.layers.embedding import outlined
from tfctr.memory import GIB, usable_memory
from tfctr.models._graph import embeddings_of
from tfctr.schema import Schema
from tfctr.training.building import graph_of

_LOG = logging.getLogger(__name__)
_FEW = 100_000  # rows of all features, below which nothing is counted
_LARGE = 1.0  # GiB
MOMENTS = {"adam": 2, "lazy_adam": 2, "exact_lazy_adam": 2, "adagrad": 1, "ftrl": 2, "auto": 2}  # numbers beside each weight


def require_memory(config: Config, schema: Schema, devices: int = 1, trains: bool = True) -> None:
    """Say how much memory embedding tables take where it is much, and raise `ConfigError` where there is not as much.

    `bytes = sum of rows * dim * 4 * (1 + moments)`, on each of so many devices of this machine, and once more for the weights
    of the best epoch. What is made and freed on the way comes on top: it is as much again, or twice, with whole tables in a
    gradient. With a GPU, only the weights of the best epoch are in the machine's memory. Where parameter servers train, the
    chief, who does not, holds the weights only.
    """
    if schema.table_rows < _FEW:
        return
    with outlined():
        tables = [(layer.rows, layer.embedding_dim) for layer in embeddings_of(graph_of(config, schema))]
    optimizer = config.training.optimizer
    copies = 1 if not trains or tf.config.list_physical_devices("GPU") else 1 + devices * (1 + MOMENTS[optimizer])
    needed = sum(4 * rows * dim for rows, dim in tables) * copies / GIB
    there = usable_memory()
    shown = " + ".join(f"{rows:,} x {dim}" for rows, dim in tables)
    if there is not None and needed > there:
        raise ConfigError(
            f"embedding tables of {shown} take at least {needed:.1f} GiB with {optimizer}, and this machine gives {there:.1f}.",
            fix=f"{_WAYS_OUT}; see docs/large_vocabularies.md",
        )
    if needed >= _LARGE:
        of = "" if there is None else f" of {there:.1f}"
        _LOG.info("embedding tables of %s take at least %.1f%s GiB with %s", shown, needed, of, optimizer)


_WAYS_OUT = (
    "fewer rows: `min_count` or `hash_buckets` in the schema; narrower ones: a smaller `embedding_dim`; fewer moments: "
    "training.optimizer=adagrad; or more machines: --distribute parameter_server"
)
