"""What is served is what was published: real damage to the files of a version, and a server that must not answer from them."""

import os
import shutil
import time

import numpy as np
import pytest
from kit.randomized import randomize
from kit.saved_models import client_of

import tfctr
from tfctr.errors import StorageError
from tfctr.models import MODELS
from tfctr.serving.runtime.stand_in import LocalServer
from tfctr.serving.store.manifest import MANIFEST, seal

ROWS = {"user": ["60", "7"], "item": ["item 3", "item 8"], "genres": ["Comedy", ""], "age": [30.0, 1.0], "price": [0.5, 9.0]}
FOLDER = os.path.dirname(MANIFEST)


@pytest.fixture(scope="module")
def exported(tiny_schema, tmp_path_factory):
    base = tmp_path_factory.mktemp("integrity") / "ctr"
    return tfctr.serving.export(randomize(MODELS["LR"](tiny_schema), scale=0.5), base)


@pytest.fixture
def base(exported, tmp_path):
    return shutil.copytree(exported.parent, tmp_path / "ctr")


def reverse(version):
    tokens = (version / "assets" / "item.txt").read_text(encoding="utf-8").splitlines()
    (version / "assets" / "item.txt").write_text("\n".join(reversed(tokens)) + "\n", encoding="utf-8")


def flip(name):
    def damage(version):
        path = version / name
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)

    return damage


def remove(version):
    (version / FOLDER / "model_card.json").unlink()


def add(version):
    (version / "assets" / "more.txt").write_text("more\n", encoding="utf-8")


DAMAGE = {
    "vocabulary reversed": (reverse, "assets/item.txt is not the file that was published"),
    "bit of a vocabulary": (flip("assets/item.txt"), "assets/item.txt is not the file that was published"),
    "bit of the graph": (flip("saved_model.pb"), "saved_model.pb is not the file that was published"),
    "bit of a weight": (flip("variables/variables.data-00000-of-00001"), "variables.data-00000-of-00001 is not the file"),
    "bit of the manifest": (flip(MANIFEST), ""),
    "file removed": (remove, "model_card.json is missing"),
    "file added": (add, "assets/more.txt was added"),
}


def damaged_copy(base, damage, number="2"):
    """A copy of version 1 that is damaged, as a broken transfer would leave it, and appears at once."""
    hidden = shutil.copytree(base / "1", base / ".hidden")
    damage(hidden)
    return hidden.rename(base / number)


@pytest.mark.parametrize(("damage", "words"), DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_version_does_not_start(damage, words, base):
    damage(base / "1")
    with pytest.raises(StorageError, match=f"1 cannot be loaded: .*{words}"), LocalServer(base, port=0):
        pass


@pytest.mark.sampled(2)
@pytest.mark.parametrize(("damage", "words"), DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_version_leaves_the_old_one(damage, words, base):
    with LocalServer(base, port=0, poll_seconds=0.05) as server, client_of(server) as client:
        before = client.predict(ROWS)
        damaged_copy(base, damage)
        end = time.monotonic() + 120
        while len(status := client.status()) < 2:
            assert time.monotonic() < end
        assert (status[0]["version"], status[0]["state"]) == (2, "END")
        assert words in status[0]["error"]
        assert server.version == 1
        np.testing.assert_array_equal(client.predict(ROWS), before)


def test_files_that_hold_and_answers_that_do_not(base):
    """A manifest made after the damage says nothing against it, but the answers do."""

    def damage(version):
        reverse(version)
        (version / MANIFEST).unlink()
        seal(version)

    damaged_copy(base, damage)
    with pytest.raises(StorageError, match=r"2 cannot be loaded: .*[1-9]\d* of \d+ golden answers differ"), LocalServer(base):
        pass


def test_a_version_of_another_tool_is_served_with_a_word(base, caplog):
    (base / "1" / MANIFEST).unlink()
    with LocalServer(base, port=0):
        pass
    assert f"{base / '1'}: nothing says what its files should be" in caplog.text
