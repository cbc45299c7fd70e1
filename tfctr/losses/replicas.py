"""What a loss over pairs of rows must see under a distribution strategy: the rows of all devices."""

import tensorflow as tf

from tfctr.types import Tensor


def rows_of_all_replicas(rows: Tensor) -> Tensor:
    """The global batch, in the order of the replicas: `(rows, ...) -> (rows of all replicas, ...)`; gradients flow back.

    TensorFlow by name, because `keras.ops` has no gather across replicas.
    """
    if tf.distribute.get_strategy().num_replicas_in_sync == 1:
        return rows
    return tf.distribute.get_replica_context().all_gather(rows, axis=0)
