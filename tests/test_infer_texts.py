"""Text columns of a new table: which a mark cuts into lists, and which texts mean that a number is missing."""

import numpy as np
import pytest

from tfctr.data.inference import draft
from tfctr.features import Sequence

ROWS = 4000
RNG = np.random.default_rng(0)


def proposed(values):
    rows = len(values)
    table = {"x": values, "user": RNG.integers(0, 40, rows), "click": [row // 2 % 2 for row in range(rows)]}
    return draft(table, label="click").proposals[0]


def numbered(form, repeated):
    """One text a row, all of them different but for `repeated` ones."""
    numbers = RNG.permutation(10**7)[:ROWS]
    texts = [form.format(word=RNG.choice(["gut", "schlecht", "mittel"]), number=number) for number in numbers]
    return [*texts[: ROWS - repeated], *texts[:repeated]]


@pytest.mark.parametrize("repeated", [0, 1, 20])
@pytest.mark.parametrize(
    "form", ["{word}; schön {number}", "ref;{number}", "a;{word};{number}", "x,{number}", "{word}|{number}"]
)
def test_text_with_a_mark_that_hardly_comes_again_is_no_list(form, repeated):
    found = proposed(numbered(form, repeated))
    assert found.feature is None
    assert "the same token" in found.reason or "another token" in found.reason


@pytest.mark.parametrize("length", [3, 30])
def test_lists_of_a_large_catalogue_stay_lists(length):
    popular = (ROWS * length / 4 * RNG.random((ROWS, length)) ** 3).astype(int)
    found = proposed([";".join(f"item {number}" for number in row) for row in popular])
    assert isinstance(found.feature, Sequence)
    assert found.feature.separator == ";"
