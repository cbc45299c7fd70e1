"""Times in a new table: judged as every column is, and left out with a recipe that works as it stands."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from tfctr.data.inference import draft

ROWS = 400
RNG = np.random.default_rng(0)
CLICK = RNG.integers(0, 2, ROWS)
START = np.datetime64("2024-01-01T00:00:00")
SECONDS = RNG.integers(0, 10**6, ROWS)


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
    "order": pa.array((START + SECONDS + 10**6 * CLICK).tolist(), pa.timestamp("us")),
    "order as text": pa.array([f"{moment:%Y-%m-%d %H:%M:%S}" for moment in (START + SECONDS + 10**6 * CLICK).tolist()]),
    "order as German text": pa.array([f"{moment:%d.%m.%Y %H:%M}" for moment in (START + SECONDS + 10**6 * CLICK).tolist()]),
}


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
