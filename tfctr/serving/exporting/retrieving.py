"""A retriever as a part of a served graph: raw columns of users in, the best items out, by brute force."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from tfctr.errors import ConfigError, require, require_count
from tfctr.retrieval.retriever import Retriever
from tfctr.serving.exporting.golden import Golden, RawColumns
from tfctr.serving.exporting.raw_features import RawFeatures
from tfctr.types import Tensor


class ServedRetriever(tf.Module):
    """The signatures `retrieve`, `user_vector` and `item_vector`, and what `recommend` begins with.

    Args:
        retriever: a `Retriever`.
        raw: the `RawFeatures` of its schema.
        retrieved: how many items are retrieved for a user; all where there are fewer.

    Raises:
        ConfigError: `retrieved` is below 1, or no feature of the user is required.
    """

    def __init__(self, retriever: Retriever, raw: RawFeatures, retrieved: int) -> None:
        super().__init__()
        require_count("retrieved", retrieved)
        items = retriever.items
        self.raw, self.context, self.features = raw, items.context, items.features
        self.retrieved = min(retrieved, len(items))
        fix = "name a feature that every request has: it tells how many users there are"
        problem = f"`optional` is {list(raw.optional)}: no feature of the user is required."
        require(not set(self.context) <= set(raw.optional), problem, fix=fix, error=ConfigError)
        self.tower = retriever.user_tower
        self.vectors = tf.Variable(retriever.item_vectors(), trainable=False, name="item_vectors")
        self.items = tf.Variable(items.ids, trainable=False, name="items")
        self.tokens = tf.Variable(items.tokens, trainable=False, dtype=tf.string, name="item_tokens")
        self._ids_spec = tf.TensorSpec((None, raw.schema.width), tf.int32, name="ids")
        self._offline = {
            name: tf.function(function, input_signature=[self._ids_spec], autograph=False)
            for name, function in (("best", self.best), ("user_vector", self._user_vector))
        }

    def best(self, ids: Tensor) -> dict[str, Tensor]:
        """The best items of each user, the best first, and of equal ones the first: `place`, `item` and `score`.

        Shapes:
            `(batch, schema.width)` int32, 0 in the item's columns `-> (batch, retrieved)` each
        """
        scores = tf.matmul(self.tower(ids, training=False), self.vectors, transpose_b=True)
        score, place = tf.math.top_k(scores, k=self.retrieved)
        return {"place": place, "item": tf.gather(self.tokens, place), "score": score}

    def user_ids(self, columns: Mapping[str, Tensor]) -> Tensor:
        """The ids of users, from their raw columns alone: `{name: (batch,)} -> (batch, schema.width)` int32."""
        return self.raw.part(columns, self.context)

    def computed(self, name: str, ids: np.ndarray) -> dict[str, np.ndarray]:
        """`best` or `user_vector` of ids, traced once more: what the golden rows must be answered."""
        tensors = self._offline[name].get_concrete_function()(tf.constant(ids))
        return {output: tensor.numpy() for output, tensor in tensors.items()}

    def specs(self, rows: int | None = None) -> list[dict[str, Any]]:
        """The raw columns of the user: those that are required, with so many rows, and those that are optional."""
        own = {name: spec for name, spec in self.raw.signature.items() if name in self.context}
        required = {
            name: tf.TensorSpec((rows,), s.dtype, name=name) for name, s in own.items() if name not in self.raw.optional
        }
        return [required, {name: spec for name, spec in own.items() if name in self.raw.optional}]

    @property
    def absent(self) -> dict[str, Tensor]:
        """The user's optional columns without rows, as TensorFlow Serving fills in what a request leaves out."""
        return {name: tf.constant([], spec.dtype) for name, spec in self.specs()[1].items()}

    @property
    def endpoints(self) -> dict[str, tuple[Callable[..., Any], list[Any]]]:
        """Signature -> (function, its input specs)."""

        def retrieve(required, optional=self.absent):
            best = self.best(self.user_ids({**required, **optional}))
            return {"item": best["item"], "score": best["score"]}

        def user_vector(required, optional=self.absent):
            return self._user_vector(self.user_ids({**required, **optional}))

        def item_vector(place):
            return {"item": tf.gather(self.tokens, place), "vector": tf.gather(self.vectors, place)}

        places = [tf.TensorSpec((None,), tf.int32, name="place")]
        return {
            "retrieve": (retrieve, self.specs()),
            "user_vector": (user_vector, self.specs()),
            "item_vector": (item_vector, places),
        }

    def golden(self, columns: RawColumns) -> Iterator[Golden]:
        """A request for each signature, with its answer."""
        inputs = {name: column for name, column in columns.items() if name in self.context}
        ids = self.user_ids(inputs).numpy()
        best = self.computed("best", ids)
        yield {"signature": "retrieve", "inputs": inputs, "outputs": {name: best[name] for name in ("item", "score")}}
        yield {"signature": "user_vector", "inputs": inputs, "outputs": self.computed("user_vector", ids)}
        places = np.arange(min(len(ids), self.vectors.shape[0]), dtype=np.int32)
        outputs = {"item": self.tokens.numpy()[places], "vector": self.vectors.numpy()[places]}
        yield {"signature": "item_vector", "inputs": {"place": places}, "outputs": outputs}

    def _user_vector(self, ids):
        return {"vector": self.tower(ids, training=False)}
