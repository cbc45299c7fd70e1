"""A system lists the files of a folder in any order: what is made of them does not follow it."""

import contextlib
import glob
import os

import pandas as pd
import pytest
from kit.prepare_oracle import SCHEMA, table

import tfctr


@pytest.fixture
def listing(monkeypatch):
    """Sets whether folders are listed by name or backwards; nothing of Python's finds files in another way."""
    scandir, listdir = os.scandir, os.listdir

    @contextlib.contextmanager
    def scanned(*folder, backwards):
        with scandir(*folder) as found:
            yield iter(sorted(found, key=lambda entry: entry.name, reverse=backwards))

    def of(backwards):
        monkeypatch.setattr(os, "scandir", lambda *folder: scanned(*folder, backwards=backwards))
        monkeypatch.setattr(os, "listdir", lambda *folder: sorted(listdir(*folder), reverse=backwards))

    return of


def content(folder):
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.slow
@pytest.mark.parametrize(("pattern", "kind"), [("may/day *", "parquet"), ("**/day *", "csv")])
def test_the_same_bytes_in_whatever_order_folders_are_listed(pattern, kind, listing, tmp_path):
    for seed, name in enumerate(["may/day 1", "may/day 10", "may/day 2", "june/day 3"]):
        file = tmp_path / f"{name}.{kind}"
        file.parent.mkdir(exist_ok=True)
        frame = pd.DataFrame(table(100, seed))
        frame.to_parquet(file) if kind == "parquet" else frame.to_csv(file, index=False)
    source, made = f"{tmp_path}/{pattern}.{kind}", []
    for backwards in (False, True):
        listing(backwards)
        dataset = tfctr.prepare(SCHEMA, train=source, out=tmp_path / f"data {backwards}")
        made.append((glob.glob(source, recursive=True), content(dataset.folder), tfctr.Schema.infer(source, label="click")))
    (listed, *one), (listed_backwards, *other) = made
    assert listed == listed_backwards[::-1]
    assert one == other
