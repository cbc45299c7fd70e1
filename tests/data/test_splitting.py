"""Shares of the training table by time and by group: which rows are where, what cannot be cut, and what is told of it."""

import datetime
import hashlib
import json
import logging

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from kit.commands import tfctr_

import tfctr
from tfctr import Categorical, Schema
from tfctr.errors import ConfigError, DataError
from tfctr.storage import read_json

ROWS = Schema([Categorical("place", token_type="text")], label="click")


def numbered(**columns):
    rows = len(next(iter(columns.values())))
    return {"place": [str(row) for row in range(rows)], **columns, "click": [row % 2 for row in range(rows)]}


WEIGHTED = Schema([Categorical("place")], label="click", weight="number")


def split(folder, table, schema=WEIGHTED, **arguments):
    """`{split: numbers of its rows}`: they are the weights."""
    table = {**table, "number": [*range(len(table["place"]))]}
    dataset = tfctr.prepare(schema, train=table, out=folder / f"data{len(list(folder.iterdir()))}", **arguments)
    return {name: found.weights.astype(int).tolist() for name, found in dataset.splits.items()}, dataset


def twice(times):
    """A table with two rows of each time, of both labels."""
    return {**numbered(time=[*times, *times]), "click": [0] * len(times) + [1] * len(times)}


# time


def test_the_last_rows_are_test_and_those_before_valid(tmp_path):
    times = [30, 10, 90, 20, 80, 40, 70, 50, 60, 100]
    table = {**numbered(time=times), "click": [0, 1, 0, 1, 0, 1, 1, 0, 0, 1]}
    found, dataset = split(tmp_path, table, valid=0.2, test=0.3, split_by_time="time")
    assert found == {"train": [0, 1, 3, 5, 7], "valid": [6, 8], "test": [2, 4, 9]}  # each in the order of the table
    manifest = read_json(dataset.folder / "manifest.json")
    assert manifest["division"] == {"by": "time", "column": "time", "from": {"train": 10, "valid": 60, "test": 80}}
    assert manifest["sources"]["test"] == 0.3


def test_rows_of_one_time_are_never_divided(tmp_path):
    """Of 20 rows, two of each time listed, 6 are asked for: the share begins at 14."""
    # those of time 9 lie at 12 to 20, their middle is 16: all are test
    found, _ = split(tmp_path, twice([0, 1, 2, 3, 4, 5, 9, 9, 9, 9]), test=0.3, split_by_time="time")
    assert found["test"] == [6, 7, 8, 9, 16, 17, 18, 19]
    # at 8 to 18, their middle is 13: none is
    found, _ = split(tmp_path, twice([0, 1, 2, 3, 9, 9, 9, 9, 9, 10]), test=0.3, split_by_time="time")
    assert found["test"] == [9, 19]
    # at 10 to 18, their middle is 14, where the share begins
    found, _ = split(tmp_path, twice([0, 1, 2, 3, 4, 9, 9, 9, 9, 10]), test=0.3, split_by_time="time")
    assert found["test"] == [5, 6, 7, 8, 9, 15, 16, 17, 18, 19]


@pytest.mark.sampled(3)
@pytest.mark.parametrize("seed", range(8))
def test_times_against_a_loop(seed, tmp_path):
    rng = np.random.default_rng(seed)
    rows = int(rng.integers(30, 90))
    times = rng.integers(0, int(rng.integers(8, 60)), rows) / 8
    shares = {"valid": 0.2, "test": float(rng.choice([0.15, 0.3]))}
    table = numbered(time=times)
    table["click"] = rng.permutation(rows) % 2
    found, _ = split(tmp_path, table, **shares, split_by_time="time", threads=1 + seed % 2)
    expected = {"train": [], "valid": [], "test": []}
    test = rows - round(shares["test"] * rows)
    valid = test - round(shares["valid"] * rows)
    for row, time in enumerate(times):
        before, here = (times < time).sum(), (times == time).sum()
        middle = before + here / 2
        expected["test" if middle >= test else "valid" if middle >= valid else "train"].append(row)
    assert found == expected
    latest = [max(times[found[name]]) for name in ("train", "valid")]
    earliest = [min(times[found[name]]) for name in ("valid", "test")]
    assert all(late < early for late, early in zip(latest, earliest, strict=True))


OFFSETS = ["2024-01-31T10:00:00+02:00", "2024-01-31 09:00Z", "2024-01-31 05:30:00-04:30", "2024-01-31 08:30", "2024/2/1"]


@pytest.mark.sampled(4)
@pytest.mark.parametrize(
    ("times", "last"),
    [
        ([2, 10, 1, 9.5, -3], 1),
        (["2", "10", "1", "9.5", " -3 "], 1),  # as a CSV file has them: not in the order of text
        ([1_706_695_200_000_000_000, 1_706_695_203_000_000_000, 0, 1, 2], 1),
        (["2024-01-09", "2024-01-10", "2023-12-31", "2024-1-2", "1969-12-31"], 1),
        ([*OFFSETS[:4], "2023/12/1"], 2),  # 08:00, 09:00, 10:00, 08:30
        (OFFSETS, 4),
        (["2024-01-31 10:00:00.25", "2024-01-31T10:00:00.5", "2024-01-31T10:00", *["2024-01-01 23:59:59.999"] * 2], 1),
        ([datetime.date(2024, 1, day) for day in (3, 9, 2, 1, 4)], 1),
        ([datetime.datetime(2024, 1, 3, 0, 0, 0, micro) for micro in (3, 9, 2, 1, 4)], 1),
    ],
    ids=str,
)
def test_times_of_all_kinds(times, last, tmp_path):
    found, _ = split(tmp_path, twice(times), test=0.2, split_by_time="time")
    assert found["test"] == [last, last + 5]


def test_times_of_files_and_of_columns_that_are_features(tmp_path):
    rng = np.random.default_rng(0)
    hours = pd.DataFrame({"hour": [f"2024-05-{1 + row // 24:02d} {row % 24:02d}:00" for row in rng.permutation(240)]})
    hours["click"] = rng.integers(0, 2, 240)
    hours[:100].to_csv(tmp_path / "a.csv", index=False)
    hours[100:].to_csv(tmp_path / "b.csv", index=False)
    schema = Schema([Categorical("hour")], label="click")
    files = tfctr.prepare(
        schema, train=str(tmp_path / "?.csv"), valid=0.1, test=0.1, split_by_time="hour", out=tmp_path / "files"
    )
    last = hours.hour >= "2024-05-10"
    assert files.test.rows == last.sum() == 24
    np.testing.assert_array_equal(files.test.labels, hours.click[last])
    typed = pa.table(
        {"hour": hours.hour, "when": pa.array(pd.to_datetime(hours.hour), pa.timestamp("s", "UTC")), "click": hours.click}
    )
    other = tfctr.prepare(schema, train=typed, valid=0.1, test=0.1, split_by_time="when", out=tmp_path / "typed")
    np.testing.assert_array_equal(files.valid.ids, other.valid.ids)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in hours.to_dict("records")))
    lines = tfctr.prepare(
        schema, train=tmp_path / "rows.jsonl", valid=0.1, test=0.1, split_by_time="hour", out=tmp_path / "lines"
    )
    np.testing.assert_array_equal(files.valid.ids, lines.valid.ids)


def refused(folder, error, *words, train, schema=ROWS, **arguments):
    with pytest.raises(error) as caught:
        tfctr.prepare(schema, train=train, out=folder / "out", **arguments)
    assert not (folder / "out").exists()
    assert caught.value.fix
    for word in words:
        assert word in str(caught.value), str(caught.value)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "null"),
        ("31/12/2024", "'31/12/2024'"),
        ("2024-02-30", "'2024-02-30'"),
        ("2024-01-31 10:00 PM", "'2024-01-31 10:00 PM'"),
        ("2024-01-31 10:00:00 Europe/Berlin", "Europe/Berlin"),
        ("noon", "'noon'"),
        ("nan", "'nan'"),
        ("inf", "'inf'"),
    ],
)
def test_what_is_no_time(value, shown, tmp_path):
    train = numbered(time=["2024-01-01", "2024-01-02", value, "2024-01-03"])
    words = ("column 'time', row 3", shown, "the time of the split", "1 such row")
    refused(tmp_path, DataError, *words, train=train, test=0.5, split_by_time="time")


def test_times_that_are_in_part_numbers(tmp_path):
    train = numbered(time=["2024-01-01", "2024-01-02", "7", "2024-01-03"])
    words = ("column 'time'", "a date in row 1", "a number in row 3")
    refused(tmp_path, DataError, *words, train=train, test=0.5, split_by_time="time")


def test_what_cannot_be_divided(tmp_path):
    table = numbered(time=[1] * 8, user=["a"] * 8)
    for arguments, error, words in (
        ({"test": 0.2, "split_by_time": "time"}, DataError, "test (a fraction of 0.2 of the train table) has no rows"),
        ({"test": 0.9, "split_by_time": "time"}, DataError, "train table has no rows"),
        ({"test": 0.2, "split_by_group": "user"}, DataError, "has no rows"),
        ({"test": 0.2, "split_by_time": "when"}, DataError, "has no column 'when' (the time of the split)"),
        ({"test": 0.2, "split_by_group": "who"}, DataError, "has no column 'who' (the group of the split)"),
        ({"test": 0.2, "split_by_group": "user", "split_by_time": "time"}, ConfigError, "are both given"),
        ({"split_by_time": "time"}, ConfigError, "neither `valid` nor `test` is a share"),
        ({"test": table, "split_by_group": "user"}, ConfigError, "neither `valid` nor `test` is a share"),
        ({"test": 0.2, "split_by_group": 3}, ConfigError, "`split_by_group` is 3"),
        ({"test": 0.2, "split_by_time": ""}, ConfigError, "`split_by_time` is ''"),
    ):
        refused(tmp_path, error, words, train=table, **arguments)
    missing = numbered(user=["a", None, "b", "c"])
    refused(tmp_path, DataError, "column 'user', row 2", "null", train=missing, test=0.5, split_by_group="user")


# groups


def users(rows, of, seed=0):
    rng = np.random.default_rng(seed)
    table = numbered(user=[f"u{number}" for number in rng.integers(0, of, rows)])
    return {**table, "click": rng.integers(0, 2, rows).tolist()}


def test_a_user_is_in_one_split_which_a_hash_draws(tmp_path):
    table = users(3000, of=400)
    found, dataset = split(tmp_path, table, valid=0.1, test=0.2, split_by_group="user", seed=5)
    for name, low, high in (("valid", 0.0, 0.1), ("test", 0.1, 0.3), ("train", 0.3, 1.0)):
        hashed = [int(hashlib.md5(f"5/{user}".encode()).hexdigest()[:8], 16) / 2**32 for user in table["user"]]
        assert found[name] == [row for row, draw in enumerate(hashed) if low <= draw < high]
    shares = {name: len({table["user"][row] for row in rows}) / 400 for name, rows in found.items()}
    assert shares["test"] == pytest.approx(0.2, abs=0.07)
    assert read_json(dataset.folder / "manifest.json")["division"] == {"by": "group", "column": "user", "seed": 5}


def test_a_user_keeps_its_split(tmp_path):
    table = users(600, of=60)
    fewer = {name: values[::-1][:300] for name, values in table.items()}
    (whole, _), (half, _) = (split(tmp_path, some, test=0.3, split_by_group="user") for some in (table, fewer))
    whole, half = ({some["user"][row] for row in found["test"]} for some, found in ((table, whole), (fewer, half)))
    assert half == whole & set(fewer["user"])
    other, _ = split(tmp_path, table, test=0.3, split_by_group="user", seed=1)
    assert {table["user"][row] for row in other["test"]} != whole


@pytest.mark.slow
def test_threads_do_not_matter(tmp_path):
    table = {**users(30_000, of=500), "time": np.random.default_rng(0).integers(0, 50, 30_000)}
    for arguments in ({"split_by_group": "user"}, {"split_by_time": "time"}):
        (one, _), (four, _) = (split(tmp_path, table, valid=0.1, test=0.1, threads=threads, **arguments) for threads in (1, 4))
        assert one == four


def test_a_share_beside_a_file_and_in_an_extension(tmp_path):
    table = users(200, of=20)
    schema = Schema([Categorical("user")], label="click", group="user")
    first = tfctr.prepare(
        schema, train=table, test=users(50, of=20, seed=1), valid=0.3, split_by_group="user", out=tmp_path / "a"
    )
    assert first.test.rows == 50
    assert (first.train.rows + first.valid.rows, first.valid.known_groups) == (200, 0.0)
    second = tfctr.prepare(extend=first, train=table, valid=0.3, split_by_group="user", out=tmp_path / "b")
    assert second.valid.rows == first.valid.rows
    assert second.extension["features"]["user"]["new"] == 0


# what is told


def test_groups_on_both_sides_are_told(tmp_path, caplog):
    schema = Schema([Categorical("place")], label="click", group="user")
    table = numbered(user=[*"abcdabcdef"], time=[*range(10)])
    with caplog.at_level(logging.INFO, logger="tfctr"):
        dataset = tfctr.prepare(schema, train=table, valid=0.2, test=0.4, split_by_time="time", out=tmp_path / "time")
    # train a b c d, valid a b, test c d e f
    assert (dataset.train.known_groups, dataset.valid.known_groups, dataset.test.known_groups) == (None, 1.0, 0.5)
    assert "the test split: rows from 6 on, by the column 'time'" in caplog.text
    assert not [one for one in dataset.test.findings if "also in training" in one]  # of time it is normal
    plain = tfctr.prepare(Schema([Categorical("place")], label="click"), train=table, test=table, out=tmp_path / "plain")
    assert plain.test.known_groups is None


def test_groups_on_both_sides_of_a_split_by_group_are_a_warning(tmp_path, caplog):
    schema = Schema([Categorical("place", hash_buckets=3)], label="click", group="user")
    train, test = users(300, of=30), users(100, of=60, seed=1)
    known = {train["user"][row] for row in split(tmp_path, train, valid=0.3, split_by_group="user")[0]["train"]}
    share = sum(user in known for user in test["user"]) / 100
    caplog.clear()
    dataset = tfctr.prepare(schema, train=train, valid=0.3, test=test, split_by_group="user", out=tmp_path / "out")
    said = f"the test split: {share:.1%} of its rows have a 'user' that is also in training, which was split by it."
    assert 0 < share < 1
    assert said in caplog.text
    assert said in dataset.test.findings
    assert dataset.valid.findings == ()
    assert tfctr.Dataset.load(dataset.folder).test.known_groups == share
    other = tfctr.prepare(schema, train=train, valid=0.3, test=test, split_by_group="place", out=tmp_path / "other")
    assert not [one for one in other.test.findings if "split by it" in one]


def test_the_command_line(tmp_path):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "user": rng.integers(0, 50, 1000),
            "at": [f"2024-06-{1 + row // 100:02d}" for row in range(1000)],
            "click": rng.integers(0, 2, 1000),
        }
    )
    frame.to_csv(tmp_path / "clicks.csv", index=False)
    Schema([Categorical("user")], label="click", group="user").save(tmp_path / "schema.yaml")
    given = ("prepare", tmp_path / "schema.yaml", "--train", tmp_path / "clicks.csv", "--valid", "0.1", "--test", "0.1")
    done = tfctr_(*given, "--split-by-time", "at", "--out", tmp_path / "time", "--json")
    assert done.exit_code == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["train_rows"], said["valid_rows"], said["test_rows"]) == (800, 100, 100)
    assert said["profiles"]["test"]["known_groups"] == 1.0
    assert read_json(tmp_path / "time" / "manifest.json")["division"]["from"]["test"] == "2024-06-10T00:00:00"
    assert "100.00% of the rows have a group that is also in training" in done.stderr
    done = tfctr_(*given, "--split-by-group", "user", "--out", tmp_path / "user", "--json")
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["profiles"]["test"]["known_groups"] == 0.0
    done = tfctr_(*given, "--split-by-group", "user", "--split-by-time", "at", "--out", tmp_path / "both")
    assert done.exit_code == ConfigError.exit_code
