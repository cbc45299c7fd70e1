"""How much of each split the fit does not know: counted by hand, expected by training's rare tokens, said where it jumps."""

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import tfctr
from tfctr.cli import app
from tfctr.data import Dataset, Split
from tfctr.data.shares import count_ids, jumps
from tfctr.evaluation import evaluate
from tfctr.features import Categorical, Numeric, Sequence
from tfctr.models import LR
from tfctr.schema import Schema
from tfctr.serving import LocalServer, PredictionClient
from tfctr.serving.exporting.unseen import UnseenTokens

TRAIN = {
    "user": ["a", "a", "b", "b", "c", "d", "", "a"],  # 7 tokens; c and d once
    "item": ["1", "1", "1", "2", "2", "3", "3", "4"],  # with min_count 2: unknown 4; seen twice 2 and 3
    "tags": ["x|y|z", "x|y", "x", "", "|", "x|x|x", "y|y|y|y", "z"],  # kept 2 each: x y, x y, x, x x, y y, z
    "city": ["p"] * 8,
    "size": [1.0, 2.0, None, 4.0, 1.0, 2.0, 3.0, 4.0],
    "click": [0, 1] * 4,
}
TEST = {
    "user": ["a", "new", "", "newer"],
    "item": ["4", "1", "5", ""],
    "tags": ["x|y|z|u", "u", "", "u|v|w"],
    "city": ["q"] * 4,
    "size": [None, None, 1.0, 9.0],
    "click": [0, 1, 0, 1],
}
SCHEMA = Schema(
    [
        Categorical("user"),
        Categorical("item", min_count=2),
        Sequence("tags", max_length=2),
        Categorical("city", hash_buckets=5),
        Numeric("size", "scaled"),
    ],
    label="click",
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return tfctr.prepare(SCHEMA, train=TRAIN, test=TEST, out=tmp_path_factory.mktemp("shares") / "data")


def test_shares_by_hand(dataset):
    assert dataset.train.shares == {
        "user": {"missing": 1 / 8, "missing_in_training": 1 / 8, "unseen": 0.0, "expected": pytest.approx(2 / 7)},
        # Tokens seen at most twice: 2 2 3 3 4, five of eight.
        "item": {"missing": 0.0, "missing_in_training": 0.0, "unseen": 1 / 8, "expected": pytest.approx(5 / 8)},
        # Of what is kept, x y x y x x x y y z, z is there once.
        "tags": {
            "missing": 2 / 8,
            "missing_in_training": 2 / 8,
            "unseen": 0.0,
            "expected": pytest.approx(1 / 10),
            "cut": 3 / 8,
        },
        "city": {"missing": 0.0, "missing_in_training": 0.0},
        "size": {"missing": 1 / 8, "missing_in_training": 1 / 8},
    }
    shares = dataset.test.shares
    assert {name: share.get("unseen") for name, share in shares.items()} == {
        "user": pytest.approx(2 / 3),
        "item": pytest.approx(2 / 3),
        "tags": pytest.approx(3 / 5),  # x y u u v
        "city": None,
        "size": None,
    }
    assert (shares["tags"]["cut"], shares["size"]["missing"], shares["size"]["missing_in_training"]) == (2 / 4, 2 / 4, 1 / 8)


def test_a_folder_without_counts_says_nothing(dataset, tmp_path, caplog):
    folder = tmp_path / "old"
    shutil.copytree(dataset.folder, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["training"]
    for split in manifest["splits"].values():
        del split["counts"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    old = Dataset.load(folder)
    assert (old.test.shares, old.test.findings) == (None, ())
    assert old.schema.digest == dataset.schema.digest
    assert evaluate(LR(old.schema), old.test)["shares"] is None
    assert Split.from_arrays(dataset.test.ids, dataset.test.labels).shares is None


def rows(users, **columns):
    return {"user": users, **columns, "click": [row % 2 for row in range(len(users))]}


WRITTEN_OTHERWISE = {
    "as a float": (
        [f"{n % 9}.0" for n in range(200)],
        [str(n % 9) for n in range(100)],
        "'0', '1', '2'; known are '0.0', '1.0', '2.0'",
    ),
    "without zeros": ([f"00{n % 9}" for n in range(200)], [str(n % 9) for n in range(100)], "known are '000', '001', '002'"),
    "in another case": (["TRUE", "FALSE"] * 100, ["true", "false"] * 50, "'false', 'true'; known are 'FALSE', 'TRUE'"),
    "with spaces": (["a", "b"] * 100, [" a", "b "] * 50, "' a', 'b '; known are 'a', 'b'"),
}


@pytest.mark.parametrize("case", WRITTEN_OTHERWISE)
def test_tokens_written_otherwise_are_noticed(tmp_path, caplog, case):
    train, test, examples = WRITTEN_OTHERWISE[case]
    schema = Schema([Categorical("user", token_type="text")], label="click")
    with caplog.at_level(logging.WARNING, "tfctr"):
        dataset = tfctr.prepare(schema, train=rows(train), test=rows(test), out=tmp_path / "data")
    (warning,) = [record.message for record in caplog.records if "alone ranks" not in record.message]
    assert "the test split: 100.0% of the tokens of 'user' are unknown to the fit; rows like training's have 0.0%" in warning
    assert examples in warning
    assert dataset.test.shares["user"]["unseen"] == 1.0
    caplog.clear()
    with caplog.at_level(logging.WARNING, "tfctr"):
        found = evaluate(LR(dataset.schema), dataset.test)
    assert found["shares"] == dataset.test.shares
    assert any("100.0% of the tokens of 'user'" in record.message for record in caplog.records)


def test_a_wrong_separator_and_an_empty_column_are_noticed(tmp_path, caplog):
    schema = Schema([Sequence("tags", max_length=3), Numeric("price", "scaled")], label="click")
    lists = ["a|b|c", "b|c", "c|a"]
    train = {"tags": lists * 40, "price": [1.0, 2.0, 3.0] * 40, "click": [0, 1] * 60}
    test = {"tags": [text.replace("|", ",") for text in lists] * 20, "price": [None] * 60, "click": [0, 1] * 30}
    with caplog.at_level(logging.WARNING, "tfctr"):
        tfctr.prepare(schema, train=train, valid=train, test=test, out=tmp_path / "data")
    tags, price = [record.message for record in caplog.records]
    assert "the test split: 100.0% of the tokens of 'tags'" in tags
    assert "'a,b,c', 'b,c', 'c,a'; known are 'c', 'a', 'b'" in tags
    assert price == "the test split: 'price' is missing in 100.0% of the rows, in training in 0.0%."


def test_lists_that_repeat_a_token_of_their_own(tmp_path, caplog):
    """Left out, a row takes its own token with it, however often it is in there: 9 of 10 tokens; of x x y, y is rare."""
    schema = Schema([Sequence("session", max_length=10), Sequence("tags", max_length=3, min_count=2)], label="click")
    table = {
        "session": ["|".join([f"s{row}"] * 9 + ["home"]) for row in range(120)],
        "tags": ["x|x|y", "x|x|x", "z|z", "y"] * 30,
        "click": [0, 1] * 60,
    }
    table["tags"][:2] = ["x|x|once", "u|u|x"]  # without their rows: once 0, u 0; all others are frequent
    with caplog.at_level(logging.WARNING, "tfctr"):
        dataset = tfctr.prepare(schema, train=table, valid=0.1, test=0.2, out=tmp_path / "data")
        whole = tfctr.prepare(schema, train=table, out=tmp_path / "whole")
    assert not caplog.records
    assert whole.train.shares["session"]["expected"] == pytest.approx(9 / 10)
    assert whole.train.shares["tags"]["expected"] == pytest.approx(3 / (30 * 9))
    assert dataset.test.shares["session"]["unseen"] == pytest.approx(9 / 10)


def test_numbers_that_spread_over_many_buckets(tmp_path, caplog):
    """Of buckets seen once new rows have as many more: 0 and 1 often, each of 2 .. 31 once."""
    schema = Schema([Numeric("views"), Numeric("rare", min_count=2), Numeric("none")], label="click")
    buckets = [0.0, 1.0] * 30 + [float(np.exp(np.sqrt(bucket + 0.5))) for bucket in range(2, 32)]
    table = {"views": buckets, "rare": [1.0] * 86 + [8.0, 8.0, 9e9, None], "none": [None] * 90, "click": [0, 1] * 45}
    with caplog.at_level(logging.WARNING, "tfctr"):
        shares = tfctr.prepare(schema, train=table, test=table, out=tmp_path / "data").train.shares
        tfctr.prepare(schema, train=table, valid=0.2, test=0.2, out=tmp_path / "drawn")
    assert not caplog.records
    assert shares["views"]["expected"] == pytest.approx(30 / 90)
    assert shares["rare"]["expected"] == pytest.approx(3 / 89)  # 8 twice, and 9e9, which is unknown already
    assert "expected" not in shares["none"]


def test_rare_tokens_that_training_lets_expect_are_no_jump(tmp_path, caplog):
    """Tokens drawn from a long tail: of new rows more than a tenth is unknown, as training's tokens seen once say."""
    draws = np.random.default_rng(0).zipf(1.3, 4000).astype(str)
    with caplog.at_level(logging.WARNING, "tfctr"):
        dataset = tfctr.prepare(
            Schema([Categorical("user")], label="click"),
            train=rows(draws[:2000]),
            valid=rows(draws[2000:]),
            out=tmp_path / "data",
        )
    share = dataset.valid.shares["user"]
    assert share["unseen"] > 0.1
    # Good and Turing's estimate is off by about sqrt((singletons + 2 doubletons) / n): under 1 / sqrt(2000).
    assert share["unseen"] == pytest.approx(share["expected"], abs=3 / np.sqrt(2000))
    assert not caplog.records


@pytest.mark.parametrize(
    ("unseen", "tokens", "expected", "jumped"),
    [
        (1, 1, 0.0, True),
        (1, 10, 0.0, False),  # one of ten is chance
        (600, 10_000, 0.0, True),
        (500, 10_000, 0.0, False),
        (4000, 10_000, 0.3, False),  # not half as much again
        (5000, 10_000, 0.3, True),
        (10_000, 10_000, 1.0, False),
    ],
)
def test_what_a_jump_is(unseen, tokens, expected, jumped):
    counts = {"user": {"rows": tokens, "missing": 0, "tokens": tokens, "unseen": unseen}}
    assert bool([*jumps(counts, {"user": {"unseen": expected, "missing": 0.0}})]) is jumped


def test_counts_are_those_of_a_loop(tiny_schema, tiny_ids):
    ids = tiny_ids(200)
    counts = count_ids(tiny_schema, ids)
    for field in tiny_schema.fields:
        if field.feature.name in ("user", "item", "genres"):
            own = [[number - field.offset for number in row[field.columns].tolist()] for row in ids]
            assert counts[field.feature.name] == {
                "rows": 200,
                "missing": sum(row[0] == 1 for row in own),
                "tokens": sum(number > 1 for row in own for number in row),
                "unseen": sum(number == 2 for row in own for number in row),
            }
    assert counts["age"] == {"rows": 200, "missing": int(np.isnan(ids[:, 5].view("f4")).sum())}


def test_the_command_line_says_it(tmp_path):
    train, test = tmp_path / "train.csv", tmp_path / "test.csv"
    train.write_text("user,tags,click\n" + "".join(f"{n % 9}.0,a|b|c,{n % 2}\n" for n in range(90)))
    test.write_text("user,tags,click\n" + "".join(f"{n % 9},a|b,{n % 2}\n" for n in range(90)))
    (tmp_path / "schema.yaml").write_text(
        "label: click\nfeatures:\n- {name: user, type: categorical, token_type: text}\n"
        "- {name: tags, type: sequence, max_length: 2}\n"
    )
    arguments = ["prepare", tmp_path / "schema.yaml", "--train", train, "--test", test, "--out"]
    result = CliRunner().invoke(app, [str(argument) for argument in [*arguments, tmp_path / "data"]])
    assert result.exit_code == 0
    assert "test: tokens that the fit does not know: user 100.00% (0.00% expected)" in result.stderr
    assert "train: rows with more tokens than are kept: tags 100.00%" in result.stderr
    result = CliRunner().invoke(app, [str(argument) for argument in [*arguments, tmp_path / "json", "--json"]])
    shares = json.loads(result.stdout)["shares"]
    assert (shares["test"]["user"]["unseen"], shares["train"]["tags"]["cut"], shares["test"]["tags"]["cut"]) == (1.0, 1.0, 0.0)


# a model that is served


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A model of users "0" to "8", and nine more among 90 rows that are there once, published beside rows it does not know."""
    folder = tmp_path_factory.mktemp("served")
    users = [str(n % 9) for n in range(81)] + [f"once {n}" for n in range(9)]
    train = {"user": users, "tags/all": ["a|b"] * 90, "city": ["p"] * 90, "click": [0, 1] * 45}
    features = [Categorical("user"), Sequence("tags/all", max_length=2), Categorical("city", hash_buckets=5)]
    dataset = tfctr.prepare(Schema(features, label="click"), train=train, out=folder / "data")
    return tfctr.serving.publish_model(LR(dataset.schema), folder / "ctr", examples=STRANGE)


KNOWN = {"user": ["0", "1", "once 3", "8"], "tags/all": ["a|b", "a", "b", "a"], "city": ["p", "q", "", "z"]}
STRANGE = {"user": ["0.0", "1.0", "once 3", ""], "tags/all": ["a,b", "a", "", "b,a"], "city": ["p", "q", "", "z"]}
STRANGE = {name: column * 5 for name, column in STRANGE.items()}


@pytest.mark.slow
def test_publish_reports_the_rows_it_compares_on(published):
    assert published["unseen"] == {
        "user": {"unseen": 2 / 3, "expected": pytest.approx(0.1)},
        "tags/all": {"unseen": 2 / 3, "expected": 0.0},
    }
    record = json.loads((Path(published["folder"]) / "assets.extra" / "publication.json").read_text())
    assert record["unseen"] == published["unseen"]


def test_a_served_model_counts_what_it_does_not_know(published, caplog):
    base = Path(published["folder"]).parent
    with LocalServer(base) as server, PredictionClient(server.target, model="ctr") as client:
        known = client.unseen(KNOWN)
        assert {name: share["unseen"] for name, share in known.items()} == {"user": 0.0, "tags/all": 0.0}
        assert not [record for record in caplog.records if record.name.startswith("tfctr")]
        assert client.unseen(STRANGE) == published["unseen"]
        answered = client.answer(STRANGE, "unseen").outputs
    np.testing.assert_array_equal(answered["tags/all"], [[1, 1, 0], [1, 0, 0], [0, 0, 0], [1, 1, 0]] * 5)
    assert [record.message for record in caplog.records if record.levelno == logging.WARNING] == [
        f"the rows for model 'ctr': 66.7% of the tokens of {name!r} are unknown to the fit; rows like training's have {share}%."
        for name, share in (("tags/all", "0.0"), ("user", "10.0"))
    ]


def test_predict_reports_the_rows_of_a_file(published, tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({name: column[row] for name, column in STRANGE.items()}) + "\n" for row in range(20)))
    with LocalServer(Path(published["folder"]).parent) as server:
        result = CliRunner().invoke(app, ["predict", server.target, str(rows), "--model", "ctr"])
    assert (result.exit_code, len(result.stdout.splitlines())) == (0, 20)
    assert (
        "the first rows: tokens that the fit does not know: tags/all 66.67% (0.00% expected), user 66.67% (10.00%"
        in result.stderr
    )


@pytest.mark.slow
def test_a_version_that_cannot_count_may_follow_one_that_can(published, tmp_path):
    base = Path(published["folder"]).parent
    schema = Schema.load(base.parent / "data" / "schema.json")
    shutil.copytree(base.parent / "data" / "vocabulary", tmp_path / "vocabulary")  # and no manifest
    record = tfctr.serving.publish_model(LR(schema), base, vocabularies=tmp_path, dry_run=True, force="other weights")
    assert (record["compared_with"], record["unseen"]) == (1, None)
    assert not [failure for failure in record["failures"] if "signature" in failure]


def test_a_model_that_cannot_say_says_nothing(models, tiny_schema, tmp_path):
    assert UnseenTokens(tiny_schema).fields == []  # of a folder without a manifest
    shutil.copytree(models / "light", tmp_path / "ctr" / "1")
    rows = {"user": ["60", "nobody"], "price": [1.0, 2.0]}
    (tmp_path / "rows.jsonl").write_text('{"user": "nobody", "price": 1}\n')
    with LocalServer(tmp_path / "ctr") as server, PredictionClient(server.target, model="ctr") as client:
        assert client.unseen(rows) is None
        assert client.predict_file(tmp_path / "rows.jsonl").shape == (1,)
        assert client.shares is None


def test_buckets_beyond_64_bits_are_counted(tmp_path):
    train = {"x": [-1e258, 1.0, 1.0], "click": [1, 0, 0]}
    dataset = tfctr.prepare(Schema([Numeric("x", "log2_floor")], label="click"), train=train, out=tmp_path / "data")
    assert dataset.train.ids[:, 0].tolist() == [4, 3, 3]
    assert dataset.train.shares["x"]["unseen"] == 0
