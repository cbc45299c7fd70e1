"""Which features are the item's, and which items there are."""

import numpy as np
import pytest

from tfctr import Categorical, Numeric, Schema, Sequence
from tfctr.data.split import Split
from tfctr.errors import ConfigError, DataError
from tfctr.retrieval.items import Items, item_features

SCHEMA = Schema(
    features=[
        Categorical("user", size=6),  # ids 0-5
        Categorical("item", size=7),  # 6-12
        Sequence("genres", max_length=2, size=5),  # 13-17
        Categorical("device", hash_buckets=2, size=5),
        Numeric("price", "edges", edges=[1.0], interval_ids=[3, 4], size=5),
    ],
    label="click",
)
IDS = [  # item, genres
    (9, 16, 13),
    (11, 16, 17),
    (9, 17, 13),
    (9, 17, 13),
    (8, 16, 13),  # out of vocabulary: no item
    (7, 16, 13),  # missing
    (11, 17, 17),  # as often as the other genres of 11: the first by the order of ids counts
]
SPLIT = Split.from_arrays([[3, *row, 21, 26] for row in IDS], [1, 0, 0, 1, 1, 1, 0])


def test_items_are_the_known_names_with_the_features_that_most_rows_have():
    items = Items.of(SCHEMA, ("item", "genres"), SPLIT)
    assert items.ids.tolist() == [[0, 9, 17, 13, 0, 0], [0, 11, 16, 17, 0, 0]]
    assert items.places(SPLIT.ids).tolist() == [0, 1, 0, 0, -1, -1, 1]
    assert items.context == ("user", "device", "price")


def test_an_item_may_have_its_name_alone():
    assert Items.of(SCHEMA, ("item",), SPLIT).ids.tolist() == [[0, 9, 0, 0, 0, 0], [0, 11, 0, 0, 0, 0]]


def test_a_name_that_came_later_is_no_item():
    items = Items.of(SCHEMA, ("item",), SPLIT)
    assert items.places(np.array([[3, 10, 16, 13, 21, 26]])).tolist() == [-1]


def test_one_item_is_too_few():
    with pytest.raises(DataError, match="the train split has 1 known items in 'item'"):
        Items.of(SCHEMA, ("item",), Split.from_arrays(SPLIT.ids[[0, 2]], [1, 0]))


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        ([], r"`item` is \[\]"),
        ("item", "`item` is 'item'"),
        (["itm"], "Unknown feature in `item` 'itm'"),
        (["item", "item"], "each once"),
        (["user", "item", "genres", "device", "price"], "not all"),
        (["genres", "item"], "'genres' cannot name items"),
        (["device"], "'device' cannot name items: its tokens are hashed"),
        (["price"], "'price' cannot name items"),
    ],
)
def test_names_that_cannot_be_the_items(names, problem):
    with pytest.raises(ConfigError, match=problem):
        item_features(SCHEMA, names)
