"""A version holds no row of the tables that its model has learnt from and was measured on, but for those asked for."""

import base64
import contextlib
import json
import struct

import numpy as np
import pandas as pd
import pytest
import yaml
from kit.commands import done

import tfctr
from tfctr.data import Dataset
from tfctr.serving.publishing.samples import sample_rows

ROWS, STORED = 120, 5
SPLITS = ("train", "valid", "rows")


def table(name, seed):
    """Rows that each have a token, a tag and a price of their own, which no vocabulary holds."""
    draw = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "user": [f"user {row % 7}" if row % 2 else f"secret-{name}-{row}" for row in range(ROWS)],
            "tags": [f"tag {row % 5}|hidden-{name}-{row}" for row in range(ROWS)],
            "price": draw.uniform(1000, 2000, ROWS),
            "click": draw.integers(0, 2, ROWS),
        }
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with tables, a run and two versions: one published with the defaults, one with five stored rows."""
    folder = tmp_path_factory.mktemp("no_rows")
    features = [tfctr.Categorical("user", min_count=2), tfctr.Sequence("tags", max_length=2, min_count=2)]
    tfctr.Schema([*features, tfctr.Numeric("price", "scaled")], label="click").save(folder / "schema.yaml")
    for seed, name in enumerate(SPLITS):
        table(name, seed).to_parquet(folder / f"{name}.parquet")
    config = {"model": {"name": "LR"}, "training": {"batch_size": 40, "epochs": 1}}
    (folder / "run.yaml").write_text(yaml.safe_dump(config))
    tables = [argument for name in SPLITS[:2] for argument in (f"--{name}", folder / f"{name}.parquet")]
    done("prepare", folder / "schema.yaml", *tables, "--out", folder / "data")
    done("train", folder / "run.yaml", "--data", folder / "data", "--out", folder / "run")
    for base, options in {"plain": [], "rows": ["--store", STORED]}.items():
        given = ["--rows", folder / "rows.parquet", "--force", "a test"] if options else ["--force", "a test"]
        done("publish", folder / "run", folder / base, *given, *options)
    return folder


def texts_of(value):
    """Every text of a JSON value, and the bytes of each that is base64."""
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from texts_of(part)
    elif isinstance(value, str):
        yield value.encode()
        with contextlib.suppress(ValueError):
            yield base64.b64decode(value, validate=True)
    else:
        yield repr(value).encode()


def content(version):
    """{file: its bytes, and what its JSON means}."""
    found = {}
    for file in version.rglob("*"):
        if file.is_file():
            parts = [file.read_bytes()]
            parts += texts_of(json.loads(parts[0])) if file.suffix == ".json" else []
            found[str(file.relative_to(version))] = b"\n".join(parts)
    return found


def rows_in(version, frame):
    """Which rows of a table show in which files: by their own token or tag, or by their price in any writing."""
    found, files = {}, content(version)
    for row, (user, tags, price) in enumerate(zip(frame["user"], frame["tags"], frame["price"], strict=True)):
        forms = [user.encode()] if user.startswith("secret") else []
        forms += [tags.split("|")[1].encode(), repr(price).encode(), struct.pack("<d", price), struct.pack(">d", price)]
        for name, text in files.items():
            if any(form in text for form in forms) or (name.startswith("assets.extra") and struct.pack("<f", price) in text):
                found.setdefault(row, set()).add(name)
    return found


def frames(folder):
    return {name: pd.read_parquet(folder / f"{name}.parquet") for name in SPLITS}


@pytest.mark.parametrize("base", ["plain", "rows"])
def test_no_row_of_the_tables_is_in_a_version(base, folder):
    version = folder / base / "1"
    named = {"saved_model.pb", "schema.json", "user.txt", "tags.txt", "golden.json", "tf_serving_warmup_requests"}
    assert named <= {file.name for file in version.rglob("*")}
    for name in ("train", "valid"):
        assert rows_in(version, frames(folder)[name]) == {}
    measured = sample_rows(Dataset.load(folder / "data").valid, tfctr.Schema.load(folder / "data" / "schema.json"))
    assert rows_in(version, frames(folder)["valid"].assign(price=measured["price"])) == {}


def test_rows_that_are_asked_for_are_in_it_and_no_others(folder):
    files = {"assets.extra/golden.json", "assets.extra/tf_serving_warmup_requests"}
    assert rows_in(folder / "rows" / "1", frames(folder)["rows"]) == dict.fromkeys(range(STORED), files)
