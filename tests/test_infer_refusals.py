"""What `infer` says of tables that it cannot draft from."""

import pandas as pd
import pytest

from tfctr.errors import DataError
from tfctr.schema import Schema

CLICKS = pd.DataFrame({"user": ["a", "b"], "price": [1.5, 2.0], "click": [0, 1]})


@pytest.mark.parametrize("kind", ["csv", "parquet", "DataFrame"])
def test_a_table_without_rows(tmp_path, kind):
    file, empty = tmp_path / f"t.{kind}", CLICKS[:0]
    writers = {"csv": lambda: empty.to_csv(file, index=False), "parquet": lambda: empty.to_parquet(file)}
    writers.get(kind, lambda: None)()
    with pytest.raises(DataError, match="has no rows"):
        Schema.infer(empty if kind == "DataFrame" else file, label="click")
