"""A retriever whose towers are drawn, not trained: for all that follows training."""

from pathlib import Path

import numpy as np

from kit.randomized import randomize
from tfctr.data.split import Split
from tfctr.retrieval.items import Items
from tfctr.retrieval.options import TowerOptions
from tfctr.retrieval.retriever import Retriever


def untrained(schema, ids, features=("item", "genres")):
    """A `Retriever` of the items in these rows of ids."""
    items = Items.of(schema, features, Split.from_arrays(ids, np.ones(len(ids))))
    options = TowerOptions(embedding_dim=4, hidden_units=[8], vector_dim=6)
    retriever = Retriever(Path(schema.folder), schema, items, options, Path(schema.folder), [])
    for tower in (retriever.user_tower, retriever.item_tower):
        randomize(tower)
    return retriever
