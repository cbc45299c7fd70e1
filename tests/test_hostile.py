"""Hostile files, names and numbers: each is refused by name, in a short message, and nothing is written."""

import pytest
from kit.hostile_loads import LOADS
from kit.hostile_texts import FILES

import tfctr
from tfctr import Categorical, Numeric, Sequence
from tfctr.errors import ConfigError, StorageError
from tfctr.serving import PredictionClient
from tfctr.serving.publishing.labels import load_versions
from tfctr.serving.store.folders import latest, require_base, version_folder


def refused(error, words, function, *arguments):
    with pytest.raises(error) as raised:
        function(*arguments)
    assert words in str(raised.value)
    assert raised.value.fix
    assert len(str(raised.value)) < 1000


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("file", "text", "words"),
    [pytest.param(file, *case, id=f"{file}: {name}") for file, cases in FILES.items() for name, case in cases.items()],
)
def test_files(file, text, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / file
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    before = path.read_bytes()
    refused(StorageError if file == "schema.json" else ConfigError, words, LOADS[file], path)
    assert [entry.name for entry in tmp_path.iterdir()] == [file]
    assert path.read_bytes() == before


NAMES = ["a" * 10_000, "a/" * 60 + "a", "../x", "a\0", "a\n", "\u202ea", "a\u200b", "é", "a b", "a:b", "lambda", ""]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
@pytest.mark.parametrize("make", [Categorical, Numeric, lambda name: Sequence(name, max_length=2)], ids=["c", "n", "s"])
def test_names_of_features(make, name):
    refused(ConfigError, "cannot be the name of a served input", make, name)


@pytest.mark.parametrize(
    "name", ["m" * 10_000, "\u202emodel", "model\u200b", "a\nb", "a\0b", "..a", "007", "٧", "a b"], ids=ascii
)
def test_names_of_models(name, tmp_path):
    refused(ConfigError, "cannot be the name of a served model", require_base, f"{tmp_path}/{name}")
    assert not any(tmp_path.iterdir())


NUMBERS = [
    "007",
    "../1",
    "1/../1",
    "1\n",
    "1\0",
    "٧",
    "0x1",
    "1_0",
    "1e0",
    2**63,
    -(2**63),
    1.0,
    float("nan"),
    [1],
    "9" * 10_000,
]


@pytest.mark.parametrize("number", NUMBERS, ids=lambda number: ascii(number)[:20])
def test_numbers_of_versions(number, tmp_path):
    (tmp_path / "m" / "1").mkdir(parents=True)
    refused(ConfigError, "is not a version's number", version_folder, tmp_path / "m", number)
    refused(
        ConfigError, "is not a version's number", load_versions, tmp_path / "models.config", tmp_path / "m", {"stable": number}
    )
    assert [entry.name for entry in tmp_path.iterdir()] == ["m"]


@pytest.mark.parametrize(
    "label", ["s" * 10_000, "\u202es", "s\u200b", "s\n", "s\0", "../s", "Stable", 'a" value: 9'], ids=ascii
)
def test_labels(label, tmp_path):
    (tmp_path / "m" / "1").mkdir(parents=True)
    refused(ConfigError, "cannot be a label", load_versions, tmp_path / "models.config", tmp_path / "m", {label: 1})
    assert [entry.name for entry in tmp_path.iterdir()] == ["m"]


@pytest.mark.parametrize(
    "target",
    ["a" * 10_000, "localhost", "localhost:99999999", "localhost:8500\n", "local host:8500", "http://localhost:8500", b"l:1"],
)
def test_targets(target):
    refused(ConfigError, "`target` is", lambda: PredictionClient(target, model="m"))


@pytest.mark.parametrize("name", ["../DNN", "__class__", "DNN\0", "dnn", "D" * 10_000, "\u202eDNN"], ids=ascii)
def test_names_in_the_registry(name, tiny_schema):
    refused(ConfigError, "Unknown model", tfctr.models.build, name, tiny_schema)


def test_links(tmp_path):
    (tmp_path / "real" / "1").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "real" / "2").symlink_to(tmp_path / "nowhere")
    refused(StorageError, "is a link", require_base, tmp_path / "link")
    refused(StorageError, "is a link", require_base, tmp_path / "loop")
    refused(StorageError, "is a link", version_folder, tmp_path / "real", 2)
    refused(StorageError, "would read", require_base, tmp_path / "real")
    assert latest(tmp_path / "real") == 1
