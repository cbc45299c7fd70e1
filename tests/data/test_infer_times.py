"""Times in a new table: judged as every column is, and left out with a recipe that works as it stands."""

import re
import warnings

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest

from tfctr.data.first_schema import draft
from tfctr.features import Categorical

ROWS = 400
RNG = np.random.default_rng(0)
CLICK = RNG.integers(0, 2, ROWS)
START = np.datetime64("2024-01-01T00:00:00")
SECONDS = RNG.integers(0, 4 * 10**6, ROWS)


def proposed(values, click=CLICK, name="x"):
    table = {name: values, "user": RNG.integers(0, 9, len(click)), "click": click}
    return draft(table, label="click").proposals[0]


def where_clicked(values):
    return [value if one else None for value, one in zip(values, CLICK, strict=True)]


MOMENTS = (START + SECONDS).tolist()
ANSWERS = {
    "timestamp": pa.array(where_clicked(MOMENTS), pa.timestamp("us")),
    "with a zone": pa.array(where_clicked(MOMENTS), pa.timestamp("us", "Europe/Berlin")),
    "date": pa.array(where_clicked([moment.date() for moment in MOMENTS])),
    "time": pa.array(where_clicked([moment.time() for moment in MOMENTS])),
    "struct": pa.array(where_clicked([{"a": 1}] * ROWS)),
    "binary": pa.array(where_clicked([b"\xff"] * ROWS)),
    "list of times": pa.array(where_clicked([[moment] for moment in MOMENTS])),
    "order": pa.array((START + SECONDS + 10**7 * CLICK).tolist(), pa.timestamp("us")),
    "order as text": pa.array([f"{moment:%Y-%m-%d %H:%M:%S}" for moment in (START + SECONDS + 10**7 * CLICK).tolist()]),
    "order as German text": pa.array([f"{moment:%d.%m.%Y %H:%M}" for moment in (START + SECONDS + 10**7 * CLICK).tolist()]),
}


@pytest.mark.sampled(6)
@pytest.mark.parametrize("kind", ANSWERS)
@pytest.mark.parametrize("source", ["memory", "parquet"])
def test_typed_columns_that_are_the_answer(tmp_path, kind, source):
    table = pa.table({"conversion": ANSWERS[kind], "user": RNG.integers(0, 9, ROWS), "click": CLICK})
    if source == "parquet":
        pa.parquet.write_table(table, table_file := tmp_path / "t.parquet")
    found = draft(table_file if source == "parquet" else table, label="click").proposals[0]
    assert found.feature is None
    assert found.reason.startswith("it is the answer, or was made from it")
    assert found.warning == found.reason
    assert not found.instead


@pytest.mark.parametrize("kind", ["timestamp", "date", "time", "struct", "binary"])
def test_other_typed_columns_are_left_out_by_their_type(kind):
    values = ANSWERS[kind].to_pylist()
    given = [value for value in values if value is not None]
    found = proposed(pa.array(RNG.permutation(np.array(values, object)).tolist(), ANSWERS[kind].type))
    assert len(given) < ROWS
    assert found.reason.startswith("it is of type")


# recipes

LATE = [moment.replace(day=1 + moment.day % 12) for moment in MOMENTS]  # no day above 12


def written(form, moments=MOMENTS):
    return [moment.strftime(form) for moment in moments]


def of_epoch(factor):
    return [int(moment.timestamp() * factor) for moment in pd.Series(MOMENTS).dt.tz_localize("UTC")]


WRITTEN = {
    "ISO": written("%Y-%m-%d %H:%M:%S"),
    "two ISO forms": [f"{moment:%Y-%m-%d}{' T'[row % 2]}{moment:%H:%M}" for row, moment in enumerate(MOMENTS)],
    "ISO with zones": [f"{moment:%Y-%m-%dT%H:%M}{'Z' if row % 2 else '+00:00'}" for row, moment in enumerate(MOMENTS)],
    "slashes": written("%Y/%m/%d %H:%M"),
    "German": written("%d.%m.%Y %H:%M"),
    "German, early days": written("%d.%m.%Y %H:%M", LATE),
    "German without zeros": [f"{moment.day}.{moment.month}.{moment:%Y %H:%M:%S}" for moment in MOMENTS],
    "two German forms": [f"{moment:%d.%m.%Y %H:%M}" + ":01" * (row % 2) for row, moment in enumerate(MOMENTS)],
    "British": written("%d/%m/%Y %H:%M"),
    "American": written("%m/%d/%Y %I:%M %p"),
    "American of two digits": written("%m-%d-%y %H:%M"),
    "named months": written("%d-%b-%Y %H:%M"),
    "hours": [int(text) for text in written("%y%m%d%H")],
    "hours as text": written("%y%m%d%H"),
    "minutes": written("%Y%m%d%H%M%S"),
    "seconds": of_epoch(1),
    "milliseconds": of_epoch(1000),
}
MAYBE = {"hours", "hours as text", "seconds", "milliseconds"}


def followed(found, table):
    """The table after the recipe of a proposal, as it stands."""
    (recipe,) = re.findall(r"with pandas: (.*)", "\n".join(found.notes))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        exec(recipe, {"pandas": pd, "table": table})
    return table


@pytest.mark.sampled(8)
@pytest.mark.parametrize("form", WRITTEN)
@pytest.mark.parametrize("name", ["at", "x"])
def test_the_recipe_makes_the_hour_and_the_weekday(form, name):
    found = proposed(WRITTEN[form], name=name)
    moments = LATE if form == "German, early days" else MOMENTS
    table = followed(found, pd.DataFrame({name: WRITTEN[form]}))
    assert table[f"{name}_hour"].tolist() == [moment.hour for moment in moments]
    assert table[f"{name}_weekday"].tolist() == [moment.weekday() for moment in moments]
    if name == "x" and form in MAYBE:
        assert any("looks like times" in note for note in found.notes)
    else:
        assert "it holds times" in found.reason


def test_gaps_and_other_words_are_missing_in_the_hour():
    values = [None if row % 10 == 1 else "later" if row % 50 == 0 else text for row, text in enumerate(WRITTEN["German"])]
    table = followed(proposed(values), pd.DataFrame({"x": values}))
    expected = [None if value in (None, "later") else moment.hour for value, moment in zip(values, MOMENTS, strict=True)]
    np.testing.assert_array_equal(table["x_hour"], np.array(expected, float))
    numbers = [None if row % 10 == 1 else int(text) for row, text in enumerate(WRITTEN["hours as text"])]
    table = followed(proposed(numbers, name="hour"), pd.DataFrame({"hour": numbers}))
    assert table["hour_hour"].isna().sum() == ROWS // 10


@pytest.mark.parametrize("form", ["%H:%M", "%H:%M:%S", "%I:%M %p"])
def test_a_clock_has_no_weekday(form):
    values = written(form)
    found = proposed(values)
    table = followed(found, pd.DataFrame({"x": values}))
    assert table["x_hour"].tolist() == [moment.hour for moment in MOMENTS]
    assert found.instead == (Categorical("x_hour"),)
    assert "weekday" not in " ".join([*found.notes, found.warning])


def test_what_the_values_do_not_show_of_the_day_is_said():
    found = proposed(written("%d/%m/%Y", LATE))
    assert "whether its day or its month comes first is not to be seen" in found.warning
    assert "format='%d/%m/%Y'" in found.notes[1]
    both = [text for pair in zip(written("%d/%m/%Y"), written("%m/%d/%Y"), strict=True) for text in pair]
    found = proposed(both, np.repeat(CLICK, 2))
    assert "write them alike first" in found.warning


def test_digits_of_hours_under_any_name_are_a_warning():
    found = proposed([f"141021{row % 24:02d}" for row in range(ROWS)], name="C0")
    assert isinstance(found.feature, Categorical)
    assert "it looks like times such as 14102100" in found.warning
