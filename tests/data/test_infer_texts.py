"""Text columns of a new table: which a mark cuts into lists, and which texts mean that a number is missing."""

import ast
import re

import numpy as np
import pandas as pd
import pytest

from tfctr.data.evidence import Split
from tfctr.data.first_schema import draft
from tfctr.features import Numeric, Sequence
from tfctr.schema import Schema

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


@pytest.mark.sampled(4)
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


PRICES = [f"{price:.2f}" for price in RNG.random(ROWS) * 100]


def marked(mark, share):
    return [mark if row % 100 < 100 * share else price for row, price in enumerate(PRICES)]


@pytest.mark.sampled(6)
@pytest.mark.parametrize("share", [0.02, 0.07, 0.3, 0.6])
@pytest.mark.parametrize("mark", ["N/A", "#N/A", "n/a", "NA", "?", "-"])
def test_marks_of_missing_numbers_are_no_lists(tmp_path, mark, share):
    found = proposed(marked(mark, share))
    assert found.feature is None
    assert f"values are no numbers: {mark!r}" in found.reason
    assert f"missing={[mark]}" in found.warning


def test_few_whole_numbers_beside_a_mark_are_not_cut():
    found = proposed(["N/A" if row % 10 else str(row % 7) for row in range(ROWS)])
    assert not isinstance(found.feature, Sequence)


@pytest.mark.slow
def test_the_advice_on_marks_works_as_it_stands(tmp_path):
    table = pd.DataFrame({"x": marked("N/A", 0.07), "user": RNG.integers(0, 40, ROWS), "click": RNG.integers(0, 2, ROWS)})
    (advice,) = (note for note in draft(table, label="click").proposals[0].notes if "--missing" in note)
    table.to_csv(tmp_path / "t.csv", index=False)
    found = {"table": table}
    exec(re.search(r"table = .*?\)", advice)[0], found)
    missing = ast.literal_eval(re.search(r"missing=(\[.*?\])", advice)[1])
    in_memory = Schema.infer(found["table"], label="click")
    assert isinstance(in_memory.features[0], Numeric)
    assert Schema.infer(tmp_path / "t.csv", label="click", missing=missing).features == in_memory.features


def test_the_advice_names_every_text_that_is_no_number():
    names = [f"none of {number}" for number in range(9)]
    found = proposed([*names, *PRICES[9:]])
    assert all(f"--missing '{name}'" in found.warning for name in names)


@pytest.mark.parametrize(
    ("lengths", "max_length", "note"),
    [
        ([2] * 19 + [20], 20, None),  # short enough to be kept whole
        ([0] * 100 + [5] * 45 + [30] * 50 + [31] * 5, 30, "cuts 5.0% of the rows with tokens; 95% of them have at most 30"),
        ([3] * 50 + [1_000] * 50, 200, "cuts 50.0% of the rows with tokens; 95% of them have at most 1,000"),
        ([3] * 1_999 + [21], 20, "cuts less than 0.1% of the rows with tokens"),
    ],
)
def test_as_many_tokens_as_95_of_100_rows_have(lengths, max_length, note):
    """The quantile of the lengths that are not 0, by counting on paper; from 20 to 200, and no more than there are."""
    found = proposed(["|".join(f"tag {place % 6}" for place in range(length)) for length in lengths])
    notes = "; ".join(found.notes)
    assert found.feature == Sequence("x", max_length=max_length)
    assert f"at most {max(lengths):,} a row" in notes
    assert (note in notes and "`keep: first`; a history" in notes) if note else "cuts" not in notes and "keep" not in notes


def test_the_quantile_is_the_length_that_so_many_rows_do_not_exceed():
    names = "rows tokens distinct once stripped characters words fractions stopwords"
    others = dict.fromkeys(names.split(), 0)
    split = Split(lengths={5: 45, 30: 50, 31: 5}, **others)
    assert [split.quantile(percent) for percent in (45, 46, 95, 96, 100)] == [5, 30, 30, 31, 31]
    assert [split.share_above(length) for length in (0, 4, 5, 30, 31)] == [1.0, 1.0, 0.55, 0.05, 0.0]
    assert (Split(lengths={}, **others).quantile(95), Split(lengths={}, **others).share_above(0)) == (0, 0.0)
