"""Runs a notebook in a fresh kernel, and keeps its outputs: python tests/kit/notebooks.py [notebooks/NAME.ipynb ...]"""

import base64
import io
import os
import re
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]  # also where this file is run as a script
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
# What TensorFlow's libraries write of the machine when they are loaded, whatever TF_CPP_MIN_LOG_LEVEL says.
_START_UP = re.compile(
    r"WARNING: All log messages before absl::|To enable the following instructions"
    r"|[IWE]0000 .*(cudart_stub|cuda_platform|cpu_feature_guard|port\.cc)"
)


def code_of(notebook):
    """The source of each code cell."""
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


def run(path):
    """The notebook with the outputs of a fresh kernel, in an empty folder. Raises nbclient's error where a cell raises."""
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    # Where pytest names its test, ipykernel does not show what is written to stderr below Python.
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTEST_CURRENT_TEST", "MPLBACKEND")}
    with tempfile.TemporaryDirectory() as folder:
        environment |= {"PYTHONPATH": str(ROOT), "IPYTHONDIR": f"{folder}/ipython"}
        (Path(folder) / "work").mkdir()
        options = {"timeout": 900, "kernel_name": "python3", "record_timing": False}
        client = NotebookClient(notebook, resources={"metadata": {"path": f"{folder}/work"}}, **options)
        client.execute(env=environment)
        left = [str(file) for file in (Path(folder) / "work").iterdir()]
    assert not left, f"{path.name} left {left} where it was run"
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = _without_start_up(cell.outputs)
    return notebook


def written_to_stderr(notebook):
    """What the cells wrote to stderr."""
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    return [output.text for output in outputs if output.output_type == "stream" and output.name == "stderr"]


def _without_start_up(outputs):
    """Parts of one stream as one output, without the lines that TensorFlow's libraries begin with."""
    kept = []
    for output in outputs:
        if output.output_type == "stream":
            if output.name == "stderr":
                output.text = "".join(line for line in output.text.splitlines(True) if not _START_UP.match(line))
            if not output.text.strip():
                continue
            if kept and kept[-1].output_type == "stream" and kept[-1].name == output.name:
                kept[-1].text += output.text
                continue
        kept.append(output)
    return kept


def _with_few_colours(picture):
    """A PNG in base64, in a third of the bytes."""
    from PIL import Image

    file = io.BytesIO()
    Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGB").quantize(256).save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


def _store(path):
    import nbformat

    notebook = run(path)
    if talk := written_to_stderr(notebook):
        sys.exit(f"{path.name} wrote to stderr: {''.join(talk)}")
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for number, cell in enumerate(notebook.cells):
        cell.id, cell.metadata = f"cell-{number}", {}
        for output in cell.get("outputs", ()):
            if "image/png" in output.get("data", {}):
                output.data["image/png"] = _with_few_colours(output.data["image/png"])
    nbformat.validate(notebook)
    nbformat.write(notebook, path)
    print(f"{path.name}: {path.stat().st_size / 1000:.0f} KB")


if __name__ == "__main__":
    for path in map(Path, sys.argv[1:]) if sys.argv[1:] else NOTEBOOKS:
        _store(path)
