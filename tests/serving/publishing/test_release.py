"""A model goes live when it is no worse than the one that is, its record says how, and the way back is one call."""

import fcntl
import math
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from kit.at_length import at_length
from kit.releases import GOOD, model, replay, tree

import tfctr
from tfctr.errors import ConfigError, ExportError, StorageError
from tfctr.serving import Bounds, LocalServer, PredictionClient, history, publish_model, rollback, versions
from tfctr.serving.exporting.golden import golden_rows, read_golden
from tfctr.serving.publishing.comparison import compare
from tfctr.serving.runtime.saved_model import SavedModel
from tfctr.serving.runtime.warmup import write_warmup
from tfctr.serving.store.folders import HISTORY, PUBLICATION
from tfctr.serving.store.manifest import MANIFEST, seal, verify
from tfctr.storage import read_json, sha256

BAD = {"valid_auc": 0.7, "valid_log_loss": math.nan}


@pytest.fixture(scope="module")
def published(tiny_schema, tmp_path_factory):
    """A base path with a first version, and its record."""
    base = tmp_path_factory.mktemp("published") / "ctr"
    return base, publish_model(model(tiny_schema), base, metrics=GOOD)


@pytest.fixture
def base(published, tmp_path):
    return shutil.copytree(published[0], tmp_path / "ctr")


def test_the_first_version(published):
    base, record = published
    assert versions(base) == [1]
    assert record["folder"] == str(base / "1")
    assert (record["action"], record["reason"], record["compared_with"], record["comparison"]) == ("publish", None, None, None)
    assert "@" in record["by"]
    only_said = ("folder", "removed", "not_removed")
    assert read_json(base / "1" / PUBLICATION) == {key: record[key] for key in record if key not in only_said}
    verify(base / "1")
    assert f"  {PUBLICATION}\n" in (base / "1" / MANIFEST).read_text()
    replay(base / "1")
    # The golden requests name the model as the server will.
    assert '"name": "ctr"' in (base / "1" / "assets.extra" / "golden.json").read_text()
    assert sorted(path.name for path in base.iterdir()) == [".tfctr-lock", "1"]


def test_a_better_model_takes_over(base, tiny_schema):
    examples = {name: column[16:48] for name, column in golden_rows(tiny_schema).items()}
    record = publish_model(model(tiny_schema), base, metrics={"valid_auc": 0.81, "valid_log_loss": 0.4}, examples=examples)
    assert versions(base) == [1, 2]
    assert record["compared_with"] == 1
    assert record["comparison"] == {
        "metrics": {"valid_auc": {"live": 0.8, "new": 0.81}, "valid_log_loss": {"live": 0.4, "new": 0.4}},
        "measured_on": None,
        "rows": 1 + 3 + 64 + 32,
        "psi": 0.0,
        "difference": 0.0,
        "failures": [],
    }
    assert read_json(base / "2" / PUBLICATION)["comparison"] == record["comparison"]


@pytest.mark.sampled(1)
@pytest.mark.parametrize("dry_run", [False, True])
def test_a_worse_model_is_refused(dry_run, base, tiny_schema):
    before = tree(base)
    with pytest.raises(ExportError, match=r"/ctr/1 is live: valid_auc is 0.8 .*; valid_log_loss .* not defined .*scores moved"):
        publish_model(model(tiny_schema, bias=3), base, metrics=BAD, dry_run=dry_run)
    assert set(tree(base).items() ^ before.items()) <= {(".tfctr-lock", sha256(os.devnull))}
    assert list(base.glob(".tmp-*")) == []


@pytest.mark.slow
def test_force_publishes_it_and_says_why(base, tiny_schema):
    record = publish_model(model(tiny_schema, bias=3), base, metrics=BAD, force="the old one leaks a column")
    assert versions(base) == [1, 2]
    assert record["reason"] == "the old one leaks a column"
    assert len(record["comparison"]["failures"]) == 4
    assert read_json(base / "2" / PUBLICATION)["reason"] == "the old one leaks a column"
    assert record["comparison"]["difference"] > 0.1


@pytest.mark.slow
def test_force_does_not_skip_the_strict_check(base, tiny_schema, monkeypatch):
    def refuse(*_):
        raise ExportError("row 0 differs.", fix="none")

    monkeypatch.setattr("tfctr.serving.exporting.exporter.check_saved_model", refuse)
    with pytest.raises(ExportError, match="row 0 differs"):
        publish_model(model(tiny_schema), base, force="hurry")
    assert versions(base) == [1]
    assert list(base.glob(".tmp-*")) == []


@pytest.mark.slow
def test_bounds_decide(base, tiny_schema):
    wide = Bounds(auc_drop=0.2, log_loss_rise=1, psi=1000, difference=1)
    metrics = {"valid_auc": 0.7, "valid_log_loss": 0.9}
    assert publish_model(model(tiny_schema, bias=3), base, metrics=metrics, bounds=wide)["comparison"]["failures"] == []


@pytest.mark.slow
def test_a_dry_run_leaves_nothing(base, tiny_schema, tmp_path):
    before = tree(base)
    record = publish_model(model(tiny_schema), base, metrics=GOOD, dry_run=True, keep=2)
    assert (record["folder"], record["compared_with"], record["comparison"]["failures"]) == (None, 1, [])
    assert tree(base) == before
    assert publish_model(model(tiny_schema), tmp_path / "none" / "new", dry_run=True)["compared_with"] is None
    assert not (tmp_path / "none").exists()


@pytest.mark.slow
def test_the_last_ones_are_kept(base, tiny_schema):
    removed = [publish_model(model(tiny_schema), base, metrics=GOOD, keep=2)["removed"] for _ in range(2)]
    assert removed == [[], [1]]
    assert versions(base) == [2, 3]
    known = history(base, removed=True)
    assert [(version["version"], version["live"], version["removed"]) for version in known] == [
        (1, False, True),
        (2, False, False),
        (3, True, False),
    ]
    assert {version["action"] for version in known} == {"publish"}
    assert known[2]["metrics"] == GOOD
    assert [version["version"] for version in history(base)] == [2, 3]


@pytest.mark.slow
def test_a_version_that_cannot_be_removed_does_not_undo_the_publishing(base, tiny_schema, monkeypatch):
    publish_model(model(tiny_schema), base, metrics=GOOD)
    monkeypatch.setattr("tfctr.serving.store.folders.os.access", lambda path, _: "/1/" not in f"{path}/")
    record = publish_model(model(tiny_schema), base, metrics=GOOD, keep=2)
    assert (record["folder"], record["removed"]) == (str(base / "3"), [])
    assert record["not_removed"].startswith(f"version 1 of {base} cannot be removed: you may not write ")
    assert versions(base) == [1, 2, 3]
    assert list(base.glob(".tmp-*")) == []
    monkeypatch.undo()
    record = publish_model(model(tiny_schema), base, metrics=GOOD, keep=2)
    assert (record["removed"], record["not_removed"]) == ([1, 2], None)


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"force": ""}, ConfigError, "`force` is ''"),
        ({"force": " \n"}, ConfigError, "`force` is"),
        ({"force": "two\nlines"}, ConfigError, "`force` is"),
        ({"force": "\udcff"}, ConfigError, "`force` is"),
        ({"force": True}, ConfigError, "`force` is True"),
        ({"keep": 1}, ConfigError, "`keep` is 1"),
        ({"keep": 0, "dry_run": True}, ConfigError, "`keep` is 0"),
    ],
)
def test_wrong_arguments_are_refused_before_any_work(options, error, said, base, tiny_schema, monkeypatch):
    monkeypatch.setattr("tfctr.serving.exporting.exporter.export", lambda *_, **__: pytest.fail("work was done"))
    with pytest.raises(error, match=said):
        publish_model(model(tiny_schema), base, **options)
    with pytest.raises(ConfigError, match="cannot be the name"):
        publish_model(model(tiny_schema), base.with_name("007"))
    with pytest.raises(StorageError, match="/one is one version"):
        publish_model(model(tiny_schema), (base / "1").rename(base / "one"))


@pytest.mark.slow
def test_one_publisher_at_a_time(base, tiny_schema):
    with open(base / ".tfctr-lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for publisher in (lambda: publish_model(model(tiny_schema), base), lambda: rollback(base, "why", to=1)):
            with pytest.raises(StorageError, match=r"another process is publishing to .*ctr"):
                publisher()
    assert publish_model(model(tiny_schema), base, metrics=GOOD)["folder"] == str(base / "2")


@pytest.mark.slow
def test_what_is_exported_meanwhile_is_compared_with(base, tiny_schema, monkeypatch):
    def export_another(*arguments):
        tfctr.serving.export(model(tiny_schema), base, check=False)
        return compare(*arguments)

    monkeypatch.setattr("tfctr.serving.publishing.release.compare", export_another)
    with pytest.raises(StorageError, match="another live version than the one compared with"):
        publish_model(model(tiny_schema), base, metrics=GOOD)
    assert versions(base) == [1, 2]


@pytest.mark.slow
def test_a_publisher_may_be_another_user_than_the_last(base, tiny_schema, monkeypatch):
    (base / ".tfctr-lock").chmod(0o444)
    real = os.open

    def open_as_another_user(path, flags, *mode, **options):
        if os.path.basename(path) == ".tfctr-lock" and flags & os.O_RDWR:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, flags, *mode, **options)

    monkeypatch.setattr(os, "open", open_as_another_user)
    publish_model(model(tiny_schema), base, metrics=GOOD)
    with open(base / ".tfctr-lock", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(StorageError, match=r"another process is publishing to .*ctr"):
            rollback(base, "why", to=1)


# the way back


@pytest.fixture(scope="module")
def published_thrice(published, tiny_schema, tmp_path_factory):
    base = shutil.copytree(published[0], tmp_path_factory.mktemp("thrice") / "ctr")
    for seed in (1, 2):
        publish_model(model(tiny_schema, seed), base, metrics=GOOD, force="a test")
    return base


@pytest.fixture
def three(published_thrice, tmp_path):
    """Three versions whose scores differ."""
    return shutil.copytree(published_thrice, tmp_path / "ctr")


def test_rollback_makes_the_version_before_the_highest(three):
    before = tree(three)
    record = rollback(three, "clicks fell")
    assert versions(three) == [1, 2, 3, 4]
    assert (record["action"], record["of"], record["instead_of"], record["reason"]) == ("rollback", 2, 3, "clicks fell")
    assert before.items() <= tree(three).items()
    different = tree(three / "2").items() ^ tree(three / "4").items()
    assert {name for name, _ in different} == {PUBLICATION, MANIFEST}
    verify(three / "4")
    verify(three / "2")
    replay(three / "4")


@pytest.mark.slow
def test_rollback_goes_back_step_by_step(three):
    assert [rollback(three, "worse still")["of"] for _ in range(2)] == [2, 1]
    with pytest.raises(StorageError, match="has no version before 1"):
        rollback(three, "no further")
    assert rollback(three, "it was not the model", to="4")["of"] == 2
    assert [version.get("of") for version in history(three)] == [None, None, None, 2, 1, 2]
    assert [version["version"] for version in history(three) if version["live"]] == [6]


def test_a_server_follows_a_rollback(three, tiny_schema):
    rows = {name: column[16:48] for name, column in golden_rows(tiny_schema).items()}
    expected = SavedModel(three / "2").run("serving_default", rows)["probability"]
    with LocalServer(three, port=0, poll_seconds=3600) as server, PredictionClient(server.target, model="ctr") as client:
        assert not np.array_equal(client.predict(rows), expected)
        rollback(three, "clicks fell")
        server._model.refresh()
        assert server.version == 4
        np.testing.assert_array_equal(client.predict(rows), expected)


def test_rollback_where_files_cannot_be_linked(three, monkeypatch):
    def refuse(*_):
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    rollback(three, "clicks fell")
    verify(three / "4")
    assert (three / "4" / "saved_model.pb").stat().st_nlink == 1


def test_rollback_to_a_version_that_was_made_read_only(three):
    folders = [three / "2", *(path for path in (three / "2").rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    rollback(three, "clicks fell")
    for folder in folders:
        assert (three / "4" / folder.relative_to(three / "2")).stat().st_mode & 0o700 == 0o700
    verify(three / "4")


def test_hidden_files_are_no_records_of_versions(three):
    (three / HISTORY).mkdir()
    for name in (".tmp-1-0123abcd-abc-7.json", "007.json", "x.json"):
        (three / HISTORY / name).write_text("{")
    (three / HISTORY / "9.json").write_text('{"reason": "gone"}')
    assert [version["version"] for version in history(three, removed=True)] == [1, 2, 3, 9]


@pytest.mark.parametrize("text", at_length(["{", "[1]"], "{"))
def test_the_record_of_the_live_version_is_damaged(text, three, tiny_schema):
    (three / "3" / PUBLICATION).write_text(text)
    known = history(three)
    assert [version["damage"] is None for version in known] == [True, True, False]
    assert str(three / "3" / PUBLICATION) in known[2]["damage"]
    with pytest.raises(StorageError, match=r"publication\.json is no.*\n  fix: say which version to go back to, with --to"):
        rollback(three, "a disk fails")
    with pytest.raises(ExportError, match=r"SHA-256 differs\.\n  fix: roll back to one that is whole"):
        publish_model(model(tiny_schema), three)
    assert rollback(three, "a disk fails", to=2)["of"] == 2


def test_a_version_that_may_not_be_read_is_listed(three, monkeypatch):
    exists = Path.exists

    def refuse(path):
        if path.is_relative_to(three / "1"):
            raise PermissionError(13, "Permission denied", str(path))
        return exists(path)

    monkeypatch.setattr(Path, "exists", refuse)
    assert ["Permission denied" in str(version["damage"]) for version in history(three)] == [True, False, False]


def test_rollback_refuses_what_is_not_whole(three):
    variables = three / "2" / "variables" / "variables.index"
    variables.write_bytes(variables.read_bytes()[:-1])
    with pytest.raises(StorageError, match=r"2/variables/variables\.index is not the file that was published"):
        rollback(three, "clicks fell")
    assert versions(three) == [1, 2, 3]
    assert rollback(three, "clicks fell", to=1)["of"] == 1


def test_rollback_refuses_what_answers_otherwise(three):
    batches = read_golden(three / "2" / "assets.extra" / "golden.json")
    outputs = [batch["outputs"] for batch in batches if batch["signature"] == "serving_default"][2]
    outputs["probability"] = outputs["probability"] + np.float32(1e-5) * (np.arange(64) == 7)
    write_warmup(three / "2", batches, "ctr")
    (three / "2" / MANIFEST).unlink()
    seal(three / "2")
    with pytest.raises(ExportError, match="1 of 412 golden answers differ"):
        rollback(three, "clicks fell")
    write_warmup(three / "2", [], "ctr")
    (three / "2" / MANIFEST).unlink()
    seal(three / "2")
    with pytest.raises(StorageError, match="2 has no warm-up records"):
        rollback(three, "clicks fell")
    assert versions(three) == [1, 2, 3]


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"reason": ""}, ConfigError, "`reason` is ''"),
        ({"reason": "red \x1b[31m"}, ConfigError, "`reason` is"),
        ({"reason": "why", "to": "007"}, ConfigError, "'007' is not a version's number"),
        ({"reason": "why", "to": "../1"}, ConfigError, "is not a version's number"),
        ({"reason": "why", "to": 2**63}, ConfigError, "is not a version's number"),
        ({"reason": "why", "to": 9}, StorageError, "has no version 9"),
        ({"reason": "why", "to": 1}, ConfigError, "version 1 is the live one"),
        ({"reason": "why"}, StorageError, "has no version before 1"),
    ],
)
def test_rollbacks_that_cannot_be(options, error, said, base):
    before = tree(base)
    with pytest.raises(error, match=said):
        rollback(base, **options)
    assert set(tree(base).items() ^ before.items()) <= {(".tfctr-lock", sha256(os.devnull))}


def test_a_rollback_of_nothing(tmp_path):
    with pytest.raises(StorageError, match="holds no published version"):
        rollback(tmp_path / "none", "why")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_versions_that_were_only_exported(tiny_schema, tmp_path):
    tfctr.serving.export(model(tiny_schema), tmp_path / "ctr", metrics=GOOD)
    assert history(tmp_path / "ctr") == [{"version": 1, "live": True, "removed": False, "damage": None, "metrics": GOOD}]
    assert publish_model(model(tiny_schema), tmp_path / "ctr", metrics=GOOD)["comparison"]["failures"] == []
    assert rollback(tmp_path / "ctr", "why")["of"] == 1
