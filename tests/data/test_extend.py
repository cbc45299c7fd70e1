"""`tfctr.prepare(extend=...)`: known tokens keep their ids, new ones come in order, and none goes unless that is asked for."""

import collections
import logging

import numpy as np
import pytest
from kit.growing import USERS, Days, counts, users, vocabulary
from kit.prepare_oracle import tokens_of

import tfctr
from tfctr import Categorical, Numeric, Schema, Sequence
from tfctr.errors import ConfigError
from tfctr.features import FIRST_KNOWN, OUT_OF_VOCABULARY
from tfctr.storage import read_json

# by hand


def test_known_tokens_keep_their_ids_and_new_ones_come_in_order(tmp_path):
    days = Days(tmp_path, USERS, users("aabbbc"))
    assert vocabulary(days.days[0]) == ["b", "a"]
    assert days.days[0].extension is None
    # x and y twice, z three times; a once, which is enough for a known one; c and w once, which is not for a new one
    found = days.extend(users("xyzzzayxcw"))
    assert vocabulary(found) == ["b", "a", "z", "x", "y"]
    assert found.train.ids[:, 0].tolist() == [6, 7, 5, 5, 5, 4, 7, 6, 2, 2]
    assert found.extension == {
        "digest": days.days[0].schema.digest,
        "tables": 2,
        "features": {"user": {"known": 2, "seen_again": 1, "new": 3, "evicted": 0, "left_out": 0}},
    }
    assert found.schema.features[0].size == 8
    assert found.schema.digest != days.days[0].schema.digest
    assert tfctr.Dataset.load(found.folder).extension == found.extension


def test_nothing_new_is_the_same_fit(tmp_path):
    days = Days(tmp_path, USERS, users("aabbbc"))
    found = days.extend(users("bc"))
    assert counts(found) == (2, 1, 0, 0, 0)
    assert found.schema.digest == days.days[0].schema.digest
    assert found.extension["tables"] == 2


def test_a_vocabulary_grows_up_to_its_cap(tmp_path, caplog):
    days = Days(tmp_path, USERS, users("aabb"))
    with caplog.at_level(logging.INFO, logger="tfctr"):
        found = days.extend(users("xxyyyzzww"), max_tokens=3)
    assert vocabulary(found) == ["a", "b", "y"]
    assert counts(found) == (2, 0, 1, 0, 3)
    said = "column 'user': 3 new tokens are left out, since its vocabulary has 3, and `max_tokens` is 3"
    assert said in caplog.text
    assert found.train.ids[:, 0].tolist() == [2, 2, 5, 5, 5, 2, 2, 2, 2]
    full = days.extend(users("xxzz"), max_tokens=2)  # a vocabulary that is larger already stays so
    assert vocabulary(full) == ["a", "b", "y"]
    assert counts(full) == (3, 0, 0, 0, 2)


def test_rows_of_tokens_long_unseen_are_taken_first(tmp_path):
    days = Days(tmp_path, USERS, users("ddccbbaa"))
    assert vocabulary(days.days[0]) == [*"abcd"]
    days.extend(users("ad"))  # b and c were last seen in table 1, a and d in table 2
    days.extend(users("dd"))
    assert [vocabulary(day) for day in days.days] == [[*"abcd"]] * 3
    # Of the last two tables, 3 and 4, none holds a, b or c. b and c are the longest unseen, b has the lower id.
    one = days.extend(users("xxd"), evict_after=2)
    assert vocabulary(one) == [*"axcd"]
    assert counts(one) == (4, 1, 1, 1, 0)
    # Tables 4 and 5 hold neither a nor c, but x and d. Three new ones take the rows of c and a, and then one more.
    more = days.extend(users("pppqqrr"), evict_after=2)
    assert vocabulary(more) == [*"qxpdr"]
    assert counts(more) == (4, 0, 3, 2, 0)
    # b was forgotten, and comes as a new one. All that this table lacks may go now: x and d, and x has the lower id.
    last = days.extend(users("bbqpr"), evict_after=1)
    assert vocabulary(last) == [*"qbpdr"]
    with np.load(last.folder / "last_seen.npz") as arrays:
        assert arrays["last_seen0"].tolist() == [6, 6, 6, 4, 6]
    assert last.extension["tables"] == 6


def test_a_full_vocabulary_changes_by_the_rows_of_others_alone(tmp_path):
    days = Days(tmp_path, USERS, users("aabbcc"))
    found = days.extend(users("bxxyyyz"), max_tokens=3, evict_after=1)
    assert vocabulary(found) == ["y", "b", "x"]
    assert counts(found) == (3, 1, 2, 2, 0)
    again = days.extend(users("bypppqqqrrr"), max_tokens=4, evict_after=1)
    assert vocabulary(again) == ["y", "b", "p", "q"]  # the row of x, one more, and no room for r
    assert counts(again) == (3, 2, 2, 1, 1)


def test_nothing_is_forgotten_unless_asked(tmp_path):
    days = Days(tmp_path, USERS, users("aabb"))
    for letters in ("ccdd", "eeff", "gghh"):
        days.extend(users(letters))
    assert vocabulary(days.days[-1]) == [*"abcdefgh"]
    assert counts(days.days[-1]) == (6, 0, 2, 0, 0)


def test_tokens_of_lists(tmp_path):
    schema = Schema([Sequence("tags", max_length=2, min_count=2)], label="click")
    days = Days(tmp_path, schema, {"tags": ["a|b", "b|a", "c|c"], "click": [0, 1, 0]})
    assert vocabulary(days.days[0]) == ["a", "b", "c"]
    # the third token of a row counts nowhere: z has one, y two, c is not held
    found = days.extend({"tags": ["y|a|z", "z|y|c", "", "y|y|z"], "click": [0, 1, 0, 1]})
    assert vocabulary(found) == ["a", "b", "c", "y"]
    assert found.train.ids.tolist() == [[6, 3], [2, 6], [1, 0], [6, 6]]
    assert counts(found, "tags") == (3, 1, 1, 0, 0)


def test_numbers_and_hashed_tokens_stay_as_they_are(tmp_path):
    features = [
        Numeric("scaled", "scaled"),
        Numeric("quantile", "quantile", buckets=3),
        Numeric("edges", "edges", edges=[1.0]),
        Numeric("log", "log2_floor"),
        Categorical("hashed", hash_buckets=5),
    ]
    schema = Schema(features, label="click")
    rows = {
        **{name: [0, 1, 2, 1] for name in ("scaled", "quantile", "edges", "log")},
        "hashed": [*"abcd"],
        "click": [0, 1, 0, 1],
    }
    days = Days(tmp_path, schema, rows)
    moved = {**rows, **{name: [5000, 1, 2, 900] for name in ("scaled", "quantile", "edges", "log")}, "hashed": [*"xyzx"]}
    found = days.extend(moved, evict_after=1)
    assert found.schema.to_dict() == days.days[0].schema.to_dict()
    assert found.extension["features"] == {}
    encoded = tfctr.encode(days.days[0], moved, out=tmp_path / "encoded")
    np.testing.assert_array_equal(found.train.ids, encoded.test.ids)
    assert found.train.shares["log"] == {"unseen": 0.5, "expected": 0.5, "missing": 0.0, "missing_in_training": 0.0}
    np.testing.assert_array_equal(days.extend(rows).train.ids, days.days[0].train.ids)


def test_the_form_of_tokens_stays(tmp_path):
    schema = Schema([Categorical("item")], label="click")
    days = Days(tmp_path, schema, {"item": ["7", "8", "7"], "click": [0, 1, 0]})
    found = days.extend({"item": ["07", "8.0", "x1", " 9"], "click": [0, 1, 0, 1]})
    assert found.schema.features[0].token_type == "whole"
    assert vocabulary(found) == ["7", "8", "9", "x1"]
    assert found.train.ids[:, 0].tolist() == [3, 4, 6, 5]


def test_tokens_with_line_breaks_stay_out(tmp_path):
    days = Days(tmp_path, Schema([Categorical("user")], label="click"), users("ab"))
    found = days.extend({"user": ["x\ny", "x\ny", "z\r", "c"], "click": [0, 1, 0, 1]})
    assert vocabulary(found) == ["a", "b", "c"]
    assert counts(found) == (2, 0, 1, 0, 0)
    assert found.train.ids[:, 0].tolist() == [2, 2, 2, 5]


# against a loop over rows


def grown(known, last_seen, feature, rows, table, max_tokens, evict_after):
    """The vocabulary after a further table, when each of its tokens was last seen, and the counts that are told."""
    held = collections.Counter(token for value in rows for token in tokens_of(feature, value))
    new = sorted(
        (token for token in held if token not in known and held[token] >= feature.min_count), key=lambda t: (-held[t], t)
    )
    last_seen = [table if token in held else seen for token, seen in zip(known, last_seen, strict=True)]
    told = [len(known), sum(token in held for token in known)]
    free = [place for place, seen in enumerate(last_seen) if evict_after is not None and seen <= table - evict_after]
    free.sort(key=lambda place: (last_seen[place], place))
    known, evicted, came = [*known], 0, 0
    for token in new:
        if free:
            place, evicted = free.pop(0), evicted + 1
            known[place], last_seen[place] = token, table
        elif max_tokens is None or len(known) < max_tokens:
            known.append(token)
            last_seen.append(table)
        else:
            continue
        came += 1
    return known, last_seen, (*told, came, evicted, len(new) - came)


def unknown_without_their_row(feature, before, rows):
    """How many tokens of rows no fit would know that had not seen their row."""
    held = collections.Counter(token for value in rows for token in tokens_of(feature, value))
    return sum(
        token not in before and held[token] - collections.Counter(tokens_of(feature, value))[token] < feature.min_count
        for value in rows
        for token in tokens_of(feature, value)
    )


@pytest.mark.sampled(2)
@pytest.mark.parametrize("seed", range(6))
def test_three_days_against_a_loop(seed, tmp_path):
    rng = np.random.default_rng(seed)
    features = [
        Categorical("one", min_count=1),
        Categorical("two", min_count=2),
        Sequence("list", 3, min_count=2),
        Sequence("last", 2, keep="last"),
    ]
    schema = Schema([Numeric("price", "scaled"), *features], label="click")
    letters = np.array([f"é{number}" if number % 3 else f"t{number}" for number in range(30)])

    def table(day):
        rows = int(rng.integers(4, 40))
        some = letters[day * 5 : day * 5 + 14]
        lists = [["|".join(rng.choice(some, rng.integers(0, 5))) for _ in range(rows)] for _ in range(2)]
        singles = [[None if rng.random() < 0.1 else str(rng.choice(some)) for _ in range(rows)] for _ in range(2)]
        names = ("one", "two", "list", "last")
        return {**dict(zip(names, singles + lists, strict=True)), "price": rng.random(rows), "click": np.arange(rows) % 2}

    days = Days(tmp_path, schema, first := table(0), threads=1)
    known = {f.name: grown([], [], f, first[f.name], 1, None, None)[:2] for f in features}
    for day in (1, 2, 3):
        limits = {
            "max_tokens": None if rng.random() < 0.4 else int(rng.integers(5, 20)),
            "evict_after": None if rng.random() < 0.3 else int(rng.integers(1, 4)),
        }
        dataset = days.extend(rows := table(day), threads=1 + day % 2, **limits)
        with np.load(dataset.folder / "last_seen.npz") as arrays:
            last_seen = {name: arrays[f"last_seen{place}"].tolist() for place, name in enumerate(arrays["names"].tolist())}
        assert last_seen.keys() == known.keys()
        for place, feature in enumerate(features, 1):
            name = feature.name
            before = known[name][0]
            *known[name], told = grown(*known[name], feature, rows[name], day + 1, **limits)
            assert (vocabulary(dataset, place), last_seen[name]) == tuple(known[name])
            assert counts(dataset, name) == told
            ids = {token: FIRST_KNOWN + rank for rank, token in enumerate(known[name][0])}
            field = dataset.schema.fields[place]
            for value, cells in zip(rows[name], dataset.train.ids[:, field.columns] - field.offset, strict=True):
                found = [ids.get(token, OUT_OF_VOCABULARY) for token in tokens_of(feature, value)]
                assert cells[: max(1, len(found))].tolist() == (found or [1])
            of = sum(len(tokens_of(feature, value)) for value in rows[name])
            if limits["max_tokens"] is None and of:
                expected = unknown_without_their_row(feature, before, rows[name]) / of
                assert dataset.train.shares[name]["expected"] == pytest.approx(expected, rel=1e-12)


# what the manifest says, and what is made of an extended folder


def test_known_tokens_are_expected_again(tmp_path):
    """Of a, b, c, d, d: without its row only c would be unknown, since a and b are known from before."""
    days = Days(tmp_path, Schema([Categorical("user")], label="click"), users("aab"))
    found = days.extend(users("abcdd"), test=users("aabbcx"))
    assert found.train.shares["user"]["expected"] == 1 / 5
    assert found.test.shares["user"]["unseen"] == 1 / 6
    assert found.test.profile["user"]["in_training"] == 2 / 5  # d, of the new table
    manifest = read_json(found.folder / "manifest.json")
    assert manifest["training"]["user"] == {"rows": 5, "missing": 0.0, "unseen": 0.2}


def test_an_extended_dataset_is_one_like_others(tmp_path):
    days = Days(tmp_path, USERS, users("aabb"))
    found = days.extend(users("xxyyab" * 20), valid=0.3, test=0.3)
    model = tfctr.models.LR(found.schema)
    model.compile()
    model.fit(found.train.batches(10), validation_data=found.valid.batches(10), verbose=0)
    encoded = tfctr.encode(found, users("axbz"), out=tmp_path / "encoded")
    assert encoded.test.ids[:, 0].tolist() == [3, 5, 4, 2]
    assert encoded.extension is None
    assert encoded.test.shares["user"]["expected"] == 0.0
    tfctr.evaluation.evaluate(model, encoded.test)
    with pytest.raises(ConfigError, match="is of another fit"):
        tfctr.evaluation.evaluate(model, days.days[0].train)
    assert tfctr.drift(found, users("axbz"))["user"]["unseen"] == 0.25


@pytest.mark.slow
def test_any_number_of_threads_writes_the_same_bytes(tmp_path):
    rng = np.random.default_rng(0)
    schema = Schema([Categorical("user"), Sequence("tags", 3), Numeric("price", "scaled")], label="click")

    def table(start):
        tags = ["|".join(map(str, rng.integers(start, start + 3000, 3))) for _ in range(4_000)]
        return {
            "user": rng.integers(start, start + 3000, 4_000),
            "tags": tags,
            "price": rng.random(4_000),
            "click": [0, 1] * 2_000,
        }

    first = tfctr.prepare(schema, train=table(0), out=tmp_path / "first")
    second = table(1000)
    folders = [
        tfctr.prepare(extend=first, train=second, valid=0.1, out=tmp_path / f"{threads}", threads=threads, evict_after=1).folder
        for threads in (1, 4, None)
    ]
    one, *others = [
        {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()} for folder in folders
    ]
    assert "last_seen.npz" in one
    assert all(one == other for other in others)
