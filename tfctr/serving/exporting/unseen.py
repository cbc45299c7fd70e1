"""What a served model does not know of the rows it is asked about, beside what training lets it expect.

A token that no vocabulary holds is answered like any other unknown one. A client that writes tokens otherwise than the training
table, or joins them by another separator, would never learn of it; so the signature `unseen` counts.
"""

from pathlib import Path

import numpy as np
import tensorflow as tf

from tfctr.data.shares import has_vocabulary
from tfctr.features import MISSING, OUT_OF_VOCABULARY
from tfctr.schema import Schema
from tfctr.storage import read_object
from tfctr.types import Tensor


class UnseenTokens:
    """From ids to counts, for each feature with a vocabulary: tokens, those that it lacks, and the share to be expected.

    Args:
        schema: a fitted `Schema`. What training expects is in the manifest of its `folder`; where it is not, there are no
            `fields`, and nothing is counted.

    Shapes:
        `(batch, schema.width)` int32 `-> {feature: (batch, 3)}` float32
    """

    def __init__(self, schema: Schema) -> None:
        self.expected = {name: share["unseen"] for name, share in _training(schema).items() if share.get("unseen") is not None}
        self.fields = [f for f in schema.fields if has_vocabulary(f.feature) and f.feature.name in self.expected]

    def __call__(self, ids: Tensor) -> dict[str, Tensor]:
        return {field.feature.name: self._counts(field, ids[:, field.token_columns]) for field in self.fields}

    def _counts(self, field, ids):
        tokens, unseen = (
            tf.reduce_sum(tf.cast(found, tf.float32), axis=1)
            for found in (ids > field.offset + MISSING, tf.equal(ids, field.offset + OUT_OF_VOCABULARY))
        )
        expected = tf.fill(tf.shape(tokens), np.float32(self.expected[field.feature.name]))
        return tf.stack([tokens, unseen, expected], axis=1)  # (batch, 3)


def _training(schema):
    manifest = None if schema.folder is None else Path(schema.folder) / "manifest.json"
    return read_object(manifest).get("training", {}) if manifest and manifest.is_file() else {}
