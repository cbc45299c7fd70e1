"""TensorFlow's string hash, for training data: the op that the served graph runs, since no SQL engine has it."""

import numpy as np
import pyarrow as pa

from tfctr.features import FIRST_KNOWN


def hash_ids(tokens: pa.Array, buckets: int) -> np.ndarray:
    """The ids of an Arrow array of tokens: `3 + to_hash_bucket_fast(token, buckets)`, each distinct token hashed once.

    >>> import pyarrow
    >>> ids = hash_ids(pyarrow.array(["60", "2438", "60"]), buckets=1000)
    >>> bool(ids[0] == ids[2]), bool((ids >= 3).all() and (ids < 1003).all())
    (True, True)
    """
    import tensorflow as tf  # only hashed features need it, and it takes seconds to load

    coded = tokens.dictionary_encode()
    if len(coded.dictionary) == 0:
        return np.zeros(0, np.int32)
    with tf.device("cpu"):
        hashed = tf.strings.to_hash_bucket_fast(tf.constant(coded.dictionary.to_pylist()), buckets).numpy()
    return (FIRST_KNOWN + hashed[coded.indices.to_numpy()]).astype(np.int32)
