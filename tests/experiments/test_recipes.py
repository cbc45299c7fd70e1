"""The papers' data sets: a user's own copy becomes the dataset that the paper trained on."""

import hashlib
import logging

import pytest
from kit.at_length import at_length
from kit.own_copies import write

import tfctr
from tfctr.data.engine import quiet
from tfctr.errors import ConfigError, StorageError
from tfctr.experiments.recipes import Recipe, recipes

NAMES = ["frappe", "ml-1m", "ml-tag", "criteo", "avazu", "kkbox"]
FIELDS = {"frappe": 10, "ml-1m": 5, "ml-tag": 3, "criteo": 39, "avazu": 24, "kkbox": 13}


def tokens(dataset, name):
    feature = next(feature for feature in dataset.schema.features if feature.name == name)
    return set(dataset.schema.vocabulary_file(feature).read_text(encoding="utf-8").split("\n")) - {""}


def test_they_are_those_of_the_papers():
    assert [*recipes()] == NAMES
    with pytest.raises(ConfigError, match="Did you mean 'frappe'"):
        Recipe.named("frape")


@pytest.mark.parametrize("name", at_length(NAMES, "frappe", "ml-1m"))
def test_an_own_copy_has_the_fields_of_the_papers(name, tmp_path, caplog):
    recipe = Recipe.named(name)
    with caplog.at_level(logging.WARNING):
        dataset = recipe.prepared(write(name, tmp_path / "own"), "cetn", tmp_path / "data")
    assert len(dataset.schema.features) == FIELDS[name]
    assert {split: dataset.splits[split].rows for split in recipe.rows} == dict.fromkeys(recipe.rows, 300)
    assert f"{name} has 300 rows in train, the papers' has {recipe.rows['train']}" in caplog.text
    assert ("is not the published file" in caplog.text) == (name != "ml-1m")
    again = recipe.prepared(tmp_path / "gone", "cetn", tmp_path / "data")  # nothing is read twice
    assert again.schema == dataset.schema


def test_the_published_files_are_known_by_their_md5(tmp_path, caplog):
    own = write("frappe", tmp_path / "own", rows=4)
    md5 = {split: hashlib.md5((own / f"{split}.csv").read_bytes()).hexdigest() for split in ("train", "valid", "test")}
    recipe = Recipe("frappe", "here", dict.fromkeys(md5, 4), md5, {})
    with caplog.at_level(logging.WARNING, "tfctr.experiments"):
        recipe.prepared(own, "tf4ctr", tmp_path / "data")
    assert caplog.messages == []


def test_rare_tokens_are_those_of_the_paper():
    """TF4CTR leaves out tokens of Criteo below 10 rows, CETN below 2."""
    recipe = Recipe.named("criteo")
    assert {feature.min_count for feature in recipe.schema("tf4ctr").features} == {10}
    assert {feature.min_count for feature in recipe.schema("cetn").features if feature.name.startswith("C")} == {2}


def test_a_time_of_avazu_is_an_hour_a_weekday_and_a_weekend(tmp_path):
    times = ["14102100", "14102523", "14102612", "14102707"]  # Tuesday, Saturday, Sunday, Monday
    names = [feature.name for feature in Recipe.named("avazu").schema("cetn").features]
    text = "\n".join(
        [
            ",".join(["click", "hour", *names[3:]]),
            *(",".join([str(row % 2), time, *["x"] * len(names[3:])]) for row, time in enumerate(times)),
        ]
    )
    own = tmp_path / "own"
    own.mkdir()
    for split in ("train", "valid", "test"):
        (own / f"{split}.csv").write_text(text)
    with quiet():
        found = Recipe.named("avazu").tables(own)["train"].to_pyarrow().to_pylist()
    assert {row["hour"] + row["weekday"] + row["weekend"] for row in found} == {"0010", "2351", "1261", "0700"}


def test_an_age_of_kkbox_is_a_decade_and_a_code_a_country(tmp_path):
    dataset = Recipe.named("kkbox").prepared(write("kkbox", tmp_path / "own"), "tf4ctr", tmp_path / "data")
    assert tokens(dataset, "isrc") == {"US", "TW", "GB"}
    assert tokens(dataset, "bd") == {"1", "2", "6", "7"}
    assert tokens(dataset, "genre_ids") == set("12345678")


def test_movielens_as_grouplens_publishes_it(tmp_path):
    users = [f"{user}::{'FM'[user % 2]}::25::{user % 3}::48067" for user in range(1, 41)]
    ratings = [f"{user}::{film}::{1 + (user + film) % 5}::{978300000 + film}" for user in range(1, 41) for film in range(1, 11)]
    (tmp_path / "users.dat").write_text("\n".join(users) + "\n")
    (tmp_path / "ratings.dat").write_text("\n".join(ratings) + "\n")
    dataset = Recipe.named("ml-1m").prepared(tmp_path, "tf4ctr", tmp_path / "data")
    assert sum(split.rows for split in dataset.splits.values()) == 400
    assert dataset.test.rows > 0
    assert sum(float(split.labels.sum()) for split in dataset.splits.values()) == 160  # ratings of 4 and 5
    assert tokens(dataset, "gender") == {"F", "M"}
    (tmp_path / "users.dat").unlink()
    with pytest.raises(StorageError, match=r"users\.dat is missing"):
        Recipe.named("ml-1m").tables(tmp_path)


def test_what_is_missing_is_named_with_its_source_and_size(tmp_path):
    own = write("frappe", tmp_path / "own", rows=2)
    (own / "valid.csv").rename(own / "valid.parquet")
    (own / "test.csv").unlink()
    with pytest.raises(StorageError) as caught:
        Recipe.named("frappe").tables(own)
    assert "has no test.csv, test.csv.gz or test.parquet" in str(caught.value)
    assert "Frappe_x1 of https://github.com/reczoo/Datasets" in str(caught.value)
    assert "202,027, 57,722, 28,860 rows" in str(caught.value)
    (own / "test.csv").touch()
    (own / "test.parquet").touch()
    with pytest.raises(StorageError, match=r"has test\.csv and test\.parquet"):
        Recipe.named("frappe").tables(own)


@pytest.mark.slow
def test_frappe_for_real(real_data, tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "tfctr.experiments"):
        dataset = Recipe.named("frappe").prepared(real_data("frappe"), "tf4ctr", tmp_path / "data")
    assert caplog.messages == []  # the rows are those of the papers
    sizes = [feature.size - 1 for feature in dataset.schema.features]  # the logs reserve two ids, we three
    assert sizes[0] == 942
    assert tfctr.Dataset.load(tmp_path / "data").test.rows == 28_860
