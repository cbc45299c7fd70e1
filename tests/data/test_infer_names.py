"""What the header of a new table says: which column is the group, and which hold lists."""

import logging

import numpy as np
import pytest

from tfctr.features import Categorical, Sequence
from tfctr.schema import Schema

ROWS = 400
RNG = np.random.default_rng(0)
CLICK = RNG.integers(0, 2, ROWS)


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    "name", ["userId", "user", "user_id", "uid", "User ID", "userid", "USER-ID", "visitor_id", "customer_id", "Customer Id"]
)
def test_a_column_called_a_user_is_the_group_and_it_is_said(name, caplog):
    with caplog.at_level(logging.INFO, "tfctr"):
        schema = Schema.infer({"city": RNG.integers(0, 9, ROWS), name: RNG.integers(0, 9, ROWS), "click": CLICK}, label="click")
    assert schema.group == name
    assert f"group: column {name!r}, by its name" in caplog.text


@pytest.mark.parametrize("name", ["user_agent", "user_age", "item_id", "guid"])
def test_other_columns_are_no_group(name, caplog):
    with caplog.at_level(logging.INFO, "tfctr"):
        assert Schema.infer({name: RNG.integers(0, 9, ROWS), "click": CLICK}, label="click").group is None
    assert "group: column" not in caplog.text


def recbole(folder, values, kind):
    rows = zip(values, RNG.permutation(CLICK), strict=True)
    (folder / "t.inter").write_text(f"tags:{kind}\tclick:float\n" + "".join(f"{value}\t{click}\n" for value, click in rows))
    return folder / "t.inter"


TAGS = {
    "few lists": ["a b", "b c", "a"],
    "single tokens": ["a", "b", "c"],
    "numbers": ["1 2", "2 3", "3"],
    "one number": ["1", "2"],
}


@pytest.mark.parametrize("tags", TAGS)
def test_lists_by_the_types_of_a_header(tmp_path, tags):
    file = recbole(tmp_path, RNG.choice(TAGS[tags], ROWS), "token_seq")
    (feature,) = Schema.infer(file, label="click").features
    assert feature == Sequence("tags", max_length=2 if " " in TAGS[tags][0] else 1, separator=" ")
    assert isinstance(
        Schema.infer(recbole(tmp_path, RNG.choice(["a b", "b"], ROWS), "token"), label="click").features[0], Categorical
    )
