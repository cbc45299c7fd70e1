"""One table, as CSV by hand and by pandas, Parquet, JSON lines and in memory: the same ids, and, served, the same bits."""

import csv
import json

import numpy as np
import pandas as pd
import pytest
from kit.randomized import randomize
from kit.saved_models import client_of, texts

import tfctr
from tfctr.features import Categorical, Numeric, Sequence
from tfctr.models import MODELS
from tfctr.schema import Schema
from tfctr.serving.client.row_files import read_examples
from tfctr.serving.exporting.tf_examples import make_tf_examples
from tfctr.serving.runtime.saved_model import SavedModel
from tfctr.serving.runtime.stand_in import LocalServer

SCHEMA = Schema(
    [
        Categorical("flag"),
        Categorical("code"),
        Categorical("zip"),
        Categorical("size"),
        Categorical("day"),
        Categorical("hashed", hash_buckets=1000),
        Sequence("tags", max_length=3),
        Sequence("steps", max_length=2, separator=";"),
        Numeric("price", "scaled"),
    ],
    label="click",
)
FORMS = ["boolean", "whole", "whole", "number", "text", "whole", "text", "whole"]
ROWS = 40


def typed():
    """The table as JSON has it."""
    return [
        {
            "flag": (True, False, None)[row % 3],
            "code": None if row % 7 == 3 else 2**40 + row % 5,
            "zip": f"{row % 6 * 101:05d}",
            "size": (0.5, 1.0, 36.25, None)[row % 4],
            "day": f"2024-01-{1 + row % 9:02d}",
            "hashed": row % 11 if row % 5 else None,
            "tags": ["a", "b", "c d"][: row % 4],
            "steps": [row % 3, row % 2],
            "price": row / 8 if row % 9 else None,
            "click": row % 2,
        }
        for row in range(ROWS)
    ]


def as_text(value, separator="|"):
    if isinstance(value, list):
        return separator.join(map(str, value))
    return "" if value is None else str(value)


def by_hand():
    """The table as a person writes it: TRUE, 0.50."""
    rows = [{name: as_text(value, ";" if name == "steps" else "|") for name, value in row.items()} for row in typed()]
    return [{**row, "flag": row["flag"].upper(), "size": row["size"].replace("0.5", "0.50")} for row in rows]


def write_csv(path):
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, by_hand()[0])
        writer.writeheader()
        writer.writerows(by_hand())
    return path


def frame(folder):
    """What pandas makes of the CSV file: floats for whole numbers beside missing ones, 101 for 00101."""
    return pd.read_csv(write_csv(folder / "read.csv"))


def write_pandas_csv(folder):
    frame(folder).to_csv(folder / "pandas.csv", index=False)
    return folder / "pandas.csv"


def write_lists_csv(folder):
    pd.DataFrame(typed()).to_csv(folder / "lists.csv", index=False)  # ['a', 'b'] as text
    return folder / "lists.csv"


def write_parquet(folder):
    pd.DataFrame(typed()).to_parquet(folder / "typed.parquet")
    return folder / "typed.parquet"


def write_json(folder):
    (folder / "typed.jsonl").write_text("".join(json.dumps(row) + "\n" for row in typed()))
    return folder / "typed.jsonl"


SOURCES = {
    "a CSV file by hand": lambda folder: write_csv(folder / "hand.csv"),
    "a CSV file by pandas": write_pandas_csv,
    "a CSV file with lists": write_lists_csv,
    "Parquet": write_parquet,
    "JSON lines": write_json,
    "a DataFrame that was read": frame,
    "a DataFrame that was made": lambda folder: pd.DataFrame(typed()),
    "a dictionary": lambda folder: {name: [row[name] for row in typed()] for name in typed()[0]},
}


@pytest.fixture(scope="module")
def by_source(tmp_path_factory):
    """The dataset of each source."""
    datasets = {}
    for number, (name, source) in enumerate(SOURCES.items()):
        folder = tmp_path_factory.mktemp(f"source{number}")
        datasets[name] = tfctr.prepare(SCHEMA, train=source(folder), out=folder / "data")
    return datasets


@pytest.fixture(scope="module")
def prepared(by_source):
    return by_source["a CSV file by hand"]


@pytest.mark.parametrize("source", SOURCES)
def test_every_source_gives_the_same_ids(by_source, prepared, source):
    dataset = by_source[source]
    assert [feature.token_type for feature in dataset.schema.features[:-1]] == FORMS
    assert dataset.schema.to_dict() == prepared.schema.to_dict()
    np.testing.assert_array_equal(dataset.train.ids, prepared.train.ids)


@pytest.fixture(scope="module")
def served(prepared, tmp_path_factory):
    """The version, a server of it, and the probability of each row."""
    model = randomize(MODELS["LR"](prepared.schema), scale=0.5)
    version = tfctr.serving.export(model, tmp_path_factory.mktemp("served") / "ctr")
    with LocalServer(version.parent, port=0) as server:
        yield version, server, model.predict(prepared.train.ids, batch_size=ROWS, verbose=0)[:, 0]


def cells(folder):
    """The CSV file as a service reads it: all text."""
    with open(write_csv(folder / "rows.csv"), encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def records(folder):
    """The DataFrame as a service has it: one row after the other."""
    return frame(folder).to_dict("records")


FORMS_OF_ROWS = {
    "a DataFrame that was read": frame,
    "a DataFrame that was made": lambda folder: pd.DataFrame(typed()),
    "rows of a DataFrame": records,
    "rows of JSON": lambda folder: typed(),
    "rows of a CSV file": cells,
}


@pytest.mark.parametrize("rows", FORMS_OF_ROWS)
def test_the_client_serves_every_form_of_row_the_same_bits(served, tmp_path, rows):
    _, server, expected = served
    with client_of(server) as client:
        answers = client.predict(FORMS_OF_ROWS[rows](tmp_path))
    np.testing.assert_array_equal(answers.view(np.int32), expected.view(np.int32))


def test_raw_requests_and_examples_have_the_same_bits(served, prepared):
    version, _, expected = served
    rows, model = by_hand(), SavedModel(version)
    columns = {feature.name: texts(*(row[feature.name] for row in rows)) for feature in SCHEMA.features}
    columns["price"] = np.array([float(row["price"] or "nan") for row in rows])
    examples = np.array(make_tf_examples(prepared.schema, {name: column.tolist() for name, column in columns.items()}), object)
    answers = {
        "columns": model.run("serving_default", columns)["probability"],
        "ids": model.run("ids", {"ids": prepared.train.ids})["probability"],
        "examples": model.run("regress", {"inputs": examples})["outputs"],
    }
    for form, answer in answers.items():
        np.testing.assert_array_equal(answer.view(np.int32), expected.view(np.int32), form)


def test_the_whole_spread_of_probabilities_is_seen(served):
    assert len(np.unique(served[2])) > ROWS / 2


@pytest.mark.slow
def test_the_raw_table_itself_is_served_and_published(tmp_path):
    """A CSV file whose columns have names that no served input can have."""
    file = tmp_path / "raw.csv"
    lines = [f"{row % 7}.0;{row / 4};{row % 2}\n" for row in range(ROWS)]
    file.write_text("Artikel Nr.;Preis €;click\n" + "".join(lines), encoding="utf-8")
    features = [Categorical("item", column="Artikel Nr."), Numeric("price", "scaled", column="Preis €")]
    dataset = tfctr.prepare(Schema(features, label="click"), train=file, out=tmp_path / "data")
    model = randomize(MODELS["LR"](dataset.schema), scale=0.5)
    version = tfctr.serving.export(model, tmp_path / "ctr", examples=read_examples(file))
    with LocalServer(version.parent, port=0) as server, client_of(server) as client:
        answers = client.predict_file(file)
    expected = model.predict(dataset.train.ids, batch_size=ROWS, verbose=0)[:, 0]
    np.testing.assert_array_equal(answers.view(np.int32), expected.view(np.int32))
