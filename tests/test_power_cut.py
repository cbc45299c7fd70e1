"""A power cut at any moment leaves the old or the new, whole; and after a writer has returned, the new."""

import os
import shutil

import numpy as np
import pytest
from kit.power_cut import TORN, Disk
from kit.saved_models import export_scorers

import tfctr
from tfctr.config import Config
from tfctr.serving.store.folders import add_version, prune, versions
from tfctr.storage import atomic_file, atomic_folder, write_json
from tfctr.training import load_run, train

pytestmark = pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="the system does not say which file is synced")


def named(found):
    """Without what writers that were cut off leave under hidden names."""
    return {path: content for path, content in found.items() if not any(part.startswith(".") for part in path.split("/"))}


def restored(found, folder):
    """A folder of what was found; nothing of it is torn."""
    for path, content in named(found).items():
        assert content is not TORN, path
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return folder


def test_the_disk_forgets_what_is_not_synced(tmp_path, monkeypatch):
    (tmp_path / "old").write_text("old")
    with Disk(tmp_path).watched(monkeypatch) as disk:
        (tmp_path / "new").write_text("new")
        (tmp_path / "old").unlink()
        os.rename(tmp_path / "new", tmp_path / "old")
        assert disk.found() == {"old": b"old"}
        assert disk.found(depth=0) == {"old": TORN}
        with open(tmp_path / "old", "a", encoding="utf-8") as file:
            os.fsync(file.fileno())
            file.write("er")
        assert disk.found(depth=0) == {"old": b"new"}


@pytest.mark.parametrize("before", [None, b"old"])
def test_a_file(before, tmp_path, monkeypatch):
    if before:
        (tmp_path / "file").write_bytes(before)
    looked = []

    def look(found):
        looked.append(named(found).get("file"))

    with Disk(tmp_path, look).watched(monkeypatch) as disk:
        with atomic_file(tmp_path / "file") as file:
            file.write("new")
        assert {*looked} == {before, b"new"}
        assert named(disk.found()) == {"file": b"new"}
        write_json(tmp_path / "folder" / "deeper" / "value.json", 1)
        assert named(disk.found())["folder/deeper/value.json"] == b"1\n"


def test_a_folder(tmp_path, monkeypatch):
    whole = {"new/data/a": b"1", "new/data/b/c": b"2"}
    looked = []
    with Disk(tmp_path, lambda found: looked.append(named(found))).watched(monkeypatch) as disk:
        with atomic_folder(tmp_path / "new" / "data") as folder:
            (folder / "b").mkdir()
            (folder / "a").write_text("1")
            (folder / "b" / "c").write_text("2")
        assert named(disk.found()) == whole
    assert all(found in ({}, whole) for found in looked)


def test_prepare_and_train(tmp_path, monkeypatch):
    """Whatever is there of a run at any moment can be loaded: its newest whole epoch."""
    rng = np.random.default_rng(0)
    table = {"user": rng.integers(0, 9, 200).astype(str), "click": rng.integers(0, 2, 200)}
    schema = tfctr.Schema([tfctr.Categorical("user")], label="click")
    seen, root = {}, tmp_path / "disk"
    root.mkdir()

    def look(found):
        found = named(found)
        whole = {path for path in found if path.startswith("data/")}
        assert not whole or "data/manifest.json" in whole
        assert TORN not in found.values(), found
        seen[tuple(sorted((path, hash(content)) for path, content in found.items()))] = found

    with Disk(root, look).watched(monkeypatch) as disk:
        data = tfctr.prepare(schema, train=table, valid=table, out=root / "data")
        config = Config.from_dict({"model": {"name": "LR"}, "training": {"batch_size": 50, "epochs": 3, "learning_rate": 0.1}})
        train(config, data, root / "run")
        last = disk.found()
    epochs = set()
    for number, found in enumerate(seen.values()):
        folder = restored(found, tmp_path / str(number))
        if (folder / "run" / "metrics.json").exists():
            run = load_run(folder / "run")
            assert run.model.count_params() == run.metrics["parameters"]
            epochs.add(run.metrics["epochs"])
    assert epochs == {1, 2, 3}
    assert named(last) == {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_publish_and_prune(tmp_path, monkeypatch):
    models, looked, base = export_scorers(tmp_path / "models"), [], tmp_path / "disk" / "model"
    base.parent.mkdir()

    def build(folder):
        shutil.copytree(models / "light", folder, dirs_exist_ok=True)

    def look(found):
        looked.append(named(found))

    with Disk(base.parent, look).watched(monkeypatch) as disk:
        for _ in range(3):
            add_version(base, build)
        prune(base, keep=2)
        last = named(disk.found())
    whole = {path.relative_to(base / "2").as_posix() for path in (base / "2").rglob("*") if path.is_file()}
    for found in looked:
        assert TORN not in found.values()
        for number in {path.split("/")[1] for path in found}:
            assert {path for path in found if path.startswith(f"model/{number}/")} == {
                f"model/{number}/{path}" for path in whole
            }
    assert versions(restored(last, tmp_path / "after") / "model") == [2, 3]
