"""The notebooks run in a fresh kernel, in silence, and are stored as a reader should find them."""

import ast
import importlib
import json
import re
import subprocess
import sys
import types

import pytest
from kit.notebooks import NOTEBOOKS, code_of, run, written_to_stderr
from kit.places import ROOT

nbformat = pytest.importorskip("nbformat")

# A home or temporary folder, and what is known of one machine alone.
OF_A_MACHINE = re.compile(
    r"(?<![\w.])/(home|root|tmp|Users|var|private)/|[A-Z]:\\\\|[IWE]0000 \d|tensorflow:|iopub|execution_failed"
)


def name_of(path):
    return path.stem


def public(module):
    """The public names of a module, or of one whose docstring is its page of the API reference."""
    return getattr(module, "__all__", [name for name in vars(module) if not name.startswith("_")])


def private_names(source):
    """What a source takes from `tfctr` that is not public: attributes of its modules, imports, and names with an underscore."""
    tree, found = ast.parse(source), []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "tfctr":
            module = importlib.import_module(node.module)
            found += [alias.name for alias in node.names if alias.name not in public(module)]
            parts = node.module.split(".")
            found += [part for outer, part in _steps(parts) if part not in public(importlib.import_module(outer))]
        if isinstance(node, ast.Attribute):
            if node.attr.startswith("_") and not node.attr.endswith("__"):
                found.append(node.attr)
            parts = ast.unparse(node).split(".")
            if parts[0] == "tfctr" and all(part.isidentifier() for part in parts):
                found += [part for outer, part in _steps(parts) if not _has(outer, part)]
    return found


def _steps(parts):
    """`("a", "b"), ("a.b", "c")` of `a.b.c`."""
    return [(".".join(parts[:end]), parts[end]) for end in range(1, len(parts))]


def _has(outer, name):
    """Whether `name` is public in the module `outer`; what is in a class or an object counts as it is."""
    thing = importlib.import_module("tfctr")
    for part in outer.split(".")[1:]:
        thing = getattr(thing, part, None)
    return name in public(thing) if isinstance(thing, types.ModuleType) else not name.startswith("_")


@pytest.mark.parametrize(
    "source", ["from tfctr.data.split import Split", "tfctr.models._base.require_model", "model._arguments"]
)
def test_what_is_not_public_is_found(source):
    assert private_names(source)


@pytest.mark.parametrize(
    "source", ["from tfctr.data.synthetic import synthetic", "tfctr.Schema.infer(x)", "tfctr.models.PAIRS"]
)
def test_what_is_public_is_not_found(source):
    assert private_names(source) == []


def test_there_are_notebooks():
    assert [name_of(path) for path in NOTEBOOKS] == ["clicks_to_served_model", "tf4ctr_and_cetn_taken_apart"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name_of)
def test_a_notebook_has_public_names_only(path):
    code = code_of(nbformat.read(path, as_version=4))
    assert private_names("\n".join(code)) == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name_of)
def test_a_notebook_is_stored_with_its_outputs_and_nothing_of_a_machine(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))  # from a fresh kernel, in their order
    kinds = [kind for cell in cells for output in cell.outputs for kind in output.get("data", {})]
    assert kinds.count("image/png") >= 2
    assert any(output.output_type == "stream" for cell in cells for output in cell.outputs)
    assert written_to_stderr(notebook) == []
    assert all(cell.metadata == {} for cell in notebook.cells)
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert path.stat().st_size < 400_000
    for cell in cells:
        for output in cell.outputs:
            output.get("data", {}).pop("image/png", None)  # base64, in which anything may stand
    assert OF_A_MACHINE.findall(json.dumps(notebook)) == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name_of)
def test_links_of_a_notebook_lead_somewhere(path):
    text = "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown")
    links = [target for target in re.findall(r"\]\(([^)\s]+)\)", text) if not target.startswith("http")]
    assert links
    assert all((path.parent / target.partition("#")[0]).is_file() for target in links)


def test_the_code_of_the_notebooks_is_formatted_and_checked():
    for command in (["format", "--check"], ["check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "notebooks"], capture_output=True, encoding="utf-8", cwd=ROOT
        )
        assert done.returncode == 0, done.stdout + done.stderr
    seen = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--show-files", "."], capture_output=True, encoding="utf-8", cwd=ROOT
    )
    assert all(path.name in seen.stdout for path in NOTEBOOKS)  # so `make lint` sees them


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=name_of)
def test_a_notebook_runs_in_silence(path):
    pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    assert written_to_stderr(run(path)) == []
