"""What a replica of a `tf.distribute` strategy has of its own: rows, a copy of each variable, and noise.

TensorFlow by name, because `keras.ops` knows no replicas. Without a strategy there is one, and nothing here does anything.
"""

from typing import Any

import keras
import tensorflow as tf

from tfctr.types import Tensor


def number_of_replicas() -> int:
    """On how many devices, of all workers together, a batch is trained."""
    return tf.distribute.get_strategy().num_replicas_in_sync


def has_workers(strategy: tf.distribute.Strategy) -> bool:
    """Whether several processes train together."""
    replicas = strategy.num_replicas_in_sync
    return replicas > 1 and replicas > len(strategy.extended.worker_devices)


def cluster_of(strategy: tf.distribute.Strategy) -> dict[str, int]:
    """How many workers (`"worker"`) and parameter servers (`"ps"`) a strategy has; of others than that with servers, none."""
    if not isinstance(strategy, tf.distribute.ParameterServerStrategy):
        return {"worker": 0, "ps": 0}
    cluster = strategy._cluster_resolver.cluster_spec()
    return {kind: cluster.num_tasks(kind) for kind in ("worker", "ps")}


def rows_of_all_replicas(rows: Tensor) -> Tensor:
    """The global batch, in the order of the replicas: `(rows, ...) -> (rows of all replicas, ...)`; gradients flow back."""
    if number_of_replicas() == 1:
        return rows
    return tf.distribute.get_replica_context().all_gather(tf.identity(rows), axis=0)  # an argument of a graph has no device


def resource(variable: Any) -> Any:
    """The plain `tf.Variable` of this replica behind a Keras variable. A gather from anything else first copies the whole."""
    variable = variable.value if isinstance(variable, keras.Variable) else variable
    return variable._get_on_device_or_primary() if hasattr(variable, "_get_on_device_or_primary") else variable


def write_rows(variable: keras.Variable, rows: Tensor, values: Tensor) -> None:
    """`variable[rows] = values`, in the copy of each replica: outside of what a replica does by itself."""
    for copy in getattr(variable.value, "values", (variable.value,)):  # of a mirrored variable
        copy.scatter_update(tf.IndexedSlices(values, rows))


class SeedGenerator(keras.random.SeedGenerator):
    """Keras' `SeedGenerator`, whose seeds are others on each replica of a strategy: the same on all would repeat the noise."""

    def next(self, ordered: bool = True) -> Tensor:
        seed = super().next(ordered)
        context = tf.distribute.get_replica_context()
        if number_of_replicas() == 1 or context is None:
            return seed
        return tf.random.experimental.stateless_fold_in(seed, tf.cast(context.replica_id_in_sync_group, tf.int32))
