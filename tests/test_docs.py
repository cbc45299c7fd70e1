"""The pages build without a warning, run as they say, and name commands and files that exist."""

import contextlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys

import keras
import pytest
import typer
from kit.doc_blocks import PAGES, blocks, commands, name_of, parse
from kit.places import ROOT

import tfctr
from tfctr.cli import app
from tfctr.serving import LocalServer

FIRST = ROOT / "docs" / "first_model.md"
WITH_CODE = [  # docker/README.md has what needs its secrets
    page
    for page in PAGES
    if page.parent.name != "docker" and any("notest" not in options for options, *_ in blocks(page, "python"))
]
RETRIEVAL = ROOT / "docs" / "retrieval.md"  # followed as the first page is, commands and all
FAST = ("your_table.md", "large_vocabularies.md")  # of the others each exports a version, or trains for longer
SHORTER = {"rows=20_000": "rows=3_000", "epochs=100": "epochs=2"}


def test_the_pages_build_without_a_warning(tmp_path):
    pytest.importorskip("sphinx")
    pytest.importorskip("myst_parser")
    pytest.importorskip("furo")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-n", "-b", "html", "docs", str(tmp_path)]
    built = subprocess.run(command, capture_output=True, encoding="utf-8", cwd=ROOT)
    assert built.returncode == 0, built.stderr[-4000:]
    page = (tmp_path / "api" / "layers.html").read_text(encoding="utf-8")
    assert "tfctr.layers.CrossNetwork" in page
    assert "arxiv.org/abs/2008.13535" in page
    assert (tmp_path / "index.html").is_file()


def test_the_readme_is_short_and_counts_the_models():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(readme.split()) <= 900
    assert f"**TF4CTR**, the twin focus framework, and {len(tfctr.models.MODELS) - 1} other models" in readme
    listed = (ROOT / "docs" / "training.md").read_text(encoding="utf-8").partition("the arguments of one:")[2].partition(".")[0]
    assert set(re.findall(r"\w+", listed)) == set(tfctr.models.MODELS)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_of_the_pages_exist(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "models.config").touch()
    for _, line, text in blocks(page, "bash", "sh"):
        for arguments in commands(text):
            try:
                parse(arguments)
            except Exception as error:
                pytest.fail(f"{name_of(page)}, block of line {line}: tfctr {' '.join(arguments)}: {error}")


@pytest.mark.parametrize("arguments", [["train", "--dta", "x"], ["publish", "run"], ["evaluate", "run", "more"]])
def test_a_command_that_does_not_exist_is_found(arguments):
    with pytest.raises(Exception, match=r"No such option|Missing parameter|unexpected extra argument"):
        parse(arguments)


def test_calls_are_found_in_shell_lines():
    text = "A=1 tfctr infer a.csv --label '>5;K' # tfctr no\ncp a b && tfctr serve x | tfctr predict \\\n  y\n"
    assert [*commands(text)] == [["infer", "a.csv", "--label", ">5;K"], ["serve", "x"], ["predict", "y"]]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_of_the_repository_lead_somewhere(page):
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not target.startswith(("http", "#")):
            file = page.parent / target.partition("#")[0]
            assert file.exists() or file.with_suffix(".md").exists(), f"{name_of(page)}: {target}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_files_that_are_named_exist(page):
    folders = "tfctr|tests|docs|docker|examples|export|benchmarks|notebooks|typings"
    named = re.findall(rf"`((?:{folders})/[\w./-]*)`", page.read_text(encoding="utf-8"))
    made = "docker/secrets/"  # by a script there
    assert [name for name in named if not (ROOT / name).exists() and not name.startswith(made)] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_tests_that_are_named_exist(page):
    for file, name in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", page.read_text(encoding="utf-8")):
        assert f"\ndef {name}(" in (ROOT / file).read_text(encoding="utf-8"), f"{name_of(page)}: {file}::{name}"


def test_every_promise_names_its_test_and_says_which_are_slow():
    page = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (R\d\d) \|.*\| (.*) \|$", page, flags=re.MULTILINE)
    assert [number for number, _ in rows] == [f"R{number:02}" for number in range(1, 41)]
    for number, tests in rows:
        for part in tests.split("; "):
            mark = part.partition(":")[0] if part.startswith(("slow", "every")) else None
            named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", part)
            assert named or part.startswith("by hand"), f"{number}: {part}"
            for file, name in named:
                found = marks_of(file, name)
                assert mark in found if mark else not found, f"{number}: {name}"


def marks_of(file, name):
    """`slow` and `every`, as far as a whole test is marked with them, or the constant that has its cases."""
    text = (ROOT / file).read_text(encoding="utf-8")
    decorators = text.partition(f"\ndef {name}(")[0].rpartition("\n\n")[2]
    constants = "|".join(["pytestmark", *re.findall(r"\b[A-Z_]{3,}\b", decorators)])
    lines = re.findall(r"^@pytest\.mark\.\w+$", decorators, re.MULTILINE)
    lines += re.findall(rf"^(?:{constants}) = .*", text, re.MULTILINE)
    return {mark for mark in ("slow", "every") if f"pytest.mark.{mark}" in " ".join(lines)}


def test_the_ten_questions_have_their_answers_where_the_page_says():
    table = (ROOT / "docs" / "inside.md").read_text(encoding="utf-8").partition("## Ten questions")[2]
    rows = re.findall(r"^\| (.+?) \| (.+?) \| `(\w+)` \|$", table, flags=re.MULTILINE)
    assert len(rows) == 10
    for question, files, name in rows:
        paths = [ROOT / file for file in re.findall(r"`([^`]+)`", files)]
        assert all(path.is_file() for path in paths), question
        defined = rf"^(def|class) {name}\b|^{name} = "
        assert re.search(defined, paths[0].read_text(encoding="utf-8"), flags=re.MULTILINE), question


def test_the_layers_of_the_page_are_those_that_are_held():
    page = (ROOT / "docs" / "inside.md").read_text(encoding="utf-8")
    held = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for section, contract in (
        ("## The layers", 'containers = ["tfctr"]'),
        ("Serving has rooms", 'containers = ["tfctr.serving"]'),
    ):
        named = re.findall(
            r"^\| (`[^|]+) \|", page.partition(section)[2].partition("\n\nS" if "##" in section else "\n## ")[0], re.M
        )
        listed = re.findall(r'"([^"]+)"', held.partition(contract)[2].partition("]")[0])
        assert [set(re.findall(r"`(\w+)`", row)) for row in named] == [set(row.split(" | ")) for row in listed]


def run(arguments):
    """Run a command in this process, as `tfctr` does."""
    with contextlib.suppress(typer.Exit):
        return app(arguments, standalone_mode=False)
    raise AssertionError(f"tfctr {' '.join(arguments)} failed")


def follow(folder, until=None, page=FIRST):
    """Follow a page in a folder, down to the command `until`: its Python blocks, and its commands."""
    before, names = os.getcwd(), {}
    python = {line for _, line, _ in blocks(page, "python")}
    os.chdir(folder)
    try:
        for _, line, text in blocks(page, "python", "bash"):
            if line in python:
                run_block(page, line, text, names)
            for arguments in () if line in python else commands(text):
                if arguments[0] == until:
                    return
                if arguments[0] == "predict":
                    with LocalServer("serving/clicks", port=0) as server:
                        run([argument.replace("localhost:8500", server.target) for argument in arguments])
                elif arguments[0] != "serve":
                    run(arguments)
    finally:
        os.chdir(before)


def run_block(page, line, text, names):
    for long, short in SHORTER.items():
        text = text.replace(long, short)
    code = compile("\n" * (line - 1) + text, str(page), "exec")  # a traceback names the line of the page
    exec(code, names)


def run_page(page, folder, monkeypatch):
    """All Python blocks of a page, in one namespace."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr("tfctr.models._registry.MODELS", dict(tfctr.models.MODELS))  # a page may register one
    registered = keras.saving.get_custom_objects()
    before, names = set(registered), {"__name__": "reader"}
    try:
        for options, line, text in blocks(page, "python"):
            if "notest" not in options:
                run_block(page, line, text, names)
    finally:
        for name in registered.keys() - before:
            del registered[name]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A folder in which the first page has been followed down to `tfctr train`: a table, its schema, its dataset."""
    folder = tmp_path_factory.mktemp("prepared")
    follow(folder, until="train")
    return folder


@pytest.fixture(scope="module")
def followed(tmp_path_factory):
    """A folder in which the whole first page has been followed."""
    folder = tmp_path_factory.mktemp("followed")
    follow(folder)
    return folder


@pytest.mark.slow
def test_the_first_page_ends_with_probabilities(followed):
    probabilities = [float(line) for line in (followed / "probabilities.txt").read_text(encoding="utf-8").split()]
    assert len(probabilities) == 3_000
    assert all(0 < probability < 1 for probability in probabilities)
    assert (followed / "serving" / "clicks" / "1" / "saved_model.pb").is_file()


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("tensorflow_recommenders") is None, reason="the extra `retrieval` is absent")
def test_the_page_of_retrieval_ends_with_recommendations(followed, tmp_path, capsys):
    reader = shutil.copytree(followed, tmp_path / "reader")
    follow(reader, page=RETRIEVAL)
    lines = capsys.readouterr().out.splitlines()
    assert len([line for line in lines if line.startswith("item ")]) == 3
    assert (reader / "serving" / "candidates" / "1" / "saved_model.pb").is_file()


@pytest.mark.parametrize("page", [page for page in WITH_CODE if page.name in FAST], ids=name_of)
def test_python_of_the_pages_runs(page, prepared, tmp_path, monkeypatch):
    run_page(page, shutil.copytree(prepared, tmp_path / "reader"), monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [page for page in WITH_CODE if page.name not in {*FAST, FIRST.name, RETRIEVAL.name}], ids=name_of
)
def test_python_of_the_longer_pages_runs(page, followed, tmp_path, monkeypatch):
    folder = tmp_path / "reader"
    if page.name == "README.md":  # which begins with nothing but a table
        folder.mkdir()
        shutil.copy(followed / "clicks.csv", folder)
    else:
        shutil.copytree(followed, folder)
    run_page(page, folder, monkeypatch)


def test_few_blocks_are_left_out():
    left_out = {
        f"{name_of(page)}: {text.splitlines()[0]}" for page in PAGES for options, _, text in blocks(page, "python") if options
    }
    assert len(left_out) <= 3, left_out
