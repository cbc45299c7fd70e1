"""What `infer` says of tables that it cannot draft from."""

import re

import pandas as pd
import pytest
from sklearn.datasets import dump_svmlight_file

from tfctr.errors import ConfigError, DataError
from tfctr.schema import Schema

CLICKS = pd.DataFrame({"user": ["a", "b"], "price": [1.5, 2.0], "click": [0, 1]})


@pytest.mark.parametrize("kind", ["csv", "parquet", "DataFrame"])
def test_a_table_without_rows(tmp_path, kind):
    file, empty = tmp_path / f"t.{kind}", CLICKS[:0]
    writers = {"csv": lambda: empty.to_csv(file, index=False), "parquet": lambda: empty.to_parquet(file)}
    writers.get(kind, lambda: None)()
    with pytest.raises(DataError, match="has no rows"):
        Schema.infer(empty if kind == "DataFrame" else file, label="click")


def test_columns_of_equal_names_alone(tmp_path):
    (tmp_path / "t.csv").write_text("a,a,click\n1,2,0\n2,1,1\n")
    with pytest.raises(DataError, match=r"no column that can be a feature(.|\n)*columns named 'a' a name of its own"):
        Schema.infer(tmp_path / "t.csv", label="click")


@pytest.mark.parametrize("name", ["t.libsvm", "t.txt"])
def test_the_advice_on_libsvm_works_as_it_stands(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    dump_svmlight_file([[1, 0, 2.5], [2, 1, 0], [3, 1, 1]], [-1, 1, 1], name)
    with pytest.raises(ConfigError) as refused:
        Schema.infer(name, label="click")
    exec(re.search("import pandas.*", refused.value.fix)[0].replace("FILE", name), {})
    schema = Schema.infer("table.parquet", label="click")
    assert [feature.name for feature in schema.features] == ["c0", "c1", "c2"]
