"""Two trained towers and the items that they retrieve, read back from the folder that `train` wrote."""

import dataclasses
import functools
from pathlib import Path

import keras
import numpy as np

from tfctr.data.dataset import fit_folder
from tfctr.errors import StorageError, require_count
from tfctr.retrieval.items import Items
from tfctr.retrieval.options import TowerOptions
from tfctr.retrieval.towers import tower
from tfctr.schema import Schema
from tfctr.storage import read_object, require_sha256
from tfctr.types import StrPath

WEIGHTS = {"user": "user.weights.h5", "item": "item.weights.h5"}
_BATCH = 4096  # rows whose vectors are computed at a time
_AGAIN = "restore the folder, or train again: tfctr retrieve train"


@dataclasses.dataclass(frozen=True)
class Retriever:
    """Two towers, and the items: the score of an item for a user is the product of their vectors, the cosine.

    Args:
        folder: where it lies.
        schema: the fitted `Schema` of the dataset that it was trained on, which is at `data`.
        items: an `Items`.
        options: the `TowerOptions`.
        data: the folder of that dataset.
        history: one mapping an epoch: `loss`, and, with validation rows, `recall_at_10` and `recall_at_50` of them.
    """

    folder: Path
    schema: Schema
    items: Items
    options: TowerOptions
    data: Path
    history: list[dict[str, float]]

    @functools.cached_property
    def user_tower(self) -> keras.Model:
        """`(batch, schema.width)` int32 `-> (batch, options.vector_dim)`; it reads the columns of the user's features."""
        return tower(self.schema, self.items.context, self.options)

    @functools.cached_property
    def item_tower(self) -> keras.Model:
        """The same of the item's features."""
        return tower(self.schema, self.items.features, self.options)

    def user_vectors(self, ids: np.ndarray) -> np.ndarray:
        """The vectors of the users of prepared rows: int32 `(rows, schema.width) -> (rows, vector_dim)` float32."""
        return _vectors(self.user_tower, ids)

    def item_vectors(self) -> np.ndarray:
        """The vectors of all items: float32, `(items, vector_dim)`."""
        return _vectors(self.item_tower, self.items.ids)

    def retrieve(self, ids: np.ndarray, k: int = 10) -> np.ndarray:
        """The places in `items` of the best K for each row, the best first: int64 `(rows, k)`."""
        require_count("k", k, most=len(self.items))
        scores = self.user_vectors(ids) @ self.item_vectors().T
        return np.argsort(-scores, axis=1, kind="stable")[:, :k]

    def save_weights(self, folder: Path) -> None:
        """Write the weights of both towers into a folder."""
        for side, model in (("user", self.user_tower), ("item", self.item_tower)):
            model.save_weights(folder / WEIGHTS[side])


def read_retriever(folder: Path) -> Retriever:
    """What `train` has written before the towers are trained: their weights are drawn anew."""
    values = read_object(folder / "retriever.json")
    try:
        data = Path(values["data"]["folder"])
        schema = dataclasses.replace(Schema.load(folder / "schema.json"), folder=str(data))
        items = Items(schema, tuple(values["item"]), np.load(folder / "items.npy", allow_pickle=False))
        return Retriever(folder, schema, items, TowerOptions.of(values["options"]), data, values.get("history", []))
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise StorageError(f"{folder} is a damaged retriever: {error}.", fix=_AGAIN) from error


def load_retriever(folder: StrPath, data: StrPath | None = None) -> Retriever:
    """The `Retriever` in a folder.

    Args:
        folder: what was `out` of `train`.
        data: the folder or URL of the prepared dataset, if it has moved.

    Raises:
        StorageError: the folder holds none, or one of its files is missing or another one.
    """
    folder = Path(folder)
    if not (folder / "retriever.json").is_file():
        fix = "give the --out folder of `tfctr retrieve train`"
        raise StorageError(f"{folder} is no retriever: it has no retriever.json.", fix=fix)
    for name, digest in read_object(folder / "retriever.json").get("sha256", {}).items():
        require_sha256(folder / name, digest, fix=_AGAIN)
    found = read_retriever(folder)
    if data is not None:
        moved = fit_folder(data)
        schema = dataclasses.replace(found.schema, folder=str(moved))
        found = dataclasses.replace(found, data=moved, schema=schema, items=dataclasses.replace(found.items, schema=schema))
    found.user_tower.load_weights(folder / WEIGHTS["user"])
    found.item_tower.load_weights(folder / WEIGHTS["item"])
    return found


def _vectors(model: keras.Model, ids: np.ndarray) -> np.ndarray:
    parts = [np.asarray(model(ids[start : start + _BATCH], training=False)) for start in range(0, len(ids), _BATCH)]
    return np.concatenate(parts)
