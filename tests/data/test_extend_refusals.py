"""`tfctr.prepare(extend=...)`: what cannot be extended, and the command line."""

import json

import numpy as np
import pytest
from kit.commands import tfctr_
from kit.growing import USERS, Days, users, vocabulary

import tfctr
from tfctr.data import fitting
from tfctr.errors import ConfigError, DataError, StorageError
from tfctr.storage import read_json, sha256, write_json

# what cannot be extended


@pytest.fixture
def extended(tmp_path):
    """A folder that has been extended once."""
    return Days(tmp_path, USERS, users("aabb")).extend(users("ccab")).folder


def test_a_damaged_state_is_refused(extended, tmp_path):
    state = extended / "last_seen.npz"
    whole = state.read_bytes()
    state.write_bytes(whole[:-30])
    for use in (
        lambda: tfctr.Dataset.load(extended),
        lambda: tfctr.prepare(extend=extended, train=users("ab"), out=tmp_path / "x"),
    ):
        with pytest.raises(StorageError, match=r"last_seen.npz is not the file that was written"):
            use()
    state.unlink()
    with pytest.raises(StorageError, match=r"last_seen.npz is missing"):
        tfctr.prepare(extend=extended, train=users("ab"), out=tmp_path / "x")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        (b"no archive", "cannot be read"),
        ([1, 1], "is not of this dataset: see 'user'"),
        ([1, 1, 3], "is not of this dataset"),
        ([0, 1, 2], "is not of this dataset"),
        ([1.0, 1.0, 2.0], "is not of this dataset"),
        (None, "is not of this dataset"),
    ],
)
def test_a_state_of_another_dataset_is_refused(extended, values, problem, tmp_path):
    state = extended / "last_seen.npz"
    if isinstance(values, bytes):
        state.write_bytes(values)
    else:
        values = np.array(values, np.float64 if values and isinstance(values[0], float) else np.int32) if values else None
        arrays = {"names": np.array([], str)} if values is None else {"names": np.array(["user"]), "last_seen0": values}
        np.savez_compressed(state, **arrays)
    manifest = read_json(extended / "manifest.json")
    manifest["fit"]["last_seen_sha256"] = sha256(state)
    write_json(extended / "manifest.json", manifest)
    with pytest.raises(StorageError, match=problem):
        tfctr.prepare(extend=extended, train=users("ab"), out=tmp_path / "x")


def test_a_folder_of_an_earlier_version_can_be_extended(tmp_path):
    """One without the digest of its fit, without a profile, and whose tokens have no form."""
    first = tfctr.prepare(USERS, train=users("aabb"), out=tmp_path / "first").folder
    manifest = read_json(first / "manifest.json")
    schema = read_json(first / "schema.json")
    del manifest["fit"], schema["features"][0]["token_type"], schema["features"][0]["vocabulary_sha256"]
    (first / "profile.npz").unlink()
    write_json(first / "schema.json", schema)
    write_json(first / "manifest.json", {**manifest, "schema_sha256": sha256(first / "schema.json")})
    found = tfctr.prepare(extend=first, train=users("acc"), out=tmp_path / "second", evict_after=1)
    assert vocabulary(found) == ["a", "c"]
    assert found.schema.features[0].token_type is None


def test_an_encoded_folder_is_not_extended(extended, tmp_path):
    encoded = tfctr.encode(extended, users("ab"), out=tmp_path / "encoded")
    with pytest.raises(ConfigError, match="was encoded by the fit of another dataset") as caught:
        tfctr.prepare(extend=encoded, train=users("ab"), out=tmp_path / "x")
    assert "extend the dataset by which it was encoded" in caught.value.fix


def test_arguments_that_cannot_be_used(extended, tmp_path):
    for arguments, problem in (
        ({"schema": USERS, "extend": extended}, "`schema` and `extend` are both given"),
        ({}, "`schema` is None"),
        ({"schema": USERS, "max_tokens": 5}, "`max_tokens` is 5, and there is no `extend`"),
        ({"schema": USERS, "evict_after": 1}, "`evict_after` is 1, and there is no `extend`"),
        ({"extend": extended, "max_tokens": 0}, "`max_tokens` is 0"),
        ({"extend": extended, "evict_after": 0}, "`evict_after` is 0"),
        ({"extend": extended, "evict_after": True}, "`evict_after` is True"),
        ({"extend": USERS}, "`extend` is <class 'tfctr.schema.Schema'>"),
    ):
        with pytest.raises(ConfigError, match=problem) as caught:
            tfctr.prepare(train=users("ab"), out=tmp_path / "x", **arguments)
        assert caught.value.fix
    with pytest.raises(StorageError, match="is not a prepared dataset"):
        tfctr.prepare(extend=tmp_path, train=users("ab"), out=tmp_path / "x")
    with pytest.raises(DataError, match=r"has no column 'user'"):
        tfctr.prepare(extend=extended, train={"click": [0, 1]}, out=tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_more_ids_than_can_be_counted_are_refused(extended, tmp_path, monkeypatch):
    monkeypatch.setattr(fitting, "_MOST_ROWS", 7)
    with pytest.raises(ConfigError, match="8 ids together") as caught:
        tfctr.prepare(extend=extended, train=users("xxyy"), out=tmp_path / "x")
    assert "max_tokens" in caught.value.fix
    assert tfctr.prepare(extend=extended, train=users("xxyy"), out=tmp_path / "x", max_tokens=4).schema.table_rows == 7


def test_the_command_line(extended, tmp_path):
    lines = {
        name: f"user,click\n{''.join(f'{user},{row % 2}{chr(10)}' for row, user in enumerate(users))}"
        for name, users in (("new", "xxyyzza"), ("old", "ab"))
    }
    for name, text in lines.items():
        (tmp_path / f"{name}.csv").write_text(text)
    arguments = ("--extend", extended, "--max-tokens", "4", "--evict-after", "1", "--out", tmp_path / "out")
    done = tfctr_("prepare", "--train", tmp_path / "new.csv", *arguments, "--json")
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["extension"]["features"] == {
        "user": {"known": 3, "seen_again": 1, "new": 3, "evicted": 2, "left_out": 0}
    }
    assert "user: 3 known tokens, 1 of them seen again; 3 new, 2 evicted\n" in done.stderr
    done = tfctr_("prepare", "--train", tmp_path / "old.csv", "--extend", extended, "--out", tmp_path / "quiet")
    assert done.exit_code == 0, done.stderr
    assert "seen again" not in done.stderr
    done = tfctr_("prepare", "--train", tmp_path / "old.csv", "--out", tmp_path / "none")
    assert done.exit_code == ConfigError.exit_code
    assert "--extend" in done.stderr
